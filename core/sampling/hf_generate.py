"""Sampling through transformers' own `generate`, for models that core.sampling.decode cannot follow; the picks are ours."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from core.loading import base_model
from core.sampling.jobs import Job, Results, Sampled, uniforms_of
from core.sampling.pick import pick
from core.sampling.stops import Stops
from core.settings import Generation


def sample_padded(model: Any, jobs: Sequence[Job], settings: Generation, stops: Stops, results: Results) -> None:
    """Sample all jobs, in chunks of similar prompt length: the same tokens as core.sampling.batching from the same seeds."""
    order = sorted(range(len(jobs)), key=lambda i: (-len(jobs[i].prompt), tuple(jobs[i].prompt)))
    with _no_settings_of_its_own(base_model(model)):
        for start in range(0, len(order), settings.batch_rows):
            part = order[start : start + settings.batch_rows]
            chosen = _Chosen([jobs[i] for i in part], settings, stops, results)
            _generate(base_model(model), [jobs[i].prompt for i in part], settings, chosen)
            results.done.update(zip(part, chosen.sampled(), strict=True))


@contextmanager
def _no_settings_of_its_own(causal: Any) -> Iterator[None]:
    """Within, `generate` finds nothing to inherit: a hub model brings temperature, top-k, penalties and more."""
    from transformers import GenerationConfig

    before = causal.generation_config
    causal.generation_config = GenerationConfig()
    try:
        yield
    finally:
        causal.generation_config = before


def _generate(causal: Any, prompts: Sequence[Sequence[int]], settings: Generation, chosen: _Chosen) -> None:
    from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

    device = next(causal.parameters()).device
    width = max(map(len, prompts))
    ids = torch.zeros(len(prompts), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for i, prompt in enumerate(prompts):
        ids[i, width - len(prompt) :] = torch.tensor(prompt)
        mask[i, width - len(prompt) :] = 1
    config = GenerationConfig(
        max_new_tokens=settings.max_new_tokens, do_sample=False, num_beams=1, use_cache=True, pad_token_id=0
    )
    causal.generate(
        input_ids=ids.to(device),
        attention_mask=mask.to(device),
        generation_config=config,
        logits_processor=LogitsProcessorList([chosen.choose]),
        stopping_criteria=StoppingCriteriaList([chosen.all_ended]),
    )


class _Chosen:
    """What was picked for each row of one call of `generate`, and which rows have ended."""

    def __init__(self, jobs: Sequence[Job], settings: Generation, stops: Stops, results: Results) -> None:
        self._settings, self._stops, self._results = settings, stops, results
        self._uniforms = uniforms_of(jobs, settings.max_new_tokens)
        self._tokens: list[list[int]] = [[] for _ in jobs]
        self._logps: list[list[float]] = [[] for _ in jobs]
        self._finished = [False] * len(jobs)
        self._step = 0

    def choose(self, ids: Tensor, scores: Tensor) -> Tensor:
        """As a logits processor: leaves each row only the token that was picked for it."""
        ends = torch.tensor(self._stops.ends, device=scores.device)
        forbidden = ends if self._step + 1 < self._settings.min_new_tokens else None
        uniforms = self._uniforms[:, self._step].to(scores.device)
        tokens, logps = pick(scores.float(), uniforms, self._settings, forbidden)
        for row, (token, logp) in enumerate(zip(tokens.tolist(), logps.tolist(), strict=True)):
            if not self._finished[row]:
                self._tokens[row].append(token)
                self._logps[row].append(logp)
                self._finished[row] = self._stops.finished(self._tokens[row])
        self._step += 1
        self._results.tick()
        return torch.full_like(scores, float("-inf")).scatter_(1, tokens[:, None], 0.0)

    def all_ended(self, ids: Tensor, scores: Any, **_: Any) -> Tensor:
        """As a stopping criterion: (n,) True where a row has ended."""
        return torch.tensor(self._finished, device=ids.device)

    def sampled(self) -> list[Sampled]:
        return [Sampled(*row) for row in zip(self._tokens, self._logps, self._finished, strict=True)]
