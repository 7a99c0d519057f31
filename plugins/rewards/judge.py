"""An LLM as judge, asked through an OpenAI-compatible endpoint: a number for an answer, or the better one of two.

    pointwise   score = (N - low) / (high - low)                 N: the judge's number on the scale low..high
    pairwise    score_i = mean over j of w(i, j)                 j: the other answers of the row
                w(i, j) = 1, 0  where i wins, loses as response A and as response B
                        = 1/2   else: a tie, or the two orders disagree (position bias)

Source: Zheng et al. 2023, "Judging LLM-as-a-Judge with MT-Bench and Chatbot Arena", sections 3.1 (modes) and 3.4 (a win
counts where it is given in both orders). Differs from the paper: a verdict stands alone in the reply's last line, and
the answers are fenced in by marks they cannot know (plugins.rewards.judging.rubric).
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal

from core.api import Compared, ConfigError, RewardSource, Sample, cache_folder
from plugins.rewards.judging.endpoint import Budget, Endpoint
from plugins.rewards.judging.options import (
    check,
    check_address,
    check_extra,
    check_key_name,
    check_least,
    check_on_error,
    check_package,
    check_positive,
    checked_scale,
)
from plugins.rewards.judging.replies import MemoryReplies, Replies, on_disk
from plugins.rewards.judging.rubric import Rubric
from plugins.rewards.judging.tally import Tally
from plugins.rewards.judging.wire import Failure, JudgeError, Settings

log = logging.getLogger("accordant")


class Judge(RewardSource):
    """A language model's verdict on the answer: a number on a scale, or the share of comparisons won."""

    api_version = 1

    def __init__(
        self,
        base_url: str,
        model: str,
        mode: Literal["pointwise", "pairwise"] = "pointwise",
        rubric: str | None = None,
        scale: Sequence[float] = (1, 10),
        api_key_env: str | None = None,
        temperature: float | None = 0.0,
        max_tokens: int | None = 1024,
        extra: Mapping[str, Any] | None = None,
        concurrency: int = 8,
        timeout: float = 60.0,
        retries: int = 5,
        backoff: float = 1.0,
        max_wait: float = 60.0,
        verdict_retries: int = 1,
        max_requests: int | None = None,
        max_seconds: float | None = None,
        on_error: Literal["fail", "skip", "value"] = "fail",
        error_value: float | None = None,
        cache: str | None = "auto",
    ) -> None:
        check(mode in ("pointwise", "pairwise"), "mode", mode, "pointwise or pairwise")
        check_address(base_url)
        check(bool(model.strip()), "model", repr(model), "the model's name at the endpoint")
        check_key_name(api_key_env)
        check_extra(extra or {})
        check_least(0, temperature=temperature, retries=retries, backoff=backoff, max_wait=max_wait)
        check_least(0, verdict_retries=verdict_retries, max_requests=max_requests)
        check_least(1, concurrency=concurrency, max_tokens=max_tokens)
        check_positive(timeout=timeout, max_seconds=max_seconds)
        check_on_error(on_error, error_value)
        self.mode, self.on_error, self.error_value, self.cache = mode, on_error, error_value, cache
        self.rubric = Rubric.load(mode, rubric, checked_scale(scale, mode))
        self.settings = Settings(
            base_url=base_url,
            model=model,
            api_key_env=api_key_env,
            temperature=temperature,
            max_tokens=max_tokens,
            extra=dict(extra or {}),
            concurrency=concurrency,
            timeout=timeout,
            retries=retries,
            backoff=backoff,
            max_wait=max_wait,
            verdict_retries=verdict_retries,
        )
        check_package()
        self.settings.api_key()  # said now, not after the first collection
        self.needs = frozenset({"references"} if self.rubric.uses_reference else ())
        self.unit = "share of the scale" if mode == "pointwise" else "win rate"
        self.compares = mode == "pairwise"
        self.budget = Budget(max_requests, max_seconds)
        self.endpoint = Endpoint(self.settings, self.rubric, self.budget, asyncio.sleep, time.monotonic)
        self.tally = Tally()
        self._memory = MemoryReplies()

    def score(self, samples: Sequence[Sample]) -> list[float | None]:
        """From 0 to 1. Pairwise, samples of one row are compared with each other, so they belong into one call.

        None: nothing to compare with, or no verdict and on_error=skip.

        Raises:
            JudgeError: no verdict for a sample, with on_error=fail. ConfigError: the cache or the key cannot be used.
        """
        if not samples:
            return []
        self.tally = Tally()
        try:
            return self._pointwise(samples) if self.mode == "pointwise" else self._pairwise(samples)
        finally:
            self._report()

    def compare(self, first: Sequence[Sample], second: Sequence[Sample]) -> Compared:
        """Pairwise, each pair is asked in both orders; a win counts where both give it, else it is a tie.

        Answers of the same text tie unasked. None: an order has no verdict, and on_error is not fail.

        Raises:
            JudgeError, ConfigError: as `score`.
        """
        if self.mode == "pointwise":
            return super().compare(first, second)
        self.tally = Tally()
        try:
            return self._compared(list(zip(first, second, strict=True)))
        finally:
            self._report()

    def state_dict(self) -> dict[str, Any]:
        """What of a budget is spent, where there is one: a resumed run goes on with the rest of it."""
        if self.budget.max_requests is None and self.budget.max_seconds is None:
            return {}
        return {"requests": self.budget.requests, "seconds": self.budget.seconds}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.budget.requests, self.budget.seconds = int(state.get("requests", 0)), float(state.get("seconds", 0.0))

    def _pointwise(self, samples: Sequence[Sample]) -> list[float | None]:
        verdicts = self._ask([self._message(sample, response=sample.response) for sample in samples])
        return [self._instead() if verdict is None else verdict for verdict in verdicts]

    def _pairwise(self, samples: Sequence[Sample]) -> list[float | None]:
        rows = _rows(samples)
        duels = [duel for row in rows for duel in _duels([samples[i] for i in row])]
        messages = []
        for sample, one, other in duels:
            messages.append(self._message(sample, response_a=one, response_b=other))
            messages.append(self._message(sample, response_a=other, response_b=one))
        verdicts = iter(self._ask(messages))
        won: dict[tuple[str, str, str, str], float | None] = {}
        for sample, one, other in duels:
            as_a, as_b = next(verdicts), next(verdicts)
            points = None if as_a is None or as_b is None else self.tally.pair(as_a, 1.0 - as_b)
            won[(*_row_of(sample), one, other)] = points
            won[(*_row_of(sample), other, one)] = None if points is None else 1.0 - points
        scores: dict[int, float | None] = {}
        for row in rows:
            for i in row:
                scores[i] = self._share_won(samples[i], [samples[j].response for j in row if j != i], won)
        return [scores[i] for i in range(len(samples))]

    def _compared(self, pairs: Sequence[tuple[Sample, Sample]]) -> Compared:
        asked = [(one, other) for one, other in pairs if one.response != other.response]
        places = [(a, b) for one, other in asked for a, b in ((one, other), (other, one))]
        verdicts = iter(self._ask([self._message(a, response_a=a.response, response_b=b.response) for a, b in places]))
        wins: list[float | None] = []
        orders: tuple[list[float | None], list[float | None]] = ([], [])
        for one, other in pairs:
            as_a, as_b = (0.5, 0.5) if one.response == other.response else (next(verdicts), next(verdicts))
            orders[0].append(as_a)
            orders[1].append(None if as_b is None else 1.0 - as_b)
            if one.response == other.response:
                wins.append(0.5)
            else:
                wins.append(None if as_a is None or as_b is None else self.tally.pair(as_a, 1.0 - as_b))
        return Compared(wins, orders)

    def _share_won(
        self, sample: Sample, others: Sequence[str], won: Mapping[tuple[str, str, str, str], float | None]
    ) -> float | None:
        rivals = _rivals(sample, others)
        if not rivals:
            self.tally.alone += 1
            return None
        row, own = _row_of(sample), sample.response
        points = [0.5 if rival == own else won[(*row, own, rival)] for rival in rivals]
        known = [point for point in points if point is not None]
        # A share of fewer comparisons than its rivals' would be another quantity: one that is missing spoils it.
        return math.fsum(known) / len(points) if len(known) == len(points) else self._instead()

    def _message(self, sample: Sample, **answers: str) -> str:
        reference = {"reference": sample.references[0]} if sample.references and self.rubric.uses_reference else {}
        if self.rubric.uses_reference and not reference:
            raise ConfigError(
                f"the rubric shows {{reference}} to the judge, and row {sample.row_id!r} has no references.",
                "Use data with references, or a rubric without.",
            )
        return self.rubric.fill({"prompt": sample.prompt, **answers, **reference})

    def _ask(self, messages: Sequence[str]) -> list[float | None]:
        """The verdict on each message; the same question is asked once."""
        keys = [self.settings.key(message, self.rubric) for message in messages]
        try:
            with self._replies() as replies:
                questions = dict(zip(keys, messages, strict=True))
                found = self.endpoint.ask(questions, replies, self.tally, stop=self.on_error == "fail")
        except Failure as failure:
            raise JudgeError(
                f"reward=judge: {self.settings.model} gave no verdict.\n  {failure.text}",
                f"{failure.hint} Or go on without such answers: reward.on_error=skip.",
            ) from failure
        return [None if isinstance(verdict, Failure) else verdict for verdict in map(found.__getitem__, keys)]

    def _replies(self) -> AbstractContextManager[Replies]:
        if self.cache is None:
            return nullcontext(self._memory)
        return on_disk(cache_folder() / "judge" if self.cache == "auto" else Path(self.cache).expanduser())

    def _instead(self) -> float | None:
        return self.error_value if self.on_error == "value" else None

    def _report(self) -> None:
        if not self.tally.questions and not self.tally.alone:
            return
        for line in self.tally.lines():
            log.info("judge %s: %s", self.settings.model, line)
        given = {"fail": "none, and the run stops", "skip": "no score", "value": f"the score {self.error_value}"}
        for line in self.tally.warnings(given[self.on_error]):
            log.warning("judge %s: %s", self.settings.model, line)


def _rows(samples: Sequence[Sample]) -> list[list[int]]:
    """Indices of the samples of each row."""
    rows: dict[tuple[str, str], list[int]] = {}
    for index, sample in enumerate(samples):
        rows.setdefault(_row_of(sample), []).append(index)
    return list(rows.values())


def _row_of(sample: Sample) -> tuple[str, str]:
    """The row, and the prompt too: made by hand, samples may carry no row_id."""
    return sample.row_id, sample.prompt


def _rivals(sample: Sample, others: Sequence[str]) -> list[str]:
    """What an answer is compared with: the row's other answers, else the first reference."""
    return list(others) or list(sample.references[:1])


def _duels(row: Sequence[Sample]) -> Iterator[tuple[Sample, str, str]]:
    """The comparisons of a row, each once; answers of the same text tie unasked."""
    texts = list(dict.fromkeys(sample.response for sample in row))
    if len(row) == 1:
        texts += [rival for rival in _rivals(row[0], []) if rival not in texts]
    yield from ((row[0], one, other) for one, other in itertools.combinations(texts, 2))
