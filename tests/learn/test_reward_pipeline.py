"""From comparisons to a policy: a reward model is trained, and dpo samples answers that it ranks. Whole runs."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from core.build import build_models, prepare
from core.compose import compose
from core.console import Console
from core.crosscheck import check_composed
from core.errors import ConfigError, ModelError, PluginError
from core.export import export
from core.models import Models
from core.reward import Sample
from core.reward_model import RewardModel
from core.runfolder import RunFolder, read_jsonl
from core.train import train
from plugins.objectives.reward_bt import RewardBT
from tests.support import tiny_model, tiny_tokenizer

GOOD = 20
"""Words below w20, of forty, are better."""


def text(draw: random.Random) -> str:
    return "".join(f" w{draw.randrange(40)}" for _ in range(4))


def worth(answer: str) -> int:
    return sum(int(word[1:]) < GOOD for word in answer.split())


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A language model, and rankings with ties, in a folder."""
    folder = tmp_path_factory.mktemp("pipeline")
    export(tiny_model(tie_word_embeddings=True), tiny_tokenizer(), folder / "policy")
    draw = random.Random(1)
    with (folder / "rankings.jsonl").open("w") as file:
        for _ in range(300):
            answers = sorted({text(draw) for _ in range(3)}, key=lambda a: (-worth(a), a))
            ties = [worth(a) == worth(b) for a, b in itertools.pairwise(answers)]
            prompt = f"w{draw.randrange(40, 60)} w{draw.randrange(40, 60)}"
            file.write(json.dumps({"prompt": prompt, "responses": answers, "ties": ties}) + "\n")
    return folder


def config(place: Path, *overrides: str) -> dict[str, Any]:
    common = [
        "model=hf",
        f"model.policy={place}/policy",
        "data=jsonl",
        f"data.path={place}/rankings.jsonl",
        "data.batch_size=16",
        "generation.max_new_tokens=6",
        "optim.lr=0.01",
        "trainer=cpu",
        "trainer.enable_progress_bar=false",
        "eval.prompts=16",
        "eval.every=1000",
        "logger=[]",
    ]
    composed = compose([*common, *overrides])
    check_composed(composed)
    return composed.config


def run(path: Path, given: dict[str, Any]) -> dict[str, Any]:
    with RunFolder.create(path, given) as folder:
        return train(given, folder)


def test_ties_are_read_where_they_are_learned_and_nowhere_else(place: Path) -> None:
    rows = {}
    for ties in ("ignore", "davidson"):
        data = prepare(config(place, "objective=reward_bt", f"objective.ties={ties}", "reward=none"), Console()).data
        rows[ties] = data.train + data.validation
        told = "\n".join(data.report.lines())
        assert ("the objective learns nothing from them" in told) == (ties == "ignore")
    all_tied = [r for r in rows["davidson"] if r.ties is not None and all(r.ties)]
    assert len(all_tied) > 5
    assert len(rows["davidson"]) == 300
    assert len(rows["ignore"]) == 300 - len(all_tied)
    with pytest.raises(ConfigError, match=r"data\.keep_ties=true, but objective=dpo"):
        config(place, "objective=dpo", "reward=none", "data.keep_ties=true")


def test_a_policy_that_samples_for_a_reward_model_writes_in_its_tokens(place: Path, tmp_path: Path) -> None:
    """objective.zero=samples: the samples' tokens go into the reward model as they are."""
    other = tiny_tokenizer()
    other.add_tokens(["w61"])
    model = tiny_model()
    model.resize_token_embeddings(len(other))
    export(model, other, tmp_path / "other")
    asked = ["objective=reward_bt", "objective.zero=samples", "reward=none", f"model.reward={place}/policy"]
    assert set(build_models(prepare(config(place, *asked), Console())).roles) == {"policy", "reward"}
    with pytest.raises(ModelError, match=r"(?s)different tokenizers: 1 tokens differ, 'w61' is one.*zero=demonstrations"):
        build_models(prepare(config(place, *asked, f"model.policy={tmp_path}/other"), Console()))


def test_after_the_last_step(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Models are back on the trainer's device before they score, and a reward that fails beside them costs no model."""
    seen: list[Any] = []
    moved, zeroed = Models.to, RewardBT.finish

    def fails(*_: Any) -> None:
        raise PluginError("the endpoint does not answer")

    monkeypatch.setattr(Models, "to", lambda self, device: seen.append(device) or moved(self, device))
    monkeypatch.setattr(RewardBT, "finish", lambda self, *given: seen.append("finish") or zeroed(self, *given))
    monkeypatch.setattr("core.finish.score_table", fails)
    with pytest.raises(PluginError, match="does not answer"):
        run(tmp_path / "rm", config(place, "objective=reward_bt", "reward=none", "trainer.max_steps=1"))
    assert seen == [torch.device("cpu"), "finish"]
    facts = json.loads((tmp_path / "rm" / "reward" / "reward.json").read_text())
    report = json.loads((tmp_path / "rm" / "report.json").read_text())
    assert facts["bias"][0] != 0
    assert report["preferences"] is None


def test_a_signal_after_the_last_step_is_heard(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Zeros, the report and rewards beside it can take long; a resume does them anew."""
    given, zeroed = config(place, "objective=reward_bt", "reward=none", "trainer.max_steps=2"), RewardBT.finish

    def signalled(self: RewardBT, *rest: Any) -> str:
        os.kill(os.getpid(), signal.SIGTERM)
        return zeroed(self, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(RewardBT, "finish", signalled)
        with pytest.raises(SystemExit) as stopped:
            run(tmp_path / "rm", given)
    assert stopped.value.code == 143
    assert json.loads((tmp_path / "rm" / "run.json").read_text())["status"] == "stopped"
    assert not (tmp_path / "rm" / "reward").exists()
    with RunFolder.reopen(tmp_path / "rm", given) as folder:
        made = train(given, folder)
    assert json.loads((Path(made["reward"]) / "reward.json").read_text())["bias"] != [0.0]


def test_a_reward_model_is_trained_and_a_policy_learns_from_it(place: Path, tmp_path: Path) -> None:
    rm = ["objective=reward_bt", "objective.ties=davidson", "objective.zero=samples", "reward=none", "trainer.max_epochs=3"]
    made = run(tmp_path / "rm", config(place, *rm))
    assert made["after"]["accuracy"] > 0.85 > made["before"]["accuracy"]
    path = Path(made["reward"])
    assert sorted(p.name for p in path.iterdir()) >= ["README.md", "config.json", "model.safetensors", "reward.json"]
    facts = json.loads((path / "reward.json").read_text())
    assert (facts["template"], facts["response_prefix"], facts["unit"]) == ("auto", " ", "")
    found = json.loads((tmp_path / "rm" / "preferences.json").read_text())["sources"]["reward model"]
    assert (found["unit"], found["calibration"]) == ("", None)  # scaled to the samples, so no log-odds
    reward = RewardModel(str(path), device="cpu")
    good, bad = reward.score([Sample("w41 w42", a, row_id="1") for a in ("w1 w2 w3 w4", "w21 w22 w23 w24")])
    assert good > bad + 2

    dpo = ["objective=dpo", "objective.samples=4", "reward=learned", f"reward.path={path}", "reward.device=cpu"]
    trained = run(
        tmp_path / "dpo",
        config(place, *dpo, "data.limit=160", "data.batch_size=8", "trainer.max_epochs=3", "optim.lr=0.005"),
    )
    assert trained["after"]["reward"] > trained["before"]["reward"] + 0.2
    assert {p.name for p in Path(trained["policy"]).iterdir()} >= {"config.json", "model.safetensors"}
    # What was collected has the scores that the folder gives those answers.
    rows = list(read_jsonl(tmp_path / "dpo" / "rollouts" / "epoch_000.jsonl"))[:8]
    for row in rows:
        answers = [Sample(row["prompt_text"], r["text"], finished=r.get("finished", True)) for r in row["responses"]]
        assert [r["score"] for r in row["responses"]] == pytest.approx(reward.score(answers), abs=1e-4)
