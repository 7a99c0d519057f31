"""Checkpoints: whole or not there, verified, small, and a clear word about each kind of damage."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from core.atomic import write_atomic
from core.checkpoint import (
    AtomicCheckpointIO,
    checkpoint_path,
    checkpoints_in,
    keep_newest,
    manifest_of,
    newest_good,
    problem_of,
    verify,
)
from core.errors import CheckpointError
from core.runfolder import RunFolder
from core.train import fit
from plugins.objectives.sft import SFT
from tests.support import random_rows, tiny_model, tiny_run
from tests.trials import KINDS, last_checkpoint, trial


def save(folder: Path, step: int) -> Path:
    path = checkpoint_path(folder, step)
    AtomicCheckpointIO().save_checkpoint({"global_step": step, "state_dict": {"w": torch.full((50,), float(step))}}, path)
    return path


# -- writing --------------------------------------------------------------------------------------------------------


def test_saved_is_loaded_again(tmp_path: Path) -> None:
    path = save(tmp_path / "checkpoints", 3)
    loaded = AtomicCheckpointIO().load_checkpoint(path)
    assert loaded["global_step"] == 3
    assert torch.equal(loaded["state_dict"]["w"], torch.full((50,), 3.0))


def test_manifest_says_size_digest_and_step(tmp_path: Path) -> None:
    path = save(tmp_path, 3)
    assert json.loads(manifest_of(path).read_text()) == {
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "bytes": path.stat().st_size,
        "step": 3,
    }


def test_nothing_but_checkpoint_and_manifest_is_left(tmp_path: Path) -> None:
    save(tmp_path, 3)
    save(tmp_path, 3)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step_00000003.ckpt", "step_00000003.json"]


def test_write_atomic_keeps_the_old_file_when_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_write_atomic_syncs_the_file_before_the_move_and_the_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    fsync, replace = os.fsync, os.replace

    def note_fsync(handle: int) -> None:
        order.append("folder" if os.path.isdir(f"/proc/self/fd/{handle}") else "file")
        fsync(handle)

    def note_replace(source: Any, target: Any) -> None:
        order.append("move")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", note_replace)
    write_atomic(tmp_path / "file", b"new")
    assert order == ["file", "move", "folder"]


def test_full_disk_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = save(tmp_path, 3)
    monkeypatch.setattr("core.atomic.os.fsync", lambda handle: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(CheckpointError, match=r"step_00000006\.ckpt .* could not be written: No space left"):
        save(tmp_path, 6)
    assert problem_of(good) == ""
    assert newest_good(tmp_path) == good


# -- damage ---------------------------------------------------------------------------------------------------------


def flip_one_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "one bit": (flip_one_bit, "SHA-256 is not the one of its manifest"),
    "cut": (lambda p: p.write_bytes(p.read_bytes()[:-1]), "its manifest says"),
    "empty": (lambda p: p.write_bytes(b""), "it has 0 bytes"),
    "no manifest": (lambda p: manifest_of(p).unlink(), r"step_00000006\.json is missing, so it was never finished"),
    "manifest cut": (lambda p: manifest_of(p).write_text('{"sha'), "its manifest is damaged"),
    "manifest not an object": (lambda p: manifest_of(p).write_text("[]"), "its manifest is damaged"),
    "gone": (lambda p: p.unlink(), r"step_00000006\.ckpt is missing"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_named_and_refused(tmp_path: Path, kind: str) -> None:
    damage, said = DAMAGE[kind]
    good, bad = save(tmp_path, 3), save(tmp_path, 6)
    damage(bad)
    with pytest.raises(CheckpointError, match=said) as error:
        AtomicCheckpointIO().load_checkpoint(bad)
    assert str(bad) in str(error.value)
    assert str(good) in error.value.hint


@pytest.mark.parametrize("kind", [k for k in DAMAGE if k != "gone"])
def test_newest_good_passes_damaged_ones_over_and_says_so(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    good, bad = save(tmp_path, 3), save(tmp_path, 6)
    DAMAGE[kind][0](bad)
    logging.getLogger("accordant").propagate = True
    with caplog.at_level(logging.WARNING, "accordant"):
        assert newest_good(tmp_path) == good
    assert str(bad) in caplog.text
    assert "passed over" in caplog.text


def test_without_another_good_one_the_hint_says_so(tmp_path: Path) -> None:
    bad = save(tmp_path, 6)
    flip_one_bit(bad)
    with pytest.raises(CheckpointError) as error:
        verify(bad)
    assert "no other checkpoint" in error.value.hint
    assert newest_good(tmp_path) is None


def test_no_folder_is_no_checkpoint(tmp_path: Path) -> None:
    assert newest_good(tmp_path / "nowhere") is None


def test_a_pickle_that_runs_code_is_not_loaded(tmp_path: Path) -> None:
    """Also with a right manifest: anybody can write one."""

    class Evil:
        def __reduce__(self) -> Any:
            return (Path(tmp_path / "ran").touch, ())

    path = checkpoint_path(tmp_path, 1)
    torch.save({"global_step": 1, "x": Evil()}, path)
    facts = {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "bytes": path.stat().st_size, "step": 1}
    manifest_of(path).write_text(json.dumps(facts))
    with pytest.raises(CheckpointError, match="weights_only"):
        AtomicCheckpointIO().load_checkpoint(path)
    assert not (tmp_path / "ran").exists()


# -- retention ------------------------------------------------------------------------------------------------------


def names(folder: Path) -> list[int]:
    return [int(p.stem.removeprefix("step_")) for p in checkpoints_in(folder)]


def test_keeps_the_newest(tmp_path: Path) -> None:
    for step in (3, 6, 9, 100):
        save(tmp_path, step)
    keep_newest(tmp_path, 2, 100)
    assert names(tmp_path) == [9, 100]
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".ckpt", ".ckpt", ".json", ".json"]


def test_keep_zero_keeps_all(tmp_path: Path) -> None:
    for step in (3, 6, 9):
        save(tmp_path, step)
    keep_newest(tmp_path, 0, 9)
    assert names(tmp_path) == [3, 6, 9]


def test_damaged_later_ones_do_not_push_good_ones_out(tmp_path: Path) -> None:
    """Resumed from 3 because 8 and 9 were damaged; now 5 is saved."""
    for step in (3, 8, 9, 5):
        save(tmp_path, step)
    for step in (8, 9):
        flip_one_bit(checkpoint_path(tmp_path, step))
    keep_newest(tmp_path, 2, 5)
    assert names(tmp_path) == [3, 5]


def test_left_over_temporary_files_go(tmp_path: Path) -> None:
    save(tmp_path, 3)
    (tmp_path / ".step_00000006.ckpt.4242.tmp").write_bytes(b"half")
    keep_newest(tmp_path, 2, 3)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step_00000003.ckpt", "step_00000003.json"]


# -- of a run -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_checkpoints_of_every_kind_load_and_leave_frozen_roles_out(tmp_path: Path, kind: str) -> None:
    done = trial(tmp_path / "run", kind, checkpoint={"keep": 2}, trainer={"max_epochs": 1})
    paths = checkpoints_in(tmp_path / "run" / "checkpoints")
    assert len(paths) == (1 if kind == "dpo_sampled" else 2)
    for path in paths:
        torch.load(path, weights_only=True)
    (role,) = done.run.objective.trains
    assert all(name.startswith(f"models.roles.{role}.") for name in last_checkpoint(tmp_path / "run")["state_dict"])
    trained = sum(p.numel() * 4 for p in done.run.models.roles[role].parameters())
    # Weights and AdamW's two moments; the rest (names, pickle, alignment) is the same few kB for a model of any size.
    assert paths[-1].stat().st_size < 3 * trained + 40_000
    assert trained > 40_000


def test_larger_model_is_within_five_percent(tmp_path: Path) -> None:
    """Frozen weights would be a third more."""
    model = tiny_model(hidden_size=128, intermediate_size=512)
    run = tiny_run(tmp_path / "run", KINDS["dpo_cached"].make(), random_rows(4, 2), model=model, trainer={"max_epochs": 1})
    fit(run)
    trained = sum(p.numel() * 4 for p in model.parameters())
    assert checkpoints_in(tmp_path / "run" / "checkpoints")[-1].stat().st_size < 1.05 * 3 * trained


def test_resume_passes_a_damaged_checkpoint_over(tmp_path: Path) -> None:
    trial(tmp_path / "run", "sft", stop=8)
    flip_one_bit(checkpoint_path(tmp_path / "run" / "checkpoints", 8))
    rest = trial(tmp_path / "run", "sft", resume=True)
    assert min(rest.rows) == 4


def test_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    trial(tmp_path / "run", "sft", stop=2)
    other = tiny_run(
        tmp_path / "run",
        SFT(),
        random_rows(18, 1, 1),
        folder=RunFolder.reopen(tmp_path / "run"),
        model=tiny_model(num_hidden_layers=1),
    )
    with pytest.raises(CheckpointError, match=r"9 differ: policy\.model\.layers\.1\.\S+: \(32,\) -> None"):
        fit(other)


def test_checkpoint_of_another_size_is_refused(tmp_path: Path) -> None:
    trial(tmp_path / "run", "sft", stop=2)
    other = tiny_run(
        tmp_path / "run",
        SFT(),
        random_rows(18, 1, 1),
        folder=RunFolder.reopen(tmp_path / "run"),
        model=tiny_model(intermediate_size=96),
    )
    with pytest.raises(CheckpointError, match=r"6 differ: policy\S+down_proj\.weight: \(32, 64\) -> \(32, 96\)"):
        fit(other)


def test_checkpoint_of_another_plan_is_refused(tmp_path: Path) -> None:
    """Other rows or another batch size cut the run differently: step 2 would be another step."""
    trial(tmp_path / "run", "sft", stop=2)
    other = tiny_run(tmp_path / "run", SFT(), random_rows(30, 1, 1), folder=RunFolder.reopen(tmp_path / "run"))
    with pytest.raises(CheckpointError, match=r"2 differ: rows: 18 -> 30, rows_per_epoch: 18 -> 30"):
        fit(other)
