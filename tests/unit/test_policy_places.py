"""Which policies an evaluation is of: labels, what is no policy, and what a policy started from."""

import json

import pytest
import yaml

from core.errors import ConfigError
from core.policies.places import POCKET, REFERENCE, checked_path, places, started_from, unlike_its_run
from core.settings import Evaluate


def made(path, **files):
    """A folder with files; JSON where the value is no text."""
    path.mkdir(parents=True, exist_ok=True)
    for name, value in files.items():
        text = value if isinstance(value, str) else json.dumps(value)
        (path / name.replace("__", ".")).write_text(text)
    return path


def policy(path, architecture="LlamaForCausalLM"):
    return made(path, config__json={"architectures": [architecture]})


def run(path, model, data=None):
    made(path, run__json={}, config__yaml=yaml.safe_dump({"model": model, "data": data or {}}))
    return policy(path / "policy")


@pytest.fixture
def here(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in ("runs/a/policy", "runs/b/policy", "old/a/policy", "models/base"):
        policy(tmp_path / name)
    return tmp_path


def labels(**options):
    found, _ = places(Evaluate(**options), sandbox=False)
    return [(place.label, place.role) for place in found]


@pytest.mark.parametrize(
    ("given", "against", "expected"),
    [
        ("runs/a/policy", None, ["a"]),
        ("runs/a/policy", ["runs/b/policy", "org/name"], ["a", "b", "name"]),
        ("runs/a/policy", "models/base", ["a", "base"]),
        ("runs/a/policy", ["old/a/policy"], ["runs/a", "old/a"]),
        ("runs/a/policy", [{"path": "old/a/policy", "label": "before"}], ["a", "before"]),
        ({"path": "runs/a/policy", "label": "b"}, ["runs/b/policy"], ["b", "runs/b"]),
        ("gpt2", None, ["gpt2"]),
    ],
)
def test_labels_are_short_and_tell_policies_apart(here, given, against, expected):
    found = labels(policy=given, against=against, reference=None)
    assert found == [(label, "against" if i else "policy") for i, label in enumerate(expected)]


def test_the_reference_is_the_last_and_may_be_one_that_is_named_anyway(here):
    assert labels(policy="runs/a/policy", reference="models/base") == [("a", "policy"), (REFERENCE, "reference")]
    both = labels(policy="runs/a/policy", against=["models/base", "runs/b/policy"], reference="./models/base")
    assert both == [("a", "policy"), ("b", "against"), ("base", "reference")]
    itself, said = places(Evaluate(policy="models/base", reference="models/base"), sandbox=False)
    assert [place.role for place in itself] == ["policy"]
    assert "no win rate over itself" in said


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"policy": "runs/c/policy"}, ["evaluate.policy=runs/c/policy", "no such folder"]),
        ({"policy": "./nothing"}, ["no such folder", "runs/.../policy"]),
        ({"policy": "runs/a/policy", "against": ["runs/a"]}, ["evaluate.against=runs/a", "holds no model"]),
        ({"policy": "runs/a/policy", "against": ["runs/a/policy", "x/y/z"]}, ["x/y/z", "no such folder"]),
        ({"policy": "runs/a/policy", "against": ["runs/a/policy"]}, ["two policies would be called 'runs/a'"]),
        ({"policy": {"path": "runs/a/policy", "name": "x"}}, ["path and label"]),
        ({"policy": {"label": "x"}}, ["path and label"]),
        ({"policy": 3}, ["evaluate.policy holds 3"]),
        ({"policy": "runs/a/policy", "against": 3}, ["evaluate.against is 3"]),
        ({"policy": {"path": "runs/a/policy", "label": "reference"}}, ["'reference'"]),
        ({"policy": "runs/a/policy", "reference": "runs/zzz"}, ["evaluate.reference=runs/zzz", "no such folder"]),
    ],
)
def test_what_is_no_policy_is_refused(here, options, words):
    with pytest.raises(ConfigError) as error:
        places(Evaluate(**options), sandbox=False)
    for word in words:
        assert word in str(error.value)


def test_a_run_and_a_reward_model_are_told_from_a_policy(tmp_path):
    whole = run(tmp_path / "whole", {"name": "pocket", "policy": None}).parent
    with pytest.raises(ConfigError, match=f"Give the model in it: {whole}/policy"):
        checked_path("evaluate.policy", str(whole))
    failed = made(tmp_path / "failed", run__json={})
    with pytest.raises(ConfigError, match="It has made no model"):
        checked_path("evaluate.policy", str(failed))
    policy(tmp_path / "rm" / "reward", "LlamaForSequenceClassification")
    made(tmp_path / "rm", run__json={})
    for path in (tmp_path / "rm" / "reward", made(tmp_path / "lora", adapter_config__json={"task_type": "SEQ_CLS"})):
        with pytest.raises(ConfigError, match="is a reward model"):
            checked_path("evaluate.policy", str(path))
    with pytest.raises(ConfigError, match=r"That run has made .*reward"):
        checked_path("evaluate.policy", str(tmp_path / "rm" / "policy"))


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ({"name": "pocket", "policy": None, "reference": None}, (POCKET, "what the run r started from")),
        ({"name": "pocket", "policy": "models/base"}, ("models/base", "what the run r started from")),
        ({"name": "hf", "policy": "org/name"}, ("org/name", "what the run r started from")),
        ({"name": "hf", "policy": "org/name", "reference": "models/base"}, ("models/base", "the reference of the run r")),
        ({"name": "hf", "policy": "gone/far/away"}, (None, "it started from gone/far/away")),
        ({"name": "hf", "policy": "${oc.env:BASE}"}, (None, "it started from ${oc.env:BASE}")),
        ({"name": "hf", "policy": "runs/gone"}, (None, "it started from runs/gone")),
    ],
)
def test_a_run_says_what_it_started_from(here, model, expected):
    path, why = started_from(str(run(here / "r", model)))
    assert path == expected[0]
    assert why.startswith(expected[1])


def test_other_data_and_another_template_than_its_run_had_are_said(here):
    path = str(run(here / "r", {}, {"name": "jsonl", "path": "rows.jsonl", "template": "auto"}))
    assert "data=jsonl data.path=rows.jsonl" in unlike_its_run(path, {"name": "sandbox", "template": "chat"})
    assert "data.template=auto" in unlike_its_run(path, {"name": "jsonl", "template": "chat"})
    assert unlike_its_run(path, {"name": "jsonl", "template": "auto"}) == ""
    assert unlike_its_run("models/base", {"name": "sandbox", "template": "chat"}) == ""


def test_an_adapter_and_a_model_card_say_it_too(tmp_path):
    adapter = made(tmp_path / "adapter", adapter_config__json={"base_model_name_or_path": "org/base"})
    assert started_from(str(adapter)) == ("org/base", "what the adapter stands on")
    card = made(tmp_path / "card", README__md="---\nbase_model: org/other\ntags: [x]\n---\n# A model\n")
    assert started_from(str(card)) == ("org/other", "what its model card says")
    for text in ("no head", "---\nbase_model: [a, b]\n---\n", "---\n: [\n---\n", "---\ntext\n---\n"):
        assert started_from(str(made(tmp_path / "odd", README__md=text))) == (None, "")
    assert started_from("org/name") == (None, "")


def test_without_a_word_on_it_the_sandbox_has_the_pocket_model_and_files_have_none(here):
    found, said = places(Evaluate(policy="models/base"), sandbox=True)
    assert (found[-1].path, found[-1].role) == (POCKET, "reference")
    assert said.startswith("Reference: the pocket model (what sandbox runs start from")
    found, said = places(Evaluate(policy="models/base"), sandbox=False)
    assert [place.role for place in found] == ["policy"]
    assert "nothing in models/base says what it started from" in said
    assert "evaluate.reference=path/to/model" in said


@pytest.mark.parametrize("options", [{"prompts": 1}, {"prompts": "many"}, {"reference": 3}, {"reference": ""}])
def test_odd_settings_are_refused(options):
    with pytest.raises(ConfigError, match=f"evaluate.{next(iter(options))} is"):
        Evaluate(**options)
