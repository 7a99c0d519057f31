"""The wire: what a question is sent as, what an answer is read as, and what went wrong in plain words.

POST {base_url}/chat/completions with one user message, as OpenAI's API, vLLM, llama.cpp, Ollama and most gateways
take it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from core.api import ConfigError, UserError
from plugins.rewards.judging.rubric import Rubric

if TYPE_CHECKING:
    import httpx

_REPEATED = {408, 409, 429}  # and every 5xx: another try may go well
_SHOWN_LINES, _SHOWN_CHARACTERS = 3, 300


class JudgeError(UserError):
    """The endpoint gave no verdict, and reward.on_error=fail."""


class Failure(Exception):
    """One request, or one question, that came to nothing.

    Attributes:
        kind: a few words to count by ("status 429", "timeout").
        hint: what to do about it.
        again: True where the same request may go well later.
        after: seconds that the server asks to wait first.
    """

    def __init__(self, kind: str, text: str, *, hint: str = "", again: bool = False, after: float | None = None) -> None:
        self.kind, self.text, self.hint, self.again, self.after = kind, text, hint, again, after
        super().__init__(text)


@dataclass(frozen=True)
class Settings:
    """How to ask; the fields are options of reward=judge and described there."""

    base_url: str
    model: str
    api_key_env: str | None
    temperature: float | None
    max_tokens: int | None
    extra: Mapping[str, Any]
    concurrency: int
    timeout: float
    retries: int
    backoff: float
    max_wait: float
    verdict_retries: int

    @property
    def url(self) -> str:
        return f"{self.base_url.rstrip('/')}/chat/completions"

    def body(self, message: str) -> dict[str, Any]:
        """The request. What is null is left out: some models refuse a temperature, or have another name for the limit."""
        sampling = {"temperature": self.temperature, "max_tokens": self.max_tokens}
        return {
            "model": self.model,
            "messages": [{"role": "user", "content": message}],
            **{key: value for key, value in sampling.items() if value is not None},
            **self.extra,
        }

    def key(self, message: str, rubric: Rubric) -> str:
        """What a reply is kept under: all that it depends on, and how it is read.

        The address too: "model: default" is another model on another server.
        """
        about = {"version": 1, "url": self.url, "mode": rubric.mode, "scale": rubric.scale, "body": self.body(message)}
        return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()

    def api_key(self) -> str | None:
        """The key's value, from the environment. ConfigError (without the value) where there is none to be used."""
        if self.api_key_env is None:
            return None
        key = os.environ.get(self.api_key_env, "").strip()
        if not key:
            raise ConfigError(
                f"reward.api_key_env is {self.api_key_env}, and no such environment variable is set.",
                f"export {self.api_key_env}=..., or set reward.api_key_env=null for a server that asks for no key.",
            )
        if not (key.isascii() and key.isprintable()):
            raise ConfigError(
                f"the environment variable {self.api_key_env} holds characters that no key has.", "Set it to the key alone."
            )
        return key


@dataclass(frozen=True)
class Reply:
    """What a judge wrote.

    Attributes:
        cut: it ended at the limit of tokens, not by itself.
        tokens: (sent, received) as the endpoint counts them; 0 where it does not say.
    """

    text: str
    cut: bool
    tokens: tuple[int, int]


def read_answer(answer: httpx.Response, url: str, mask: Callable[[str], str]) -> Reply:
    """The reply in an answer of the endpoint. `mask` takes the key out of a text.

    Raises:
        Failure: a status other than 200, or a body that is no chat completion (an error page, a text that breaks off).
    """
    shown = f"The answer begins: {_first_lines(mask(answer.text))}"
    if answer.status_code != 200:
        again = answer.status_code in _REPEATED or answer.status_code >= 500
        kind = f"status {answer.status_code}"
        after = _retry_after(answer.headers.get("Retry-After")) if again else None
        raise Failure(kind, f"POST {url}: {kind}. {shown}", hint=_hint(answer.status_code), again=again, after=after)
    try:
        found = json.loads(answer.content)
        choice = found["choices"][0]
        text, cut = choice["message"]["content"], choice.get("finish_reason") == "length"
        if text is None and cut:  # a model that thinks first can reach the limit before it says anything
            text = ""
        if not isinstance(text, str):
            raise TypeError("choices[0].message.content is no text")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        why = mask(f"{type(error).__name__}: {error}")
        raise Failure(
            "malformed answer",
            f"POST {url}: status 200, but no chat completion ({why}). {shown}",
            hint="reward.base_url should be the part before /chat/completions; often it ends with /v1.",
            again=True,
        ) from error
    return Reply(mask(text), cut, _tokens(found.get("usage")))


def _tokens(usage: Any) -> tuple[int, int]:
    counts = usage if isinstance(usage, Mapping) else {}
    sent, received = counts.get("prompt_tokens"), counts.get("completion_tokens")
    return sent if isinstance(sent, int) else 0, received if isinstance(received, int) else 0


def _first_lines(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return repr(" | ".join(lines[:_SHOWN_LINES])[:_SHOWN_CHARACTERS])


def _hint(status: int) -> str:
    if status in (401, 403):
        return "The server wants a key, or another one: reward.api_key_env=... names the environment variable that holds it."
    if status == 404:
        return "Check reward.base_url (the part before /chat/completions, often ending with /v1) and reward.model."
    if 300 <= status < 400:
        return "The server sends elsewhere, and a key is not sent after it: set reward.base_url to the final address."
    if status in (400, 422):
        return "Some models take no temperature or max_tokens: set them to null and use reward.extra for what they take."
    return "Wait and run again: what was answered is kept. Fewer requests at once: reward.concurrency."


def _retry_after(value: str | None) -> float | None:
    """Seconds, from the header's number or date (RFC 9110, 10.2.3); None where it is neither."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            at = parsedate_to_datetime(value)
        except ValueError:
            return None
        seconds = ((at if at.tzinfo else at.replace(tzinfo=UTC)) - datetime.now(UTC)).total_seconds()
    return max(0.0, seconds) if seconds == seconds else None
