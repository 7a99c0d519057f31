"""Sampling: stop rules, log-probs of the distribution that was sampled, and one random stream per sample.

A sample depends on the seed, its row's id and its index alone, not on its neighbours in the batch: its random numbers
are drawn beforehand from a generator of its own, and tokens come by inverting the cumulative distribution.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from core.data.templates import end_ids
from core.loading import base_model
from core.settings import Generation


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


def sample_seed(seed: int, row_id: str, index: int, epoch: int = 0) -> int:
    """A 63-bit seed from (seed, epoch, row, index), the same on every machine."""
    digest = hashlib.blake2b(f"{seed}/{epoch}/{index}/{row_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


@torch.no_grad()
def sample(
    model: Any,
    tokenizer: Any,
    jobs: Sequence[Job],
    settings: Generation,
    progress: Callable[[int, int], None] | None = None,
) -> list[Sampled]:
    """Sample one response for each job, in the jobs' order.

    Jobs with one prompt should be neighbours: the prompt is computed once for them. Rows are decoded in order of
    prompt length, so little is padded. `progress(done, all)` is called between chunks and may raise to stop.
    """
    order = sorted(range(len(jobs)), key=lambda i: (len(jobs[i].prompt), tuple(jobs[i].prompt)))
    done: dict[int, Sampled] = {}
    was_training = model.training
    model.eval()
    try:
        for start in range(0, len(order), settings.batch_rows):
            part = order[start : start + settings.batch_rows]
            decoder = _Decoder(model, tokenizer, [jobs[i] for i in part], settings)
            done.update(zip(part, decoder.run(), strict=True))
            if progress is not None:
                progress(len(done), len(jobs))
    finally:
        model.train(was_training)
    return [done[i] for i in range(len(jobs))]


class _Decoder:
    """One chunk of jobs: prefill distinct prompts once, then decode, dropping rows that have ended."""

    def __init__(self, model: Any, tokenizer: Any, jobs: Sequence[Job], settings: Generation) -> None:
        self.model, self.tokenizer, self.settings = model, tokenizer, settings
        self.device = next(model.parameters()).device
        self.ends = torch.tensor(end_ids(tokenizer), device=self.device)
        self.prompts: list[tuple[int, ...]] = []
        copies = []
        for job in jobs:
            prompt = tuple(job.prompt)
            if not self.prompts or self.prompts[-1] != prompt:
                self.prompts.append(prompt)
            copies.append(len(self.prompts) - 1)
        self.copies = torch.tensor(copies, device=self.device)
        self.uniforms = _uniforms(jobs, settings.max_new_tokens).to(self.device)
        self.tokens: list[list[int]] = [[] for _ in jobs]
        self.logps: list[list[float]] = [[] for _ in jobs]
        self.finished = [False] * len(jobs)

    def run(self) -> list[Sampled]:
        logits, cache, mask = self._prefill()
        live = torch.arange(len(self.tokens), device=self.device)
        positions = mask.sum(dim=1)
        for step in range(self.settings.max_new_tokens):
            forbidden = self.ends if step + 1 < self.settings.min_new_tokens else None
            tokens, logps = pick(logits, self.uniforms[live, step], self.settings, forbidden)
            ended = self._record(live.tolist(), tokens, logps)
            keep = (~ended).nonzero()[:, 0]
            if len(keep) == 0 or step + 1 == self.settings.max_new_tokens:
                break
            if len(keep) < len(live):
                cache.batch_select_indices(keep)
                live, mask, positions, tokens = live[keep], mask[keep], positions[keep], tokens[keep]
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
            logits = self._forward(tokens[:, None], mask, positions[:, None], cache)
            positions = positions + 1
        return [Sampled(t, p, f) for t, p, f in zip(self.tokens, self.logps, self.finished, strict=True)]

    def _prefill(self) -> tuple[Tensor, Any, Tensor]:
        """Logits of the first token (N, V), the cache and the mask (N, P) of left-padded prompts."""
        from transformers import DynamicCache

        width = max(map(len, self.prompts))
        ids = torch.zeros(len(self.prompts), width, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for i, prompt in enumerate(self.prompts):
            ids[i, width - len(prompt) :] = torch.tensor(prompt)
            mask[i, width - len(prompt) :] = 1
        ids, mask = ids.to(self.device), mask.to(self.device)
        cache = DynamicCache(config=base_model(self.model).config)
        logits = self._forward(ids, mask, (mask.cumsum(dim=1) - 1).clamp(min=0), cache)
        cache.batch_select_indices(self.copies)
        return logits[self.copies], cache, mask[self.copies]

    def _forward(self, ids: Tensor, mask: Tensor, positions: Tensor, cache: Any) -> Tensor:
        options: dict[str, Any] = {"position_ids": positions} if _takes_positions(base_model(self.model)) else {}
        out = self.model(
            input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True, logits_to_keep=1, **options
        )
        logits: Tensor = out.logits[:, -1].float()
        return logits

    def _record(self, live: list[int], tokens: Tensor, logps: Tensor) -> Tensor:
        """Append the new tokens; (n,) True where a row has ended."""
        ended = torch.isin(tokens, self.ends).tolist()
        for k, (i, token, logp) in enumerate(zip(live, tokens.tolist(), logps.tolist(), strict=True)):
            self.tokens[i].append(token)
            self.logps[i].append(logp)
            ended[k] = ended[k] or self._stopped(i)
            self.finished[i] = ended[k]
        return torch.tensor(ended, device=self.device)

    def _stopped(self, i: int) -> bool:
        if not self.settings.stop or len(self.tokens[i]) < self.settings.min_new_tokens:
            return False
        text = self.tokenizer.decode(self.tokens[i], skip_special_tokens=True)
        return any(stop in text for stop in self.settings.stop)


def pick(logits: Tensor, uniforms: Tensor, settings: Generation, forbidden: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Tokens (n,) and their log-probs (n,) from logits (n, V) and uniform numbers (n,) in [0, 1).

    The token is where the cumulative distribution first exceeds the uniform number, so it is a sample of exactly
    softmax(logits / temperature), restricted to top-k and top-p where set. `forbidden`: ids (f,) that cannot come
    (the end tokens before min_new_tokens). The log-probs are those before any restriction, as a scorer computes them.
    """
    if settings.temperature == 0:
        log_probs = torch.log_softmax(logits, dim=-1)
        allowed = logits if forbidden is None else logits.index_fill(1, forbidden, float("-inf"))
        tokens = allowed.argmax(dim=-1)
        return tokens, log_probs.gather(1, tokens[:, None])[:, 0]
    log_probs = torch.log_softmax(logits / settings.temperature, dim=-1)
    probs = log_probs.exp() if forbidden is None else log_probs.exp().index_fill(1, forbidden, 0.0)
    probs = _restrict(probs, settings).double()
    cumulative = probs.cumsum(dim=-1)
    # Scaled to the total: rounding, or a restriction, leaves it a little off one.
    at = uniforms.double()[:, None] * cumulative[:, -1:]
    tokens = torch.searchsorted(cumulative, at, right=True)[:, 0].clamp(max=logits.shape[1] - 1)
    return tokens, log_probs.gather(1, tokens[:, None])[:, 0]


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


def _uniforms(jobs: Sequence[Job], length: int) -> Tensor:
    """(N, length) numbers in [0, 1), each row from a generator of its own."""
    out = torch.empty(len(jobs), length)
    for i, job in enumerate(jobs):
        out[i] = torch.rand(length, generator=torch.Generator().manual_seed(job.seed))
    return out


def _takes_positions(model: Any) -> bool:
    return "position_ids" in inspect.signature(model.forward).parameters
