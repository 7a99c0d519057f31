"""Each promise of an objective is seen broken by an objective that breaks it, and kept by the built-in ones."""

import dataclasses
import itertools

import pytest
import torch

from core.api import LossOutput, Objective
from core.promises import PROMISES, Trial
from core.rows import Response
from core.testing import objective_checks
from core.trial import ScriptedContext, trial_rows
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


class Backwards(Good):
    def collect(self, rows, ctx):
        return list(rows)[::-1]


class Tuples(Good):
    """A tuple comes back from a file as a list."""

    def collect(self, rows, ctx):
        return [dataclasses.replace(row, columns={"place": (1, 2)}) for row in rows]


class Curious(Good):
    def collect(self, rows, ctx):
        return ctx.token_logps("reference", rows, "ref_logps")


class Costly(Good):
    reward_use = "required"

    def collect(self, rows, ctx):
        return ctx.score(ctx.score(rows))


class Unasked(Good):
    def collect(self, rows, ctx):
        return ctx.score(rows)


class Needy(Good):
    collects = "once"

    def collect(self, rows, ctx):
        return [rows[0], *rows[1:]]


class Inventive(Needy):
    def collect(self, rows, ctx):
        return rows or trial_rows("demonstrations")


class Drawing(Good):
    def collect(self, rows, ctx):
        torch.rand(1)
        return rows


class Forgetful(Good):
    """Leaves the gradient off."""

    def collect(self, rows, ctx):
        torch.set_grad_enabled(False)
        return rows


class Moody(Good):
    def collect(self, rows, ctx):
        ctx.log({f"epoch_{ctx.epoch}": 1.0}, len(rows))
        return rows


class NotANumber(Good):
    def collect(self, rows, ctx):
        ctx.log({"reward": float("nan")}, len(rows))
        return rows


class Counting(Good):
    """Learns from one row more in each collection; the state says how many, done right."""

    collects = "every_epoch"

    def __init__(self):
        self.seen = []

    def collect(self, rows, ctx):
        self.seen = [*self.seen, ctx.epoch]
        return rows[: len(self.seen)]

    def state_dict(self):
        return {"seen": list(self.seen)}

    def load_state_dict(self, state):
        self.seen = list(state["seen"])


class Stateless(Counting):
    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


class Live(Counting):
    def collect(self, rows, ctx):
        self.seen.append(ctx.epoch)
        return rows[: len(self.seen)]

    def state_dict(self):
        return {"seen": self.seen}


class Tensors(Counting):
    def state_dict(self):
        return {"seen": torch.tensor(self.seen)}


class Lossy(Counting):
    def load_state_dict(self, state):
        self.seen = state["seen"][:-1]


class Sampling(Good):
    """On-policy, done right."""

    reads = "prompts"
    collects = "every_epoch"
    reward_use = "required"
    frozen = frozenset({"reference"})
    on_policy = True

    def collect(self, rows, ctx):
        return ctx.token_logps("reference", ctx.generate(rows), "ref_logps", temperature=ctx.temperature)

    def loss(self, models, batch):
        logps = models.token_logps("policy", batch, temperature=models.temperature)
        ratio = (logps - batch["old_logps"]).exp()
        return LossOutput(-(ratio * batch.mask).sum() / batch.mask.sum(), batch.count("tokens"), {})


class Needs(Sampling):
    """Every answer has a score, it believes."""

    def collect(self, rows, ctx):
        rows = ctx.score(ctx.generate(rows, n=2))
        return [row.with_responses([r for r in row.responses if r.score + 1 > 0]) for row in rows]


class Divides(Sampling):
    """None counts as 0, and a prompt whose answers all score 0 divides by it."""

    def collect(self, rows, ctx):
        rows = ctx.score(ctx.generate(rows, n=2))
        total = [sum(r.score or 0 for r in row.responses) or float("nan") for row in rows]
        return [
            row.with_responses([r.with_field("weight", [(r.score or 0) / t] * len(r.tokens)) for r in row.responses])
            for row, t in zip(rows, total, strict=True)
        ]

    def loss(self, models, batch):
        out = super().loss(models, batch)
        return dataclasses.replace(out, loss=out.loss * batch["weight"].mean())


class ColdReference(Sampling):
    def collect(self, rows, ctx):
        return ctx.token_logps("reference", ctx.generate(rows), "ref_logps")


class ColdPolicy(Sampling):
    def loss(self, models, batch):
        ratio = (models.token_logps("policy", batch) - batch["old_logps"]).exp()
        return LossOutput(-(ratio * batch.mask).sum() / batch.mask.sum(), batch.count("tokens"), {})


class NoOld(Sampling):
    def collect(self, rows, ctx):
        return [row.with_responses([Response(r.tokens, r.mask) for r in row.responses]) for row in ctx.generate(rows)]


class OtherNames(Good):
    def loss(self, models, batch):
        return dataclasses.replace(super().loss(models, batch), metrics={f"of_{batch.num_rows}": 1.0})


class CountsOfNothing(Good):
    def loss(self, models, batch):
        return dataclasses.replace(super().loss(models, batch), counts={"y": 1})


class SeesPadding(Good):
    def loss(self, models, batch):
        out = super().loss(models, batch)
        return dataclasses.replace(out, loss=out.loss / batch.tokens.shape[1])


class Fickle(Good):
    calls = itertools.count()

    def loss(self, models, batch):
        out = super().loss(models, batch)
        return dataclasses.replace(out, loss=out.loss + next(self.calls))


class Vague(Good):
    def enough(self, metrics):
        return torch.tensor(metrics["loss"] > 0)


class Silent(Good):
    def diagnose(self, metrics):
        return None


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
    (Backwards, "collect returns rows", "changed the order"),
    (Tuples, "collected rows", "is another one"),
    (Curious, "collect asks", "collect asks for reference"),
    (Costly, "collect asks", "scored more than once"),
    (Unasked, "collect asks", "reward_use is 'measured'"),
    (Inventive, "collect makes nothing", "made 6 rows from none"),
    (Needs, "collect and loss get by", "gives no score .*TypeError: unsupported operand"),
    (Divides, "collect and loss get by", "gives no score .* the loss is nan"),
    (Drawing, "collect leaves", "changed the global random numbers"),
    (Forgetful, "collect leaves", "or the gradient mode"),
    (Moody, "collect logs", "other names"),
    (Stateless, "what collect gathers", "after a resume is another one"),
    (Live, "what collect gathers", "give out a copy"),
    (Tensors, "what collect gathers", "expected plain containers"),
    (Lossy, "what collect gathers", "gave another state"),
    (ColdReference, "log-probs of what", "of the reference at temperature 1, .* pass temperature=ctx.temperature"),
    (ColdPolicy, "log-probs of what", "of the policy at temperature 1, .* pass temperature=models.temperature"),
    (NoOld, "log-probs of what", 'lost "old_logps"'),
    (OtherNames, "metrics are", "other names in another batch"),
    (CountsOfNothing, "metrics are", "'y', which is no metric"),
    (SeesPadding, "padding", "how far the responses are padded"),
    (Fickle, "the same batch", "and then"),
    (Vague, "enough", "enough returned"),
    (Silent, "enough", "diagnose returned None"),
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
    for good in (Good(), Counting(), Sampling()):
        question(start)(Trial(good))
    with pytest.raises(AssertionError, match=said), torch.set_grad_enabled(True):
        question(start)(Trial(broken()))


def test_a_metric_of_a_collection_that_is_no_number_is_seen_at_once():
    with pytest.raises(AssertionError, match="reward=nan"):
        Trial(NotANumber())


def test_a_collection_that_needs_a_row_is_seen():
    """A process may be left without one."""
    with pytest.raises(IndexError):
        question("collect makes nothing")(Trial(Needy()))


@pytest.mark.parametrize(
    "objective",
    [SFT(0.1), DPO(loss="ipo"), DPO(loss="hinge", sft_coef=0.1), DPO(pairs="relabelled", reference="live")],
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
