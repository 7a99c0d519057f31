"""A tiny model, made-up rows and a scripted context: what an objective is tried with, on the CPU, in seconds.

core.promises asks with them what `core.testing.objective_checks` checks; tests of one's own may use them too.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from core.batch import Layout
from core.collect import CollectContext
from core.models import Models
from core.objective import Objective, Reads, Role
from core.rows import Response, Row

VOCABULARY = 61


class ScriptedContext(CollectContext):
    """A context without models: sampled tokens, log-probs and scores are functions of the row alone.

    `generate` answers with made-up tokens, `token_logps` with made-up numbers below zero, `values` with some above, `score`
    with the number of tokens and a little that tells answers of one length apart. `notes` and `metrics` keep what the
    objective said.
    """

    def __init__(self, epoch: int = 0) -> None:
        self.epoch, self.rng, self.temperature = epoch, random.Random(epoch), 1.0
        self.notes: list[str] = []
        self.metrics: dict[str, float] = {}

    def generate(self, rows: Sequence[Row], n: int = 1, *, temperature: float | None = None) -> list[Row]:
        return [row.with_responses([_answer(f"{self.epoch}/{row.id}/{k}", "old_logps") for k in range(n)]) for row in rows]

    def token_logps(
        self, role: Role, rows: Sequence[Row], field: str, *, cache: bool = False, temperature: float = 1.0
    ) -> list[Row]:
        return _with_field(rows, field, lambda token: -1.0 - (token % 7) / 7)

    def values(self, rows: Sequence[Row], field: str = "values") -> list[Row]:
        return _with_field(rows, field, lambda token: (token % 5) / 5)

    def score(self, rows: Sequence[Row]) -> list[Row]:
        return [
            row.with_responses(
                [replace(r, score=len(r.tokens) + sum(r.tokens) / 1e4) for r in row.responses],
                margins=row.margins,
                ties=row.ties,
            )
            for row in rows
        ]

    def scores(self, role: Role, rows: Sequence[Row]) -> list[list[float]]:
        return [[sum(r.tokens) / 100 for r in row.responses] for row in rows]

    def log(self, metrics: Mapping[str, float], count: int) -> None:
        self.metrics.update(metrics)

    def note(self, text: str) -> None:
        self.notes.append(text)


def _with_field(rows: Sequence[Row], field: str, number: Callable[[int], float]) -> list[Row]:
    return [
        row.with_responses(
            [r.with_field(field, [number(t) for t in r.tokens]) for r in row.responses], margins=row.margins, ties=row.ties
        )
        for row in rows
    ]


def _answer(seed: str, field: str = "") -> Response:
    draw = random.Random(seed)
    tokens = [draw.randrange(3, VOCABULARY) for _ in range(draw.randint(2, 9))]
    fields = {field: [-1.0] * len(tokens)} if field else {}
    return Response(tokens, [True] * len(tokens), " ".join(map(str, tokens)), token_fields=fields)


def trial_rows(reads: Reads, count: int = 6) -> list[Row]:
    """Made-up rows of the kind that an objective reads."""
    responses = {"prompts": 0, "demonstrations": 1, "pairs": 2, "rankings": 4}[reads]
    rows = []
    for i in range(count):
        draw = random.Random(f"prompt/{i}")
        prompt = [draw.randrange(3, VOCABULARY) for _ in range(draw.randint(1, 6))]
        answers = [_answer(f"row/{i}/{k}") for k in range(responses)]
        margins = tuple(1.0 for _ in answers[1:]) if responses > 1 else None
        rows.append(Row(f"row-{i}", prompt, tuple(answers), prompt_text=" ".join(map(str, prompt)), margins=margins))
    return rows


def trial_models(objective: Objective, layout: Layout = "shared", make: type[Models] = Models) -> Models:
    """A tiny random model for each role that the objective declares. `make`: what holds them."""
    from transformers import LlamaConfig, LlamaForCausalLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        policy: Any = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=VOCABULARY,
                hidden_size=16,
                intermediate_size=32,
                num_hidden_layers=2,
                num_attention_heads=2,
                initializer_range=0.3,
                bos_token_id=None,
                eos_token_id=1,
                pad_token_id=0,
            )
        )
    roles: dict[Role, Any] = {role: of_role(role, policy) for role in sorted(objective.trains | objective.frozen)}
    return make(roles, trains=objective.trains, layout=layout)


def of_role(role: Role, policy: Any) -> Any:
    """For tests: a copy of the policy; of the roles that score, with a head in place of the vocabulary."""
    from core.scorer import with_new_head

    copied = copy.deepcopy(policy)
    if role not in ("reward", "value"):
        return copied
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return with_new_head(copied, "float32", ())
