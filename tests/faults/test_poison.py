"""A reward that goes mad: what it says never reaches the weights, and the run says what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from core.build import Run
from core.errors import CollectionError, PluginError, UserError
from core.train import fit
from tests.trials import assert_same, built, finished, last_checkpoint, metrics_of


def poisoned(path: Path, how: dict[int, float], kind: str = "ppo", **changes: Any) -> Run:
    """A run whose reward gives every answer of collection `epoch` the score how[epoch] times its own."""
    run = built(path, kind, **changes)
    assert run.reward is not None
    honest = run.reward.source.score

    def score(samples: Any) -> list[float]:
        factor = how.get(run.context.epoch, 1.0) if run.context.collecting else 1.0
        return [factor * s for s in honest(samples)]  # type: ignore[operator]

    run.reward.source.score = score  # type: ignore[method-assign]
    return run


def test_scores_beyond_all_bounds_skip_their_steps_and_no_more(tmp_path: Path) -> None:
    """1e25 is a float32, its square is none: the value loss of the four steps of the first collection is not finite."""
    run = poisoned(tmp_path / "run", {0: 1e25}, checkpoint={"every": 4, "keep": 9})
    before = [p.detach().clone() for _, p in run.models.trained_parameters()]
    fit(run)
    train = [r for r in metrics_of(run.folder.path) if r["split"] == "train" and "skipped_steps" in r]
    assert [r["skipped_steps"] for r in train] == [1, 2, 3, 4, 0, 0, 0, 0]
    assert train[0]["loss"] is None
    saved = torch.load(run.folder.path / "checkpoints" / "step_00000004.ckpt", weights_only=True)["state_dict"]
    names = [f"models.roles.{name}" for name, _ in run.models.trained_parameters()]
    assert_same(before, [saved[name] for name in names])
    assert all(torch.isfinite(p).all() for p in run.models.parameters())
    assert finished(run.folder.path)["status"] == "finished"


@pytest.mark.parametrize(
    ("factor", "kind_of", "said"),
    [
        (1e39, CollectionError, r'collection 1: "(advantages|returns)" of the row row-\d+ is not finite'),
        (float("nan"), PluginError, r"returned nan for row .row-\d+."),
    ],
)
def test_what_is_no_number_ends_the_run_and_names_the_row(
    tmp_path: Path, factor: float, kind_of: type[UserError], said: str
) -> None:
    """The checkpoint is that of the steps before, with the state the objective had then."""
    run = poisoned(tmp_path / "run", {1: factor}, checkpoint={"every": 4, "keep": 9})
    with pytest.raises(kind_of, match=said):
        fit(run)
    assert not (run.folder.path / "rollouts" / "epoch_001.jsonl").exists()
    saved = last_checkpoint(run.folder.path)["accordant"]
    assert (saved["steps_done"], saved["objective"]["episodes"]) == (4, 18)
    assert run.objective.state_dict() == saved["objective"]
    assert finished(run.folder.path)["status"] == "failed"
