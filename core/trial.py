"""A tiny model, a scripted context, and what an objective promises about losses and collections.

`core.testing.objective_checks` runs these for every objective: on the CPU, in seconds, without a file or a network.
"""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from core.batch import Batch, Layout, build_batch
from core.collect import CollectContext
from core.models import Models
from core.objective import LossOutput, Objective, Reads, Role
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


def trial_models(objective: Objective, layout: Layout = "shared") -> Models:
    """A tiny random model for each role that the objective declares."""
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
    return Models(roles, trains=objective.trains, layout=layout)


def of_role(role: Role, policy: Any) -> Any:
    """For tests: a copy of the policy; of the roles that score, with a head in place of the vocabulary."""
    from core.scorer import with_new_head

    copied = copy.deepcopy(policy)
    if role not in ("reward", "value"):
        return copied
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return with_new_head(copied, "float32", ())


class Trial:
    """One objective with collected rows, ready for questions."""

    def __init__(self, objective: Objective) -> None:
        self.objective = copy.deepcopy(objective)
        self.objective.bind(None if objective.reward_use == "refused" else "length")
        self.given = trial_rows(self.objective.reads)
        self.rows = list(self.objective.collect(self.given, ScriptedContext()))

    def loss(self, models: Models, rows: Sequence[Row], layout: Layout = "shared") -> LossOutput:
        return self.objective.loss(models, build_batch(rows, layout))

    # -- promises -------------------------------------------------------------------------------------------------

    def collects_for_its_rows(self) -> None:
        """Rows come from the prompts given, and there are some."""
        assert self.rows, "collect returned no rows from six prompts and a working reward."
        foreign = {row.id for row in self.rows} - {row.id for row in self.given}
        assert not foreign, f"collect made rows {sorted(foreign)} that it was not given; keep row.id."
        again = list(self.objective.collect(self.given, ScriptedContext()))
        assert [r.to_json() for r in again] == [r.to_json() for r in self.rows], "collect is not a function of its context."

    def loss_is_a_finite_mean(self) -> None:
        models, batch = trial_models(self.objective), self._batch()
        out = self.objective.loss(models, batch)
        assert out.loss.shape == (), f"the loss has shape {tuple(out.loss.shape)}; expected a scalar."
        assert out.loss.dtype == torch.float32, f"the loss is {out.loss.dtype}; expected float32."
        assert torch.isfinite(out.loss), f"the loss is {float(out.loss.detach())}."
        expected = batch.count(self.objective.mean_over)
        assert out.count == expected, f"count is {out.count}; the batch has {expected} {self.objective.mean_over}."

    def metrics_are_plain(self) -> None:
        out = self.objective.loss(trial_models(self.objective), self._batch())
        for name, value in out.metrics.items():
            assert not (isinstance(value, torch.Tensor) and value.requires_grad), (
                f"metric {name!r} carries a graph; detach it."
            )
            assert math.isfinite(float(value)), f"metric {name!r} is {float(value)}."

    def gradients_reach_what_it_trains(self) -> None:
        models = trial_models(self.objective)
        self.objective.loss(models, self._batch()).loss.backward()  # type: ignore[no-untyped-call]
        for role, model in models.roles.items():
            moved = any(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in model.parameters())
            assert moved or role not in self.objective.trains, f"no gradient reaches the role {role!r}, which it trains."
            assert not moved or role in self.objective.trains, f"a gradient reaches the frozen role {role!r}."

    def layout_changes_nothing(self) -> None:
        losses = [
            float(self.loss(trial_models(self.objective, layout), self.rows, layout).loss.detach())
            for layout in ("shared", "packed", "padded")
        ]
        _equal(losses, "the loss depends on the layout (shared, packed, padded)")

    def order_changes_nothing(self) -> None:
        models = trial_models(self.objective)
        losses = [float(self.loss(models, rows).loss.detach()) for rows in (self.rows, self.rows[::-1])]
        _equal(losses, "the loss depends on the order of the rows")

    def parts_make_the_whole(self) -> None:
        """Micro-batches weighted by their counts give the loss of the batch."""
        models = trial_models(self.objective)
        whole = self.loss(models, self.rows)
        parts = [self.loss(models, part) for part in (self.rows[:1], self.rows[1:]) if part]
        mean = sum(float(p.loss.detach()) * p.count for p in parts) / sum(p.count for p in parts)
        _equal(
            [float(whole.loss.detach()), mean],
            "two micro-batches, weighted by their counts, do not give the loss of the whole",
        )

    def loss_falls(self) -> None:
        """Thirty steps on one batch."""
        models = trial_models(self.objective)
        optimizer = torch.optim.AdamW([p for _, p in models.trained_parameters()], lr=3e-3)
        losses = []
        for _ in range(30):
            out = self.loss(models, self.rows)
            optimizer.zero_grad()
            out.loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(float(out.loss.detach()))
        assert losses[-1] < losses[0], f"on one repeated batch the loss went from {losses[0]:.4g} to {losses[-1]:.4g}."

    def _batch(self) -> Batch:
        return build_batch(self.rows, "shared")


def _equal(values: Sequence[float], complaint: str) -> None:
    spread = max(values) - min(values)
    assert spread <= 1e-4 * max(1.0, abs(values[0])), f"{complaint}: {', '.join(f'{v:.6g}' for v in values)}."


PROMISES: dict[str, Callable[[Trial], None]] = {
    "collect returns rows for the prompts it was given, the same each time": Trial.collects_for_its_rows,
    "the loss is a finite float32 scalar over the declared count": Trial.loss_is_a_finite_mean,
    "metrics are finite and detached": Trial.metrics_are_plain,
    "gradients reach every role it trains and no other": Trial.gradients_reach_what_it_trains,
    "the layout of a batch changes nothing": Trial.layout_changes_nothing,
    "the order of rows changes nothing": Trial.order_changes_nothing,
    "two micro-batches equal one batch": Trial.parts_make_the_whole,
    "the loss falls on one repeated batch": Trial.loss_falls,
}
"""What an objective promises, name -> question."""
