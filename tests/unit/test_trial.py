"""Each promise of an objective is seen broken by an objective that breaks it, and kept by the built-in ones."""

import dataclasses

import pytest
import torch

from core.api import LossOutput, Objective
from core.testing import objective_checks
from core.trial import PROMISES, ScriptedContext, Trial, trial_rows
from plugins.objectives.dpo import DPO
from plugins.objectives.sft import SFT


class Good(Objective):
    reads = "demonstrations"
    mean_over = "tokens"

    def loss(self, models, batch):
        logps = models.token_logps("policy", batch)
        return LossOutput(-(logps * batch.mask).sum() / batch.mask.sum(), batch.count("tokens"), {"x": 1.0})


class OtherRows(Good):
    def collect(self, rows, ctx):
        return [dataclasses.replace(row, id="foreign") for row in rows]


class NoRows(Good):
    def collect(self, rows, ctx):
        return []


class WrongCount(Good):
    def loss(self, models, batch):
        return dataclasses.replace(super().loss(models, batch), count=batch.num_rows)


class NotFinite(Good):
    def loss(self, models, batch):
        return dataclasses.replace(super().loss(models, batch), loss=torch.tensor(float("nan")))


class Attached(Good):
    def loss(self, models, batch):
        out = super().loss(models, batch)
        return dataclasses.replace(out, metrics={"x": out.loss})


class NoGradient(Good):
    def loss(self, models, batch):
        out = super().loss(models, batch)
        return dataclasses.replace(out, loss=out.loss.detach() + torch.zeros((), requires_grad=True))


class SeesLayout(Good):
    def loss(self, models, batch):
        out = super().loss(models, batch)
        return dataclasses.replace(out, loss=out.loss + (batch.plan.layout == "padded"))


class SeesOrder(Good):
    def loss(self, models, batch):
        out = super().loss(models, batch)
        return dataclasses.replace(out, loss=out.loss * (1 + batch.tokens[0, 0] / 10))


class MeanOfMeans(Good):
    def loss(self, models, batch):
        per_row = -(models.token_logps("policy", batch) * batch.mask).sum(1) / batch.mask.sum(1)
        return LossOutput(per_row.mean(), batch.count("tokens"), {})


class Upwards(Good):
    def loss(self, models, batch):
        out = super().loss(models, batch)
        return dataclasses.replace(out, loss=2 * out.loss.detach() - out.loss)


BREAKS = [
    (OtherRows, "collect returns rows", "was not given"),
    (NoRows, "collect returns rows", "returned no rows"),
    (WrongCount, "the loss is a finite", "count is 6"),
    (NotFinite, "the loss is a finite", "nan"),
    (Attached, "metrics are", "carries a graph"),
    (NoGradient, "gradients reach", "no gradient reaches"),
    (SeesLayout, "the layout", "depends on the layout"),
    (SeesOrder, "the order", "depends on the order"),
    (MeanOfMeans, "two micro-batches", "weighted by their counts"),
    (Upwards, "the loss falls", "went from"),
]


def question(start):
    (found,) = [ask for name, ask in PROMISES.items() if name.startswith(start)]
    return found


@pytest.mark.parametrize(("broken", "start", "said"), BREAKS, ids=lambda x: getattr(x, "__name__", None))
def test_a_broken_promise_is_seen(broken, start, said):
    question(start)(Trial(Good()))
    with pytest.raises(AssertionError, match=said):
        question(start)(Trial(broken()))


@pytest.mark.parametrize(
    "objective",
    [SFT(), SFT(0.1), DPO(), DPO(loss="ipo"), DPO(loss="hinge", sft_coef=0.1), DPO(pairs="relabelled", reference="live")],
    ids=lambda o: f"{type(o).__name__} {vars(o)}",
)
@pytest.mark.parametrize("check", [c.name for c in objective_checks(SFT())])
def test_the_built_in_ones_keep_them(objective, check):
    (found,) = [c for c in objective_checks(objective) if c.name == check]
    found.run()


def test_the_scripted_context_is_a_function_of_the_row():
    rows = trial_rows("pairs", 2)
    first, second = ScriptedContext(), ScriptedContext()
    assert [r.to_json() for r in first.generate(rows, 2)] == [r.to_json() for r in second.generate(rows, 2)]
    assert first.score(rows)[0].responses[0].score != first.score(rows)[0].responses[1].score
    assert all(x < 0 for r in first.token_logps("reference", rows, "f") for x in r.responses[0].token_fields["f"])
