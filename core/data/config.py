"""The keys of `conf/data/*.yaml`, checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.data.formats import KINDS
from core.errors import ConfigError, nearest
from core.options import fits

NAMES = ("sandbox", "jsonl", "hub")
MASKS = ("completion", "all", "assistant", "last_assistant")
TEMPLATES = ("auto", "chat", "plain")


@dataclass(frozen=True)
class DataConfig:
    """Where rows come from and how they become tokens. See docs/data.md.

    Attributes:
        name: sandbox (generated), jsonl (files, also Parquet and saved folders; never asks the network) or hub.
        path, validation_path: a file, a glob, a list of them, a saved `datasets` folder, or (hub) a name.
        validation_fraction: share of prompts kept for validation where there is no validation source.
        split, validation_split, config_name, revision: of a `datasets` data set.
        format: auto, or one of core.data.formats; ignore: columns to read as if they were not there.
        keep_ties: True = keep rows without any preference, for objectives that use ties.
        mask: which tokens of a demonstration count: completion, last_assistant (the same), assistant (every assistant
            turn) or all. Pairs and rankings train their responses.
        template: auto (turns: the tokenizer's chat template; plain text: as it is), chat (plain text is a user's turn)
            or plain (never the tokenizer's template).
        max_length: tokens of prompt + longest response; None = the tokenizer's own limit, where it has one.
        max_prompt_length: tokens of a prompt; None = no limit but max_length.
        overlong: truncate or drop. truncate_side: where a prompt is cut; responses are cut at their end.
        max_bad_rows: how many bad rows may be left out before the data is refused.
        limit, validation_limit: keep that many rows, a sample that depends on the rows alone.
        batch_size: rows per optimizer step; microbatch_tokens: tokens computed at once; rows_per_epoch: of an epoch.
        preview: print that many rows with the trained tokens marked.
        train_rows, validation_rows, seed, quality, noise, ties, tastes, responses: of the sandbox (docs/sandbox.md).
    """

    name: str = "sandbox"
    path: str | Sequence[str] | None = None
    validation_path: str | Sequence[str] | None = None
    validation_fraction: float = 0.1
    split: str = "train"
    validation_split: str | None = None
    config_name: str | None = None
    revision: str | None = None
    format: str = "auto"
    ignore: Sequence[str] = ()
    keep_ties: bool = False
    mask: str = "completion"
    template: str = "auto"
    max_length: int | None = None
    max_prompt_length: int | None = None
    overlong: str = "truncate"
    truncate_side: str = "left"
    max_bad_rows: int = 0
    limit: int | None = None
    validation_limit: int | None = None
    batch_size: int = 32
    microbatch_tokens: int = 8192
    rows_per_epoch: int | None = None
    preview: int = 0
    train_rows: int = 2000
    validation_rows: int = 200
    seed: int = 0
    quality: str | None = None
    noise: float | None = None
    ties: bool | None = None
    tastes: Mapping[str, float] | None = None
    responses: int | None = None

    def __post_init__(self) -> None:
        choices = {
            "name": NAMES,
            "format": ("auto", *KINDS),
            "mask": MASKS,
            "template": TEMPLATES,
            "overlong": ("truncate", "drop"),
            "truncate_side": ("left", "right"),
        }
        for key, known in choices.items():
            _one_of(key, getattr(self, key), known)
        at_least = {"max_length": 2, "max_prompt_length": 1, "limit": 1, "validation_limit": 0, "rows_per_epoch": 1}
        at_least |= {
            "max_bad_rows": 0,
            "batch_size": 1,
            "microbatch_tokens": 1,
            "preview": 0,
            "train_rows": 1,
            "validation_rows": 0,
        }
        for key, least in at_least.items():
            value = getattr(self, key)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
                raise ConfigError(f"data.{key} is {value!r}; expected a whole number, at least {least}.")
        # What is a right number of its kind, the sandbox itself says.
        kinds = {
            "noise": (float, "a number"),
            "tastes": (Mapping[str, float], "a map of shares"),
            "responses": (int, "a whole number"),
        }
        for key, (kind, what) in kinds.items():
            if getattr(self, key) is not None and not fits(getattr(self, key), kind):
                raise ConfigError(f"data.{key} is {getattr(self, key)!r}; expected {what}.")
        if not 0 <= self.validation_fraction < 1:
            raise ConfigError(f"data.validation_fraction is {self.validation_fraction}; expected 0 to below 1.")
        if self.name != "sandbox" and not self.path:
            hint = "Give one: data.path=rows.jsonl" if self.name == "jsonl" else "Give one: data.path=org/name"
            raise ConfigError(f"data.path is not set, and data={self.name} needs it.", hint)

    def sandbox_options(self) -> dict[str, Any]:
        """What is set of the options of `core.data.sandbox.records`."""
        names = ("quality", "noise", "ties", "tastes", "responses")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


def _one_of(key: str, value: Any, known: Sequence[str]) -> None:
    if value not in known:
        close = nearest(value, known) if isinstance(value, str) else ""
        raise ConfigError(f"data.{key} is {value!r}; expected one of {', '.join(known)}.{close}")
