"""What is to be sampled and what came of it: jobs, prompts with their jobs, results, and each job's random numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_ROOM = 1 << 16
"""Tokens of prompts whose keys and values may have room at once before a batch is cut by length."""

_POLL = 8
"""Forward calls of the model between two calls of `progress`."""


@dataclass(frozen=True)
class Job:
    """One response to sample: its prompt's tokens and the seed of its own random stream."""

    prompt: Sequence[int]
    seed: int


@dataclass(frozen=True)
class Sampled:
    """One sampled response.

    Attributes:
        tokens: (T,) the end token included where it came.
        logps: (T,) log-probs under softmax(logits / temperature), before top-k, top-p and min_new_tokens.
        finished: ended by an end token or a stop text, not by the limit.
    """

    tokens: list[int]
    logps: list[float]
    finished: bool


@dataclass(frozen=True)
class Prompt:
    """A prompt and the jobs that sample from it, by their places in the caller's list."""

    tokens: tuple[int, ...]
    jobs: tuple[int, ...]


def prompts_of(jobs: Sequence[Job], most: int) -> list[Prompt]:
    """Distinct prompts, longest first, so that what a batch needs is known at its start; at most `most` jobs each."""
    members: dict[tuple[int, ...], list[int]] = {}
    for i, job in enumerate(jobs):
        members.setdefault(tuple(job.prompt), []).append(i)
    longest_first = sorted(members, key=lambda tokens: (-len(tokens), tokens))
    return [
        Prompt(tokens, tuple(members[tokens][start : start + most]))
        for tokens in longest_first
        for start in range(0, len(members[tokens]), most)
    ]


def by_length(prompts: Sequence[Prompt], at_once: int) -> list[list[Prompt]]:
    """Prompts (longest first) in parts of similar length, to be sampled one after the other.

    The keys and values of `at_once` prompts have room for the longest of their part. Where that is much, a few long
    prompts should not make it so for all others: a part ends at a prompt of less than a quarter of its first one's length.
    """
    parts: list[list[Prompt]] = [[]]
    for prompt in prompts:
        longest = len(parts[-1][0].tokens) if parts[-1] else 0
        if longest * at_once > _ROOM and 4 * len(prompt.tokens) < longest:
            parts.append([])
        parts[-1].append(prompt)
    return parts


def uniforms_of(jobs: Sequence[Job], length: int) -> Tensor:
    """(N, length) numbers in [0, 1), each row from a generator of its own."""
    out = torch.empty(len(jobs), length)
    for i, job in enumerate(jobs):
        out[i] = torch.rand(length, generator=torch.Generator().manual_seed(job.seed))
    return out


class Results:
    """What is done so far, and who is told."""

    def __init__(self, total: int, progress: Callable[[int, int], None] | None) -> None:
        self.done: dict[int, Sampled] = {}
        self._total, self._progress, self._calls, self._told = total, progress, 0, -1

    def tick(self) -> None:
        """After each forward call of the model."""
        self._calls += 1
        if self._calls % _POLL == 0:
            self.tell()

    def tell(self) -> None:
        if self._progress is not None:
            self._told = len(self.done)
            self._progress(self._told, self._total)

    def in_order(self) -> list[Sampled]:
        """All results in the order of the jobs; the end is told where it was not yet."""
        if 0 < self._total != self._told:
            self.tell()
        return [self.done[i] for i in range(self._total)]
