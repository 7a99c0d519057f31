"""The product of a run: a folder in the Hugging Face layout for each trained role, with a model card."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from core.modelcard import CardFacts, model_card
from core.models import Models, export
from core.runfolder import RunFolder


def export_policy(models: Models, tokenizer: Any, folder: RunFolder, facts: CardFacts, *, merge_lora: bool) -> Path:
    """Write `policy/`: weights, config, tokenizer, model card. Written aside and moved, so it is whole or not there."""
    target = folder.path / "policy"
    aside = folder.path / ".policy.tmp"
    shutil.rmtree(aside, ignore_errors=True)
    export(models.roles["policy"], tokenizer, aside, merge_lora=merge_lora)
    (aside / "README.md").write_text(model_card(facts), encoding="utf-8")
    shutil.rmtree(target, ignore_errors=True)
    aside.rename(target)
    return target
