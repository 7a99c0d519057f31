import asyncio
import sys

import numpy as np
import pytest
import torch

from core.errors import ConfigError, PluginError
from core.reward import Sample
from plugins.rewards.function import Function

TEXTS = [
    Sample("Hi?", "Hello.", [5, 6], columns={"label": 1, "topic": "greeting"}, references=("Hello!",), row_id="r1"),
    Sample("No?", "Yes", [7], columns={"label": 0}, row_id="r2"),
]
TURNS = [Sample("Hi?", "Hello.", [5], messages=({"role": "user", "content": "Hi?"},))]


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    path = list(sys.path)
    yield
    sys.path[:] = path
    for name in [n for n in sys.modules if n.startswith("accordant_function_")] + ["neighbour_of_rewards"]:
        sys.modules.pop(name, None)


def function(tmp_path, body: str, name: str = "score", **kwargs) -> Function:
    file = tmp_path / "my_rewards.py"
    file.write_text(body)
    return Function(f"{file}:{name}", kwargs)


def test_the_keyword_contract(tmp_path):
    source = function(
        tmp_path,
        "seen = {}\n"
        "def score(prompts, completions, completion_ids, **kwargs):\n"
        "    kwargs['log_metric']('x', 1.0), kwargs['log_extra']('column', [1, 2])\n"
        "    seen.update(kwargs, prompts=prompts, completions=completions, completion_ids=completion_ids)\n"
        "    return [1, None]\n",
    )
    assert source.score(TEXTS) == [1.0, None]
    seen = sys.modules[source.function.__module__].seen
    assert seen["prompts"] == ["Hi?", "No?"]
    assert seen["completions"] == ["Hello.", "Yes"]
    assert seen["completion_ids"] == [[5, 6], [7]]
    assert seen["label"] == [1, 0]
    assert seen["topic"] == ["greeting", None]
    assert seen["references"] == [["Hello!"], []]
    assert seen["trainer_state"] is None


def test_conversations_are_messages(tmp_path):
    source = function(
        tmp_path,
        "def score(prompts, completions, **kw):\n"
        "    return [len(c[0]['content']) + len(p) for p, c in zip(prompts, completions)]\n",
    )
    assert source.score(TURNS) == [7.0]


def test_a_function_gets_only_what_it_names(tmp_path):
    assert function(
        tmp_path, "def score(completions, label):\n    return [len(c) + l for c, l in zip(completions, label)]\n"
    ).score(TEXTS) == [7.0, 3.0]


def test_more_keyword_arguments(tmp_path):
    source = function(
        tmp_path, "def score(completions, factor, **kw):\n    return [factor * len(c) for c in completions]\n", factor=2
    )
    assert source.score(TEXTS) == [12.0, 6.0]
    with pytest.raises(ConfigError, match="prompts"):
        Function(source.path, {"prompts": 1})


@pytest.mark.parametrize("running", [False, True])
def test_an_async_function_in_and_outside_of_a_loop(tmp_path, running):
    source = function(
        tmp_path,
        "import asyncio\nasync def score(completions, **kw):\n"
        "    await asyncio.sleep(0)\n    return [1.5] * len(completions)\n",
    )

    async def within():
        return source.score(TEXTS)

    assert (asyncio.run(within()) if running else source.score(TEXTS)) == [1.5, 1.5]


def test_an_error_of_an_async_function_in_a_loop_is_its_own(tmp_path):
    source = function(tmp_path, "async def score(**kw):\n    raise KeyError('mine')\n")

    async def within():
        return source.score(TEXTS)

    with pytest.raises(KeyError, match="mine"):
        asyncio.run(within())


@pytest.mark.parametrize(
    "answer", ["np.array([1.0, 2.0])", "torch.tensor([1.0, 2.0])", "[np.float32(1), torch.tensor(2)]", "(1, 2.0)"]
)
def test_arrays_and_scalars_are_numbers(tmp_path, answer):
    source = function(tmp_path, f"import numpy as np, torch\ndef score(**kw):\n    return {answer}\n")
    scores = source.score(TEXTS)
    assert scores == [1.0, 2.0]
    assert all(type(score) is float for score in scores)
    assert np.isfinite(scores).all()
    assert torch.tensor(scores).dtype == torch.float32


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("[1.0]", "1 rewards for 2 completions"),
        ("None", "NoneType"),
        ("3.0", "float"),
        ("[1.0, float('nan')]", "nan for row 'r2'"),
        ("[float('inf'), 1.0]", "inf for row 'r1'"),
        ("['good', 1.0]", "'good' for row 'r1'"),
    ],
)
def test_answers_that_are_no_scores(tmp_path, answer, words):
    with pytest.raises(PluginError, match=words.replace("(", r"\(")):
        function(tmp_path, f"def score(**kw):\n    return {answer}\n").score(TEXTS)


def test_no_samples_no_call(tmp_path):
    assert function(tmp_path, "def score(**kw):\n    raise RuntimeError\n").score([]) == []


def test_a_file_may_import_its_neighbours(tmp_path):
    (tmp_path / "neighbour_of_rewards.py").write_text("def size(text):\n    return len(text)\n")
    early = function(
        tmp_path,
        "from neighbour_of_rewards import size\ndef score(completions, **kw):\n    return [size(c) for c in completions]\n",
    )
    assert early.score(TEXTS) == [6.0, 3.0]
    assert sys.path[0] != str(tmp_path)


def test_a_file_does_not_stand_for_a_package_of_its_name(tmp_path):
    file = tmp_path / "torch.py"
    file.write_text("def score(completions, **kw):\n    return [0.0] * len(completions)\n")
    Function(f"{file}:score")
    assert sys.modules["torch"] is torch


def test_a_module_path():
    assert Function("tests.plugins.rewards_for_tests:brevity").score(TEXTS) == [-6.0, -3.0]


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("no_colon.py", "names no function"),
        ("missing.py:score", "there is no file"),
        ("tests.plugins.rewards_for_tests:brevty", 'Did you mean "brevity"'),
        ("tests.plugins.rewards_for_tests:LIMIT", "not as a function"),
    ],
)
def test_paths_that_name_no_function(path, words):
    with pytest.raises(ConfigError, match=words):
        Function(path)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("def score(:\n", "SyntaxError"),
        ("import no_such_thing_x\n", "no_such_thing_x"),
        ("raise SystemExit(1)\n", "SystemExit"),
    ],
)
def test_a_file_that_cannot_be_imported(tmp_path, body, words):
    with pytest.raises(PluginError, match=words):
        function(tmp_path, body)
