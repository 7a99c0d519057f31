"""From logits to tokens: the inverse of the cumulative distribution, and the log-probs of what was picked."""

from __future__ import annotations

import torch
import torch.nn.functional as nnf
from torch import Tensor

from core.settings import Generation

_BLOCK = 64
"""Tokens whose probabilities are summed first. The running sum then goes over blocks, and inside one block alone."""

_AT_ONCE = 1 << 21
"""Logits looked at in one go: what is made of them stays in a processor's cache, and a large vocabulary needs no more."""


def pick(
    logits: Tensor,
    uniforms: Tensor,
    settings: Generation,
    forbidden: Tensor | None = None,
    held: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Tokens (n,) and their log-probs (n,) from logits (n, V) and uniform numbers (n,) in [0, 1).

    The token is where the cumulative distribution first exceeds the uniform number, so it is a sample of exactly
    softmax(logits / temperature), restricted to top-k and top-p where set. `forbidden`: ids (f,) that cannot come in
    the rows where `held` (n,) is True, or in all rows (the end tokens before min_new_tokens). The log-probs are those
    before any restriction, as a scorer computes them.
    """
    if forbidden is not None and held is None:
        held = torch.ones(len(logits), dtype=torch.bool, device=logits.device)
    rows = max(1, _AT_ONCE // logits.shape[1])
    if len(logits) <= rows:
        return _pick(logits, uniforms, settings, forbidden, held)
    parts = []
    for part in (slice(i, i + rows) for i in range(0, len(logits), rows)):
        parts.append(_pick(logits[part], uniforms[part], settings, forbidden, None if held is None else held[part]))
    tokens, logps = zip(*parts, strict=True)
    return torch.cat(tokens), torch.cat(logps)


def _pick(
    logits: Tensor, uniforms: Tensor, settings: Generation, forbidden: Tensor | None, held: Tensor | None
) -> tuple[Tensor, Tensor]:
    scaled = logits / settings.temperature if settings.temperature not in (0, 1) else logits
    top = scaled.amax(dim=-1, keepdim=True)
    probs = _exp(scaled - top)
    sums = _block_sums(probs)
    if settings.temperature == 0:
        allowed = logits if forbidden is None else _without(logits, forbidden, held, float("-inf"))
        tokens = allowed.argmax(dim=-1)
    else:
        restricted = forbidden is not None or settings.top_k > 0 or settings.top_p < 1.0
        kept = probs
        if restricted:
            kept = probs if forbidden is None else _without(probs, forbidden, held, 0.0)
            kept = _restrict(kept, settings)
        tokens = _invert(kept, _block_sums(kept) if restricted else sums, uniforms)
        tokens = tokens.clamp(max=logits.shape[1] - 1)
    return tokens, scaled.gather(1, tokens[:, None])[:, 0] - top[:, 0] - sums.sum(dim=-1).log().to(top.dtype)


def _exp(shifted: Tensor) -> Tensor:
    """exp in place, with zeros up to a whole number of blocks."""
    width = shifted.shape[1]
    return nnf.pad(shifted.exp_(), (0, -width % _BLOCK)) if width % _BLOCK else shifted.exp_()


def _block_sums(probs: Tensor) -> Tensor:
    """(n, blocks) in `widest` precision, so that the running sum over the blocks of a large vocabulary stays exact."""
    return probs.view(len(probs), -1, _BLOCK).sum(dim=-1).to(widest(probs.device.type))


def widest(device: str) -> torch.dtype:
    """Double precision, which Apple's GPUs do not have."""
    return torch.float32 if device == "mps" else torch.float64


def _invert(probs: Tensor, sums: Tensor, uniforms: Tensor) -> Tensor:
    """(n,) where the running sum of probs (n, V) first exceeds the uniform share of its total."""
    before = sums.cumsum(dim=-1)
    at = uniforms.to(before.dtype)[:, None] * before[:, -1:]
    block = _first_above(before, at)
    left = at - (before.gather(1, block) - sums.gather(1, block))
    inside = probs.view(len(probs), -1, _BLOCK)[torch.arange(len(probs), device=probs.device), block[:, 0]]
    return (block * _BLOCK + _first_above(inside.to(before.dtype).cumsum(dim=-1), left))[:, 0]


def _first_above(running: Tensor, at: Tensor) -> Tensor:
    """(n, 1) the first place whose running sum is above `at`; where rounding left none, the last that adds anything."""
    last = torch.searchsorted(running, running[:, -1:].contiguous())
    first = torch.minimum(torch.searchsorted(running, at, right=True), last)
    return first.clamp(max=running.shape[1] - 1)  # where there is no number at all (NaN), any token: its log-prob is NaN


def _without(values: Tensor, ids: Tensor, held: Tensor | None, nothing: float) -> Tensor:
    """The values with `nothing` at the ids, in the rows that are held."""
    assert held is not None
    return values.index_copy(1, ids, values[:, ids].masked_fill(held[:, None], nothing))


def _restrict(probs: Tensor, settings: Generation) -> Tensor:
    if settings.top_k > 0:
        least = probs.topk(min(settings.top_k, probs.shape[1]), dim=-1).values[:, -1:]
        probs = probs.masked_fill(probs < least, 0.0)
    if settings.top_p < 1.0:
        ordered, index = probs.sort(dim=-1, descending=True)
        # Mass before a token; the token that crosses top_p still belongs to the set.
        before = ordered.cumsum(dim=-1) - ordered
        ordered = ordered.masked_fill(before >= settings.top_p * ordered.sum(dim=-1, keepdim=True), 0.0)
        probs = torch.zeros_like(probs).scatter(1, index, ordered)
    return probs
