"""The embedded default policy: the pocket model, taught to answer by our own sft, once, and kept in the user's cache."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from core.paths import cache_folder
from core.pocket import WarmUp, pocket_digest, pocket_folder
from core.runfolder import RunFolder


def pocket_policy() -> Path:
    """The folder of the warmed-up pocket model; made on first use, in about a minute on two cores."""
    return pocket_folder(cache_folder(), warm_up)


def made_pocket() -> Path | None:
    """The folder of the warmed-up pocket model where it is in the cache already; makes nothing."""
    target = cache_folder() / f"pocket-{pocket_digest(asdict(WarmUp()))}"
    return target if (target / "tokenizer.json").is_file() else None


def warm_up(base: Path, out: Path) -> None:
    """Finetune `base` on the sandbox's demonstrations with the objective sft, and put the policy at `out`."""
    from core.train import train

    with tempfile.TemporaryDirectory(prefix="accordant-warmup-") as temporary:
        config = warm_up_config(base)
        with RunFolder.create(Path(temporary) / "run", config) as folder:
            train(config, folder)
            shutil.copytree(folder.path / "policy", out, dirs_exist_ok=True)


def warm_up_config(base: Path, settings: WarmUp | None = None) -> dict[str, Any]:
    """A complete config, as `objective=sft data=sandbox` composes it, with the warm-up's settings."""
    settings = settings or WarmUp()
    return {
        "seed": settings.seed,
        "run": {},
        "objective": {"name": "sft"},
        "reward": {"name": "none"},
        "model": {"name": "hf", "policy": str(base)},
        "data": {
            "name": "sandbox",
            "template": "chat",
            "train_rows": settings.rows,
            "validation_rows": 128,
            "batch_size": settings.batch_size,
            "microbatch_tokens": 8192,
        },
        "generation": {"max_new_tokens": 64},
        "optim": {"lr": settings.lr, "schedule": settings.schedule, "warmup_ratio": settings.warmup_ratio},
        "trainer": {"max_epochs": settings.epochs, "accelerator": "cpu", "devices": 1, "gradient_clip_val": 1.0},
        "logger": {},
        "eval": {"every": None, "at_start": False, "prompts": 0, "samples": 0, "rewards": []},
        "checkpoint": {"every": settings.rows * settings.epochs, "keep": 1},
        "plugins": {"prefer": {}},
    }
