"""Models and tokenizers from folders and from the hub: explicit dtype, safetensors only, no remote code; LoRA adapters."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from core.errors import ModelError


def is_local(path: str) -> bool:
    """A folder that exists is local, and the hub is never asked about it."""
    return os.path.isdir(os.path.expanduser(path))


def load_causal_lm(path: str, *, dtype: str = "float32", revision: str | None = None) -> Any:
    """A causal LM from a folder or the hub, in an explicit dtype, safetensors only, no remote code.

    A folder with a LoRA adapter gives its base model with the adapter merged in.
    """
    from transformers import AutoModelForCausalLM

    if is_local(path) and (Path(path).expanduser() / "adapter_config.json").is_file():
        return _load_merged(os.path.expanduser(path), dtype)
    return from_pretrained(AutoModelForCausalLM, path, revision=revision, dtype=getattr(torch, dtype), use_safetensors=True)


def load_tokenizer(path: str, revision: str | None = None) -> Any:
    """A tokenizer with a pad token; where the model has none, the unknown or end token stands in (masks carry lengths)."""
    from transformers import AutoTokenizer

    tokenizer = from_pretrained(AutoTokenizer, path, revision=revision)
    if tokenizer.eos_token_id is None:
        raise ModelError(f"{path}: the tokenizer has no end-of-text token, so no answer could end.", "Set one and save it.")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
    return tokenizer


def from_pretrained(factory: Any, path: str, **options: Any) -> Any:
    """`factory.from_pretrained`, where a folder is never looked for on the hub, and errors say what to do."""
    local = is_local(path)
    if not local and (path.startswith((".", "/", "~")) or path.count("/") > 1 or _among_runs(Path(path))):
        raise ModelError(f"{path}: no such folder.", "Give a folder that exists, or a hub id such as org/name.")
    path = os.path.expanduser(path)
    _refuse_run_folder(Path(path))
    _no_bars()
    try:
        return factory.from_pretrained(path, local_files_only=local, trust_remote_code=False, **options)
    except (OSError, ValueError) as error:
        where = "folder" if local else "hub id"
        hint = (
            "Check what is in it." if local else "If a folder is meant, there is none; else check id, revision and network."
        )
        raise ModelError(f"{path}: this {where} cannot be loaded: {error}", hint) from error


def _among_runs(path: Path) -> bool:
    """`runs/dppo` where `runs` holds runs: a slip, and no owner on the hub, which would be asked for most of a minute."""
    return path.parent != Path() and any(path.parent.glob("*/run.json"))


def _refuse_run_folder(folder: Path) -> None:
    """The most frequent slip: a run, where the model that it made is meant."""
    if not (folder / "run.json").is_file() or (folder / "config.json").is_file():
        return
    made = [str(folder / role) for role in ("policy", "reward", "value") if (folder / role).is_dir()]
    hint = f"Give the model in it: {' or '.join(made)}." if made else "It has made no model; resume it, or take another run."
    raise ModelError(f"{folder} is a run folder and not a model.", hint)


def _no_bars() -> None:
    """The console has its own progress; transformers' bars for loading and writing would tear it."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()


def _load_merged(path: str, dtype: str) -> Any:
    peft = require_peft(f"{path} is a LoRA adapter, which")
    settings = peft.PeftConfig.from_pretrained(path)
    base = load_causal_lm(settings.base_model_name_or_path, dtype=dtype, revision=settings.revision)
    return named_after(path, peft.PeftModel.from_pretrained(base, path).merge_and_unload())


def named_after(path: str, merged: Any) -> Any:
    """A merged model under the name of its adapter's folder: an adapter that is trained on it stands on both."""
    merged.name_or_path = merged.config._name_or_path = path
    return merged


def require_peft(who: str) -> Any:
    """The package peft; a ModelError that begins with `who` where it is not installed."""
    try:
        import peft
    except ImportError as error:
        raise ModelError(f"{who} needs the package peft.", "pip install 'accordant[lora]'") from error
    return peft


def apply_lora(model: Any, lora: Mapping[str, Any]) -> Any:
    """A LoRA model around `model`; `lora` are the keyword arguments of peft.LoraConfig. A scorer's head is trained whole."""
    peft = require_peft("model.lora")
    kind = "SEQ_CLS" if hasattr(model, "score") else "CAUSAL_LM"
    try:
        return peft.get_peft_model(model, peft.LoraConfig(**{"task_type": kind, **lora}))
    except (TypeError, ValueError) as error:
        raise ModelError(
            f"model.lora={dict(lora)} does not fit {type(model).__name__}: {error}", "Its keys are those of peft.LoraConfig."
        ) from error


def base_model(model: nn.Module) -> Any:
    """The model itself, also where peft wraps it."""
    return model.get_base_model() if is_peft(model) else model  # type: ignore[operator]


def is_peft(model: nn.Module) -> bool:
    return hasattr(model, "peft_config") and hasattr(model, "get_base_model")
