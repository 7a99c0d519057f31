"""N steps = k steps, a signal, a resume, N - k steps: bit for bit, for every kind of collection."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from core.checkpoint import checkpoint_path, checkpoints_in, manifest_of
from core.loop import StepLoader
from tests.trials import KINDS, ONLINE, Trial, assert_equal_runs, assert_same, finished, last_checkpoint, metrics_of, trial


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Trial]:
    """The uninterrupted runs. Each writes to its own folder, so a cache of reference log-probs is never shared."""
    base = tmp_path_factory.mktemp("whole")
    return {kind: trial(base / kind / "run", kind) for kind in KINDS | ONLINE}


def collections_of(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The epochs of the collections that are made from now on."""
    made: list[int] = []
    before = StepLoader._collect

    def collect(self, rows, epoch, **kwargs):
        made.append(epoch)
        return before(self, rows, epoch, **kwargs)

    monkeypatch.setattr(StepLoader, "_collect", collect)
    return made


_WHERE = {"dpo_sampled": (1, 2, 3, 4, 5, 6), "reward_bt": (3,), "ppo": (4, 5, 7), "rejection_sampling": (3, 8)}
STOPS = [(kind, k) for kind in KINDS | ONLINE for k in _WHERE.get(kind, (1, 3, 5, 9, 10))]
STEPS = {"dpo_sampled": (6, 3), "ppo": (8, 4), "rejection_sampling": (9, 3)}  # in all, an epoch; the others: 10, 5


@pytest.mark.parametrize(("kind", "k"), STOPS)
def test_stop_and_resume_equals_one_piece(whole: dict[str, Trial], tmp_path: Path, kind: str, k: int) -> None:
    """k: the first step, a middle one, an epoch's border, the one before the last, the last."""
    full = whole[kind]
    total = full.run.schedule.total_steps
    assert (total, full.run.schedule.steps_per_epoch) == STEPS.get(kind, (10, 5))

    first = trial(tmp_path / "run", kind, stop=k)
    assert first.exit == 143
    assert checkpoints_in(tmp_path / "run" / "checkpoints")[-1].name == f"step_{k:08d}.ckpt"
    assert finished(tmp_path / "run")["status"] == "stopped"
    rest = trial(tmp_path / "run", kind, resume=True)
    assert rest.exit == 0
    assert finished(tmp_path / "run")["status"] == "finished"

    assert sorted(first.rows) == list(range(k))
    assert sorted(rest.rows) == list(range(k, total))
    assert {**first.rows, **rest.rows} == full.rows
    for a, b in zip(full.run.models.parameters(), rest.run.models.parameters(), strict=True):
        assert torch.equal(a, b)
    assert_equal_runs(full.path, rest.path)
    for role in full.run.objective.trains:
        for file in ("model.safetensors", "config.json", *(("reward.json",) if role in ("reward", "value") else ())):
            assert (rest.path / role / file).read_bytes() == (full.path / role / file).read_bytes()


@pytest.mark.parametrize("kind", ["sft", "dpo_sampled", "ppo"])
def test_resume_forgets_what_came_after_the_checkpoint(whole: dict[str, Trial], tmp_path: Path, kind: str) -> None:
    """The process died long after its last checkpoint: metrics, samples and rollouts of the future lie in the folder."""
    shutil.copytree(whole[kind].path, tmp_path / "run")
    for path in checkpoints_in(tmp_path / "run" / "checkpoints")[1:]:
        path.unlink()
        manifest_of(path).unlink()
    assert len(metrics_of(tmp_path / "run")) == len(metrics_of(whole[kind].path))
    rest = trial(tmp_path / "run", kind, resume=True)
    assert min(rest.rows) == (3 if kind == "ppo" else 4)
    assert_equal_runs(whole[kind].path, rest.path)


@pytest.mark.parametrize("kind", ONLINE)
def test_state_of_an_objective_is_part_of_the_run(
    whole: dict[str, Trial], tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The comparison can fail: without what the objective keeps, the rest of the run is another one."""
    full = whole[kind]
    state = last_checkpoint(full.path)["accordant"]["objective"]
    if kind == "ppo":
        assert [r["left_out"] for r in metrics_of(full.path) if "left_out" in r] == [0, 0, 0, 1, 0, 0, 0, 0]
    assert state == full.run.objective.state_dict()
    assert state != ONLINE[kind].make().state_dict()
    trial(tmp_path / "run", kind, stop=full.run.schedule.steps_per_epoch)
    monkeypatch.setattr(type(full.run.objective), "load_state_dict", lambda self, state: None)
    rest = trial(tmp_path / "run", kind, resume=True)
    assert last_checkpoint(rest.path)["accordant"]["objective"] != state


def test_restart_without_a_checkpoint_forgets_the_first_attempt(whole: dict[str, Trial], tmp_path: Path) -> None:
    """Died before its first checkpoint: the second attempt is a whole run, not a run appended to half of one."""
    shutil.copytree(whole["sft"].path, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    again = trial(tmp_path / "run", "sft", resume=True)
    assert sorted(again.rows) == list(range(10))
    assert_equal_runs(whole["sft"].path, again.path)


def test_resume_of_a_finished_run_changes_nothing(whole: dict[str, Trial], tmp_path: Path) -> None:
    shutil.copytree(whole["dpo_cached"].path, tmp_path / "run")
    again = trial(tmp_path / "run", "dpo_cached", resume=True)
    assert again.rows == {}
    assert_equal_runs(whole["dpo_cached"].path, again.path)
    for a, b in zip(whole["dpo_cached"].run.models.parameters(), again.run.models.parameters(), strict=True):
        assert torch.equal(a, b)


def test_middle_of_an_epoch_rereads_its_rollouts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights have moved since they were sampled: sampling again would give other rows."""
    made = collections_of(monkeypatch)
    trial(tmp_path / "run", "dpo_sampled", stop=5)
    assert made == [0, 1]
    before = (tmp_path / "run" / "rollouts" / "epoch_001.jsonl").read_bytes()
    made.clear()
    trial(tmp_path / "run", "dpo_sampled", resume=True)
    assert made == []
    assert (tmp_path / "run" / "rollouts" / "epoch_001.jsonl").read_bytes() == before


def test_border_of_an_epoch_collects_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = collections_of(monkeypatch)
    trial(tmp_path / "run", "dpo_sampled", stop=3)
    assert made == [0]
    made.clear()
    trial(tmp_path / "run", "dpo_sampled", resume=True)
    assert made == [1]


@pytest.mark.parametrize("damage", ["gone", "cut", "emptied"])
def test_lost_rollouts_of_a_started_epoch_are_an_error(tmp_path: Path, damage: str) -> None:
    """Never silently other rows than the ones that the epoch began with."""
    from core.errors import CheckpointError

    trial(tmp_path / "run", "dpo_sampled", stop=5)
    path = tmp_path / "run" / "rollouts" / "epoch_001.jsonl"
    text = path.read_text()
    if damage == "gone":
        path.unlink()
    else:
        path.write_text(text[: len(text) // 2] if damage == "cut" else "")
    with pytest.raises(CheckpointError, match=r"epoch_001\.jsonl"):
        trial(tmp_path / "run", "dpo_sampled", resume=True)


@pytest.mark.parametrize("kind", ["sft", "dpo_sampled"])
def test_the_same_run_twice_is_the_same(whole: dict[str, Trial], tmp_path: Path, kind: str) -> None:
    again = trial(tmp_path / "run", kind)
    assert_equal_runs(whole[kind].path, again.path)
    for name in ("model.safetensors", "config.json", "generation_config.json"):
        assert (again.path / "policy" / name).read_bytes() == (whole[kind].path / "policy" / name).read_bytes()


def test_another_seed_is_another_run(whole: dict[str, Trial], tmp_path: Path) -> None:
    """The comparison can fail."""
    from tests.trials import built, fitted

    run = built(tmp_path / "run", "sft")
    import dataclasses

    run.schedule = dataclasses.replace(run.schedule, seed=8)
    other = fitted(run)
    assert other.rows != whole["sft"].rows
    with pytest.raises(AssertionError):
        assert_equal_runs(whole["sft"].path, other.path)


@pytest.mark.parametrize("kind", ["sft", "dpo_sampled"])
def test_validation_in_between_does_not_matter(tmp_path: Path, kind: str) -> None:
    often = trial(tmp_path / "often" / "run", kind, eval={"every": 3})
    never = trial(tmp_path / "never" / "run", kind, eval={"every": 1000, "at_start": False}, checkpoint={"every": 3})
    one, other = last_checkpoint(often.path), last_checkpoint(never.path)
    assert_same(one["state_dict"], other["state_dict"])
    assert_same(one["optimizer_states"], other["optimizer_states"])
    train = [[r for r in metrics_of(t.path) if r["split"] == "train"] for t in (often, never)]
    assert train[0] == train[1]


def test_checkpoint_between_evaluations_resumes_the_same(tmp_path: Path) -> None:
    """Checkpoints and evaluations need not fall on the same step."""
    settings = {"eval": {"every": 4}, "checkpoint": {"every": 3}}
    full = trial(tmp_path / "a" / "run", "dpo_cached", **settings)
    trial(tmp_path / "b" / "run", "dpo_cached", stop=7, **settings)
    checkpoint_path(tmp_path / "b" / "run" / "checkpoints", 7).unlink()
    rest = trial(tmp_path / "b" / "run", "dpo_cached", resume=True, **settings)
    assert min(rest.rows) == 6
    assert_equal_runs(full.path, rest.path)
