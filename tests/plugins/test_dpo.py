"""DPO by hand, every variant, where its pairs come from, and against TRL's DPOTrainer."""

from __future__ import annotations

import json
import math

import pytest
import torch

from core import functional as F
from core.batch import build_batch
from core.errors import ConfigError
from core.functional import TokenScores
from core.rows import Response, Row
from core.trial import ScriptedContext
from plugins.objectives.dpo import DPO, best_against_worst
from tests.plugins import trl_parity as parity
from tests.plugins.test_sft import assert_equals

GOLDEN = json.loads(parity.GOLDEN.read_text(encoding="utf-8"))
YES, NO = True, False

# Two pairs; the second token of the first chosen answer does not count.
ROWS = [
    Row("a", [3], (Response([4, 5, 6], [YES, NO, YES]), Response([7, 8], [YES, YES]))),
    Row("b", [9], (Response([10, 11], [YES, YES]), Response([12], [YES]))),
]
POLICY = torch.tensor([[-1.0, 0, -2.0], [-2.0, -3.0, 0], [-1.5, -0.5, 0], [-4.0, 0, 0]])
REFERENCE = torch.tensor([[-2.0, 0, -3.0], [-2.0, -2.0, 0], [-1.0, -1.5, 0], [-1.0, 0, 0]])
# Sums: policy -3, -5, -2, -4; reference -5, -4, -2.5, -1. Ratios 2, -1, 0.5, -3. h = 3 and 3.5.
# Averages: policy -1.5, -2.5, -1, -4; reference -2.5, -2, -1.25, -1. Ratios 1, -0.5, 0.25, -3. h = 1.5 and 3.25.


class Scripted:
    """Models whose every number is given; masked tokens are 0, as Models says."""

    def __init__(self, policy=POLICY, reference=REFERENCE):
        self.policy, self.reference, self.asked = policy, reference, []

    def token_scores(self, role, batch):
        self.asked.append(role)
        zeros = torch.zeros_like(self.policy)
        return TokenScores(self.policy, batch.mask * 2.0, zeros, zeros)

    def token_logps(self, role, batch):
        self.asked.append(role)
        return self.reference


def loss_of(models=None, rows=ROWS, **options):
    objective = DPO(**{"reference": "live", **options})
    return objective.loss(models or Scripted(), build_batch(rows))


def sigmoid_loss(h, beta):
    return math.log1p(math.exp(-beta * h))


# --- the loss ----------------------------------------------------------------------------------------------------------


def test_sigmoid_by_hand():
    out = loss_of(beta=0.5)
    assert out.loss.item() == pytest.approx((sigmoid_loss(3, 0.5) + sigmoid_loss(3.5, 0.5)) / 2, abs=1e-6)
    assert out.count == 2


def test_label_smoothing_by_hand():
    expected = [0.8 * sigmoid_loss(h, 0.5) + 0.2 * sigmoid_loss(-h, 0.5) for h in (3, 3.5)]
    assert loss_of(beta=0.5, label_smoothing=0.2).loss.item() == pytest.approx(sum(expected) / 2, abs=1e-6)


def test_ipo_is_of_averages():
    expected = ((1.5 - 1 / (2 * 0.4)) ** 2 + (3.25 - 1 / (2 * 0.4)) ** 2) / 2
    assert loss_of(beta=0.4, loss="ipo").loss.item() == pytest.approx(expected, abs=1e-6)


def test_hinge_by_hand():
    assert loss_of(beta=0.3, loss="hinge").loss.item() == pytest.approx((0.1 + 0.0) / 2, abs=1e-6)


def test_length_normalised_by_hand():
    expected = (sigmoid_loss(1.5, 2.0) + sigmoid_loss(3.25, 2.0)) / 2
    assert loss_of(beta=2.0, length_normalised=True).loss.item() == pytest.approx(expected, abs=1e-6)


def test_anchor_by_hand():
    """Means of the chosen answers' NLL per token: 1.5 and 1."""
    plain, anchored = loss_of(beta=0.5), loss_of(beta=0.5, sft_coef=0.4)
    assert anchored.loss.item() - plain.loss.item() == pytest.approx(0.4 * 1.25, abs=1e-6)


def test_metrics_by_hand():
    metrics = {name: float(value) for name, value in loss_of(beta=0.5).metrics.items()}
    assert metrics == pytest.approx(
        {
            "rewards/chosen": 0.5 * (2 + 0.5) / 2,
            "rewards/rejected": 0.5 * (-1 - 3) / 2,
            "rewards/margins": 0.5 * (3 + 3.5) / 2,
            "rewards/accuracies": 1.0,
            "logps/chosen": (-3 - 2) / 2,
            "logps/rejected": (-5 - 4) / 2,
            "log_ratios/chosen": (2 + 0.5) / 2,
            "log_ratios/rejected": (-1 - 3) / 2,
            "entropy": 2.0,
        }
    )


def test_a_tie_is_half_right():
    """The policy as its own reference: no margin."""
    metrics = loss_of(Scripted(POLICY, POLICY)).metrics
    assert metrics["rewards/accuracies"] == 0.5  # a policy that is the reference knows nothing: a coin
    assert metrics["rewards/margins"] == 0


@pytest.mark.parametrize("options", [{}, {"loss": "ipo"}, {"loss": "hinge"}, {"length_normalised": True}], ids=str)
def test_a_swapped_pair_has_another_loss(options):
    right = loss_of(beta=0.5, **options).loss.item()
    swapped = Scripted(POLICY[[1, 0, 3, 2]], REFERENCE[[1, 0, 3, 2]])
    rows = [row.with_responses(row.responses[::-1]) for row in ROWS]
    assert loss_of(swapped, rows, beta=0.5, **options).loss.item() > right + 0.5


def test_a_cached_reference_gives_the_same_loss():
    given = [[REFERENCE[i, t].item() for t in range(n)] for i, n in enumerate((3, 2, 2, 1))]
    rows = [
        row.with_responses([r.with_field("ref_logps", given[2 * k + i]) for i, r in enumerate(row.responses)])
        for k, row in enumerate(ROWS)
    ]
    models = Scripted()
    cached = loss_of(models, rows, reference="cached", beta=0.5)
    assert models.asked == ["policy"]  # the reference is not computed
    assert cached.loss.item() == loss_of(beta=0.5).loss.item()


def test_gradients_go_to_the_policy_alone():
    policy = POLICY.clone().requires_grad_()
    out = loss_of(Scripted(policy), beta=0.5)
    assert not any(getattr(v, "requires_grad", False) for v in out.metrics.values())
    out.loss.backward()
    slope = [0.5 / (1 + math.exp(0.5 * h)) / 2 for h in (3, 3.5)]
    a, b = slope
    expected = torch.tensor([[-a, 0, -a], [a, a, 0], [-b, -b, 0], [b, 0, 0]])
    torch.testing.assert_close(policy.grad, expected)


# --- where pairs come from ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pairs", "reward", "resolved", "reads", "collects", "words"),
    [
        ("auto", None, "dataset", "pairs", "once", "the data's labels."),
        ("auto", "length", "sampled", "prompts", "every_epoch", "best against worst by length"),
        ("dataset", None, "dataset", "pairs", "once", "the data's labels."),
        ("dataset", "length", "dataset", "pairs", "once", "only measured"),
        ("relabelled", "length", "relabelled", "pairs", "once", "ordered by reward length"),
        ("sampled", "length", "sampled", "prompts", "every_epoch", "3 responses sampled per prompt"),
    ],
)
def test_bind(pairs, reward, resolved, reads, collects, words):
    objective = DPO(pairs=pairs, samples=3)
    assert words in objective.bind(reward)
    assert (objective.pairs, objective.reads, objective.collects) == (resolved, reads, collects)


def test_a_live_reference_of_labelled_pairs_collects_nothing():
    objective = DPO(reference="live")
    objective.bind(None)
    assert objective.collects == "never"
    relabelled = DPO(reference="live", pairs="relabelled")
    relabelled.bind("length")
    assert relabelled.collects == "once"


@pytest.mark.parametrize("pairs", ["relabelled", "sampled"])
def test_pairs_that_need_a_reward_say_so(pairs):
    with pytest.raises(ConfigError, match=f"objective.pairs={pairs} needs a reward"):
        DPO(pairs=pairs).bind(None)


class Context(ScriptedContext):
    """Answers of 1 to n tokens; the score is what the test says; reference log-probs are -1 a token."""

    def __init__(self, scores=None):
        super().__init__()
        self.calls, self.given = [], scores

    def generate(self, rows, n=1, *, temperature=None):
        self.calls.append(f"generate {n}")
        return [r.with_responses([Response([5] * (k + 1), [True] * (k + 1)) for k in range(n)]) for r in rows]

    def token_logps(self, role, rows, field, *, cache=False, temperature=1.0):
        self.calls.append(f"{role} {field} cache={cache}")
        return [
            r.with_responses([a.with_field(field, [-1.0] * len(a.tokens)) for a in r.responses], margins=r.margins)
            for r in rows
        ]

    def score(self, rows):
        self.calls.append("score")
        return [scored(r, *(self.given or [float(len(a.tokens)) for a in r.responses])) for r in rows]

    def scores(self, role, rows):
        raise AssertionError("dpo has no scorer")


def scored(row, *scores):
    import dataclasses

    return row.with_responses([dataclasses.replace(r, score=s) for r, s in zip(row.responses, scores, strict=True)])


@pytest.mark.parametrize(
    ("pairs", "calls"),
    [
        ("dataset", ["reference ref_logps cache=True"]),
        ("relabelled", ["score", "reference ref_logps cache=True"]),
        ("sampled", ["generate 4", "score", "reference ref_logps cache=False"]),
    ],
)
def test_collect(pairs, calls):
    objective, context = DPO(pairs=pairs), Context()
    objective.bind("length")
    made = objective.collect(ROWS, context)
    assert context.calls == calls
    assert [r.id for r in made] == ["a", "b"]
    assert all(len(r.responses) == 2 and "ref_logps" in r.responses[0].token_fields for r in made)
    if pairs == "sampled":
        assert [[len(r.tokens) for r in row.responses] for row in made] == [[4, 1], [4, 1]]
        assert made[0].margins == (3.0,)


def test_what_a_sampled_collection_logs():
    """Two prompts, four answers each, scored 1, 2, 3, 4: the best of two is on average 10/3, of four 4."""
    objective, context = DPO(pairs="sampled"), Context()
    objective.bind("length")
    objective.collect(ROWS, context)
    assert context.metrics == pytest.approx(
        {
            "objective/scores": 2.5,
            "objective/scores_std": math.sqrt(5 / 3),
            "frac_reward_zero_std": 0.0,
            "best_of/1": 2.5,
            "best_of/2": 10 / 3,
            "best_of/4": 4.0,
            "pairs/share": 1.0,
        }
    )


def test_relabelling_logs_no_curve_of_draws():
    """The data's two answers are no draws from the policy."""
    objective, context = DPO(pairs="relabelled"), Context()
    objective.bind("length")
    objective.collect(ROWS, context)
    assert context.metrics == {"pairs/share": 1.0}


def test_each_epoch_draws_anew():
    objective, kept = DPO(pairs="sampled"), []
    objective.bind("length")
    for epoch in (0, 1):
        made = objective.collect([row.with_responses([]) for row in ROWS], ScriptedContext(epoch))
        kept.append([[r.tokens for r in row.responses] for row in made])
        assert all(row.responses[0].score > row.responses[1].score for row in made)
    assert kept[0] != kept[1]


def test_relabelling_turns_a_pair_round():
    objective, context = DPO(pairs="relabelled", reference="live"), Context(scores=[-1.0, 2.5])
    objective.bind("any")
    made = objective.collect(ROWS, context)
    assert [r.tokens for r in made[0].responses] == [[7, 8], [4, 5, 6]]
    assert made[0].margins == (3.5,)
    assert context.calls == ["score"]


def test_best_against_worst_by_hand():
    row = Row("a", [3], tuple(Response([5 + k], [True]) for k in range(4)))
    context = Context()
    (made,) = best_against_worst([scored(row, 0.5, 2.0, -1.0, 1.0)], context)
    assert [r.tokens for r in made.responses] == [[6], [7]]
    assert made.margins == (3.0,)
    assert context.notes == []


def test_rows_that_give_no_pair_are_counted():
    row = Row("a", [3], tuple(Response([5 + k], [True]) for k in range(3)))
    context = Context()
    rows = [
        scored(row, 1.0, 1.0, 1.0),
        scored(row, None, 1.0, None),
        scored(row, None, 2.0, 1.0),
        scored(row, None, None, None),
    ]
    made = best_against_worst(rows, context)
    assert [[r.score for r in m.responses] for m in made] == [[2.0, 1.0]]
    assert context.notes == ["3 of 4 prompts gave no pair (equal scores, or no score)."]
    assert context.metrics == {"pairs/share": 0.25}


def test_a_share_without_a_prompt_logs_nothing():
    """Of several processes one may have none."""
    objective, context = DPO(pairs="sampled"), Context()
    objective.bind("length")
    assert objective.collect([], context) == []
    assert (context.metrics, context.notes) == ({}, [])


def test_equal_answers_are_no_pair():
    """A reward that is not a function of the answer alone may score twins differently."""
    twins = Row("a", [3], (Response([5], [True]), Response([5], [True])))
    assert best_against_worst([scored(twins, 1.0, 2.0)], Context()) == []


# --- options and advice ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"beta": 0}, "beta"),
        ({"beta": -1.0}, "beta"),
        ({"beta": math.nan}, "beta"),
        ({"beta": math.inf}, "beta"),
        ({"loss": "sigmod"}, "loss"),
        ({"label_smoothing": 0.5}, "label_smoothing"),
        ({"label_smoothing": -0.1}, "label_smoothing"),
        ({"label_smoothing": 0.1, "loss": "ipo"}, "label_smoothing"),
        ({"sft_coef": -1}, "sft_coef"),
        ({"sft_coef": math.nan}, "sft_coef"),
        ({"pairs": "made-up"}, "pairs"),
        ({"samples": 1}, "samples"),
        ({"reference": "none"}, "reference"),
    ],
    ids=str,
)
def test_options_that_cannot_work(options, key):
    with pytest.raises(ConfigError, match=rf"objective\.{key} is .*; expected"):
        DPO(**options)


@pytest.mark.parametrize(
    ("chosen", "rejected", "advises"), [(-2.0, -9.0, True), (0.5, -9.0, False), (-0.5, -9.0, False), (-2.0, 3.0, False)]
)
def test_advice_where_both_likelihoods_fall(chosen, rejected, advises):
    said = DPO().diagnose({"log_ratios/chosen": chosen, "log_ratios/rejected": rejected})
    assert ("objective.sft_coef" in said) == advises


# --- against TRL -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["shared", "padded"])
@pytest.mark.parametrize("case", parity.DPO_CASES)
def test_equals_trls_recorded_numbers(case, layout):
    assert_equals(parity.our_dpo(case, layout), **GOLDEN["dpo"][case])


def test_a_cached_reference_equals_trls_recorded_numbers():
    assert_equals(parity.our_dpo("sigmoid", "shared", "cached"), **GOLDEN["dpo"]["sigmoid"])


@pytest.mark.parametrize("case", parity.DPO_CASES)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_equals_trl_live(case):
    pytest.importorskip("trl", reason="TRL is not installed (pip install 'accordant[parity]')")
    loss, slopes, metrics = parity.trl_dpo(case)
    assert_equals(parity.our_dpo(case, "shared"), loss, slopes, metrics)


@pytest.mark.parametrize("wrong", ["sign", "mask", "pair", "reference"])
def test_the_comparison_would_see_a_mistake(wrong, monkeypatch):
    if wrong == "mask":
        monkeypatch.setattr(F, "sequence_logps", lambda logps, mask, average=False: logps[:, 1:].sum(-1))
    else:
        broken = {
            "sign": lambda c, r, rc, rr: -((c - rc) - (r - rr)),
            "pair": lambda c, r, rc, rr: (c - rr) - (r - rc),
            "reference": lambda c, r, rc, rr: c - r,
        }[wrong]
        monkeypatch.setattr(F, "dpo_logits", broken)
    with pytest.raises(AssertionError):
        assert_equals(parity.our_dpo("sigmoid", "shared"), **GOLDEN["dpo"]["sigmoid"])


def test_a_difference_of_rounding_is_no_preference():
    """A learned reward gives one answer slightly different scores in different company."""
    answered = [ROWS[0].with_responses([Response([5], [True], score=1.0), Response([6], [True], score=1.0 + 1e-7)])]
    context = Context()
    assert best_against_worst(answered, context) == []
    assert "1 of 1 prompts gave no pair" in context.notes[0]
