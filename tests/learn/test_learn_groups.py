"""The objectives of examples/accordant-grpo learn a toy reward from their own samples."""

from __future__ import annotations

import importlib

import pytest

from core.runfolder import read_jsonl
from tests.learn.test_learn import LowWords, learn, tasks


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("grpo", {"samples": 4, "beta": 0.01}),
        ("grpo", {"samples": 4, "beta": 0.0, "loss": "dapo", "clip_high": 0.28, "passes": 2}),
        ("rloo", {"beta": 0.002}),
    ],
    ids=str,
)
def test_it_learns_from_its_own_samples(tmp_path, grpo_site, monkeypatch, name, options):
    monkeypatch.syspath_prepend(str(grpo_site))
    module = importlib.import_module(f"accordant_grpo.{name}")
    objective = getattr(module, name.upper())(**options)
    prompts, held_out = ([row.with_responses([]) for row in tasks(count, seed)] for count, seed in ((64, 1), (32, 2)))
    before, after = learn(tmp_path / "run", objective, prompts, held_out, reward=LowWords(), lr=0.01, epochs=6)
    assert before["reward"] < 0.6
    assert after["reward"] > before["reward"] + 0.25
    if objective.beta > 0:
        assert before["objective/kl"] == pytest.approx(0, abs=1e-4)
        assert 0.5 < after["objective/kl"] < 40
    scores = [m["reward"] for m in read_jsonl(tmp_path / "run" / "metrics.jsonl") if m["split"] == "train" and "reward" in m]
    assert len(scores) == 6
    assert scores[-1] > scores[0] + 0.2
