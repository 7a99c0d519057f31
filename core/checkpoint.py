"""Checkpoints: atomic, verified, small.

Lightning writes through $TMPDIR without fsync, so a `kill -9` can replace a good file with a stump. Here a file is
written beside its target, synced, renamed, the folder synced, and a manifest with its SHA-256 written last: a
checkpoint without a manifest was never finished. Loading verifies first, and uses `weights_only=True` always.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import CheckpointIO

from core.atomic import write_atomic
from core.errors import CheckpointError
from core.failpoints import failpoint

log = logging.getLogger("accordant")

SUFFIX = ".ckpt"


def manifest_of(path: Path) -> Path:
    return path.with_suffix(".json")


class AtomicCheckpointIO(CheckpointIO):
    """Lightning's door to the disk, made safe."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        data = buffer.getbuffer()  # no second copy in memory
        facts = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data), "step": checkpoint["global_step"]}
        try:
            manifest_of(target).unlink(missing_ok=True)
            write_atomic(target, data)
            failpoint("checkpoint.manifest")
            write_atomic(manifest_of(target), json.dumps(facts).encode())
        except OSError as error:
            raise CheckpointError(
                f"{target} ({len(data) / 2**20:.1f} MiB) could not be written: {error.strerror}.",
                "Make room, then resume: the checkpoints before it are whole.",
            ) from error

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        verify(Path(path))
        try:
            loaded: dict[str, Any] = torch.load(path, map_location=map_location or "cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
            reason = str(error).splitlines()[0]
            raise CheckpointError(
                f"{path} is whole, but it is not a checkpoint of this trainer (torch.load with weights_only: {reason}).",
                "Use a checkpoint that a run of this trainer wrote.",
            ) from error
        return loaded

    def remove_checkpoint(self, path: Any) -> None:
        manifest_of(Path(path)).unlink(missing_ok=True)
        Path(path).unlink(missing_ok=True)


def problem_of(path: Path) -> str:
    """Why a checkpoint cannot be trusted; '' = it can."""
    try:
        facts = json.loads(manifest_of(path).read_text())
        size = path.stat().st_size
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing, so it was never finished"
    except (json.JSONDecodeError, UnicodeDecodeError):
        return "its manifest is damaged"
    if not isinstance(facts, dict):
        return "its manifest is damaged"
    if size != facts.get("bytes"):
        return f"it has {size} bytes, its manifest says {facts.get('bytes')}"
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != facts.get("sha256"):
            return "its SHA-256 is not the one of its manifest: the file is damaged"
    return ""


def verify(path: Path) -> None:
    """Raise CheckpointError, naming the newest good neighbour, if the checkpoint is damaged."""
    problem = problem_of(path)
    if not problem:
        return
    others = [p for p in checkpoints_in(path.parent) if p != path and not problem_of(p)]
    hint = f"Resume from {others[-1]} instead (resume=auto does)." if others else "There is no other checkpoint; start anew."
    raise CheckpointError(f"{path}: {problem}.", hint)


def checkpoints_in(folder: Path) -> list[Path]:
    """Checkpoint files by step, the newest last."""
    return sorted(folder.glob(f"step_*{SUFFIX}")) if folder.is_dir() else []


def newest_good(folder: Path) -> Path | None:
    """The newest checkpoint that verifies; damaged ones are named in the log and passed over."""
    for path in reversed(checkpoints_in(folder)):
        problem = problem_of(path)
        if not problem:
            return path
        log.warning("Checkpoint %s is passed over: %s.", path, problem)
    return None


def checkpoint_path(folder: Path, step: int) -> Path:
    return folder / f"step_{step:08d}{SUFFIX}"


def keep_newest(folder: Path, keep: int, step: int) -> None:
    """Delete all but the newest `keep` checkpoints up to step `step`, which was just written.

    Later ones are of a future that a resume has given up (they are damaged, else it had begun there): counted as the
    newest, they would push out good ones. So are temporary files of a process that was killed while it wrote.
    """
    target = checkpoint_path(folder, step)
    past = [path for path in checkpoints_in(folder) if path <= target]
    future = [path for path in checkpoints_in(folder) if path > target]
    for path in future + (past[:-keep] if keep > 0 else []):
        manifest_of(path).unlink(missing_ok=True)
        path.unlink(missing_ok=True)
    for path in folder.glob(".step_*.tmp"):
        path.unlink(missing_ok=True)


def refuse_foreign(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    """Raise CheckpointError where a checkpoint's parameters (name -> shape) or plan are not this run's."""
    differ = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
    if differ:
        named = ", ".join(f"{n.removeprefix('models.roles.')}: {theirs.get(n)} -> {ours.get(n)}" for n in differ[:3])
        raise CheckpointError(
            f"the checkpoint is of another model, objective, seed or size of data ({len(differ)} differ: {named}).",
            "Resume with the config that began the run (config.yaml in its folder).",
        )
