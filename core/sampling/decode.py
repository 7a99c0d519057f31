"""Decoding without padding: an attention function for transformers' models that keeps keys and values of its own.

Registered under a name of its own through transformers' AttentionInterface, so no model is rewritten and transformers'
caches are not used. New prompts are packed into one row of the model (`Prefill`); then each forward call has one new
token of every live row, again as one packed row (`Step`).

A prompt's keys and values are stored once for all its responses, and all of them look at it in one matrix product:
shared-prefix attention (Juravsky et al. 2024, Hydragen). On a processor, attention while decoding is the reading of keys and
values, so this is most of its speed; and the memory is that of prompts + responses, not of responses times both.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from core.batch import Segments
from core.layout import AttentionPlan, segment_attention, segments_active

NAME = "accordant_decode"

_CALL = 96
"""What one more matrix product costs, as so many prompt tokens read: fewer are rather padded."""


@dataclass(frozen=True)
class How:
    """What a layer tells its attention: the factor of the scores, its sliding window, and its soft cap (Gemma 2)."""

    scale: float
    window: int | None
    softcap: float | None


class Attends(Protocol):
    """One forward call, as the attention of each layer needs it."""

    def attend(self, module: nn.Module, qkv: tuple[Tensor, Tensor, Tensor], how: How) -> Tensor: ...


@dataclass
class _Store:
    """Keys and values of one layer: of prompts (S, heads, P, D) and of responses (R, heads, T, D)."""

    prompt_keys: Tensor
    prompt_values: Tensor
    keys: Tensor
    values: Tensor


class KeyValues:
    """Preallocated keys and values of all layers, of prompts and of responses apart.

    Args:
        prompts, width: how many prompts at once, and the tokens of the longest one.
        rows, length: how many responses at once, and their tokens; `reserve` makes room for more.
    """

    def __init__(self, prompts: int, width: int, rows: int, length: int) -> None:
        self._prompts, self._width, self._rows, self.length = prompts, width, rows, length
        self._stores: dict[nn.Module, _Store] = {}

    def of(self, module: nn.Module, key: Tensor, value: Tensor) -> _Store:
        """The store of a layer, made at its first call for what the layer hands over: (1, heads, L, D)."""
        if module not in self._stores:
            self._stores[module] = _Store(
                self._empty(key, self._prompts, self._width),
                self._empty(value, self._prompts, self._width),
                self._empty(key, self._rows, self.length),
                self._empty(value, self._rows, self.length),
            )
        return self._stores[module]

    @staticmethod
    def _empty(like: Tensor, places: int, tokens: int) -> Tensor:
        # Zeros, since a masked column still takes part in a product: 0 x NaN would be NaN.
        shape = (places, like.shape[1], tokens, like.shape[3])
        return torch.zeros(shape, dtype=working_dtype(like), device=like.device)

    def reserve(self, length: int) -> None:
        """Make room for responses of `length` tokens."""
        if length <= self.length:
            return
        for store in self._stores.values():
            for name in ("keys", "values"):
                old: Tensor = getattr(store, name)
                new = self._empty(old, self._rows, length)
                new[:, :, : self.length] = old
                setattr(store, name, new)
        self.length = length

    def move_rows(self, source: Sequence[int], target: Sequence[int], length: int) -> None:
        """Copy the first `length` tokens of responses to other places, where nobody is alive."""
        for store in self._stores.values():
            for held in (store.keys, store.values):
                held[list(target), :, :length] = held[list(source), :, :length]

    def move_prompts(self, source: Sequence[int], target: Sequence[int], width: int) -> None:
        """Copy the first `width` tokens of prompts to other places."""
        for store in self._stores.values():
            for held in (store.prompt_keys, store.prompt_values):
                held[list(target), :, :width] = held[list(source), :, :width]

    @property
    def nbytes(self) -> int:
        return sum(t.nbytes for store in self._stores.values() for t in vars(store).values())


def working_dtype(like: Tensor) -> torch.dtype:
    """That of the matrix products: under autocast keys come in fp32 from the rotation, and would be cast at each step."""
    device = like.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else like.dtype


class Prefill:
    """New prompts in one packed row: each one attends to itself, and is stored in its place.

    Args:
        lengths: tokens of each prompt, in the order of the row.
        first: the place of the first one; the others follow.
    """

    def __init__(self, stored: KeyValues, lengths: Sequence[int], first: int, device: torch.device) -> None:
        self._stored, self._lengths, self._first = stored, list(lengths), first
        starts = [sum(self._lengths[:i]) for i in range(len(self._lengths))]
        self.positions = torch.cat([torch.arange(n) for n in self._lengths])[None].to(device)
        self.last = torch.tensor([s + n - 1 for s, n in zip(starts, self._lengths, strict=True)]).to(device)
        self._plan = AttentionPlan([Segments(s, n, ()) for s, n in zip(starts, self._lengths, strict=True)], device)

    @property
    def windows(self) -> set[int | None]:
        """The sliding windows that the layers told."""
        return self._plan.windows

    def attend(self, module: nn.Module, qkv: tuple[Tensor, Tensor, Tensor], how: How) -> Tensor:
        query, key, value = qkv
        store = self._stored.of(module, key, value)
        for held, new in ((store.prompt_keys, key), (store.prompt_values, value)):
            for place, part in enumerate(torch.split(new[0], self._lengths, dim=1), start=self._first):
                held[place, :, : part.shape[1]] = part
        if how.softcap is None:
            out, _ = segment_attention(
                module, query, key, value, None, scaling=how.scale, sliding_window=how.window, accordant_plan=self._plan
            )
            return out
        return self._capped(query, key, value, how)

    def _capped(self, query: Tensor, key: Tensor, value: Tensor, how: How) -> Tensor:
        """(1, L, heads, D) the same with soft-capped scores, which torch's attention does not know."""
        self._plan.windows.add(how.window)
        out = []
        for q, k, v in zip(*(torch.split(t[0], self._lengths, dim=1) for t in (query, key, value)), strict=True):
            heads, length = k.shape[0], k.shape[1]
            scores = (q * how.scale).reshape(heads, -1, q.shape[2]) @ k.transpose(1, 2)
            hidden = self._plan.mask(length, length, how.window).logical_not()
            probs = _softmax(_cap(scores, how).view(heads, -1, length, length).masked_fill(hidden, float("-inf")))
            out.append((probs.to(v.dtype).view(heads, -1, length) @ v).view(q.shape[0], length, -1))
        return torch.cat(out, dim=1).transpose(0, 1)[None]


class Step:
    """One new token of each live row: it attends to its prompt and to its own tokens up to itself.

    Rows live in the places 0 to n - 1 of the store, prompts in 0 to G - 1. For the product with the prompts, the rows
    are laid out in a grid (G, W) with W the most rows of a prompt; what is missing repeats the prompt's first row.

    Args:
        prompt_lengths: (G,) tokens of each prompt.
        owners: (n,) the place of each row's prompt; each prompt has a row.
        columns: (n,) the place of the new token in its response, from 0.
    """

    def __init__(
        self,
        stored: KeyValues,
        prompt_lengths: Sequence[int],
        owners: Sequence[int],
        columns: Sequence[int],
        device: torch.device,
    ) -> None:
        self._stored = stored
        members: list[list[int]] = [[] for _ in prompt_lengths]
        inverse = []
        for row, owner in enumerate(owners):
            inverse.append((owner, len(members[owner])))
            members[owner].append(row)
        self._wide = max(map(len, members))
        grid = [m[i] if i < len(m) else m[0] for m in members for i in range(self._wide)]
        self._full = grid == list(range(len(owners)))
        self._grid = torch.tensor(grid, device=device)
        self._inverse = torch.tensor([g * self._wide + i for g, i in inverse], device=device)
        self._lengths = torch.tensor(prompt_lengths, device=device)
        self._ranges = similar(prompt_lengths)
        self._width, self.longest = max(prompt_lengths), max(columns) + 1
        self._rows = torch.arange(len(owners), device=device)
        self.columns = torch.tensor(columns, device=device)
        self.positions = (self._lengths[torch.tensor(owners, device=device)] + self.columns)[None]
        self._biases: dict[int | None, Tensor] = {}

    def advance(self) -> None:
        """On to the next token of the same rows."""
        self.columns, self.positions, self.longest = self.columns + 1, self.positions + 1, self.longest + 1
        self._biases.clear()

    def attend(self, module: nn.Module, qkv: tuple[Tensor, Tensor, Tensor], how: How) -> Tensor:
        query, key, value = qkv
        store = self._stored.of(module, key, value)
        dtype, rows, heads = store.keys.dtype, key.shape[2], key.shape[1]
        store.keys[self._rows, :, self.columns] = key[0].transpose(0, 1).to(dtype)
        store.values[self._rows, :, self.columns] = value[0].transpose(0, 1).to(dtype)
        q = (query[0] * how.scale).to(dtype).transpose(0, 1).reshape(rows, heads, -1, query.shape[3])
        if rows == 1 and how.softcap is None:
            return self._alone(q, store, how.window)
        own_keys, own_values = store.keys[:rows, :, : self.longest], store.values[:rows, :, : self.longest]

        past = self._with_keys(self._by_prompt(q).flatten(2, 3), store.prompt_keys)
        own = self._by_prompt(q @ own_keys.transpose(2, 3))
        scores = torch.cat([past.view(*own.shape[:4], -1), own], dim=-1)
        probs = _softmax(_cap(scores, how) + self._bias(how.window)).to(dtype)
        past_part = self._with_values(probs[..., : self._width].flatten(2, 3), store.prompt_values).view(*own.shape[:4], -1)
        own_part = self._by_row(probs[..., self._width :]) @ own_values
        return (self._by_row(past_part) + own_part).reshape(1, rows, query.shape[1], -1)

    def _alone(self, q: Tensor, store: _Store, window: int | None) -> Tensor:
        """(1, 1, heads g, D) of a single row: one copy and one call are quicker than many small products."""
        keys, values = (
            torch.cat([past[:1, :, : self._width], own[:1, :, : self.longest]], dim=2)[:, :, -(window or 0) :]
            for past, own in ((store.prompt_keys, store.keys), (store.prompt_values, store.values))
        )
        return nnf.scaled_dot_product_attention(q, keys, values, scale=1.0).reshape(1, 1, q.shape[1] * q.shape[2], -1)

    def _with_keys(self, grid: Tensor, keys: Tensor) -> Tensor:
        """(G, heads, W g, P) products of queries (G, heads, W g, D) with their prompts' keys; 0 where a prompt has ended."""
        if len(self._ranges) == 1:
            return grid @ keys[: len(grid), :, : self._width].transpose(2, 3)
        out = grid.new_zeros((*grid.shape[:3], self._width))
        for start, stop, width in self._ranges:
            out[start:stop, ..., :width] = grid[start:stop] @ keys[start:stop, :, :width].transpose(2, 3)
        return out

    def _with_values(self, probs: Tensor, values: Tensor) -> Tensor:
        """(G, heads, W g, D) sums of the prompts' values, weighted by probs (G, heads, W g, P)."""
        parts = [probs[a:b, ..., :width] @ values[a:b, :, :width] for a, b, width in self._ranges]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _by_prompt(self, values: Tensor) -> Tensor:
        """(n, heads, g, D) -> (G, heads, W, g, D)."""
        taken = values if self._full else values.index_select(0, self._grid)
        return taken.view(-1, self._wide, *values.shape[1:]).transpose(1, 2)

    def _by_row(self, values: Tensor) -> Tensor:
        """(G, heads, W, g, D) -> (n, heads, g, D)."""
        flat = values.transpose(1, 2).reshape(-1, values.shape[1], *values.shape[3:])
        return flat if self._full else flat.index_select(0, self._inverse)

    def _bias(self, window: int | None) -> Tensor:
        """(G, 1, W, 1, P + T) 0 where a row may look, minus infinity elsewhere."""
        if window not in self._biases:
            at = self.columns[self._grid].view(-1, self._wide, 1)
            lengths = self._lengths[:, None, None]
            past = torch.arange(self._width, device=at.device)
            own = torch.arange(self.longest, device=at.device)
            sees_past, sees_own = (past < lengths).expand(-1, self._wide, -1), own <= at
            if window is not None:
                sees_past = sees_past & (lengths + at - past < window)
                sees_own = sees_own & (at - own < window)
            hidden = torch.cat([sees_past, sees_own], dim=-1).logical_not_()
            bias = torch.zeros(hidden.shape, device=at.device).masked_fill_(hidden, float("-inf"))
            self._biases[window] = bias[:, None, :, None]
        return self._biases[window]


def similar(lengths: Sequence[int], call: int = _CALL) -> list[tuple[int, int, int]]:
    """Neighbours of similar length together: (first, last + 1, longest) of ranges that cover all.

    A range ends where what it would pad costs more than another call.
    """
    ranges: list[tuple[int, int, int]] = []
    first, longest, padded = 0, lengths[0], 0
    for place, length in enumerate(lengths):
        padded += longest - length if length <= longest else (place - first) * (length - longest)
        if padded > call:
            ranges.append((first, place, longest))
            first, longest, padded = place, length, 0
        longest = max(longest, length)
    return [*ranges, (first, len(lengths), longest)]


def _cap(scores: Tensor, how: How) -> Tensor:
    return scores if how.softcap is None else torch.tanh(scores / how.softcap) * how.softcap


def _softmax(scores: Tensor) -> Tensor:
    return torch.softmax(scores, dim=-1, dtype=torch.float32)


def decode_attention(  # noqa: PLR0913 - the signature is transformers'
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """(1, L, heads, D) attention of one call; `accordant_decode` in kwargs is its Prefill or Step."""
    call: Attends = kwargs["accordant_decode"]
    if kwargs.get("s_aux") is not None:
        raise NotImplementedError("attention sinks")
    scale = query.shape[3] ** -0.5 if scaling is None else scaling
    how = How(scale, kwargs.get("sliding_window"), kwargs.get("softcap"))
    return call.attend(module, (query, key, value), how), None


def decoding(model: nn.Module) -> AbstractContextManager[None]:
    """Within, the model's attention is `decode_attention`; afterwards it is what it was.

    No mask function is registered under its name: for such an attention transformers makes no mask.
    """
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, decode_attention)
    return segments_active(model, NAME)


def logits_of(causal: Any, ids: Tensor, positions: Tensor, call: Attends, last: Tensor | None = None) -> Tensor:
    """(n, V) fp32 logits of a packed row (1, L), at the positions `last` (n,) or at all.

    By the model's own forward, so whatever its head does beyond a matrix product is done.
    """
    keep: dict[str, Any] = {} if last is None else {"logits_to_keep": last}
    out = causal(input_ids=ids, position_ids=positions, use_cache=False, accordant_decode=call, **keep)
    logits: Tensor = out.logits[0].float()
    return logits
