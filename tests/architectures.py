"""Tiny random models of many architectures, made locally: what the layouts, the sampler and the export are held against."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

VOCAB = 48

_PLAIN = {"vocab_size": VOCAB, "bos_token_id": None, "eos_token_id": 1, "pad_token_id": 0, "max_position_embeddings": 64}
_WIDE = {**_PLAIN, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4}
_GROUPED = {**_WIDE, "num_key_value_heads": 2}
_GEMMA = {**_GROUPED, "head_dim": 8}
_SLIDING = ["sliding_attention", "full_attention"]

SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", _GROUPED),
    "llama-tied": ("llama", {**_GROUPED, "tie_word_embeddings": True}),
    "qwen2": ("qwen2", _GROUPED),
    "qwen3": ("qwen3", {**_GROUPED, "head_dim": 8}),
    "gpt2": ("gpt2", {**_PLAIN, "n_positions": 64, "n_embd": 16, "n_layer": 2, "n_head": 4}),
    "gemma": ("gemma", _GEMMA),
    "gemma2": ("gemma2", {**_GEMMA, "sliding_window": 4, "query_pre_attn_scalar": 8}),
    "gemma3": ("gemma3_text", {**_GEMMA, "sliding_window": 4, "query_pre_attn_scalar": 8, "layer_types": _SLIDING}),
    "mistral-window": ("mistral", {**_GROUPED, "sliding_window": 4, "head_dim": 4}),
    "phi": ("phi", _WIDE),
    "phi3": ("phi3", _GROUPED),
    "gpt-neox": ("gpt_neox", _WIDE),
    "opt": ("opt", {**_PLAIN, "hidden_size": 16, "ffn_dim": 24, "num_hidden_layers": 2, "num_attention_heads": 4}),
    "cohere": ("cohere", _GROUPED),
    "granite": ("granite", {**_GROUPED, "logits_scaling": 4.0}),
    "bloom": ("bloom", {**_PLAIN, "hidden_size": 16, "n_layer": 2, "n_head": 4}),
    "qwen2-moe-window": (
        "qwen2_moe",
        {
            **_GROUPED,
            "use_sliding_window": True,
            "sliding_window": 12,  # longer than the probe of layout=auto, which cannot see it
            "layer_types": _SLIDING,
            "num_experts": 2,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 8,
            "shared_expert_intermediate_size": 8,
        },
    ),
}

PADDED_ONLY = {
    "gemma2": "soft-capped attention and logits",
    "cohere": "scaled logits",
    "granite": "scaled logits",
    "bloom": "position by attention bias",
    "qwen2-moe-window": "the window is only in its mask",
}
"""Architectures whose computation the packed layouts do not follow, and why."""


def architecture(name: str, seed: int = 0, **changes: Any) -> Any:
    """A model of two layers in eval mode, every parameter away from its initial zero or one."""
    kind, settings = SETTINGS[name]
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**settings, **changes}))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()
