"""The losses of reward models by hand: pairs of rows, Bradley-Terry, ties, rankings as choices."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from core import functional as F

YES, NO = True, False


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


def listed(pairs):
    """[(first, second, tied, row)]"""
    columns = (pairs.first, pairs.second, pairs.tied, pairs.row)
    return list(zip(*(c.tolist() for c in columns), strict=True))


# --- which pairs there are ---------------------------------------------------------------------------------------------


def test_two_responses_are_one_pair():
    pairs = F.row_pairs(torch.tensor([0, 0]), torch.tensor([NO, NO]))
    assert listed(pairs) == [(0, 1, NO, 0)]
    assert pairs.counts.tolist() == [1]


def test_four_responses_are_six_pairs_each_better_one_first():
    pairs = F.row_pairs(torch.zeros(4, dtype=torch.long), torch.tensor([NO] * 4))
    assert [(i, j) for i, j, _, _ in listed(pairs)] == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    assert not pairs.tied.any()
    assert pairs.counts.tolist() == [6]


def test_a_tie_in_the_middle():
    """a > b = c > d: only b and c are tied."""
    pairs = F.row_pairs(torch.zeros(4, dtype=torch.long), torch.tensor([NO, YES, NO, NO]))
    assert [(i, j) for i, j, tied, _ in listed(pairs) if tied] == [(1, 2)]


def test_ties_go_through_neighbours():
    """a = b = c > d: a and c are tied too; a = b > c = d: nobody across the border is."""
    pairs = F.row_pairs(torch.zeros(4, dtype=torch.long), torch.tensor([YES, YES, NO, NO]))
    assert [(i, j) for i, j, tied, _ in listed(pairs) if tied] == [(0, 1), (0, 2), (1, 2)]
    pairs = F.row_pairs(torch.zeros(4, dtype=torch.long), torch.tensor([YES, NO, YES, NO]))
    assert [(i, j) for i, j, tied, _ in listed(pairs) if tied] == [(0, 1), (2, 3)]


def test_all_tied():
    pairs = F.row_pairs(torch.zeros(3, dtype=torch.long), torch.tensor([YES, YES, NO]))
    assert pairs.tied.all()
    assert pairs.mean(tensor([1.0, 2.0, 3.0]), ~pairs.tied).item() == 0.0


def test_rows_of_different_sizes_never_mix():
    """Three responses, one, two; the single one is a row without pairs."""
    pairs = F.row_pairs(torch.tensor([0, 0, 0, 1, 2, 2]), torch.tensor([NO, YES, NO, NO, YES, NO]))
    assert listed(pairs) == [(0, 1, NO, 0), (0, 2, NO, 0), (1, 2, YES, 0), (4, 5, YES, 2)]
    assert pairs.counts.tolist() == [3, 0, 1]


def test_each_row_weighs_one():
    """Means of rows: (1 + 2 + 6) / 3 = 3 and 8; of the kept ones (1 + 2) / 2 = 1.5 and, of none, 0."""
    pairs = F.row_pairs(torch.tensor([0, 0, 0, 1, 1]), torch.tensor([NO, YES, NO, YES, NO]))
    values = tensor([1.0, 2.0, 6.0, 8.0])
    assert pairs.mean(values).item() == pytest.approx((3 + 8) / 2)
    assert pairs.mean(values, ~pairs.tied).item() == pytest.approx((1.5 + 0) / 2)


def test_what_is_not_kept_gets_no_gradient():
    pairs = F.row_pairs(torch.tensor([0, 0, 0]), torch.tensor([NO, YES, NO]))
    values = tensor([1.0, 2.0, 6.0]).requires_grad_()
    pairs.mean(values, ~pairs.tied).backward()
    assert values.grad.tolist() == [0.5, 0.5, 0.0]


# --- Bradley-Terry -----------------------------------------------------------------------------------------------------


def test_bradley_terry_by_hand():
    losses = F.bradley_terry_loss(tensor([0.0, 1.0, -2.0])).tolist()
    assert losses == pytest.approx([math.log(2), -math.log(sigmoid(1.0)), -math.log(sigmoid(-2.0))])
    assert losses == pytest.approx([0.693147, 0.313262, 2.126928], abs=1e-6)


def test_label_smoothing_by_hand():
    expected = 0.9 * -math.log(sigmoid(1.5)) + 0.1 * -math.log(sigmoid(-1.5))
    assert F.bradley_terry_loss(tensor([1.5]), 0.1).item() == pytest.approx(expected)


def test_a_smoothed_loss_is_least_where_the_model_believes_the_labels_as_much():
    """eps = 0.2: at sigmoid(d) = 0.8, d = log 4, the gradient is 0."""
    difference = tensor([math.log(4.0)]).requires_grad_()
    F.bradley_terry_loss(difference, 0.2).sum().backward()
    assert difference.grad.item() == pytest.approx(0.0, abs=1e-12)


def test_large_differences_stay_finite():
    values = torch.tensor([-200.0, 200.0])
    assert F.bradley_terry_loss(values).tolist() == [200.0, 0.0]
    tied = torch.tensor([YES, YES])
    assert torch.isfinite(F.rao_kupper_loss(values, tied, 0.3)).all()
    assert torch.isfinite(F.davidson_loss(values, tied, 0.3)).all()


# --- ties --------------------------------------------------------------------------------------------------------------

TIES = {"rao_kupper": F.rao_kupper_loss, "davidson": F.davidson_loss}


@pytest.mark.parametrize("name", TIES)
@pytest.mark.parametrize("share", [0.05, 0.3333, 0.8])
def test_win_loss_and_tie_are_all_there_is(name, share):
    d = tensor([-3.0, -0.4, 0.0, 0.7, 5.0])
    won, tied = torch.zeros(5, dtype=torch.bool), torch.ones(5, dtype=torch.bool)
    p = [torch.exp(-TIES[name](*case, share)) for case in ((d, won), (-d, won), (d, tied))]
    torch.testing.assert_close(sum(p), torch.ones(5, dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", TIES)
def test_equals_tie_as_often_as_said(name):
    for share in (0.05, 0.3333, 0.8):
        loss = TIES[name](tensor([0.0]), torch.tensor([YES]), share)
        assert math.exp(-loss.item()) == pytest.approx(share)


def test_rao_kupper_by_hand():
    """share 1/3: theta = 2. d = log 3: strengths 3 and 1. P(win) = 3 / (3 + 2), P(tie) = 3 * 3 / ((3 + 2) (1 + 6))."""
    d = tensor([math.log(3.0)] * 2)
    probabilities = torch.exp(-F.rao_kupper_loss(d, torch.tensor([NO, YES]), 1 / 3)).tolist()
    assert probabilities == pytest.approx([3 / 5, 9 / 35])


def test_davidson_by_hand():
    """share 1/3: nu = 1. d = log 4: strengths 4 and 1, their geometric mean 2; Z = 4 + 1 + 2."""
    d = tensor([math.log(4.0)] * 2)
    probabilities = torch.exp(-F.davidson_loss(d, torch.tensor([NO, YES]), 1 / 3)).tolist()
    assert probabilities == pytest.approx([4 / 7, 2 / 7])


@pytest.mark.parametrize("name", TIES)
def test_hardly_any_ties_is_bradley_terry(name):
    d = tensor([-1.0, 0.3, 2.0])
    won = torch.zeros(3, dtype=torch.bool)
    torch.testing.assert_close(TIES[name](d, won, 1e-9), F.bradley_terry_loss(d), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", TIES)
def test_a_tie_pulls_scores_together(name):
    d = tensor([2.0]).requires_grad_()
    TIES[name](d, torch.tensor([YES]), 0.3).sum().backward()
    assert d.grad.item() > 0  # a step against it makes d smaller
    at_zero = tensor([0.0]).requires_grad_()
    TIES[name](at_zero, torch.tensor([YES]), 0.3).sum().backward()
    assert at_zero.grad.item() == pytest.approx(0.0, abs=1e-12)


# --- rankings as one choice after another ------------------------------------------------------------------------------


def plackett_luce(scores):
    """P of this order, the textbook way: the first among all, the second among the rest, ..."""
    weights = [math.exp(s) for s in scores]
    return math.prod(w / sum(weights[k:]) for k, w in enumerate(weights))


@pytest.mark.parametrize("count", [2, 3, 4])
def test_plackett_luce_is_a_distribution_over_orders(count):
    """exp(-loss * choices) of every order of the same scores: what the textbook says, and 1 in sum."""
    scores = [0.3, -1.2, 2.0, 0.9][:count]
    row, ties = torch.zeros(count, dtype=torch.long), torch.zeros(count, dtype=torch.bool)
    total = 0.0
    for order in itertools.permutations(scores):
        loss = F.plackett_luce_loss(tensor(order), row, ties).item()
        probability = math.exp(-loss * (count - 1))
        assert probability == pytest.approx(plackett_luce(order))
        total += probability
    assert total == pytest.approx(1.0)


def test_of_two_it_is_bradley_terry():
    loss = F.plackett_luce_loss(tensor([0.4, -0.9]), torch.tensor([0, 0]), torch.tensor([NO, NO]))
    assert loss.item() == pytest.approx(-math.log(sigmoid(1.3)))


def test_who_is_tied_with_the_choice_is_left_out_of_it():
    """a > b = c > d: choices a of {a, b, c, d}, b of {b, d}, c of {c, d}."""
    scores = [1.0, 0.2, -0.3, 0.5]
    a, b, c, d = (math.exp(s) for s in scores)
    expected = -(math.log(a / (a + b + c + d)) + math.log(b / (b + d)) + math.log(c / (c + d))) / 3
    loss = F.plackett_luce_loss(tensor(scores), torch.zeros(4, dtype=torch.long), torch.tensor([NO, YES, NO, NO]))
    assert loss.tolist() == pytest.approx([expected])


def test_rows_of_different_sizes_one_all_tied_one_alone():
    scores = tensor([1.0, 0.0, -1.0, 5.0, 0.5, 2.0, 9.0])
    rows = torch.tensor([0, 0, 0, 1, 1, 2, 3])
    ties = torch.tensor([NO, NO, NO, YES, NO, NO, NO])
    losses = F.plackett_luce_loss(scores, rows, ties)
    expected = -math.log(plackett_luce([1.0, 0.0, -1.0])) / 2
    assert losses.tolist() == pytest.approx([expected, 0.0, 0.0, 0.0])


def test_a_row_alone_gets_no_gradient_and_no_nan():
    scores = tensor([1.0, 0.0, 3.0]).requires_grad_()
    F.plackett_luce_loss(scores, torch.tensor([0, 0, 1]), torch.tensor([NO, NO, NO])).sum().backward()
    assert torch.isfinite(scores.grad).all()
    assert scores.grad[2] == 0


# --- gradients ---------------------------------------------------------------------------------------------------------

ROWS, TIED = torch.tensor([0, 0, 0, 0, 1, 1, 2, 2, 2]), torch.tensor([NO, YES, NO, NO, YES, NO, YES, NO, NO])


def of_pairs(loss, keep_all=True):
    def total(scores):
        pairs = F.row_pairs(ROWS, TIED)
        return pairs.mean(loss(scores[pairs.first] - scores[pairs.second], pairs.tied), None if keep_all else ~pairs.tied)

    return total


LOSSES = {
    "bradley_terry": of_pairs(lambda d, tied: F.bradley_terry_loss(d, 0.1), keep_all=False),
    "rao_kupper": of_pairs(lambda d, tied: F.rao_kupper_loss(d, tied, 0.25)),
    "davidson": of_pairs(lambda d, tied: F.davidson_loss(d, tied, 0.25)),
    "plackett_luce": lambda scores: F.plackett_luce_loss(scores, ROWS, TIED).mean(),
}


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_those_of_finite_differences(name):
    scores = torch.randn(9, dtype=torch.float64, generator=torch.Generator().manual_seed(3)).requires_grad_()
    assert torch.autograd.gradcheck(LOSSES[name], (scores,), eps=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", LOSSES)
def test_a_constant_is_not_seen(name):
    """Only differences count, so the scores of a row may be shifted together."""
    scores = torch.randn(9, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    shifted = scores + tensor([1.0, -2.0, 5.0])[ROWS]
    assert LOSSES[name](scores).item() == pytest.approx(LOSSES[name](shifted).item())


@pytest.mark.parametrize("name", LOSSES)
def test_right_order_costs_less_than_the_reverse(name):
    """A flipped sign would be seen."""
    falling = tensor([3.0, 1.0, 1.0, -2.0, 0.0, 0.0, 1.0, 1.0, -1.0])
    assert LOSSES[name](falling) < LOSSES[name](-falling) - 0.5


@pytest.mark.parametrize("name", LOSSES)
def test_a_swapped_pair_is_seen(name):
    falling = tensor([3.0, 1.0, 1.0, -2.0, 0.0, 0.0, 1.0, 1.0, -1.0])
    swapped = falling[[3, 1, 2, 0, 4, 5, 6, 7, 8]]
    assert LOSSES[name](falling) < LOSSES[name](swapped) - 0.1


@pytest.mark.parametrize("name", LOSSES)
def test_a_dropped_mask_of_ties_is_seen(name, monkeypatch):
    scores = torch.randn(9, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    right, build = LOSSES[name](scores).item(), F.row_pairs
    monkeypatch.setattr(F, "row_pairs", lambda rows, ties: build(rows, torch.zeros_like(ties)))
    assert abs(LOSSES[name](scores).item() - right) > 0.01


def test_a_flipped_label_is_flipped_with_its_margin():
    """eps of the labels say that the other response is better, by as much: sigmoid(-d - m), not sigmoid(-(d - m))."""
    d, m, eps = 0.7, 0.4, 0.2
    expected = -(1 - eps) * math.log(1 / (1 + math.exp(-(d - m)))) - eps * math.log(1 / (1 + math.exp(d + m)))
    got = F.bradley_terry_loss(torch.tensor([d]), eps, torch.tensor([m]))
    assert got.item() == pytest.approx(expected, rel=1e-5)
