"""The models of a run, by role: policy, reference, value, reward. Load, freeze, share, fingerprint, export."""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from core.batch import Batch
from core.data.templates import end_tokens
from core.errors import ModelError
from core.functional import TokenScores
from core.objective import Role
from core.scoring import base_model, choose_for_all, config_text, is_peft, score_tokens


class Models(nn.Module):
    """The models that an objective declared, by role. Asking for an undeclared role is an error."""

    def __init__(self, roles: Mapping[Role, nn.Module], *, trains: frozenset[Role], layout: str = "auto") -> None:
        super().__init__()
        self.roles = nn.ModuleDict({str(k): v for k, v in roles.items()})
        self.trains = trains
        self.adapter_reference = "reference" not in roles and is_peft(roles["policy"])
        for role, model in roles.items():
            _disable_dropout(model)
            if role not in trains:
                model.requires_grad_(False)
        self.layout, self.plain_heads = choose_for_all(roles, layout)
        self.autocast_dtype: torch.dtype | None = None

    def of(self, role: Role) -> nn.Module:
        """The module of a role (for a LoRA policy the reference is the same module, adapter off)."""
        if role == "reference" and self.adapter_reference:
            return self.roles["policy"]
        if role not in self.roles:
            have = ", ".join(self.roles)
            raise ModelError(
                f'the objective asks for the role "{role}", but this run has: {have}.', "Declare it in trains or frozen."
            )
        return self.roles[role]

    def has(self, role: Role) -> bool:
        return role in self.roles or (role == "reference" and self.adapter_reference)

    def train_mode(self) -> None:
        """Trained roles in train mode, frozen ones in eval mode."""
        for role, model in self.roles.items():
            model.train(role in self.trains)

    def token_logps(self, role: Role, batch: Batch, *, temperature: float = 1.0) -> Tensor:
        """(N, T) log pi(token | prompt, tokens before) at the tokens whose mask is True; 0 elsewhere."""
        return self.token_scores(role, batch, temperature=temperature, statistics=False).logps

    def token_scores(self, role: Role, batch: Batch, *, temperature: float = 1.0, statistics: bool = True) -> TokenScores:
        """(N, T) log-probs with the head's statistics (entropy, mean log-prob, correct); 0 where the mask is False."""
        model = self.of(role)
        with self._context(role, model):
            scores = score_tokens(model, batch, self.plain_heads[role], temperature=temperature, statistics=statistics)
        return TokenScores(*(_spread(v, batch) for v in (scores.logps, scores.entropy, scores.mean_logps, scores.correct)))

    def _context(self, role: Role, model: nn.Module) -> AbstractContextManager[Any]:
        if role == "reference" and self.adapter_reference:
            return _AdapterOff(model)
        return nullcontext() if role in self.trains else torch.no_grad()

    def trained_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        for role in sorted(self.trains):
            for name, parameter in self.roles[role].named_parameters():
                if parameter.requires_grad:
                    yield f"{role}.{name}", parameter


class _AdapterOff:
    """Adapter off, no gradient: the base model as reference."""

    def __init__(self, model: nn.Module) -> None:
        self._stack = (torch.no_grad(), model.disable_adapter())  # type: ignore[operator]

    def __enter__(self) -> None:
        for context in self._stack:
            context.__enter__()

    def __exit__(self, *error: Any) -> None:
        for context in reversed(self._stack):
            context.__exit__(*error)


def _spread(values: Tensor, batch: Batch) -> Tensor:
    """(M,) values of masked tokens -> (N, T), 0 elsewhere."""
    flat = values.new_zeros(batch.tokens.numel())
    return flat.index_copy(0, batch.plan.scatter, values).view(batch.tokens.shape)


def _disable_dropout(model: nn.Module) -> None:
    """Log-probs must be a function of the weights: PPO's ratio and DPO's reference have no meaning otherwise."""
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
        # Models also keep rates as plain numbers: attention_dropout, hidden_dropout, dropout, layerdrop.
        for name, value in list(vars(module).items()):
            if "drop" in name and isinstance(value, float):
                setattr(module, name, 0.0)


# --- loading, fingerprint, export ---------------------------------------------------------------------------------


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
    return _from_pretrained(AutoModelForCausalLM, path, revision=revision, dtype=getattr(torch, dtype), use_safetensors=True)


def load_tokenizer(path: str, revision: str | None = None) -> Any:
    """A tokenizer with a pad token; where the model has none, the unknown or end token stands in (masks carry lengths)."""
    from transformers import AutoTokenizer

    tokenizer = _from_pretrained(AutoTokenizer, path, revision=revision)
    if tokenizer.eos_token_id is None:
        raise ModelError(f"{path}: the tokenizer has no end-of-text token, so no answer could end.", "Set one and save it.")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
    return tokenizer


def _from_pretrained(factory: Any, path: str, **options: Any) -> Any:
    local = is_local(path)
    if not local and (path.startswith((".", "/", "~")) or path.count("/") > 1):
        raise ModelError(f"{path}: no such folder.", "Give a folder that exists, or a hub id such as org/name.")
    path = os.path.expanduser(path)
    _no_bars()
    try:
        return factory.from_pretrained(path, local_files_only=local, trust_remote_code=False, **options)
    except (OSError, ValueError) as error:
        where = "folder" if local else "hub id"
        raise ModelError(
            f"{path}: this {where} cannot be loaded: {error}", "Check the path, the revision and the network."
        ) from error


def _no_bars() -> None:
    """The console has its own progress; transformers' bars for loading and writing would tear it."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()


def _load_merged(path: str, dtype: str) -> Any:
    peft = _peft(f"{path} is a LoRA adapter, which")
    settings = peft.PeftConfig.from_pretrained(path)
    base = load_causal_lm(settings.base_model_name_or_path, dtype=dtype, revision=settings.revision)
    return peft.PeftModel.from_pretrained(base, path).merge_and_unload()


def _peft(who: str) -> Any:
    try:
        import peft
    except ImportError as error:
        raise ModelError(f"{who} needs the package peft.", "pip install 'accordant[lora]'") from error
    return peft


def apply_lora(model: Any, lora: Mapping[str, Any]) -> Any:
    """A LoRA model around `model`; `lora` are the keyword arguments of peft.LoraConfig."""
    peft = _peft("model.lora")
    try:
        return peft.get_peft_model(model, peft.LoraConfig(**{"task_type": "CAUSAL_LM", **lora}))
    except (TypeError, ValueError) as error:
        raise ModelError(
            f"model.lora={dict(lora)} does not fit {type(model).__name__}: {error}", "Its keys are those of peft.LoraConfig."
        ) from error


def fingerprint(model: nn.Module) -> str:
    """A digest of a model's weights and config: equal for equal log-probs, whatever the path it came from."""
    digest = hashlib.blake2b(config_text(model).encode(), digest_size=16)
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        flat = tensor.detach().contiguous().view(-1).cpu()
        if flat.numel():
            digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def end_ids(tokenizer: Any) -> list[int]:
    """The tokenizer's end token, and those that close a turn: its chat template's, and the common ones it knows; sorted."""
    ends = set(end_tokens(tokenizer)) if tokenizer.chat_template else {tokenizer.eos_token_id}
    for token in ("<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|end|>"):
        i = tokenizer.convert_tokens_to_ids(token) if token in tokenizer.all_special_tokens else None
        if i is not None:
            ends.add(i)
    return sorted(ends)


def export(model: nn.Module, tokenizer: Any, folder: Path, *, merge_lora: bool = False) -> None:
    """Write a folder that `from_pretrained` loads: weights (safetensors), config, generation config, tokenizer."""
    target: Any = model
    if merge_lora and is_peft(model):
        # Merging changes the weights in place, and with them the reference that a LoRA policy carries.
        target = copy.deepcopy(model).merge_and_unload()  # type: ignore[operator]
    causal = base_model(target)
    causal.generation_config = _generation_config(causal, tokenizer)
    target.save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)


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
