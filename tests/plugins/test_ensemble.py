import math

import pytest

from core.errors import ConfigError, PluginError
from core.registry import build_reward
from core.reward import Sample
from core.testing import reward_checks
from plugins.rewards.ensemble import Ensemble

HERE = "tests.plugins.rewards_for_tests"
TWO = [{"name": "function", "path": f"{HERE}:{name}"} for name in ("first", "second")]


def samples(*answers: str) -> list[Sample]:
    return [Sample("p", answer) for answer in answers]


def test_mean_by_hand():
    scored = Ensemble(TWO).score_parts(samples("1 4", "3 -1"))
    assert scored.scores == [2.5, 1.0]
    assert scored.parts["0"].scores == [1.0, 3.0]
    assert scored.parts["1"].scores == [4.0, -1.0]
    assert scored.decided == {}  # of a mean nobody can say


def test_min_by_hand_and_who_gave_it():
    scored = Ensemble(TWO, reduce="min").score_parts(samples("1 4", "3 -1", "2 2"))
    assert scored.scores == [1.0, -1.0, 2.0]
    assert scored.decided == {"0": [1.0, 0.0, 0.5], "1": [0.0, 1.0, 0.5]}


def test_mean_less_deviations_by_hand():
    """1, 4: mean 2.5, deviation 1.5 (divided by n). Of three members 0, 3, 6: mean 3, deviation sqrt(6)."""
    assert Ensemble(TWO, reduce="mean_std").score(samples("1 4", "2 2")) == [1.0, 2.0]
    assert Ensemble(TWO, reduce="mean_std", k=2).score(samples("1 4")) == [-0.5]
    assert Ensemble(TWO, reduce="mean_std", k=0).score(samples("1 4")) == [2.5]
    three = Ensemble([*TWO, {"name": "length"}], reduce="mean_std")
    assert three.score([Sample("p", "0 3", [5] * 6)]) == [pytest.approx(3 - math.sqrt(6))]


def test_a_member_without_a_score():
    answers = samples("- 4", "3 -", "- -")
    assert Ensemble(TWO).score(answers) == [None, None, None]
    assert Ensemble(TWO, missing="skip").score(answers) == [4.0, 3.0, None]
    least = Ensemble(TWO, reduce="min", missing="skip").score_parts(answers)
    assert least.scores == [4.0, 3.0, None]
    assert least.decided == {"0": [0.0, 1.0, 0.0], "1": [1.0, 0.0, 0.0]}
    assert Ensemble(TWO, reduce="mean_std", missing="skip").score(answers) == [4.0, 3.0, None]


def test_parts_by_name_or_label():
    named = Ensemble({"length": None, "words": {"name": "length", "unit": "words"}, "tokens": "length"}, reduce="min")
    assert list(named.parts) == ["length", "words", "tokens"]
    assert named.score([Sample("p", "one two", [5, 6, 7])]) == [2.0]
    assert Ensemble(["length", "length"]).unit == "tokens"
    assert Ensemble(["length", {"name": "length", "unit": "words"}]).unit == ""


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "reward.parts is not set"),
        ({"parts": ["length"]}, "an ensemble needs two"),
        ({"parts": ["length", "length"], "reduce": "max"}, "reward.reduce is max"),
        ({"parts": ["length", "length"], "k": -1}, "reward.k is -1"),
        ({"parts": ["length", "length"], "k": 2}, "reward.k is 2, and reduce=mean has no use for it"),
        ({"parts": ["length", "length"], "k": 2, "reduce": "min"}, "reduce=min has no use for it"),
        ({"parts": ["length", "length"], "k": float("nan")}, "reward.k is nan"),
        ({"parts": ["length", "length"], "missing": "zero"}, "reward.missing is zero"),
        ({"parts": ["length", {"name": "length", "max": 0}]}, "reward.parts.1.max is 0"),
        ({"parts": ["length", None]}, "reward.parts.1 is None"),
        ({"parts": ["length", "none"]}, "reward.parts.1 is 'none'"),
        ({"parts": {"length": 1}}, "reward.parts.length is 1"),
    ],
)
def test_options_that_cannot_be(options, words):
    with pytest.raises((ConfigError, PluginError)) as caught:
        Ensemble(**options)
    assert words in str(caught.value)


@pytest.mark.parametrize("reduce", ["mean", "min", "mean_std"])
def test_contract(reduce):
    words = {"name": "length", "unit": "words"}
    for check in reward_checks(build_reward({"name": "ensemble", "parts": ["length", words], "reduce": reduce})):
        check.run()
