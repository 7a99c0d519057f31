"""Best-of-K curves by hand, by all subsets, and by drawing; what is logged of a collection."""

from __future__ import annotations

import itertools
import math
import random
import statistics

import pytest

from core.draws import best_of, curve_points, log_scores, ranked
from core.rows import Response, Row
from core.trial import ScriptedContext


def scored(name, *scores):
    return Row(name, [3], tuple(Response([5 + i], [True], score=score) for i, score in enumerate(scores)))


def test_best_of_by_hand():
    """Of 3, 1, 2: the pairs have the best 3, 3 and 2."""
    scores = [3.0, 1.0, 2.0]
    assert best_of(scores, 1) == pytest.approx(2.0)
    assert best_of(scores, 2) == pytest.approx(8 / 3)
    assert best_of(scores, 3) == pytest.approx(3.0)


@pytest.mark.parametrize("n", [1, 2, 5, 9])
def test_best_of_is_the_mean_over_all_subsets(n):
    draw = random.Random(n)
    scores = [draw.choice([-1.0, 0.25, 0.25, draw.gauss(0, 3)]) for _ in range(n)]  # with ties
    for k in range(1, n + 1):
        assert best_of(scores, k) == pytest.approx(statistics.fmean(map(max, itertools.combinations(scores, k))))


def test_best_of_zeros_and_ones_is_pass_at_k():
    """Chen et al. 2021, eq. 1: 1 - C(n - c, k) / C(n, k)."""
    n, c = 10, 3
    for k in (1, 2, 5, 8):
        assert best_of([1.0] * c + [0.0] * (n - c), k) == pytest.approx(1 - math.comb(n - c, k) / math.comb(n, k))


def test_best_of_is_unbiased():
    """The best of two throws of a die is 161/36; the naive estimate, the larger of the first two, has the same mean."""
    draw = random.Random(0)
    throws = [best_of([draw.randint(1, 6) for _ in range(4)], 2) for _ in range(20_000)]
    assert statistics.fmean(throws) == pytest.approx(161 / 36, abs=4 * statistics.stdev(throws) / math.sqrt(len(throws)))


def test_best_of_many_is_exact():
    """C(2000, 1000) is beyond a float; the shares of it are not."""
    assert best_of([7.0] * 2000, 1000) == pytest.approx(7.0, rel=1e-12)
    assert best_of(range(2001), 1000) == pytest.approx(1000 * 2002 / 1001 - 1)  # of 0..N: k (N + 2) / (k + 1) - 1


@pytest.mark.parametrize("k", [0, -1, 4])
def test_best_of_more_than_there_are(k):
    with pytest.raises(ValueError, match=f"the best of {k} cannot be told from 3 scores"):
        best_of([1.0, 2.0, 3.0], k)


@pytest.mark.parametrize(
    ("samples", "points"), [(1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (4, [1, 2, 4]), (12, [1, 2, 4, 8, 12])]
)
def test_curve_points(samples, points):
    assert curve_points(samples) == points


def test_ranked():
    row = scored("a", 1.0, None, 3.0, 1.0)
    assert [(score, r.tokens) for score, r in ranked(row.responses)] == [(3.0, [7]), (1.0, [5]), (1.0, [8])]


def test_what_is_logged_by_hand():
    context = ScriptedContext()
    log_scores(context, [scored("a", 0.0, 2.0), scored("b", 1.0, 1.0)])
    assert context.metrics == pytest.approx(
        {
            "objective/scores": 1.0,
            "objective/scores_std": math.sqrt(2) / 2,  # of 0 and 2 with n - 1 it is the root of 2; of 1 and 1 it is 0
            "frac_reward_zero_std": 0.5,
            "best_of/1": 1.0,
            "best_of/2": 1.5,
        }
    )


class Counting(ScriptedContext):
    def __init__(self):
        super().__init__()
        self.counts = {}

    def log(self, metrics, count):
        super().log(metrics, count)
        self.counts |= dict.fromkeys(metrics, count)


def test_answers_without_a_score():
    """The curve is of one set of prompts, those with all their scores; so it rises, whatever the others would say."""
    context = Counting()
    log_scores(context, [scored("a", 0.0, 2.0), scored("b", 9.0, None), scored("c", None, None)])
    assert context.metrics == pytest.approx(
        {
            "objective/scores": 11 / 3,
            "objective/scores_std": math.sqrt(2),
            "frac_reward_zero_std": 0.0,
            "best_of/1": 1.0,
            "best_of/2": 2.0,
        }
    )
    assert context.counts == {
        "objective/scores": 3,
        "objective/scores_std": 1,
        "frac_reward_zero_std": 1,
        "best_of/1": 1,
        "best_of/2": 1,
    }


@pytest.mark.parametrize("rows", [[], [scored("a", None, None)]], ids=["no rows", "no scores"])
def test_nothing_is_logged_of_nothing(rows):
    context = ScriptedContext()
    log_scores(context, rows)
    assert context.metrics == {}
