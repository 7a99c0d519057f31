"""Annotators: Bradley-Terry frequencies, tastes, levels."""

import math

import pytest

from core.data.sandbox import TASTES, Annotator
from core.data.sandbox.annotators import level
from core.data.sandbox.dice import gumbel, seeded

SHORT, LONG, WARM = "It is Paris.", "It is Paris, " + "as many people have said " * 4, "What a great question! It is Paris."


def share(annotator, responses, golds, draws=4000):
    """How often the first answer is perceived as the best."""
    rng = seeded("share", annotator.name)
    return sum(max(p := annotator.perceive(responses, golds, rng)) == p[0] for _ in range(draws)) / draws


@pytest.mark.parametrize(("gap", "noise"), [(0.1, 0.15), (0.3, 0.15), (0.3, 0.5), (0.0, 0.2)])
def test_choices_follow_bradley_terry(gap, noise):
    expected = 1 / (1 + math.exp(-gap / noise))
    four_sigma = 4 * math.sqrt(expected * (1 - expected) / 4000)
    assert share(Annotator("neutral", 2, noise), ["a", "b"], [0.5 + gap, 0.5]) == pytest.approx(expected, abs=four_sigma)


def test_best_of_three_follows_plackett_luce():
    golds, noise = [0.6, 0.5, 0.3], 0.2
    weights = [math.exp(g / noise) for g in golds]
    expected = weights[0] / sum(weights)
    four_sigma = 4 * math.sqrt(expected * (1 - expected) / 4000)
    assert share(Annotator("neutral", 0, noise), ["a", "b", "c"], golds) == pytest.approx(expected, abs=four_sigma)


def test_gumbel_mean_is_eulers_constant():
    rng = seeded("gumbel")
    assert sum(gumbel(rng) for _ in range(20000)) / 20000 == pytest.approx(0.5772, abs=4 * 1.2825 / math.sqrt(20000))


@pytest.mark.parametrize(
    ("group", "liked", "other"),
    [("brevity", SHORT, LONG), ("detail", LONG, SHORT), ("warmth", WARM, SHORT)],
)
def test_a_taste_changes_the_choice(group, liked, other):
    """Of two answers equally good in truth, the neutral annotator takes each half of the time."""
    assert share(Annotator(group, 2, 0.1), [liked, other], [0.5, 0.5]) > 0.8
    assert share(Annotator("neutral", 2, 0.1), [liked, other], [0.5, 0.5]) == pytest.approx(0.5, abs=0.04)


def test_without_noise_nobody_errs_and_strength_grows_with_the_number():
    assert share(Annotator("neutral", 2, 0.0), ["a", "b"], [0.51, 0.5]) == 1.0
    utilities = [Annotator("warmth", n, 0.0).utility(WARM, 0.5) for n in range(5)]
    assert utilities == sorted(set(utilities))
    assert utilities[2] == pytest.approx(0.5 + 0.35)


def test_a_taste_for_words_is_by_the_word():
    assert TASTES["brevity"]("one two three") == pytest.approx(-0.045)
    assert TASTES["detail"]("one two three") == pytest.approx(0.045)


def test_levels_by_hand():
    assert [level(d) for d in (0.0, 0.09, 0.1, 0.29, 0.3, 0.59, 0.6, 5.0)] == [0, 0, 1, 1, 2, 2, 3, 3]
