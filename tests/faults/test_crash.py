"""kill -9, SIGTERM, SIGINT and a full disk, in real processes; then a resume that ends where an unharmed run ends."""

from __future__ import annotations

import multiprocessing
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.checkpoint import checkpoints_in, newest_good, problem_of
from core.runfolder import run_state
from tests.faults.child import SIGINT, SIGTERM, Fault, four_at_a_time, main
from tests.trials import ONLINE, Trial, assert_equal_runs, built, finished, fitted, metrics_of, trial

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["tests.faults.child"])


def child(path: Path, kind: str, fault: Fault, *, resume: bool = False) -> int:
    """The exit status of a run in a process of its own; -9 = killed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    process = PROCESSES.Process(target=main, args=(path, kind, resume, fault))
    process.start()
    process.join(60)
    assert process.exitcode is not None, "the child hangs"
    return process.exitcode


def said(path: Path) -> str:
    return (path.parent / "output").read_text()


def steps_saved(path: Path) -> list[int]:
    return [int(p.stem.removeprefix("step_")) for p in checkpoints_in(path / "checkpoints") if not problem_of(p)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Trial]]:
    base = tmp_path_factory.mktemp("whole")
    kinds = ("sft", "dpo_sampled", *ONLINE)
    return {kind: trial(base / kind / "run", kind) for kind in kinds}  # type: ignore[return-value]


# sft: 10 steps, checkpoints after 4, 8 and 10. dpo_sampled: 6 steps, collections before 1 and 4, checkpoints after 4, 6.
# ppo: 8 steps, collections before 1 and 5, checkpoints after 3, 6 and 8. rejection_sampling: 9 steps, collections before 1,
# 4 and 7, checkpoints after 4, 8 and 9.
KILLED = [
    ("sft", "step.end:3", []),
    ("sft", "step.end:7", [4]),
    ("sft", "checkpoint.before:2", [4]),
    ("sft", "write.ckpt.before_move:2", [4]),  # the second checkpoint
    ("sft", "checkpoint.manifest:2", [4]),
    ("sft", "checkpoint.after:2", [4, 8]),
    ("sft", "checkpoint.after:3", [4, 8, 10]),
    ("dpo_sampled", "collect.after:2", []),
    ("dpo_sampled", "step.end:5", [4]),
    ("ppo", "collect.score:2", [3]),  # sampled and not yet scored
    ("ppo", "write.jsonl.before_move:4", [3]),  # the second file of rollouts; two of samples come before it
    ("ppo", "step.update:6", [3]),  # gradients, and no step
    ("ppo", "write.ckpt.before_move:2", [3]),
    ("rejection_sampling", "collect.score:3", [4]),
]


@pytest.mark.parametrize(("kind", "failpoint", "saved"), KILLED)
def test_killed_and_resumed_equals_unharmed(
    whole: dict[str, Trial], tmp_path: Path, kind: str, failpoint: str, saved: list[int]
) -> None:
    path = tmp_path / "run"
    assert child(path, kind, Fault(failpoint)) == -9
    assert run_state(path) == "lost"
    assert steps_saved(path) == saved
    rest = trial(path, kind, resume=True)
    assert rest.exit == 0
    assert_equal_runs(whole[kind].path, path)
    assert not list((path / "checkpoints").glob("*.tmp"))
    assert not list((path / "checkpoints").glob(".*"))


def test_killed_in_the_write_with_tmpdir_on_another_filesystem(tmp_path: Path) -> None:
    """A temporary file there would be moved by copying, and a kill in the copy would leave a stump under the real name."""
    shm = Path("/dev/shm")
    if not shm.is_dir():
        pytest.skip("no /dev/shm")
    before = set(shm.iterdir())
    path = tmp_path / "run"
    assert child(path, "sft", Fault("write.ckpt.before_move:2", temporary=str(shm))) == -9
    assert {p.name for p in set(shm.iterdir()) - before if "ckpt" in p.name or "tmp" in p.name} == set()
    assert steps_saved(path) == [4]
    assert [p.name for p in checkpoints_in(path / "checkpoints")] == ["step_00000004.ckpt"]
    assert newest_good(path / "checkpoints") is not None


def test_killed_twice(whole: dict[str, Trial], tmp_path: Path) -> None:
    path = tmp_path / "run"
    assert child(path, "sft", Fault("step.end:6")) == -9
    assert child(path, "sft", Fault("step.end:5"), resume=True) == -9
    trial(path, "sft", resume=True)
    assert_equal_runs(whole["sft"].path, path)


@pytest.mark.parametrize(("signum", "status"), [(SIGTERM, 143), (SIGINT, 130)])
def test_a_signal_saves_at_the_border_and_exits_with_its_number(
    whole: dict[str, Trial], tmp_path: Path, signum: int, status: int
) -> None:
    path = tmp_path / "run"
    assert child(path, "sft", Fault(signals=(signum,), at=6)) == status
    assert steps_saved(path) == [4, 6]
    assert metrics_of(path)[-1]["step"] == 6
    assert "stopped after step 6, checkpoint written" in said(path)
    assert finished(path)["status"] == "stopped"
    assert "Traceback" not in said(path)
    trial(path, "sft", resume=True)
    assert_equal_runs(whole["sft"].path, path)


def test_a_second_ctrl_c_leaves_at_once(tmp_path: Path) -> None:
    path = tmp_path / "run"
    assert child(path, "sft", Fault(signals=(SIGINT, SIGINT), at=6)) == 130
    assert steps_saved(path) == [4]
    assert metrics_of(path)[-1]["step"] == 5
    assert finished(path)["status"] == "stopped"
    assert "Traceback" not in said(path)


def test_sigterm_twice_is_still_an_orderly_end(tmp_path: Path) -> None:
    """Schedulers repeat it; only kill -9 means now."""
    path = tmp_path / "run"
    assert child(path, "sft", Fault(signals=(SIGTERM, SIGTERM), at=6)) == 143
    assert steps_saved(path) == [4, 6]


@pytest.mark.parametrize(("kind", "epoch"), [("dpo_sampled", 0), ("dpo_sampled", 1), ("ppo", 1)])
def test_a_signal_in_a_collection_does_not_wait_for_its_end(tmp_path: Path, kind: str, epoch: int) -> None:
    path = tmp_path / "run"
    assert child(path, kind, Fault(signals=(SIGTERM,), collecting=epoch)) == 143
    chunks = [line for line in (tmp_path / "chunks").read_text().splitlines() if line.startswith(f"{epoch} ")]
    total, steps = (27, 3) if kind == "dpo_sampled" else (18, 4)
    assert re.fullmatch(rf"{epoch} sampling [1-9]/{total}", *chunks)
    assert steps_saved(path)[-1] == steps * epoch
    assert not (path / "rollouts" / f"epoch_{epoch:03d}.jsonl").exists()
    rest = fitted(four_at_a_time(built(path, kind, resume=True)))
    assert min(rest.rows) == steps * epoch
    whole = fitted(four_at_a_time(built(tmp_path / "whole" / "run", kind)))
    assert_equal_runs(whole.path, path)


def test_full_disk_ends_with_one_clear_message_and_whole_checkpoints(tmp_path: Path) -> None:
    path = tmp_path / "run"
    trial(path, "sft", stop=4)
    assert child(path, "sft", Fault(largest_file=100_000), resume=True) == 2
    message = (tmp_path / "error").read_text()
    assert "step_00000008.ckpt" in message
    assert "could not be written: File too large" in message
    assert "Make room" in message
    assert "Traceback" not in said(path)
    assert steps_saved(path) == [4]
    assert [p.name for p in (path / "checkpoints").iterdir() if p.name.startswith(".") or "tmp" in p.name] == []
    assert finished(path)["status"] == "failed"
    rest = trial(path, "sft", resume=True)
    assert sorted(rest.rows) == [4, 5, 6, 7, 8, 9]
