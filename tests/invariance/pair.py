"""One of several processes that train together on the CPU, as torchrun would start it."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from core.build import Run
from core.follower import Follower
from core.train import fit
from tests.trials import Probe, built, watched

DEVICES = {"accelerator": "cpu", "devices": 2, "strategy": "ddp"}


def calm(run: Run) -> Run:
    """AdamW divides by the size of the gradient: where that is nearly zero, rounding becomes a step. Not with this eps."""
    run.optim = replace(run.optim, eps=1e-2)
    return run


def main(path: Path, kind: str, rank: int, port: int, options: dict[str, Any]) -> None:
    """Train; leave this process's weights in rank<N>.pt beside the folder. `options`: resume, stop, stop_rank, changes."""
    with open(path.parent / f"output{rank}", "a") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE="2",
        LOCAL_WORLD_SIZE="2",
        GROUP_RANK="0",
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        TORCHELASTIC_RUN_ID="test",
        GLOO_SOCKET_IFNAME="lo",
    )
    torch.set_num_threads(1)
    changes = {**options.get("changes", {}), "trainer": {**DEVICES, **options.get("changes", {}).get("trainer", {})}}
    folder = Follower(path, {}) if rank else None
    run = calm(built(path, kind, resume=bool(options.get("resume")), folder=folder, **changes))
    probe = Probe(options.get("stop") if rank == options.get("stop_rank", 0) else None)
    try:
        with watched(probe):
            fit(run)
    finally:
        torch.save([p.detach() for p in run.models.parameters()], path.parent / f"rank{rank}.pt")
