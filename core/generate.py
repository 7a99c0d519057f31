"""Sampling: continuous batches, log-probs of the distribution that was sampled, and one random stream per sample.

A sample depends on the seed, its row's id and its index alone, not on its neighbours in the batch: its random numbers
come from a generator of its own, and tokens by inverting the cumulative distribution. A model whose attention can be
decoded without padding is sampled so; any other goes through transformers' own `generate` with the same picks. The parts
are in core.sampling: pick, decode and batching; probe, hf_generate; jobs, stops.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch

from core.errors import ModelError
from core.loading import base_model
from core.sampling.batching import ContinuousBatch
from core.sampling.hf_generate import sample_padded
from core.sampling.jobs import Job as Job
from core.sampling.jobs import Results, by_length, prompts_of
from core.sampling.jobs import Sampled as Sampled
from core.sampling.probe import why_not
from core.sampling.stops import Stops
from core.settings import Generation

log = logging.getLogger("accordant")

_SAID: set[str] = set()


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

    A prompt is computed and kept once for all its jobs. At most `settings.batch_rows` responses are decoded at once; as
    they end, the next prompt is taken in, longest first. Mode and attention of the model are put back whatever happens.

    Args:
        progress: called as `progress(done, all)` every few tokens and at the end; it may raise to stop.

    Raises:
        ModelError: a prompt and its answer are longer than the model has positions.
    """
    _check_positions(model, jobs, settings)
    results, stops = Results(len(jobs), progress), Stops(tokenizer, settings)
    was_training = model.training
    model.eval()
    try:
        reason = why_not(model) if jobs else ""
        if reason:
            name = type(base_model(model)).__name__
            _say_once(name, logging.INFO, f"Sampling: by transformers' generate, which is slower ({name}: {reason}).")
            sample_padded(model, jobs, settings, stops, results)
        elif jobs:
            at_once = min(settings.batch_rows, len(jobs))
            for prompts in by_length(prompts_of(jobs, at_once), at_once):
                ContinuousBatch(model, jobs, prompts, settings, stops, results).run()
    finally:
        model.train(was_training)
    return results.in_order()


def _check_positions(model: Any, jobs: Sequence[Job], settings: Generation) -> None:
    """Positions that are looked up in a table end; rotations can be computed beyond what the model has seen."""
    config, name = base_model(model).config.get_text_config(), type(base_model(model)).__name__
    limit = getattr(config, "max_position_embeddings", None)
    longest, new = max((len(job.prompt) for job in jobs), default=0), settings.max_new_tokens
    if limit is None or longest + new <= limit:
        return
    what = f"a prompt of {longest} tokens and an answer of up to {new} are more than the {limit} positions of {name}"
    remedy = f"data.max_prompt_length={limit - new}" if limit > new else f"a generation.max_new_tokens far below {limit}"
    if not hasattr(config, "rope_parameters"):
        raise ModelError(f"{what}.", f"Set {remedy}.")
    _say_once(f"{name} {limit}", logging.WARNING, f"Sampling: {what}: it was not made for such texts. Set {remedy}.")


def _say_once(about: str, level: int, text: str) -> None:
    if about not in _SAID:
        _SAID.add(about)
        log.log(level, "%s", text)
