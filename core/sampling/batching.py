"""Continuous batching: a row leaves the batch when it ends, and the next prompt comes in when its rows find room."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from core.loading import base_model
from core.sampling.decode import KeyValues, Prefill, Step, decoding, logits_of
from core.sampling.jobs import Job, Prompt, Results, Sampled, uniforms_of
from core.sampling.linears import direct_linears
from core.sampling.pick import pick
from core.sampling.stops import Stops
from core.settings import Generation

PREFILL_TOKENS = 4096
"""Prompt tokens computed at once; a longer prompt goes alone."""

_FIRST_ROOM = 64
"""Tokens of a response that there is room for at the start; doubled when one gets longer."""

_SPARE = 2
"""Places for prompts, as a multiple of what full batches need: a prompt keeps its place until its last row has ended."""

_REFILL = 8
"""New prompts wait until an eighth of the rows is free: few of them at a time would be computed at a poor rate."""


@dataclass
class _LivePrompt:
    """A prompt in the batch: its place in the store, and how many of its rows are alive."""

    prompt: Prompt
    place: int
    alive: int


@dataclass
class _Row:
    """A response in the making."""

    job: int
    owner: _LivePrompt
    tokens: list[int] = field(default_factory=list)
    logps: list[float] = field(default_factory=list)


class ContinuousBatch:
    """The rows being decoded. Row i lives in place i of the store, and so does each prompt; there are no holes.

    Memory: keys and values of one layer are heads x head size x 2 numbers for each token, of places for prompts (up to
    twice as many as fill the batch, `batch_rows` at most), each as long as the longest prompt of all jobs, and of
    `batch_rows` responses as long as the longest one so far.
    """

    def __init__(
        self,
        model: Any,
        jobs: Sequence[Job],
        prompts: Sequence[Prompt],
        settings: Generation,
        stops: Stops,
        results: Results,
    ) -> None:
        self._causal, self._jobs, self._settings = base_model(model), jobs, settings
        self._stops, self._results = stops, results
        self._device = next(model.parameters()).device
        self._slots = min(settings.batch_rows, sum(len(p.jobs) for p in prompts))
        self._pending = deque(prompts)
        usual = Counter(len(p.jobs) for p in prompts).most_common(1)[0][0]
        self._places = min(len(prompts), self._slots, _SPARE * math.ceil(self._slots / usual))
        room = min(_FIRST_ROOM, settings.max_new_tokens)
        self._stored = KeyValues(self._places, len(prompts[0].tokens), self._slots, room)
        self._ends = torch.tensor(stops.ends, device=self._device)
        self._uniforms = torch.zeros(self._slots, settings.max_new_tokens, device=self._device)
        self._rows: list[_Row] = []
        self._prompts: list[_LivePrompt] = []
        self._step: Step | None = None  # None: somebody came or left, and the step is laid out anew
        self._newest = torch.empty(0)

    def run(self) -> None:
        """Sample everything that is pending."""
        with decoding(self._causal), direct_linears(self._causal):
            while self._pending or self._rows:
                if self._pending and self._ready():
                    self._take_in()
                else:
                    self._decode()
                self._results.tick()

    def _fits(self, prompt: Prompt, rows: int, prompts: int) -> bool:
        return rows + len(prompt.jobs) <= self._slots and prompts < self._places

    def _ready(self) -> bool:
        """Is there room for the next prompt, and for enough others?"""
        free = self._slots - len(self._rows)
        return free * _REFILL >= self._slots and self._fits(self._pending[0], len(self._rows), len(self._prompts))

    def _take_in(self) -> None:
        """Compute the next prompts, and pick the first token of each of their rows."""
        first, tokens = len(self._rows), 0
        new: list[_LivePrompt] = []
        while self._pending and self._fits(self._pending[0], len(self._rows), len(self._prompts)):
            tokens += len(self._pending[0].tokens)
            if new and tokens > PREFILL_TOKENS:
                break
            prompt = self._pending.popleft()
            new.append(_LivePrompt(prompt, len(self._prompts), len(prompt.jobs)))
            self._prompts.append(new[-1])
            self._rows += [_Row(job, new[-1]) for job in prompt.jobs]
        call = Prefill(self._stored, [len(p.prompt.tokens) for p in new], new[0].place, self._device)
        ids = torch.tensor([[t for p in new for t in p.prompt.tokens]], device=self._device)
        logits = logits_of(self._causal, ids, call.positions, call, call.last)
        rows = self._rows[first:]
        drawn = uniforms_of([self._jobs[row.job] for row in rows], self._settings.max_new_tokens)
        self._uniforms[first : len(self._rows)] = drawn.to(self._device)
        owners = torch.tensor([row.owner.place - new[0].place for row in rows], device=self._device)
        self._step = None
        self._pick(logits[owners], torch.zeros(len(rows), dtype=torch.long, device=self._device), first)

    def _decode(self) -> None:
        """One forward call for the newest token of each row, and one new token."""
        if self._step is None:
            lengths = [len(p.prompt.tokens) for p in self._prompts]
            owners = [row.owner.place for row in self._rows]
            columns = [len(row.tokens) - 1 for row in self._rows]
            self._step = Step(self._stored, lengths, owners, columns, self._device)
            self._newest = torch.tensor([row.tokens[-1] for row in self._rows], device=self._device)
        else:
            self._step.advance()
        step = self._step
        if step.longest > self._stored.length:
            self._stored.reserve(min(2 * self._stored.length, self._settings.max_new_tokens))
        logits = logits_of(self._causal, self._newest[None], step.positions, step)
        self._pick(logits, step.columns + 1, 0)

    def _pick(self, logits: Tensor, counts: Tensor, first: int) -> None:
        """One token for each row from `first` on, of which `counts` (n,) there are already."""
        uniforms = self._uniforms[first : len(self._rows)].gather(1, counts[:, None])[:, 0]
        least = self._settings.min_new_tokens
        early = any(len(row.tokens) + 1 < least for row in self._rows[first:])
        held = counts + 1 < least if early else None
        self._newest, logps = pick(logits, uniforms, self._settings, None if held is None else self._ends, held)
        # The one place where the device is waited for: token ids below 2**24 are exact in single precision.
        tokens_and_logps = torch.stack([self._newest.float(), logps.float()], dim=1).tolist()
        ended = {}
        for place, (row, (token, logp)) in enumerate(zip(self._rows[first:], tokens_and_logps, strict=True), start=first):
            row.tokens.append(int(token))
            row.logps.append(logp)
            finished = self._stops.finished(row.tokens)
            if finished or len(row.tokens) == self._settings.max_new_tokens:
                ended[place] = Sampled(row.tokens, row.logps, finished)
        if ended:
            self._drop(ended)

    def _drop(self, ended: dict[int, Sampled]) -> None:
        """Take rows out, and the prompts that have none left; the last ones move into their places."""
        self._step = None
        for place, sampled in ended.items():
            row = self._rows[place]
            row.owner.alive -= 1
            self._results.done[row.job] = sampled
        sources, targets = _moves(len(self._rows), ended)
        if sources:
            self._stored.move_rows(sources, targets, max(len(self._rows[i].tokens) for i in sources))
            self._uniforms[targets] = self._uniforms[sources]
        _close(self._rows, sources, targets, len(ended))

        gone = [p.place for p in self._prompts if p.alive == 0]
        sources, targets = _moves(len(self._prompts), gone)
        if sources:
            self._stored.move_prompts(sources, targets, max(len(self._prompts[i].prompt.tokens) for i in sources))
        _close(self._prompts, sources, targets, len(gone))
        for place, prompt in enumerate(self._prompts):
            prompt.place = place


def _moves(count: int, gone: Collection[int]) -> tuple[list[int], list[int]]:
    """Which of `count` places move where, so that those that stay are the first ones."""
    left = count - len(gone)
    return [i for i in range(left, count) if i not in gone], sorted(i for i in gone if i < left)


def _close(items: list[Any], sources: Sequence[int], targets: Sequence[int], gone: int) -> None:
    for source, target in zip(sources, targets, strict=True):
        items[target] = items[source]
    del items[len(items) - gone :]
