"""Padding-free attention: an attention function for transformers' models that follows a plan of segments.

Registered under a name of its own through transformers' AttentionInterface, so no model is rewritten. It receives the
segments of the batch as an extra keyword argument of the forward call. With K = 1 a stretch is plain causal attention;
with K > 1 the prompt is computed once, and each response sees the prompt and itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from core.batch import Plan, Segments

NAME = "accordant_segments"


_SHORT = 256
"""Stretches up to this many tokens are padded together for attention alone; longer ones keep a processor busy alone."""

_SLACK = 1.3
"""How much longer than its shortest stretch the longest one of a group may be (tiny ones aside)."""


class Group:
    """Neighbouring stretches whose attention is computed in one call.

    Attributes:
        segments: the stretches; one, or several short ones of similar length.
        tokens: how many positions of the model row they take.
        pad, unpad: (B * l,) and (tokens,) indices between the packed positions and B stretches padded to length l.
    """

    def __init__(self, segments: Sequence[Segments], device: torch.device) -> None:
        self.segments = tuple(segments)
        self.lengths = torch.tensor([s.length for s in segments])
        self.tokens, self.width = int(self.lengths.sum()), int(self.lengths.max())
        self.causal = all(len(s.responses) <= 1 for s in segments)
        starts = self.lengths.cumsum(0) - self.lengths
        steps = torch.arange(self.width)
        valid = steps[None, :] < self.lengths[:, None]
        # Padding repeats a stretch's last position: it stays within the stretch, and nobody reads its result.
        inside = torch.minimum(steps[None, :], self.lengths[:, None] - 1)
        self.pad = (starts[:, None] + inside).view(-1).to(device)
        self.unpad = valid.view(-1).nonzero()[:, 0].to(device)
        self._device = device
        self._masks: dict[int, Tensor] = {}

    def mask(self, window: int | None) -> Tensor | None:
        """(B, 1, l, l) True where a position may look; None where plain causal attention does.

        Padding comes last, so a causal mask hides it from everyone before.
        """
        if self.causal and (window is None or self.width <= window):
            return None
        key = window or 0
        if key not in self._masks:
            mask = torch.zeros(len(self.segments), 1, self.width, self.width, dtype=torch.bool)
            for i, segment in enumerate(self.segments):
                mask[i, 0, : segment.length, : segment.length] = segment_mask(segment, window)
                mask[i, 0, segment.length :, 0] = True  # a row of a softmax must see something
            self._masks[key] = mask.to(self._device)
        return self._masks[key]


class AttentionPlan:
    """The stretches of one batch in groups, with the few masks they need, used by every layer of both passes."""

    def __init__(self, segments: Sequence[Segments], device: torch.device) -> None:
        self.groups = [Group(part, device) for part in _groups(segments)]
        self.sizes = [g.tokens for g in self.groups]
        self._device = device
        self._masks: dict[tuple[int, ...], Tensor] = {}
        self.windows: set[int | None] = set()

    def mask(self, queries: int, keys: int, window: int | None) -> Tensor:
        """(queries, keys) True where a query may look: the queries are the last ones of a causal sequence of `keys`."""
        key = (queries, keys, window or 0)
        if key not in self._masks:
            behind = torch.arange(keys - queries, keys)[:, None] - torch.arange(keys)[None, :]
            allowed = behind >= 0 if window is None else (behind >= 0) & (behind < window)
            self._masks[key] = allowed.to(self._device)
        return self._masks[key]


def _groups(segments: Sequence[Segments]) -> list[list[Segments]]:
    """Neighbours of similar, short length together. Batches come in length order, so few groups pad little."""
    groups: list[list[Segments]] = []
    for segment in segments:
        if groups and segment.length <= _SHORT:
            lengths = [s.length for s in groups[-1]] + [segment.length]
            if max(lengths) <= max(16, _SLACK * min(lengths)):
                groups[-1].append(segment)
                continue
        groups.append([segment])
    return groups


def segment_mask(segment: Segments, window: int | None = None) -> Tensor:
    """(l, l) True where a token of a stretch may look: causal, and a response sees the prompt and itself only.

    With a sliding `window`, only at the last `window` positions, counted in positions of its own sequence.
    """
    total = segment.length
    owner = torch.zeros(total, dtype=torch.long)
    position = torch.arange(total)
    at = segment.prompt
    for k, length in enumerate(segment.responses, start=1):
        owner[at : at + length] = k
        position[at : at + length] = torch.arange(segment.prompt, segment.prompt + length)
        at += length
    index = torch.arange(total)
    allowed = (index[:, None] >= index[None, :]) & ((owner[None, :] == 0) | (owner[:, None] == owner[None, :]))
    if window is not None:
        allowed &= position[:, None] - position[None, :] < window
    return allowed


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
    plan.windows.add(kwargs.get("sliding_window"))
    if query.shape[1] != key.shape[1]:
        groups = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    window = kwargs.get("sliding_window")
    # split, not slices: the backward of one split is one concatenation, that of n slices is n additions to zeros.
    parts = zip(plan.groups, *(torch.split(t, plan.sizes, dim=2) for t in (query, key, value)), strict=True)
    out: list[Tensor] = []
    for group, q, k, v in parts:
        if len(group.segments) > 1:
            out.append(_padded_group(group, (q, k, v), window, scaling))
        else:
            out += _stretch(plan, group.segments[0], (q, k, v), window, scaling)
    return (out[0] if len(out) == 1 else torch.cat(out, dim=2)).transpose(1, 2), None


def _padded_group(group: Group, qkv: tuple[Tensor, Tensor, Tensor], window: int | None, scale: float | None) -> Tensor:
    """(1, heads, tokens, D) attention of several short stretches at once, padded for this one operation."""
    heads, dim = qkv[0].shape[1], qkv[0].shape[3]
    size = (len(group.segments), group.width, heads, dim)
    q, k, v = (t[0].transpose(0, 1).index_select(0, group.pad).view(size).transpose(1, 2) for t in qkv)
    mask = group.mask(window)
    out = nnf.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None, scale=scale)
    flat = out.transpose(1, 2).reshape(-1, heads, dim).index_select(0, group.unpad)
    return flat.transpose(0, 1)[None]


def _stretch(
    plan: AttentionPlan, segment: Segments, qkv: tuple[Tensor, Tensor, Tensor], window: int | None, scale: float | None
) -> list[Tensor]:
    """Attention of one stretch: its prompt by itself, then each response to the prompt and itself."""
    if len(segment.responses) <= 1:
        return [_causal(plan, *qkv, window, scale)]
    sizes = [segment.prompt, *segment.responses]
    (q, *queries), (k, *keys), (v, *values) = (torch.split(t, sizes, dim=2) for t in qkv)
    out = [_causal(plan, q, k, v, window, scale)]
    for q_r, k_r, v_r in zip(queries, keys, values, strict=True):
        out.append(_causal(plan, q_r, torch.cat([k, k_r], dim=2), torch.cat([v, v_r], dim=2), window, scale))
    return out


def _causal(plan: AttentionPlan, q: Tensor, k: Tensor, v: Tensor, window: int | None, scale: float | None) -> Tensor:
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
def segments_active(model: nn.Module, name: str = NAME) -> Iterator[None]:
    """Within, the model's attention is the registered one of that name; afterwards it is what it was."""
    configs: dict[int, Any] = {
        id(m.config): m.config for m in model.modules() if hasattr(getattr(m, "config", None), "_attn_implementation")
    }
    before = {k: c._attn_implementation for k, c in configs.items()}
    for config in configs.values():
        config._attn_implementation_internal = name
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
    hidden = _forward_segments(decoder, plan, AttentionPlan(plan.segments, plan.input_ids.device))
    return hidden[0]


def _forward_segments(decoder: nn.Module, plan: Plan, attention: AttentionPlan) -> Tensor:
    """(1, L, H) hidden states of a packed row."""
    with segments_active(decoder):
        out = decoder(
            input_ids=plan.input_ids,
            position_ids=plan.position_ids,
            use_cache=False,
            accordant_plan=attention,
        )
    hidden: Tensor = out.last_hidden_state
    return hidden


def windows_told(decoder: nn.Module, plan: Plan) -> set[int | None]:
    """The sliding windows that the layers tell their attention function; None where a layer has none.

    Some models know their window only when they build a mask, and the mask here is the plan's.
    """
    attention = AttentionPlan(plan.segments, plan.input_ids.device)
    _forward_segments(decoder, plan, attention)
    return attention.windows


def checkpoint_layers(model: Any) -> None:
    """Recompute activations in the backward pass, with the attention that the forward pass had.

    Without the context, the recomputation would run with the model's own attention over the whole packed row.
    """

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        packed = model.base_model.config._attn_implementation == NAME
        return nullcontext(), segments_active(model) if packed else nullcontext()

    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False, "context_fn": contexts})
