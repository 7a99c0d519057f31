"""The embedded models, each made once by our own objectives and kept in the user's cache.

The default policy is the pocket model, taught to answer by sft. The pocket reward model is that policy, taught by reward_bt
what the sandbox's annotators prefer, on purpose of ordinary size: good near answers that people gave, and exploitable.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from core.kept import Kept, to_stderr
from core.paths import cache_folder
from core.pocket import WarmUp, pocket_digest, pocket_folder
from core.runfolder import LOGGER, RunFolder

POCKET_REWARD = Kept(
    "pocket reward model", "training one", "Train one: objective=reward_bt, then reward.path=runs/<run>/reward."
)


@dataclass(frozen=True)
class Lessons:
    """How the pocket reward model is trained: measured in docs/reward-hacking.md.

    Attributes:
        rows: rankings of four answers by annotators who err and have tastes (`data=sandbox` as it is), each seen once.
        batch_size: rows per optimizer step.
        lr: peak learning rate of AdamW; falls linearly to 0 after `warmup_ratio` of the steps.
    """

    rows: int = 2000
    batch_size: int = 32
    lr: float = 1e-3
    warmup_ratio: float = 0.05
    seed: int = 1


def pocket_policy() -> Path:
    """The folder of the warmed-up pocket model; made on first use, in about a minute on two cores."""
    return pocket_folder(cache_folder(), warm_up)


def pocket_reward(teach: Callable[[Path, Path], None] | None = None, say: Callable[[str], None] = to_stderr) -> Path:
    """The folder of the pocket reward model; made on first use, in about a minute after the pocket model itself.

    Args:
        teach: called with the folder of the policy to start from and the folder to write the reward model into;
            None = `lessons`.
        say: takes one line that tells what happens and why.

    Raises:
        ModelError: it could not be made, or another process keeps the folder locked for half an hour.
    """
    digest = pocket_digest({"policy": asdict(WarmUp()), "reward": asdict(Lessons())})

    def make(_: Path, out: Path) -> None:
        (lessons if teach is None else teach)(pocket_policy(), out)

    return POCKET_REWARD.folder(cache_folder() / f"pocket-reward-{digest}", make, say)


def made_pocket() -> Path | None:
    """The folder of the warmed-up pocket model where it is in the cache already; makes nothing."""
    target = cache_folder() / f"pocket-{pocket_digest(asdict(WarmUp()))}"
    return target if (target / "tokenizer.json").is_file() else None


def warm_up(base: Path, out: Path) -> None:
    """Finetune `base` on the sandbox's demonstrations with the objective sft, and put the policy at `out`."""
    _trained(warm_up_config(base), "policy", out)


def lessons(policy: Path, out: Path) -> None:
    """Train a reward model from `policy` on the sandbox's rankings with reward_bt, and put it at `out`."""
    _trained(lessons_config(policy), "reward", out)


def _trained(config: Mapping[str, Any], role: str, out: Path) -> None:
    from core.train import train

    with (
        _other_messages(),
        tempfile.TemporaryDirectory(prefix="accordant-warmup-") as temporary,
        RunFolder.create(Path(temporary) / "run", config) as folder,
    ):
        train(config, folder)
        shutil.copytree(folder.path / role, out, dirs_exist_ok=True)


@contextmanager
def _other_messages() -> Iterator[None]:
    """The run within puts its console in place of that of the run around it, which gets its own back."""
    handlers = LOGGER.handlers[:]
    try:
        yield
    finally:
        LOGGER.handlers[:] = handlers


def warm_up_config(base: Path, settings: WarmUp | None = None) -> dict[str, Any]:
    """A complete config, as `objective=sft data=sandbox` composes it, with the warm-up's settings."""
    settings = settings or WarmUp()
    return {
        **_shared_config(base),
        "seed": settings.seed,
        "objective": {"name": "sft"},
        "data": _data(settings.rows, 128, settings.batch_size),
        "optim": {"lr": settings.lr, "schedule": settings.schedule, "warmup_ratio": settings.warmup_ratio},
        "trainer": {"max_epochs": settings.epochs, "accelerator": "cpu", "devices": 1, "gradient_clip_val": 1.0},
        "checkpoint": {"every": settings.rows * settings.epochs, "keep": 1},
    }


def lessons_config(policy: Path, settings: Lessons | None = None) -> dict[str, Any]:
    """A complete config, as `objective=reward_bt data=sandbox` composes it, with the settings of the lessons."""
    settings = settings or Lessons()
    return {
        **_shared_config(policy),
        "seed": settings.seed,
        "objective": {"name": "reward_bt"},
        "data": _data(settings.rows, 300, settings.batch_size),
        "optim": {"lr": settings.lr, "warmup_ratio": settings.warmup_ratio},
        "trainer": {"max_epochs": 1, "accelerator": "cpu", "devices": 1, "gradient_clip_val": 1.0},
        "checkpoint": {"every": settings.rows, "keep": 1},
    }


def _data(rows: int, validation_rows: int, batch_size: int) -> dict[str, Any]:
    return {
        "name": "sandbox",
        "template": "chat",
        "train_rows": rows,
        "validation_rows": validation_rows,
        "batch_size": batch_size,
        "microbatch_tokens": 8192,
    }


def _shared_config(start: Path) -> dict[str, Any]:
    return {
        "run": {},
        "reward": {"name": "none"},
        "model": {"name": "hf", "policy": str(start)},
        "generation": {"max_new_tokens": 64},
        "logger": {},
        "eval": {"every": None, "at_start": False, "prompts": 0, "samples": 0, "rewards": []},
        "plugins": {"prefer": {}},
    }
