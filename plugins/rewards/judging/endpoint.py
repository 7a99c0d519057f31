"""A judge's endpoint, asked many questions at once: retries, waiting, a budget, a store of replies.

The key is read from the environment when it is used, kept on no object that outlives the call, and masked in every text
that leaves this module.
"""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import random
import ssl
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from core.api import Redactor
from plugins.rewards.judging.replies import Replies
from plugins.rewards.judging.rubric import Rubric
from plugins.rewards.judging.tally import Tally
from plugins.rewards.judging.wire import Failure, Reply, Settings, read_answer

if TYPE_CHECKING:
    import httpx

_SHOWN_CHARACTERS = 100


@dataclass
class Budget:
    """What a run may spend on its judge, and what it has spent.

    Attributes:
        max_requests, requests: sent, repetitions included.
        max_seconds, seconds: in which at least one question was under way.
    """

    max_requests: int | None = None
    max_seconds: float | None = None
    requests: int = 0
    seconds: float = 0.0

    def seconds_left(self) -> float:
        return float("inf") if self.max_seconds is None else self.max_seconds - self.seconds

    def take(self) -> None:
        """Counts one request. Failure where it would be one too many."""
        if self.max_requests is not None and self.requests >= self.max_requests:
            raise Failure(
                "budget of requests spent",
                f"reward.max_requests={self.max_requests} requests are spent",
                hint="Raise reward.max_requests; what was answered is kept and costs nothing again.",
            )
        self.requests += 1


@dataclass
class Endpoint:
    """Asks. `sleep` and `clock` are replaced in tests."""

    settings: Settings
    rubric: Rubric
    budget: Budget
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    clock: Callable[[], float] = time.monotonic
    hopeless: dict[str, Failure] = field(default_factory=dict)
    """Questions whose replies had no verdict: not asked again by this run, so that their scores do not change."""

    def ask(self, messages: Mapping[str, str], replies: Replies, tally: Tally, *, stop: bool) -> dict[str, float | Failure]:
        """key -> verdict, or why there is none. `messages`: key -> text of the question.

        Raises:
            Failure: with `stop`, the first one; what was answered before is kept.
        """
        tally.questions = len(messages)
        verdicts: dict[str, float | Failure] = dict(self._known(replies.find(messages)))
        tally.cached = len(verdicts)
        missing = {key: message for key, message in messages.items() if key not in verdicts}
        if missing:
            call = _Call(self, self.settings.api_key(), replies, tally)
            verdicts.update(_complete(call.ask_all(missing, stop)))
        return verdicts

    def _known(self, kept: Mapping[str, str]) -> dict[str, float]:
        read = {key: self.rubric.read(reply) for key, reply in kept.items()}
        return {key: verdict for key, verdict in read.items() if verdict is not None}


class _Call:
    """The questions of one call of `ask`, under way."""

    def __init__(self, endpoint: Endpoint, api_key: str | None, replies: Replies, tally: Tally) -> None:
        self.settings, self.rubric, self.budget = endpoint.settings, endpoint.rubric, endpoint.budget
        self.sleep, self.clock, self.hopeless = endpoint.sleep, endpoint.clock, endpoint.hopeless
        self.replies, self.tally = replies, tally
        self.headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self.mask = Redactor((api_key,) if api_key else ()).text
        self.began, self.spent_before = self.clock(), self.budget.seconds

    async def ask_all(self, messages: Mapping[str, str], stop: bool) -> dict[str, float | Failure]:
        import httpx

        _quiet()
        free = asyncio.Semaphore(self.settings.concurrency)
        limits = httpx.Limits(max_connections=self.settings.concurrency)
        self.began = self.clock()
        async with httpx.AsyncClient(headers=self.headers, timeout=None, limits=limits, verify=_trusted()) as client:

            async def one(key: str, message: str) -> float | Failure:
                async with free:
                    try:
                        return await self._verdict(client, key, message)
                    except Failure as failure:
                        self.tally.fail(failure.kind, failure.text)
                        if stop:
                            raise
                        return failure

            tasks = [asyncio.ensure_future(one(key, message)) for key, message in messages.items()]
            try:
                found = await asyncio.gather(*tasks)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                self._note_seconds()
        return dict(zip(messages, found, strict=True))

    async def _verdict(self, client: httpx.AsyncClient, key: str, message: str) -> float | Failure:
        if key in self.hopeless:
            raise self.hopeless[key]
        for attempt in range(self.settings.verdict_retries + 1):
            if attempt:
                self.tally.repeated["no verdict"] += 1
            reply = await self._reply(client, message + (self.rubric.reminder if attempt else ""))
            # The last line of a reply that was cut is not the last line that the judge meant to write.
            if not reply.cut and self.rubric.read(reply.text) is not None:
                verdict = self.rubric.read(self.replies.keep(key, reply.text))
                assert verdict is not None, "what is kept under a key was read by the same rubric"
                return verdict
        self.hopeless[key] = self._no_verdict(reply)
        raise self.hopeless[key]

    def _no_verdict(self, reply: Reply) -> Failure:
        if reply.cut:
            return Failure(
                "reply cut at the limit",
                f"POST {self.settings.url}: the reply was cut at max_tokens, before a verdict",
                hint="Raise reward.max_tokens, or ask for shorter reasons in the rubric.",
            )
        return Failure(
            "no verdict",
            f"POST {self.settings.url}: the reply does not end with a verdict. Its end: {_last(reply.text)!r}",
            hint="Make the rubric plainer about the last line, raise reward.verdict_retries, or use an abler model.",
        )

    async def _reply(self, client: httpx.AsyncClient, message: str) -> Reply:
        """The judge's reply; what may go well later is repeated."""
        body = self.settings.body(message)
        draw = random.Random(message)  # seeded, and different for questions that were refused together
        for attempt in range(self.settings.retries + 1):
            try:
                return await self._request(client, body)
            except Failure as failure:
                if not failure.again:
                    raise
                if attempt == self.settings.retries:
                    raise _after(failure, attempt + 1) from failure
                await self._wait(failure, self.settings.backoff * 2**attempt * draw.uniform(0.5, 1.5))
                self.tally.repeated[failure.kind] += 1
        raise AssertionError("the loop returns or raises")

    async def _wait(self, failure: Failure, usual: float) -> None:
        """Exponential backoff with jitter, cut at `max_wait`, or longer where the server asks for it."""
        wait = min(usual, self.settings.max_wait)
        if failure.after is not None:
            if failure.after > self.settings.max_wait:
                raise Failure(
                    failure.kind,
                    f"{failure.text}\n  The server asks to wait {failure.after:g} s, longer than reward.max_wait.",
                    hint="Raise reward.max_wait, or lower reward.concurrency.",
                ) from failure
            wait = max(wait, failure.after)
        if wait >= self._seconds_left():
            raise self._out_of_time() from failure
        await self.sleep(wait)

    async def _request(self, client: httpx.AsyncClient, body: Mapping[str, Any]) -> Reply:
        import httpx

        left = self._seconds_left()
        if left <= 0:
            raise self._out_of_time()
        self.budget.take()
        self.tally.requests += 1
        limit = min(self.settings.timeout, left)
        try:
            # One limit for all of it: httpx's own starts anew with every piece of an answer that trickles in.
            async with asyncio.timeout(limit):
                answer = await client.post(
                    self.settings.url, content=json.dumps(body).encode(), headers={"Content-Type": "application/json"}
                )
        except TimeoutError as error:
            if limit < self.settings.timeout:
                raise self._out_of_time() from error
            raise self._failed(
                "timeout",
                f"no answer within {limit:g} s",
                "Raise reward.timeout, or lower reward.concurrency: the server may be working through a queue.",
            ) from error
        except httpx.RequestError as error:
            hint = "Is the server running, and is reward.base_url right?"
            raise self._failed("connection", f"{type(error).__name__}: {error}", hint) from error
        reply = read_answer(answer, self.settings.url, self.mask)
        known = self.tally.tokens
        self.tally.tokens = (known[0] + reply.tokens[0], known[1] + reply.tokens[1])
        return reply

    def _failed(self, kind: str, text: str, hint: str) -> Failure:
        return Failure(kind, self.mask(f"POST {self.settings.url}: {text}"), hint=hint, again=True)

    def _note_seconds(self) -> None:
        self.budget.seconds = self.spent_before + self.clock() - self.began

    def _seconds_left(self) -> float:
        self._note_seconds()
        return self.budget.seconds_left()

    def _out_of_time(self) -> Failure:
        return Failure(
            "budget of seconds spent",
            f"reward.max_seconds={self.budget.max_seconds:g} seconds are spent",
            hint="Raise reward.max_seconds; what was answered is kept and costs nothing again.",
        )


def _after(failure: Failure, tries: int) -> Failure:
    text = f"{failure.text} (the last of {tries} tries)" if tries > 1 else failure.text
    return Failure(failure.kind, text, hint=failure.hint)


@functools.cache
def _trusted() -> ssl.SSLContext:
    """Reading the certificates takes longer than a call that the cache answers; once is enough."""
    import httpx

    return httpx.create_ssl_context()


def _last(reply: str) -> str:
    return reply.strip()[-_SHOWN_CHARACTERS:]


def _quiet() -> None:
    """httpx tells of every request, and the console shows what libraries tell; a setting of the user's own stays."""
    logger = logging.getLogger("httpx")
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.WARNING)


def _complete(work: Coroutine[Any, Any, dict[str, float | Failure]]) -> dict[str, float | Failure]:
    """Runs a coroutine to its end, in a thread of its own where this one runs an event loop already (a notebook)."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()
