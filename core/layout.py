"""Padding-free attention: an attention function for transformers' models that follows a plan of segments.

Registered under a name of its own through transformers' AttentionInterface, so no model is rewritten. It receives the
segments of the batch as an extra keyword argument of the forward call. With K = 1 a stretch is plain causal attention;
with K > 1 the prompt is computed once, and each response sees the prompt and itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from core.batch import Plan, Segments

NAME = "accordant_segments"


class AttentionPlan:
    """The segments of one batch, with the few masks they need, used by every layer of both passes."""

    def __init__(self, segments: Sequence[Segments], device: torch.device) -> None:
        self.segments = tuple(segments)
        self.sizes = [s.length for s in segments]
        self._device = device
        self._masks: dict[tuple[int, ...], Tensor] = {}

    def mask(self, queries: int, keys: int, window: int | None) -> Tensor:
        """(queries, keys) True where a query may look: the queries are the last ones of a causal sequence of `keys`."""
        key = (queries, keys, window or 0)
        if key not in self._masks:
            behind = torch.arange(keys - queries, keys)[:, None] - torch.arange(keys)[None, :]
            allowed = behind >= 0 if window is None else (behind >= 0) & (behind < window)
            self._masks[key] = allowed.to(self._device)
        return self._masks[key]


def segment_attention(  # noqa: PLR0913 - the signature is transformers'
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """(1, L, heads, D) attention of a packed row, stretch by stretch.

    Args:
        query, key, value: (1, heads, L, D), keys and values possibly with fewer heads (grouped-query attention).
        kwargs: `accordant_plan`, the AttentionPlan; `sliding_window`, where the layer has one.
    """
    plan: AttentionPlan = kwargs["accordant_plan"]
    refused = [k for k in ("softcap", "s_aux") if kwargs.get(k) is not None]
    if refused:
        raise NotImplementedError(f"attention with {refused[0]} has no padding-free form here; use layout=padded")
    if query.shape[1] != key.shape[1]:
        groups = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    # split, not slices: the backward of one split is one concatenation, that of n slices is n additions to zeros.
    parts = zip(plan.segments, *(t.split(plan.sizes, dim=2) for t in (query, key, value)), strict=True)
    out: list[Tensor] = []
    for segment, q, k, v in parts:
        out += _stretch(plan, segment, (q, k, v), kwargs.get("sliding_window"), scaling)
    return torch.cat(out, dim=2).transpose(1, 2), None


def _stretch(
    plan: AttentionPlan, segment: Segments, qkv: tuple[Tensor, Tensor, Tensor], window: int | None, scale: float | None
) -> list[Tensor]:
    """Attention of one stretch: its prompt by itself, then each response to the prompt and itself."""
    if len(segment.responses) <= 1:
        return [_causal(plan, *qkv, window, scale)]
    sizes = [segment.prompt, *segment.responses]
    (q, *queries), (k, *keys), (v, *values) = (t.split(sizes, dim=2) for t in qkv)
    out = [_causal(plan, q, k, v, window, scale)]
    for q_r, k_r, v_r in zip(queries, keys, values, strict=True):
        out.append(_causal(plan, q_r, torch.cat([k, k_r], dim=2), torch.cat([v, v_r], dim=2), window, scale))
    return out


def _causal(  # noqa: PLR0913 - private
    plan: AttentionPlan, q: Tensor, k: Tensor, v: Tensor, window: int | None, scale: float | None
) -> Tensor:
    """Causal attention of queries that are the last ones of the keys' sequence."""
    queries, keys = q.shape[2], k.shape[2]
    plain = queries == keys and (window is None or keys <= window)
    mask = None if plain else plan.mask(queries, keys, window)
    return nnf.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=plain, scale=scale)


def _no_mask(*_: Any, **__: Any) -> None:
    """Transformers builds no mask of its own: the plan has them."""


def register() -> None:
    """Make the attention function known to transformers. Idempotent."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, segment_attention)
    AttentionMaskInterface.register(NAME, _no_mask)


@contextmanager
def segments_active(model: nn.Module) -> Iterator[None]:
    """Within, the model's attention follows the plan; afterwards it is what it was."""
    configs = {
        id(m.config): m.config for m in model.modules() if hasattr(getattr(m, "config", None), "_attn_implementation")
    }
    before = {k: c._attn_implementation for k, c in configs.items()}
    for config in configs.values():
        config._attn_implementation_internal = NAME
    try:
        yield
    finally:
        for k, config in configs.items():
            config._attn_implementation_internal = before[k]


def forward_hidden(decoder: nn.Module, plan: Plan) -> Tensor:
    """(flat positions, H) hidden states of a decoder without its head, under any layout."""
    if plan.layout == "padded":
        out = decoder(
            input_ids=plan.input_ids,
            attention_mask=plan.attention_mask,
            position_ids=plan.position_ids,
            use_cache=False,
        )
        hidden: Tensor = out.last_hidden_state
        return hidden.flatten(0, 1)
    attention = AttentionPlan(plan.segments, plan.input_ids.device)
    with segments_active(decoder):
        out = decoder(
            input_ids=plan.input_ids,
            position_ids=plan.position_ids,
            use_cache=False,
            accordant_plan=attention,
        )
    hidden = out.last_hidden_state
    return hidden[0]
