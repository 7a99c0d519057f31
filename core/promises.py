"""What an objective promises about collections and losses, each promise as a question that an objective can fail.

`core.testing.objective_checks` runs them for every objective, with what core.trial makes up.
"""

from __future__ import annotations

import copy
import json
import math
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from core.batch import Batch, Layout, build_batch
from core.errors import UserError
from core.functional import TokenScores
from core.models import Models
from core.objective import LossOutput, Objective, Role
from core.rows import Row
from core.trial import ScriptedContext, trial_models, trial_rows

OTHER_TEMPERATURE = 0.7


class Watched(ScriptedContext):
    """A scripted context that keeps what it was asked for.

    Attributes:
        roles: the models that were asked; temperatures: at which, of log-probs.
        scored: (row id, tokens) of each answer that was scored. logged: names of the metrics, as often as they came.
    """

    def __init__(self, epoch: int = 0, temperature: float = 1.0) -> None:
        super().__init__(epoch)
        self.temperature = temperature
        self.roles: set[Role] = set()
        self.temperatures: list[tuple[Role, float]] = []
        self.scored: Counter[tuple[str, tuple[int, ...]]] = Counter()

    def generate(self, rows: Sequence[Row], n: int = 1, *, temperature: float | None = None) -> list[Row]:
        self.roles.add("policy")
        return super().generate(rows, n, temperature=temperature)

    def token_logps(
        self, role: Role, rows: Sequence[Row], field: str, *, cache: bool = False, temperature: float = 1.0
    ) -> list[Row]:
        self.roles.add(role)
        self.temperatures.append((role, temperature))
        return super().token_logps(role, rows, field, cache=cache, temperature=temperature)

    def values(self, rows: Sequence[Row], field: str = "values") -> list[Row]:
        self.roles.add("value")
        return super().values(rows, field)

    def score(self, rows: Sequence[Row]) -> list[Row]:
        self.scored.update((row.id, tuple(r.tokens)) for row in rows for r in row.responses)
        return super().score(rows)

    def scores(self, role: Role, rows: Sequence[Row]) -> list[list[float]]:
        self.roles.add(role)
        return super().scores(role, rows)

    def log(self, metrics: Mapping[str, float], count: int) -> None:
        whole = isinstance(count, int) and count >= 0
        assert whole, f"ctx.log was given the count {count!r}; expected a whole number."
        for name, value in metrics.items():
            assert math.isfinite(float(value)), f"ctx.log was given {name}={float(value)}."
        super().log(metrics, count)


class Abstaining(ScriptedContext):
    """A context whose reward gives no score to some answers, or to none at all.

    Args:
        share: of each prompt's answers the first are left without; of the first prompt all are.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def score(self, rows: Sequence[Row]) -> list[Row]:
        out = []
        for i, row in enumerate(super().score(rows)):
            left_out = len(row.responses) if i == 0 else math.ceil(self.share * len(row.responses))
            scores = [None if k < left_out else r.score for k, r in enumerate(row.responses)]
            responses = [replace(r, score=score) for r, score in zip(row.responses, scores, strict=True)]
            out.append(row.with_responses(responses, margins=row.margins, ties=row.ties))
        return out


class WatchedModels(Models):
    """Models that keep at which temperature their log-probs were taken."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.temperatures: list[tuple[Role, float]] = []

    def token_scores(self, role: Role, batch: Batch, *, temperature: float = 1.0, statistics: bool = True) -> TokenScores:
        self.temperatures.append((role, temperature))
        return super().token_scores(role, batch, temperature=temperature, statistics=statistics)


class Trial:
    """One objective with collected rows, ready for questions."""

    def __init__(self, objective: Objective) -> None:
        self.fresh = copy.deepcopy(objective)
        self.fresh.bind(None if objective.reward_use == "refused" else "length")
        self.given = trial_rows(self.fresh.reads)
        self.objective = copy.deepcopy(self.fresh)
        self.context = Watched()
        self.rows = list(self.objective.collect(self.given, self.context))

    def loss(self, models: Models, rows: Sequence[Row], layout: Layout = "shared") -> LossOutput:
        return self.objective.loss(models, build_batch(rows, layout))

    def again(self, *, epoch: int = 0, temperature: float = 1.0) -> tuple[list[Row], Watched]:
        """What a fresh copy collects, and the context it asked."""
        context = Watched(epoch, temperature)
        return list(copy.deepcopy(self.fresh).collect(self.given, context)), context

    # -- collections ------------------------------------------------------------------------------------------------

    def collects_for_its_rows(self) -> None:
        """Rows come from the prompts given, in their order, and there are some."""
        assert self.rows, "collect returned no rows from six prompts and a working reward."
        foreign = {row.id for row in self.rows} - {row.id for row in self.given}
        assert not foreign, f"collect made rows {sorted(foreign)} that it was not given; keep row.id."
        assert _lines(self.again()[0]) == _lines(self.rows), "collect is not a function of its context."
        places = [[row.id for row in self.given].index(row.id) for row in self.rows]
        assert places == sorted(places), f"collect changed the order of the prompts: {[row.id for row in self.rows]}."

    def rows_survive_a_file(self) -> None:
        for row in self.rows:
            back = Row.from_json(json.loads(json.dumps(row.to_json(), allow_nan=False)))
            assert back == row, f"row {row.id} is another one after it was written and read: plain numbers and lists only."

    def asks_what_it_declares(self) -> None:
        """Models of declared roles; each answer is scored once, and only where a reward is sure to be there."""
        known = self.objective.trains | self.objective.frozen
        stray = self.context.roles - known
        assert not stray, f"collect asks for {', '.join(stray)}, and trains and frozen name {', '.join(sorted(known))}."
        twice = [row for (row, _), times in self.context.scored.items() if times > 1]
        assert not twice, f"an answer to {twice[0]} was scored more than once in a collection; rewards can be dear."
        may_score = self.objective.reward_use in ("optional", "required")
        assert may_score or not self.context.scored, f"collect scores, and reward_use is {self.objective.reward_use!r}."

    def collects_from_nothing(self) -> None:
        """A process may be left without a prompt."""
        if self.objective.collects != "never":
            made = list(copy.deepcopy(self.fresh).collect([], Watched()))
            assert made == [], f"collect made {len(made)} rows from none."

    def copes_without_scores(self) -> None:
        """A reward may give None: of a few answers, of all to a prompt, of all there are."""
        if self.objective.collects == "never":
            return
        for share in (0.0, 0.3, 1.0):
            objective = copy.deepcopy(self.fresh)
            try:
                made = list(objective.collect(self.given, Abstaining(share)))
                loss = objective.loss(trial_models(objective), build_batch(made)).loss if made else torch.zeros(())
            except UserError:
                continue  # said in plain words
            except (ArithmeticError, LookupError, TypeError, ValueError) as error:
                raise AssertionError(
                    f"where the reward gives no score (None), {type(error).__name__}: {error}; leave such answers out, or "
                    "let them teach nothing."
                ) from error
            assert torch.isfinite(loss), f"where the reward gives no score (None), the loss is {float(loss.detach())}."

    def leaves_no_trace(self) -> None:
        def around() -> list[Any]:
            numbers: Any = np.random.get_state()
            return [torch.get_rng_state().tolist(), random.getstate(), str(numbers), torch.is_grad_enabled()]

        with torch.enable_grad():  # the collection for this trial may have switched it off already
            before = around()
            self.again()
            after = around()
        assert after == before, (
            "collect changed the global random numbers or the gradient mode; draw from ctx.rng, and put back what you set."
        )

    def logs_the_same_names(self) -> None:
        names = [sorted(self.again(epoch=epoch)[1].metrics) for epoch in (0, 1)]
        assert names[0] == names[1], f"ctx.log gets other names in another collection: {names[0]} and {names[1]}."

    def state_goes_through_a_checkpoint(self) -> None:
        """What was gathered in one collection, loaded into a fresh copy, gives the same next one."""
        untouched = copy.deepcopy(self.fresh)
        untouched.load_state_dict(untouched.state_dict())
        state = self.objective.state_dict()
        try:
            written = json.dumps(state, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise AssertionError(f"state_dict is {str(state)[:200]}: {error}; expected plain containers.") from error
        assert json.loads(written) == state, f"state_dict is {str(state)[:200]}; expected plain containers."
        restored = copy.deepcopy(self.fresh)
        restored.load_state_dict(json.loads(written))
        assert restored.state_dict() == state, "load_state_dict(state) gave another state."
        nexts = [_lines(o.collect(self.given, Watched(1))) for o in (copy.deepcopy(self.objective), restored)]
        assert nexts[0] == nexts[1], (
            "the collection after a resume is another one; put what collect gathers into state_dict."
        )
        self.objective.collect(self.given, Watched(1))
        assert json.dumps(state) == written, "collect changed a state that was given out; give out a copy."

    def keeps_to_the_sampling_temperature(self) -> None:
        """Of objectives that divide by the probability of what was sampled."""
        if not self.objective.on_policy:
            return
        rows, context = self.again(temperature=OTHER_TEMPERATURE)
        missing = [row.id for row in rows for r in row.responses if "old_logps" not in r.token_fields]
        assert not missing, f'on_policy, but the rows lost "old_logps" (of {missing[0]}), which ctx.generate gave them.'
        models = trial_models(self.objective, make=WatchedModels)
        assert isinstance(models, WatchedModels)
        models.temperature = OTHER_TEMPERATURE
        self.loss(models, rows)
        for where, remedy, asked in (
            ("collect", "ctx.temperature", context.temperatures),
            ("loss", "models.temperature", models.temperatures),
        ):
            wrong = [(role, t) for role, t in asked if t != OTHER_TEMPERATURE]
            assert not wrong, (
                f"{where} takes log-probs of the {wrong[0][0]} at temperature {wrong[0][1]:g}, of answers sampled at "
                f"{OTHER_TEMPERATURE}; pass temperature={remedy}."
            )

    # -- losses -----------------------------------------------------------------------------------------------------

    def loss_is_a_finite_mean(self) -> None:
        models, batch = trial_models(self.objective), self._batch()
        out = self.objective.loss(models, batch)
        assert out.loss.shape == (), f"the loss has shape {tuple(out.loss.shape)}; expected a scalar."
        assert out.loss.dtype == torch.float32, f"the loss is {out.loss.dtype}; expected float32."
        assert torch.isfinite(out.loss), f"the loss is {float(out.loss.detach())}."
        expected = batch.count(self.objective.mean_over)
        assert out.count == expected, f"count is {out.count}; the batch has {expected} {self.objective.mean_over}."

    def metrics_are_plain(self) -> None:
        models = trial_models(self.objective)
        out, part = self.objective.loss(models, self._batch()), self.loss(models, self.rows[:1])
        assert out.metrics.keys() == part.metrics.keys(), (
            f"metrics have other names in another batch: {sorted(out.metrics)} and {sorted(part.metrics)}."
        )
        stray = sorted(out.counts.keys() - out.metrics.keys())
        assert not stray, f"counts names {stray[0]!r}, which is no metric."
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

    def padding_changes_nothing(self) -> None:
        models = trial_models(self.objective)
        losses = [
            float(self.objective.loss(models, batch).loss.detach()) for batch in (self._batch(), _wider(self._batch()))
        ]
        _equal(losses, "the loss depends on how far the responses are padded")

    def loss_is_a_function(self) -> None:
        losses = []
        for _ in range(2):
            models = trial_models(self.objective)
            torch.manual_seed(0)
            losses.append(float(self.loss(models, self.rows).loss.detach()))
        assert losses[0] == losses[1], f"the same batch, models and seed give {losses[0]:.9g} and then {losses[1]:.9g}."

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

    def answers_about_its_steps(self) -> None:
        """`enough`, `diagnose` and `finish` are asked after each step, and at the end."""
        models = trial_models(self.objective)
        out = self.loss(models, self.rows)
        metrics = {name: float(value) for name, value in out.metrics.items()}
        metrics |= {"loss": float(out.loss.detach()), "lr": 1e-3}
        enough = self.objective.enough(metrics)
        assert isinstance(enough, bool), f"enough returned {enough!r}; expected True or False."
        said = self.objective.diagnose(metrics | {"grad_norm": 1.0, "skipped_steps": 0.0, "left_out": 0.0})
        assert isinstance(said, str), f'diagnose returned {said!r}; expected a text, "" where all is well.'
        said = self.objective.finish(models, self.given, Watched())
        assert isinstance(said, str), f'finish returned {said!r}; expected a text, "" where there is nothing to say.'

    def _batch(self) -> Batch:
        return build_batch(self.rows, "shared")


def _lines(rows: Sequence[Row]) -> list[dict[str, Any]]:
    return [row.to_json() for row in rows]


def _wider(batch: Batch, by: int = 3) -> Batch:
    """The same responses, padded further: T + `by`."""
    width = batch.tokens.shape[1]

    def pad(values: Tensor) -> Tensor:
        return torch.nn.functional.pad(values, (0, by))

    plan = replace(
        batch.plan,
        response_at=pad(batch.plan.response_at),
        scatter=batch.plan.scatter // width * (width + by) + batch.plan.scatter % width,
    )
    fields = {name: pad(values) for name, values in batch.token_fields.items()}
    tokens, valid, mask = pad(batch.tokens), pad(batch.valid), pad(batch.mask)
    return replace(batch, plan=plan, token_fields=fields, tokens=tokens, valid=valid, mask=mask)


def _equal(values: Sequence[float], complaint: str) -> None:
    spread = max(values) - min(values)
    assert spread <= 1e-4 * max(1.0, abs(values[0])), f"{complaint}: {', '.join(f'{v:.6g}' for v in values)}."


PROMISES: dict[str, Callable[[Trial], None]] = {
    "collect returns rows for the prompts it was given, in their order, the same each time": Trial.collects_for_its_rows,
    "collected rows survive a line of JSON": Trial.rows_survive_a_file,
    "collect asks for what is declared, and scores an answer once": Trial.asks_what_it_declares,
    "collect makes nothing of nothing": Trial.collects_from_nothing,
    "collect and loss get by where the reward gives no score": Trial.copes_without_scores,
    "collect leaves random numbers and gradient mode as they were": Trial.leaves_no_trace,
    "collect logs finite numbers, under the same names each time": Trial.logs_the_same_names,
    "what collect gathers is in the state, as plain containers": Trial.state_goes_through_a_checkpoint,
    "log-probs of what was sampled are taken at the sampling temperature": Trial.keeps_to_the_sampling_temperature,
    "the loss is a finite float32 scalar over the declared count": Trial.loss_is_a_finite_mean,
    "metrics are finite, detached, and of the same names each time": Trial.metrics_are_plain,
    "gradients reach every role it trains and no other": Trial.gradients_reach_what_it_trains,
    "the same batch gives the same loss": Trial.loss_is_a_function,
    "the layout of a batch changes nothing": Trial.layout_changes_nothing,
    "padding changes nothing": Trial.padding_changes_nothing,
    "the order of rows changes nothing": Trial.order_changes_nothing,
    "two micro-batches equal one batch": Trial.parts_make_the_whole,
    "the loss falls on one repeated batch": Trial.loss_falls,
    "enough, diagnose and finish answer": Trial.answers_about_its_steps,
}
"""What an objective promises, name -> question."""
