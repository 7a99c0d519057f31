"""Two processes train as one: equal weights on both, and those of a single process on the same steps."""

from __future__ import annotations

import multiprocessing
import socket
from pathlib import Path
from typing import Any

import pytest
import torch

from core.checkpoint import checkpoints_in
from tests.invariance.pair import calm, main
from tests.trials import assert_same, built, files_of, finished, fitted, last_checkpoint, metrics_of

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["tests.faults.child", "tests.invariance.pair"])


def pair(path: Path, kind: str, **options: Any) -> list[int]:
    """The exit statuses of the two."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    both = [PROCESSES.Process(target=main, args=(path, kind, rank, port, options)) for rank in (0, 1)]
    for process in both:
        process.start()
    for process in both:
        process.join(90)
    hung = [process for process in both if process.exitcode is None]
    for process in hung:
        process.kill()
    assert not hung, (path.parent / "output0").read_text()[-2000:]
    return [int(process.exitcode or 0) for process in both]


def weights(path: Path, rank: int) -> list[torch.Tensor]:
    return torch.load(path.parent / f"rank{rank}.pt", weights_only=True)  # type: ignore[no-any-return]


def memory(path: Path) -> dict[str, Any]:
    """What the reward of a run has gathered by the last checkpoint; {} of one that remembers nothing."""
    kept = last_checkpoint(path)["callbacks"].get("RewardMemory", {})
    return kept["sum"]["statistics"] if kept else {}


@pytest.mark.parametrize("kind", ["sft", "dpo_cached", "sampled_remembering", "rejection_sampling", "ppo", "ppo_leaving"])
def test_two_processes_equal_one(tmp_path: Path, kind: str) -> None:
    """The same rows in the same steps, the mean over all of them. Left is the order of additions."""
    path = tmp_path / "two" / "run"
    assert pair(path, kind) == [0, 0]
    assert_same(weights(path, 0), weights(path, 1))
    one = fitted(calm(built(tmp_path / "one" / "run", kind)))
    difference = max(
        float((a - b.detach()).abs().max()) for a, b in zip(weights(path, 0), one.run.models.parameters(), strict=True)
    )
    assert difference < 1e-6
    for a, b in zip(metrics_of(path), metrics_of(one.path), strict=True):
        assert a.keys() == b.keys()
        for name, value in a.items():
            if name == "rewards/accuracies" and a["step"] == 1:
                continue  # policy and reference are still equal: which is larger is rounding
            assert b[name] == (value if isinstance(value, str) else pytest.approx(value, rel=1e-3, abs=1e-4)), name
    assert memory(path) == pytest.approx(memory(one.path), rel=1e-9)
    assert memory(path).get("count", 0) == (3 * 9 * 3 if kind == "sampled_remembering" else 0)  # epochs, prompts, answers
    ours, theirs = (last_checkpoint(p)["accordant"] for p in (path, one.path))
    assert ours["left_epoch"] == theirs["left_epoch"] == (0 if kind == "ppo_leaving" else -1)
    if kind == "rejection_sampling":
        assert len(ours["objective"]) == 18  # the best answer so far to each prompt
        assert ours["objective"] == theirs["objective"]
    else:
        assert ours["objective"] == pytest.approx(theirs["objective"], rel=1e-4)
    assert finished(path)["status"] == "finished"
    assert files_of(path, "rollouts").keys() == files_of(one.path, "rollouts").keys()


@pytest.mark.parametrize("kind", ["ppo", "sampled_remembering"])
def test_two_processes_resume_bit_for_bit(tmp_path: Path, kind: str) -> None:
    """The signal comes to one of them; both leave at the same border."""
    whole, cut = tmp_path / "whole" / "run", tmp_path / "cut" / "run"
    assert pair(whole, kind) == [0, 0]
    assert pair(cut, kind, stop=5, stop_rank=1) == [143, 143]
    assert checkpoints_in(cut / "checkpoints")[-1].name == "step_00000005.ckpt"
    assert pair(cut, kind, resume=True) == [0, 0]
    for rank in (0, 1):
        assert_same(weights(whole, rank), weights(cut, rank))
    assert memory(whole) == memory(cut)
    assert metrics_of(whole) == metrics_of(cut)
    assert files_of(whole, "samples") == files_of(cut, "samples")
