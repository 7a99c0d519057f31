"""Advantages and scores by hand."""

import math

import pytest
from accordant_grpo.grpo import group_advantages
from accordant_grpo.repetition import Repetition
from accordant_grpo.rloo import leave_one_out

from core.api import ConfigError, Sample


def test_advantages_of_a_group_by_hand():
    """Scores 1, 2, 6: mean 3, deviation (4 + 1 + 9) / 2 = 7, its root."""
    unit = math.sqrt(7) + 1e-4
    assert group_advantages([1.0, 2.0, 6.0]) == pytest.approx([-2 / unit, -1 / unit, 3 / unit])
    assert group_advantages([1.0, 2.0, 6.0], 2.0) == [-1.0, -0.5, 1.5]


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([0.1, 0.1, 0.1], [0, 0, 0]),  # their mean is not exactly 0.1 in binary
        ([None, 4.0], [0, 0]),
        ([None, None], [0, 0]),
        ([None, 1.0, 3.0], [0, -1 / (math.sqrt(2) + 1e-4), 1 / (math.sqrt(2) + 1e-4)]),
    ],
    ids=str,
)
def test_advantages_where_nothing_can_be_compared(scores, expected):
    assert group_advantages(scores) == pytest.approx(expected, abs=0)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.0, 2.0, 6.0], [1 - 4, 2 - 3.5, 6 - 1.5]),
        ([None, 1.0, 4.0], [0, -3, 3]),
        ([None, 4.0], [0, 0]),
        ([0.1, 0.1, 0.1], [0, 0, 0]),
    ],
    ids=str,
)
def test_leave_one_out_by_hand(values, expected):
    assert leave_one_out(values) == pytest.approx(expected, abs=0)


@pytest.mark.parametrize(
    ("text", "options", "expected"),
    [
        ("a b c d e", {}, 0.0),
        ("a b a b a b", {"n": 2}, -(1 - 2 / 5)),  # ab ba ab ba ab
        ("A a a a", {"n": 1, "scale": 2.0}, -2 * 0.75),
        ("a a", {}, 0.0),  # no three words
        ("", {}, 0.0),
    ],
)
def test_repetition_by_hand(text, options, expected):
    assert Repetition(**options).score([Sample("?", text)]) == [pytest.approx(expected)]


def test_repetition_of_tokens():
    sample = Sample("?", "one text", tokens=[7, 8, 7, 8])
    assert Repetition(n=2, unit="tokens").score([sample]) == [pytest.approx(-1 / 3)]


@pytest.mark.parametrize("options", [{"n": 0}, {"unit": "letters"}, {"scale": 0.0}, {"scale": math.inf}], ids=str)
def test_options_that_repetition_refuses(options):
    with pytest.raises(ConfigError, match=rf"reward\.{next(iter(options))} is"):
        Repetition(**options)
