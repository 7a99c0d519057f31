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
import importlib.util
import itertools
import json
import logging
import math
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from core.api import ConfigError, RewardSource, Sample, cache_folder, looks_secret
from plugins.rewards.judging.endpoint import Budget, Endpoint
from plugins.rewards.judging.replies import MemoryReplies, Replies, on_disk
from plugins.rewards.judging.rubric import Rubric
from plugins.rewards.judging.tally import Tally
from plugins.rewards.judging.wire import Failure, JudgeError, Settings

log = logging.getLogger("accordant")

_OWN_FIELDS = ("model", "messages", "temperature", "max_tokens", "stream", "n")
# Keys of well-known services that are made of the characters of a name; others hold a hyphen or a dot.
_KEY_SHAPE = re.compile(
    r"(hf_|gh[pousr]_|github_pat_|gsk_|sk_|xai_|AIza|AKIA).{12,}|(?=.*[a-z])(?=.*\d)\w{24,}|[A-Za-z0-9]{32,}"
)


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
        _check(mode in ("pointwise", "pairwise"), "mode", mode, "pointwise or pairwise")
        _check_address(base_url)
        _check(bool(model.strip()), "model", repr(model), "the model's name at the endpoint")
        _check_key_name(api_key_env)
        _check_extra(extra or {})
        for key, number, least in (
            ("concurrency", concurrency, 1),
            ("retries", retries, 0),
            ("backoff", backoff, 0),
            ("max_wait", max_wait, 0),
            ("verdict_retries", verdict_retries, 0),
            ("temperature", temperature, 0),
            ("max_tokens", max_tokens, 1),
            ("max_requests", max_requests, 0),
        ):
            _check(number is None or least <= number < math.inf, key, number, f"{least} or more")
        _check(0 < timeout < math.inf, "timeout", timeout, "seconds above 0")
        _check(max_seconds is None or 0 < max_seconds < math.inf, "max_seconds", max_seconds, "seconds above 0, or null")
        _check_on_error(on_error, error_value)
        self.mode, self.on_error, self.error_value, self.cache = mode, on_error, error_value, cache
        self.rubric = Rubric.load(mode, rubric, _checked_scale(scale, mode))
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
        _check_package()
        self.settings.api_key()  # said now, not after the first collection
        self.needs = frozenset({"references"} if self.rubric.uses_reference else ())
        self.unit = "share of the scale" if mode == "pointwise" else "win rate"
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


def _check(right: bool, key: str, value: object, expected: str) -> None:
    if not right:
        raise ConfigError(f"reward.{key} is {value}; expected {expected}.")


def _check_address(base_url: str) -> None:
    hint = "For example http://localhost:8000/v1: the part before /chat/completions."
    try:
        parts = urlsplit(base_url)
        whole = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number
        parts, whole = urlsplit(""), False
    if parts.username is not None or parts.password is not None or "@" in parts.netloc:
        raise ConfigError("reward.base_url carries a user or a password.", "Name a key's environment variable: api_key_env.")
    if parts.query or parts.fragment:
        raise ConfigError("reward.base_url carries a query or a fragment (? or #).", hint)
    if not whole:
        raise ConfigError(f"reward.base_url is {base_url!r}; expected an address of http or https.", hint)
    if parts.path.rstrip("/").endswith("/chat/completions"):
        raise ConfigError(f"reward.base_url is {base_url!r}, with the end that is added here.", hint)


def _check_key_name(name: str | None) -> None:
    """The value is not repeated: where it is no name it may well be a key."""
    hint = "Put the key into the environment and give the variable's name: reward.api_key_env=MY_JUDGE_KEY."
    if name is None:
        return
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise ConfigError("reward.api_key_env is no name of an environment variable (it is not repeated here).", hint)
    if _KEY_SHAPE.fullmatch(name):
        raise ConfigError("reward.api_key_env looks like a key, not like the name of one (it is not repeated here).", hint)


def _check_extra(extra: Mapping[str, Any]) -> None:
    for name in extra:
        if name in _OWN_FIELDS:
            raise ConfigError(
                f"reward.extra.{name} is given, but {name} is set by reward=judge itself.",
                "Use the option of that name; answers are not streamed, and one is asked for.",
            )
    secret = next((name for name in _names(extra) if looks_secret(name)), None)
    if secret is not None:
        raise ConfigError(f"reward.extra holds {secret!r}, which looks like a secret.", "Keys go by reward.api_key_env.")
    try:
        json.dumps(extra, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"reward.extra cannot be sent as JSON ({error}).", "Use texts, numbers, lists and maps."
        ) from error


def _names(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        yield from map(str, value)
    items = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
    for item in items:
        yield from _names(item)


def _check_on_error(on_error: str, error_value: float | None) -> None:
    _check(on_error in ("fail", "skip", "value"), "on_error", on_error, "fail, skip or value")
    if on_error == "value" and (error_value is None or not math.isfinite(error_value)):
        raise ConfigError(f"reward.on_error is value, and reward.error_value is {error_value}.", "Give a finite number.")
    if on_error != "value" and error_value is not None:
        raise ConfigError(
            f"reward.error_value is {error_value}, and reward.on_error={on_error} has no use for it.",
            "Set reward.on_error=value, or leave the number out.",
        )


def _checked_scale(scale: Sequence[float], mode: str) -> tuple[float, float]:
    right = len(scale) == 2 and -math.inf < scale[0] < scale[1] < math.inf
    _check(right, "scale", list(scale), "two finite numbers, the lowest score first")
    if mode == "pairwise" and tuple(scale) != (1, 10):
        raise ConfigError(f"reward.scale is {list(scale)}, and mode=pairwise has no scale.", "Leave it out.")
    return float(scale[0]), float(scale[1])


def _check_package() -> None:
    if importlib.util.find_spec("httpx") is None:
        raise ConfigError("reward=judge needs the package httpx, which is not installed.", 'pip install "accordant[judge]"')
