"""The options of reward=judge, checked one by one: what came, what was expected, what to do."""

from __future__ import annotations

import importlib.util
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from core.api import ConfigError, looks_secret

_OWN_FIELDS = ("model", "messages", "temperature", "max_tokens", "stream", "n")
# Keys of well-known services that are made of the characters of a name; others hold a hyphen or a dot.
_KEY_SHAPE = re.compile(
    r"(hf_|gh[pousr]_|github_pat_|gsk_|sk_|xai_|AIza|AKIA).{12,}|(?=.*[a-z])(?=.*\d)\w{24,}|[A-Za-z0-9]{32,}"
)


def check(right: bool, key: str, value: object, expected: str) -> None:
    if not right:
        raise ConfigError(f"reward.{key} is {value}; expected {expected}.")


def check_least(least: float, **numbers: float | None) -> None:
    """Finite numbers from `least` on, by option; None is no number and may pass."""
    for key, number in numbers.items():
        check(number is None or least <= number < math.inf, key, number, f"{least:g} or more")


def check_positive(**seconds: float | None) -> None:
    """Finite numbers above 0, by option; None is no number and may pass."""
    for key, number in seconds.items():
        check(number is None or 0 < number < math.inf, key, number, "seconds above 0")


def check_address(base_url: str) -> None:
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


def check_key_name(name: str | None) -> None:
    """The value is not repeated: where it is no name it may well be a key."""
    hint = "Put the key into the environment and give the variable's name: reward.api_key_env=MY_JUDGE_KEY."
    if name is None:
        return
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise ConfigError("reward.api_key_env is no name of an environment variable (it is not repeated here).", hint)
    if _KEY_SHAPE.fullmatch(name):
        raise ConfigError("reward.api_key_env looks like a key, not like the name of one (it is not repeated here).", hint)


def check_extra(extra: Mapping[str, Any]) -> None:
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


def check_on_error(on_error: str, error_value: float | None) -> None:
    check(on_error in ("fail", "skip", "value"), "on_error", on_error, "fail, skip or value")
    if on_error == "value" and (error_value is None or not math.isfinite(error_value)):
        raise ConfigError(f"reward.on_error is value, and reward.error_value is {error_value}.", "Give a finite number.")
    if on_error != "value" and error_value is not None:
        raise ConfigError(
            f"reward.error_value is {error_value}, and reward.on_error={on_error} has no use for it.",
            "Set reward.on_error=value, or leave the number out.",
        )


def checked_scale(scale: Sequence[float], mode: str) -> tuple[float, float]:
    right = len(scale) == 2 and -math.inf < scale[0] < scale[1] < math.inf
    check(right, "scale", list(scale), "two finite numbers, the lowest score first")
    if mode == "pairwise" and tuple(scale) != (1, 10):
        raise ConfigError(f"reward.scale is {list(scale)}, and mode=pairwise has no scale.", "Leave it out.")
    return float(scale[0]), float(scale[1])


def check_package() -> None:
    if importlib.util.find_spec("httpx") is None:
        raise ConfigError("reward=judge needs the package httpx, which is not installed.", 'pip install "accordant[judge]"')
