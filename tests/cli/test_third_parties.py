"""Packages of others from end to end: the guide to plugins done as it says, and examples/accordant-grpo."""

from __future__ import annotations

import json
import runpy
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, LlamaConfig

from core import run
from core.export import export
from core.pocket import pocket_tokenizer
from core.runfolder import read_jsonl
from tests.packages import GUIDE, from_guide, guide_files, install

# What makes the commands of a page small enough for a test.
SMALL = [
    *("data.train_rows=100", "data.validation_rows=10", "data.batch_size=4", "data.max_length=200"),
    *("generation.max_new_tokens=6", "eval.prompts=2", "trainer=cpu", "trainer.enable_progress_bar=false"),
]


@pytest.fixture(scope="module")
def pocket(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stands for the pocket model: its tokenizer, and a model that is smaller still and knows nothing."""
    folder, tokenizer = tmp_path_factory.mktemp("pocket"), pocket_tokenizer()
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    special = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": 0}
    config = LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=512, **shape, **special)
    export(AutoModelForCausalLM.from_config(config), tokenizer, folder / "policy")
    return folder / "policy"


@pytest.fixture
def here(pocket: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Commands run in this process, in an empty folder, on the small model."""
    monkeypatch.setattr("core.warmup.pocket_policy", lambda: pocket)
    monkeypatch.delenv("ACCORDANT_PLUGINS", raising=False)
    monkeypatch.setattr(sys, "argv", ["run"])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def commands(start: str) -> list[list[str]]:
    """The words of the indented commands of the guide that begin so."""
    lines = [line.strip() for line in GUIDE.read_text(encoding="utf-8").splitlines() if line.startswith("    ")]
    return [shlex.split(line) for line in lines if line.startswith(start)]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """The guide's package: its source, its wheel, and a folder for the path in which the wheel is installed."""
    folder = tmp_path_factory.mktemp("guide")
    source = from_guide(folder / "source")
    (build,) = commands("python -m build")
    given = [sys.executable, *build[1:], "--wheel", "--no-isolation"]  # the network is closed
    done = subprocess.run(given, cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = (source / "dist").glob("*.whl")
    return source, wheel, install(folder / "site", wheel)


def test_the_wheel_of_the_guide_holds_what_it_shows(published: tuple[Path, Path, Path]) -> None:
    source, wheel, _ = published
    assert commands("python -m zipfile") == [["python", "-m", "zipfile", "-l", str(wheel.relative_to(source))]]
    packed = set(zipfile.ZipFile(wheel).namelist())
    assert {path for path in guide_files() if path.startswith("accordant_acme")} <= packed
    assert not [name for name in packed if name.startswith("tests")]
    assert any(name.endswith("METADATA") for name in packed)


def test_the_commands_of_the_guide_work(
    published: tuple[Path, Path, Path], here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(published[2]))
    given = [words[3:] for words in commands("python -m core.run")]
    lists, checks = [w for w in given if "--list" in w], [w for w in given if "--check" in w]
    runs = [w for w in given if w not in lists + checks]
    assert (len(lists), len(checks), len(runs)) == (1, 4, 4)
    for words in lists + checks:
        assert run.main(words) == 0, capsys.readouterr().out
    said = capsys.readouterr().out
    for name in ("tone", "ipo_pure", "reinforce"):
        assert any(name in line and "accordant-acme" in line for line in said.splitlines())
    assert said.count("Keeps the contract.") == 4
    for i, words in enumerate(w for w in runs if "trainer.max_steps=2" in w):
        assert run.main([*words, *SMALL, f"run.name=guide-{i}"]) == 0, capsys.readouterr().err
        facts = json.loads(Path(f"runs/guide-{i}/run.json").read_text())
        assert facts["status"] == "finished"
        assert "accordant-acme" in {plugin["distribution"] for plugin in facts["plugins"]}
    assert "objective/scores" in {name for record in read_jsonl(Path("runs/guide-2/metrics.jsonl")) for name in record}


def test_the_tests_of_the_guide_pass(published: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its file is run here; the checks themselves have run in the test above, so that few will do."""
    source, _, site = published
    monkeypatch.syspath_prepend(str(site))
    assert commands("python -m pytest") == [["python", "-m", "pytest", "tests"]]
    its = runpy.run_path(str(source / "tests" / "test_contract.py"))
    assert len(its["CHECKS"]) > 40
    for check in its["CHECKS"]:
        if check.name.startswith(("gives one finite", "the loss is a finite")):
            its["test_contract"](check)


@pytest.mark.parametrize(("objective", "reward"), [("grpo", "repetition"), ("rloo", "repetition")])
def test_the_example_trains(
    objective: str, reward: str, here: Path, grpo_site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(grpo_site))
    more = [
        "reward.unit=tokens",
        "reward.n=1",
        "trainer.max_steps=2",
        "trainer.log_every_n_steps=1",
        "objective.minibatches=1",
    ]
    assert run.main([f"objective={objective}", f"reward={reward}", *more, *SMALL, "run.name=it"]) == 0
    facts = json.loads(Path("runs/it/run.json").read_text())
    assert facts["status"] == "finished"
    assert [(p["name"], p["distribution"]) for p in facts["plugins"]] == [
        (objective, "accordant-grpo"),
        (reward, "accordant-grpo"),
    ]
    records = list(read_jsonl(Path("runs/it/metrics.jsonl")))
    names = {name for record in records for name in record}
    assert {"reward", "reward_std", "frac_reward_zero_std", "kl", "entropy", "completions/clipped_ratio"} <= names
    assert len(list(Path("runs/it/rollouts").glob("epoch_*.jsonl"))) == 2
    rows = list(read_jsonl(Path("runs/it/rollouts/epoch_000.jsonl")))[:-1]
    assert len(rows) == 4
    assert all(-1 <= r["score"] <= 0 and "advantages" in r["token_fields"] for row in rows for r in row["responses"])
