"""The product of a run: a folder in the Hugging Face layout for each trained role, with a model card."""

from __future__ import annotations

import copy
import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from core.data.templates import end_ids
from core.loading import base_model, is_peft
from core.modelcard import CardFacts, model_card
from core.runfolder import RunFolder
from core.scorer import RewardFacts, bias_of, distinct_pad, heads_of, is_scorer, write_facts


def export_role(role: str, write: Callable[[Path], None], folder: RunFolder, facts: CardFacts) -> Path:
    """Make `<role>/`: what `write` puts there, and a model card. Written aside and moved, so it is whole or not there."""
    target, aside = folder.path / role, folder.path / f".{role}.tmp"
    shutil.rmtree(aside, ignore_errors=True)
    write(aside)
    (aside / "README.md").write_text(model_card(facts), encoding="utf-8")
    shutil.rmtree(target, ignore_errors=True)
    aside.rename(target)
    return target


def export(model: nn.Module, tokenizer: Any, folder: Path, *, merge_lora: bool = False) -> None:
    """Write a folder that `from_pretrained` loads: safetensors, config, tokenizer, a policy's generation config."""
    target: Any = model
    if merge_lora and is_peft(model):
        # Merging changes the weights in place, and with them the reference that a LoRA policy carries.
        target = copy.deepcopy(model).merge_and_unload()  # type: ignore[operator]
    if not is_scorer(model):
        causal = base_model(target)
        causal.generation_config = _generation_config(causal, tokenizer)
    target.save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)


def export_scorer(model: nn.Module, tokenizer: Any, folder: Path, facts: RewardFacts, *, merge_lora: bool = True) -> None:
    """The same for a reward or value model, with its constants and its manner of text in reward.json.

    Merged by default: an adapter with a head on a language model is not what `AutoModelForSequenceClassification` or a
    pipeline loads by itself.
    """
    distinct_pad(tokenizer, base_model(model), end_ids(tokenizer))
    export(model, tokenizer, folder, merge_lora=merge_lora)
    write_facts(folder, dataclasses.replace(facts, bias=bias_of(model).tolist(), heads=heads_of(model)))


_SAMPLING = ("temperature", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff")


def _generation_config(causal: Any, tokenizer: Any) -> Any:
    """The model's generation settings, with the tokens that end and pad our answers.

    Some published files set a temperature and say do_sample=False; transformers loads them and refuses to save them.
    """
    config = copy.deepcopy(causal.generation_config)
    ends = end_ids(tokenizer)
    config.pad_token_id, config.eos_token_id = tokenizer.pad_token_id, ends[0] if len(ends) == 1 else ends
    if not config.do_sample:
        for name in _SAMPLING:
            if hasattr(config, name):
                setattr(config, name, None)
    return config
