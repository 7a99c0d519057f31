"""Keeps secrets out of everything that a run writes.

Three nets, because each has holes: the *name* of a key (`api_key`), the *value* of an environment variable whose name
looks secret (wherever that value occurs), and the *shape* of well-known keys and of passwords inside URLs.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

MASK = "<redacted>"

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_ALWAYS = {"password", "passwd", "passphrase", "secret", "secrets", "credential", "credentials", "authorization", "apikey"}
_KEY_KINDS = {"api", "access", "private", "secret", "auth", "signing", "encryption", "account", "storage", "ssh", "service"}
# Words before "token" that make it a piece of text, not a key to a door.
_TEXT_TOKENS = {
    *("pad", "eos", "bos", "unk", "mask", "sep", "cls", "stop", "start", "end", "special", "image", "audio", "first"),
    *("last", "per", "next", "prefix", "suffix", "control", "num", "max", "min", "mean", "system", "assistant", "user"),
}
# A shorter value would be found inside innocent words.
_SHORTEST_SECRET = 6
_SHAPES = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{16,}|sk-[A-Za-z0-9_-]{16,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}"
    r"|AKIA[A-Z0-9]{16}|xox[abpr]-[\w-]{10,})"
)
_URL_USER = re.compile(r"(?P<scheme>\b[a-z][a-z0-9+.-]*://)[^\s/@]+@", re.IGNORECASE)
_ASSIGNMENT = re.compile(r"(?P<key>[\w.-]+)(?P<sign>['\"]?\s*[:=]\s*)(?P<value>'[^']*'|\"[^\"]*\"|[^\s,{}\[\]'\"]+)")


def looks_secret(name: str) -> bool:
    """True for names of secrets (`hf_token`, `apiKey`), False for false friends (`pad_token`, `num_tokens`, `tokenizer`)."""
    words = [word.lower() for word in _WORDS.findall(name.rpartition(".")[2])]
    if not words or words[-1] == "env":  # `api_key_env` names a variable; it is not the key
        return False
    if _ALWAYS & set(words):
        return True
    before = words[-2] if len(words) > 1 else ""
    if words[-1] == "key":
        return before in _KEY_KINDS
    return words[-1] == "token" and before not in _TEXT_TOKENS


@dataclass(frozen=True)
class Redactor:
    """Masks secrets in plain containers and in text. `values` are known secret strings, longest first."""

    values: tuple[str, ...] = ()

    @classmethod
    def of(cls, config: Any = None, environment: Mapping[str, str] | None = None) -> Redactor:
        """Knows the secret values of the environment, of `config`, and of the variables that its `*_env` keys name."""
        environment = os.environ if environment is None else environment
        found = {value for name, value in environment.items() if looks_secret(name) or name.upper().endswith("_KEY")}
        for name, value in _leaves(config):
            if looks_secret(name):
                found.add(value)
            elif name.lower().endswith("_env"):
                found.add(environment.get(value, ""))
        return cls(tuple(sorted((v for v in found if len(v) >= _SHORTEST_SECRET), key=lambda v: (-len(v), v))))

    def __call__(self, value: Any, name: str = "") -> Any:
        """A copy of plain containers with the secrets masked; numbers, booleans and None stay as they are.

        A key that speaks of a password or a secret masks numbers too; one that speaks of a token masks text only.
        """
        if isinstance(value, Mapping):
            return {self.text(key) if isinstance(key, str) else key: self(item, str(key)) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self(item, name) for item in value]
        if isinstance(value, str):
            return MASK if value and looks_secret(name) else self.text(value)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and looks_secret(name):
            return value if name.lower().endswith("token") else MASK
        return value

    def text(self, text: str) -> str:
        """The text with known secret values, keys of well-known shapes and the user part of URLs masked."""
        for value in self.values:
            text = text.replace(value, MASK)
        text = _SHAPES.sub(MASK, text)
        return _URL_USER.sub(rf"\g<scheme>{MASK}@", text)

    def command(self, arguments: Iterable[str]) -> str:
        """A command line as text; `reward.api_key=...` and `--token ...` are masked by the name of the key."""
        shown: list[str] = []
        mask_next = False
        for argument in arguments:
            shown.append(MASK if mask_next else self.text(_ASSIGNMENT.sub(_mask_assignment, argument)))
            mask_next = argument.startswith("--") and "=" not in argument and looks_secret(argument)
        return " ".join(shown)


def _mask_assignment(match: re.Match[str]) -> str:
    if not looks_secret(match["key"]) or match["value"] in ("null", "true", "false"):
        return match[0]
    return f"{match['key']}{match['sign']}{MASK}"


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(item, str(key))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _leaves(item, name)
    elif isinstance(value, str):
        yield name, value
