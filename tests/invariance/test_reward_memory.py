"""A reward that remembers collections: each counts once, through stops, resumes and validations.

On two processes: tests/invariance/test_two_processes.py.
"""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

import core.callbacks
from core.checkpoint import checkpoints_in
from tests.trials import Trial, assert_equal_runs, built, files_of, fitted, last_checkpoint, trial

SAMPLED, RELABELLED = "sampled_remembering", "relabelled_remembering"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Trial]:
    base = tmp_path_factory.mktemp("whole")
    return {kind: trial(base / kind / "run", kind) for kind in (SAMPLED, RELABELLED)}


def memory(run: Trial) -> dict[str, Any]:
    assert run.run.reward is not None
    return run.run.reward.source.state_dict()


def test_every_collection_is_counted_once_and_nothing_else(whole: dict[str, Trial]) -> None:
    """Sampled: 3 epochs of 9 prompts with 3 answers. Relabelled: 18 training rows of 2; not the 6 of validation."""
    assert whole[SAMPLED].run.schedule.total_steps == 9
    assert memory(whole[SAMPLED])["sum"]["statistics"]["count"] == 3 * 9 * 3
    assert memory(whole[RELABELLED])["sum"]["statistics"]["count"] == 18 * 2
    saved = last_checkpoint(whole[SAMPLED].path)["callbacks"]["RewardMemory"]
    assert saved == memory(whole[SAMPLED])


@pytest.mark.parametrize(("kind", "k"), [(SAMPLED, 7), (RELABELLED, 5)])
def test_stop_and_resume_equals_one_piece(whole: dict[str, Trial], tmp_path: Path, kind: str, k: int) -> None:
    """Stopped in the middle of an epoch: same rollouts with the same scores, same weights, same memory."""
    assert trial(tmp_path / "run", kind, stop=k).exit == 143
    assert_same_as(whole[kind], trial(tmp_path / "run", kind, resume=True))


def assert_same_as(whole: Trial, rest: Trial) -> None:
    assert memory(rest) == memory(whole)
    for a, b in zip(whole.run.models.parameters(), rest.run.models.parameters(), strict=True):
        assert torch.equal(a, b)
    assert_equal_runs(whole.path, rest.path)


def test_at_an_epochs_border_too_and_without_the_memory_it_would_be_another_run(
    whole: dict[str, Trial], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One stop, resumed twice: the comparison of the first can fail, as the second shows."""
    assert trial(tmp_path / "run", SAMPLED, stop=3).exit == 143
    shutil.copytree(tmp_path / "run", tmp_path / "forgetful")
    assert_same_as(whole[SAMPLED], trial(tmp_path / "run", SAMPLED, resume=True))
    monkeypatch.setattr(core.callbacks.RewardMemory, "load_state_dict", lambda self, state: None)
    rest = trial(tmp_path / "forgetful", SAMPLED, resume=True)
    assert files_of(whole[SAMPLED].path, "rollouts") != files_of(rest.path, "rollouts")
    assert memory(rest)["sum"]["statistics"]["count"] == 2 * 9 * 3


class SignalIn(L.Callback):
    """Sends this process SIGTERM when the given hook is called for the first time."""

    def __init__(self, hook: str) -> None:
        self.sent = False
        setattr(self, hook, self._send)

    def _send(self, *_: Any) -> None:
        if not self.sent:
            self.sent = True
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_stop_in_the_collection_before_the_first_validation(whole: dict[str, Trial], tmp_path: Path) -> None:
    """What is collected once is collected there. Nothing is trained yet, so the run begins anew."""
    first = fitted(built(tmp_path / "run", RELABELLED), None, SignalIn("on_validation_start"))
    assert first.exit == 143
    assert first.rows == {}
    assert checkpoints_in(tmp_path / "run" / "checkpoints") == []
    assert memory(first) == {}
    rest = trial(tmp_path / "run", RELABELLED, resume=True)
    assert_equal_runs(whole[RELABELLED].path, rest.path)


def test_a_collection_that_is_left_is_forgotten(whole: dict[str, Trial], tmp_path: Path) -> None:
    """The signal comes with the reference log-probs, when the reward has taken the second collection in."""
    run = built(tmp_path / "run", SAMPLED)
    before, seen = run.context.token_logps, []

    def token_logps(role, rows, field, **options):
        if run.context.collecting and run.context.epoch == 1:
            seen.append(run.reward.source.state_dict())
            os.kill(os.getpid(), signal.SIGTERM)
        return before(role, rows, field, **options)

    run.context.token_logps = token_logps  # type: ignore[method-assign]
    assert fitted(run).exit == 143
    assert seen[0]["sum"]["statistics"]["count"] == 2 * 9 * 3
    assert last_checkpoint(tmp_path / "run")["callbacks"]["RewardMemory"]["sum"]["statistics"]["count"] == 9 * 3
    rest = trial(tmp_path / "run", SAMPLED, resume=True)
    assert_equal_runs(whole[SAMPLED].path, rest.path)
