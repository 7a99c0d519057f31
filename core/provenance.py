"""Where a run came from: versions, commit, machine. Plain values for `run.json`; imports nothing heavy."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from core import __version__

_PACKAGES = ("torch", "lightning", "transformers", "datasets", "tokenizers", "hydra-core", "peft", "wandb")


def versions() -> dict[str, str]:
    """Versions of what decides a result, read from package metadata; packages that are absent are left out."""
    found = {"accordant": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def git_commit(folder: Path | None = None) -> dict[str, Any] | None:
    """{"commit", "dirty"} of the checkout around `folder` (default: the working directory); None outside of one."""
    where = str(folder or Path.cwd())
    commit = _git(where, "rev-parse", "HEAD")
    if not commit:
        return None
    return {"commit": commit, "dirty": bool(_git(where, "status", "--porcelain", "--untracked-files=no"))}


def hardware() -> str:
    """One line on the machine: processor, cores this process may use, memory, and the GPUs if torch is already loaded."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    parts = [_cpu_name(), f"{cores} core{'s' if cores != 1 else ''}"]
    memory = _memory_bytes()
    if memory:
        parts.append(f"{memory / 2**30:.0f} GiB memory")
    return ", ".join(parts + _gpus())


def peak_memory() -> dict[str, int]:
    """Bytes at the highest point so far: {"process": resident, "gpu": allocated by torch (only where one was used)}."""
    peak: dict[str, int] = {}
    if sys.platform != "win32":
        import resource

        unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in KiB, on macOS in bytes
        peak["process"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        peak["gpu"] = max(torch.cuda.max_memory_allocated(i) for i in range(torch.cuda.device_count()))
    return peak


def _git(folder: str, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", "-C", folder, *arguments], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return " ".join(line.partition(":")[2].split())
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _memory_bytes() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return 0


def _gpus() -> list[str]:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return []
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return [f"{names.count(name)} x {name}" for name in sorted(set(names))]
