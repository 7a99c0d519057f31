"""reward_bt: pairs and rankings by hand, layouts, heads for groups, what it learns, and against TRL's RewardTrainer."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import random

import pytest
import torch

from core import functional as F
from core.batch import build_batch
from core.errors import ConfigError, DataError, ModelError, TrainingError
from core.models import Models
from core.rows import Response, Row
from core.runfolder import read_jsonl
from core.scorer import set_bias, with_new_head
from core.testing import objective_checks
from core.train import fit
from core.trial import ScriptedContext
from plugins.objectives.reward_bt import RewardBT, set_zero
from tests.architectures import SETTINGS, architecture
from tests.plugins import trl_parity as parity
from tests.plugins.test_sft import assert_equals
from tests.support import random_rows, tiny_model, tiny_run

GOLDEN = json.loads(parity.GOLDEN.read_text(encoding="utf-8"))
YES, NO = True, False
CANNOT_CLASSIFY = {"cohere", "granite"}
"""Architectures for which transformers 5.23 has no sequence classifier."""


def row(row_id, count, ties=None, **columns):
    answers = tuple(Response([5 + k, 1], [True, True]) for k in range(count))
    return Row(row_id, [3], answers, ties=ties, columns=columns)


class Scripted:
    """Models whose scores are given."""

    def __init__(self, *scores):
        self.given = torch.tensor(scores)

    def scores(self, role, batch):
        assert role == "reward"
        return self.given


def loss_of(scores, rows, **options):
    return RewardBT(**options).loss(Scripted(*scores), build_batch(rows))


def bt(d):
    return math.log1p(math.exp(-d))


# --- the loss ----------------------------------------------------------------------------------------------------------


def test_a_pair_by_hand():
    out = loss_of([1.5, 0.5, -1.0, 1.0], [row("a", 2), row("b", 2)])
    assert out.loss.item() == pytest.approx((bt(1.0) + bt(-2.0)) / 2)
    assert out.count == 2


def test_a_ranking_is_the_mean_of_its_pairs_one_by_one():
    scores = [2.0, 0.3, -0.4, 1.0]
    whole = loss_of(scores, [row("a", 4)]).loss.item()
    ones = [loss_of([scores[i], scores[j]], [row("a", 2)]).loss.item() for i in range(4) for j in range(i + 1, 4)]
    assert whole == pytest.approx(sum(ones) / 6)


def test_each_row_weighs_one_whatever_its_length():
    """One pair and the six of a ranking."""
    expected = (bt(0.5) + (bt(1) * 3 + bt(2) * 2 + bt(3)) / 6) / 2
    assert loss_of([0.5, 0.0, 3.0, 2.0, 1.0, 0.0], [row("a", 2), row("b", 4)]).loss.item() == pytest.approx(expected)


def test_ties_are_left_out_of_the_default():
    """a > b = c: the pair of b and c does not count, though its scores differ."""
    out = loss_of([1.0, 5.0, 0.0], [row("a", 3, ties=(NO, YES))])
    assert out.loss.item() == pytest.approx((bt(-4.0) + bt(1.0)) / 2)
    assert float(out.metrics["accuracy"]) == 0.5
    assert float(out.metrics["margin"]) == pytest.approx((-4.0 + 1.0) / 2)


@pytest.mark.parametrize("ties", ["rao_kupper", "davidson"])
def test_ties_by_hand(ties):
    """share 1/3: theta 2, nu 1 (tests/unit/test_preference_losses.py has the arithmetic of one pair)."""
    d = math.log(4.0)
    win, tie = {"rao_kupper": (4 / 6, 3 * 4 / (6 * 9)), "davidson": (4 / 7, 2 / 7)}[ties]
    out = loss_of([d, 0.0, d, 0.0], [row("a", 2), row("b", 2, ties=(YES,))], ties=ties, tie_share=1 / 3)
    assert out.loss.item() == pytest.approx(-(math.log(win) + math.log(tie)) / 2, abs=1e-6)


def test_plackett_luce_by_hand():
    a, b, c = (math.exp(s) for s in (1.0, 0.5, -0.5))
    expected = -(math.log(a / (a + b + c)) + math.log(b / (b + c))) / 2
    out = loss_of([1.0, 0.5, -0.5, 0.2, 0.0], [row("a", 3), row("b", 2)], loss="plackett_luce")
    assert out.loss.item() == pytest.approx((expected + bt(0.2)) / 2)


def test_label_smoothing_by_hand():
    out = loss_of([1.0, 0.0], [row("a", 2)], label_smoothing=0.2)
    assert out.loss.item() == pytest.approx(0.8 * bt(1.0) + 0.2 * bt(-1.0))


def test_centring_by_hand():
    """Pairs of a ranking of three: sums 3, 2, 1; means of squares 14 / 3; the pair: 16."""
    scores, rows = [2.0, 1.0, 0.0, 3.0, 1.0], [row("a", 3), row("b", 2)]
    plain, centred = loss_of(scores, rows), loss_of(scores, rows, centre_coef=0.1)
    assert centred.loss.item() - plain.loss.item() == pytest.approx(0.1 * (14 / 3 + 16) / 2)


def test_metrics_by_hand():
    """An equal pair is half right."""
    out = loss_of([2.0, 1.0, 3.0, 0.5, 0.5], [row("a", 3), row("b", 2)])
    assert {k: float(v) for k, v in out.metrics.items()} == pytest.approx(
        {
            "accuracy": (1 / 3 + 0.5) / 2,
            "margin": ((1 - 1 - 2) / 3 + 0) / 2,
            "mean_reward": (2.0 + 0.5) / 2,
            "min_reward": (1.0 + 0.5) / 2,
            "max_reward": (3.0 + 0.5) / 2,
        }
    )


def test_rows_without_a_preference_have_no_accuracy():
    """One row right, one wrong in two of three, one all tied: (1 + 1 / 3) / 2, over two rows."""
    rows = [row("a", 2), row("b", 3), row("c", 2, ties=(YES,))]
    out = loss_of([1.0, 0.0, 2.0, 1.0, 3.0, 5.0, 0.0], rows, ties="davidson")
    assert float(out.metrics["accuracy"]) == pytest.approx((1 + 1 / 3) / 2)
    assert float(out.metrics["margin"]) == pytest.approx((1.0 + (1 - 1 - 2) / 3) / 2)
    assert float(out.metrics["mean_reward"]) == pytest.approx((0.5 + 2.0 + 2.5) / 3)
    assert (out.count, out.counts) == (3, {"accuracy": 2, "margin": 2})
    tied = loss_of([5.0, 0.0], rows[2:], ties="davidson")
    assert tied.counts == {"accuracy": 0, "margin": 0}


def test_metrics_carry_no_graph():
    models = Scripted(1.0, 0.0)
    models.given.requires_grad_()
    assert not any(v.requires_grad for v in RewardBT().loss(models, build_batch([row("a", 2)])).metrics.values())


# --- layouts -----------------------------------------------------------------------------------------------------------


def scorer(name="llama"):
    torch.manual_seed(2)
    return with_new_head(architecture(name), "float32", ())


def loss_and_slopes(model, rows, layout):
    models = Models({"reward": model}, trains=frozenset({"reward"}), layout=layout)
    model.zero_grad()
    out = RewardBT(centre_coef=0.01).loss(models, build_batch(rows, models.layout))
    out.loss.backward()
    return models.layout, out.loss.item(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def of_vocabulary(rows):
    """random_rows are of 64 tokens, these models of 48."""
    return [
        dataclasses.replace(
            r,
            prompt=[t % 45 + 3 for t in r.prompt],
            responses=tuple(dataclasses.replace(a, tokens=[t % 45 + 3 for t in a.tokens]) for a in r.responses),
        )
        for r in rows
    ]


@pytest.mark.parametrize("name", sorted(SETTINGS.keys() - CANNOT_CLASSIFY))
def test_the_layout_shows_neither_in_loss_nor_gradient(name):
    model, rows = scorer(name), of_vocabulary(random_rows(3, 3, seed=8))
    _, loss, slopes = loss_and_slopes(model, rows, "padded")
    assert {n.split(".")[0] for n in slopes} >= {"score"}
    fast = loss_and_slopes(model, rows, "auto")[0]
    for layout in {"shared": ("shared", "packed"), "padded": ("padded",)}[fast]:
        _, other, others = loss_and_slopes(model, rows, layout)
        assert other == pytest.approx(loss, abs=1e-5)
        for key, slope in slopes.items():
            torch.testing.assert_close(others[key], slope, atol=2e-5, rtol=1e-4, msg=f"{layout}: {key}")


@pytest.mark.parametrize("name", sorted(CANNOT_CLASSIFY))
def test_an_architecture_without_a_classifier_says_so(name):
    with pytest.raises(ModelError, match=r"cannot become a reward model: transformers has no \.\.\.ForSequenceClass"):
        scorer(name)


# --- heads for groups --------------------------------------------------------------------------------------------------


def grouped():
    torch.manual_seed(2)
    model = with_new_head(tiny_model(), "float32", ("ann", "bob"))
    return Models({"reward": model}, trains=frozenset({"reward"}))


def test_a_row_teaches_its_own_groups_head_alone():
    models = grouped()
    rows = [dataclasses.replace(r, columns={"group": "bob"}) for r in random_rows(3, 2)]
    RewardBT(group_heads=True).loss(models, build_batch(rows, models.layout)).loss.backward()
    ann, bob = models.of("reward").score.weight.grad
    assert not ann.any()
    assert bob.abs().sum() > 0


def test_each_head_speaks_for_its_group_and_all_together_for_strangers():
    models = grouped()
    set_bias(models.of("reward"), torch.tensor([0.5, -1.0]))
    (one,) = random_rows(1, 2)
    scores = {
        group: models.scores("reward", build_batch([dataclasses.replace(one, columns=columns)], models.layout)).detach()
        for group, columns in {"ann": {"group": "ann"}, "bob": {"group": "bob"}, "eve": {"group": "eve"}, "": {}}.items()
    }
    assert not torch.allclose(scores["ann"], scores["bob"], atol=1e-3)
    torch.testing.assert_close(scores["eve"], (scores["ann"] + scores["bob"]) / 2)
    torch.testing.assert_close(scores[""], scores["eve"])
    both = [dataclasses.replace(one, id=g, columns={"group": g}) for g in ("bob", "ann")]
    mixed = models.scores("reward", build_batch(both, models.layout)).detach()
    torch.testing.assert_close(mixed, torch.cat([scores["bob"], scores["ann"]]), atol=1e-5, rtol=1e-5)


def test_a_column_of_groups_must_be_whole_and_short():
    from core.build import _heads

    rows = [row("a", 2, group="ann"), dataclasses.replace(row("b", 2), source="x.jsonl:2")]
    assert _heads("", rows) == []
    assert _heads("group", [row("a", 2, group="b"), row("b", 2, group="a"), row("c", 2, group="b")]) == ["a", "b"]
    with pytest.raises(DataError, match=r"x\.jsonl:2:group: is missing"):
        _heads("group", rows)
    with pytest.raises(DataError, match="at most 64 groups"):
        _heads("group", [row(str(i), 2, group=i) for i in range(65)])


# --- what scores 0 -----------------------------------------------------------------------------------------------------


class Answers(ScriptedContext):
    """Scores of the models at hand; samples are the rows' last responses."""

    def __init__(self, models):
        super().__init__()
        self.models = models

    def generate(self, rows, n=1):
        return [r.with_responses(r.responses[-1:]) for r in rows]

    def scores(self, role, rows):
        return [self.models.scores(role, build_batch([r], self.models.layout)).tolist() for r in rows]


def test_demonstrations_score_zero():
    torch.manual_seed(2)
    models = Models({"reward": with_new_head(tiny_model(), "float32", ())}, trains=frozenset({"reward"}))
    rows, context = random_rows(12, 3), Answers(models)
    before = context.scores("reward", rows)
    said = set_zero("demonstrations", 8, models, rows, context)
    after = context.scores("reward", rows)
    mean = sum(scores[0] for scores in before[:8]) / 8
    assert sum(scores[0] for scores in after[:8]) / 8 == pytest.approx(0, abs=1e-5)
    for old, new in zip(before, after, strict=True):  # all scores by the same
        assert new == pytest.approx([v - mean for v in old], abs=1e-5)
    assert said.startswith(f"Scores of 8 rows had mean {mean:.3g}")


def test_the_sentence_on_zeros_names_the_groups():
    torch.manual_seed(2)
    models = Models({"reward": with_new_head(tiny_model(), "float32", ("a", "b"))}, trains=frozenset({"reward"}))
    rows = [dataclasses.replace(r, columns={"group": "ab"[k % 2]}) for k, r in enumerate(random_rows(8, 3))]
    scores = [[float(k % 2)] for k in range(8)]
    assert models.standardise("reward", rows, scores) == "Scores of 8 rows had mean 0 (a), 1 (b); now 0."


def test_samples_have_mean_zero_and_deviation_one():
    torch.manual_seed(2)
    models = Models({"reward": with_new_head(tiny_model(), "float32", ())}, trains=frozenset({"reward"}))
    rows, context = random_rows(12, 3), Answers(models)
    before = [s[-1] for s in context.scores("reward", rows)]
    set_zero("samples", 512, models, rows, context)
    after = torch.tensor([s[-1] for s in context.scores("reward", rows)])
    assert after.mean().item() == pytest.approx(0, abs=1e-5)
    assert after.std(unbiased=False).item() == pytest.approx(1, abs=1e-5)
    assert torch.equal(after.argsort(), torch.tensor(before).argsort())


def test_equal_samples_have_no_deviation():
    models = Models({"reward": with_new_head(tiny_model(), "float32", ())}, trains=frozenset({"reward"}))
    rows = [random_rows(1, 2)[0]] * 3
    with pytest.raises(TrainingError, match=r"(?s)all 3 scores are equal.*zero=demonstrations"):
        set_zero("samples", 512, models, rows, Answers(models))


def test_each_head_is_moved_by_its_own_group():
    models = grouped()
    rows = [dataclasses.replace(r, columns={"group": "ab"[i % 2]}) for i, r in enumerate(random_rows(10, 2))]
    rows = [dataclasses.replace(r, columns={"group": {"a": "ann", "b": "bob"}[r.columns["group"]]}) for r in rows]
    context = Answers(models)
    set_zero("demonstrations", 512, models, rows, context)
    after = context.scores("reward", rows)
    for first in (0, 1):
        assert sum(s[0] for s in after[first::2]) / 5 == pytest.approx(0, abs=1e-5)
    assert set_zero("none", 512, models, rows, context) == ""


# --- what it learns ----------------------------------------------------------------------------------------------------


def preferences(count, responses, seed, ties=False):
    """More words below w10, of twenty, are better; equally many are a tie."""
    draw, rows = random.Random(seed), []
    while len(rows) < count:
        texts = [[draw.randrange(3, 23) for _ in range(4)] for _ in range(responses)]
        worth = {tuple(t): sum(token < 13 for token in t) for t in texts}
        texts.sort(key=lambda t: -worth[tuple(t)])
        equal = tuple(worth[tuple(a)] == worth[tuple(b)] for a, b in itertools.pairwise(texts))
        if not ties and any(equal):
            continue
        answers = tuple(Response([*t, 1], [True] * 5, " ".join(f"w{x - 3}" for x in t)) for t in texts)
        prompt = [draw.randrange(43, 60) for _ in range(2)]
        rows.append(Row(f"{seed}-{len(rows)}", prompt, answers, ties=equal if ties else None, prompt_text="w"))
    return rows


def learn(path, objective, train, validation, epochs):
    """Held-out metrics of the last validation."""
    run = tiny_run(
        path,
        objective,
        train,
        validation,
        lr=0.01,
        data={"batch_size": 16, "microbatch_tokens": 4000},
        trainer={"max_epochs": epochs, "enable_progress_bar": False, "log_every_n_steps": 50},
        eval={"every": 10**6},
    )
    fit(run)
    return [m for m in read_jsonl(path / "metrics.jsonl") if m["split"] == "validation"][-1], run


@pytest.mark.parametrize(
    ("options", "responses", "ties", "epochs"),
    [
        ({}, 2, False, 2),
        ({"centre_coef": 0.01, "label_smoothing": 0.05}, 4, False, 1),
        ({"loss": "plackett_luce"}, 4, False, 1),
        ({"ties": "rao_kupper"}, 3, True, 2),
        ({"ties": "davidson"}, 3, True, 2),
    ],
    ids=["pairs", "rankings", "plackett_luce", "rao_kupper", "davidson"],
)
def test_learns_a_preference(options, responses, ties, epochs, tmp_path):
    train, held_out = preferences(1200 // responses, responses, 1, ties), preferences(100, responses, 2)
    last, run = learn(tmp_path / "run", RewardBT(**options), train, held_out, epochs)
    assert last["accuracy"] > 0.9
    best = run.context.scores("reward", [r.with_responses(r.responses[:1]) for r in train[:512]])
    assert sum(s[0] for s in best) / len(best) == pytest.approx(0, abs=1e-4)


# --- options -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"loss": "bt"}, "loss"),
        ({"ties": "keep"}, "ties"),
        ({"ties": "davidson", "loss": "plackett_luce"}, "ties"),
        ({"tie_share": 0.0}, "tie_share"),
        ({"tie_share": 1.0}, "tie_share"),
        ({"tie_share": math.nan}, "tie_share"),
        ({"label_smoothing": 0.5}, "label_smoothing"),
        ({"label_smoothing": -0.1}, "label_smoothing"),
        ({"label_smoothing": 0.1, "loss": "plackett_luce"}, "label_smoothing"),
        ({"label_smoothing": 0.1, "ties": "rao_kupper"}, "label_smoothing"),
        ({"centre_coef": -0.1}, "centre_coef"),
        ({"centre_coef": math.inf}, "centre_coef"),
        ({"zero": "mean"}, "zero"),
        ({"zero_rows": 0}, "zero_rows"),
    ],
    ids=str,
)
def test_options_that_cannot_work(options, key):
    with pytest.raises(ConfigError, match=rf"objective\.{key} is .*; expected"):
        RewardBT(**options)


def test_declarations():
    assert not RewardBT().reads_ties
    assert RewardBT(ties="davidson").reads_ties
    assert RewardBT().frozen == frozenset()
    assert RewardBT(zero="samples").frozen == {"policy"}
    assert (RewardBT().heads_by, RewardBT(group_heads=True).heads_by) == ("", "group")


@pytest.mark.parametrize("check", list(objective_checks(RewardBT())), ids=str)
def test_contract(check):
    check.run()


@pytest.mark.parametrize(
    "check",
    [c for options in ({"loss": "plackett_luce"}, {"ties": "rao_kupper"}) for c in objective_checks(RewardBT(**options))],
    ids=str,
)
def test_contract_of_the_variants(check):
    check.run()


# --- against TRL -------------------------------------------------------------------------------------------------------

NO_MARGIN = [case for case, (_, _, _, margins) in parity.REWARD_CASES.items() if not margins]


@pytest.mark.parametrize("layout", ["shared", "packed", "padded"])
@pytest.mark.parametrize("case", NO_MARGIN)
def test_equals_trls_recorded_numbers(case, layout):
    assert GOLDEN["versions"]["trl"] == "1.16.0"
    assert_equals(parity.our_reward(case, layout), **GOLDEN["reward"][case])


@pytest.mark.parametrize("case", NO_MARGIN)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_equals_trl_live(case):
    pytest.importorskip("trl", reason="TRL is not installed (pip install 'accordant[parity]')")
    loss, slopes, metrics = parity.trl_reward(case)
    assert_equals(parity.our_reward(case, "shared"), loss, slopes, metrics)


@pytest.mark.parametrize("wrong", ["sign", "pair", "token"])
def test_the_comparison_would_see_a_mistake(wrong, monkeypatch):
    right = F.bradley_terry_loss
    if wrong == "sign":
        monkeypatch.setattr(F, "bradley_terry_loss", lambda d, eps=0.0: right(-d, eps))
    if wrong == "pair":
        monkeypatch.setattr(F, "bradley_terry_loss", lambda d, eps=0.0: right(d.flip(0) * torch.tensor([1, -1, 1]), eps))
    if wrong == "token":
        build = build_batch

        def early(rows, layout):
            batch = build(rows, layout)
            return dataclasses.replace(batch, plan=dataclasses.replace(batch.plan, last=batch.plan.last - 1))

        monkeypatch.setattr(parity, "build_batch", early)
    with pytest.raises(AssertionError):
        assert_equals(parity.our_reward("plain", "shared"), **GOLDEN["reward"]["plain"])
