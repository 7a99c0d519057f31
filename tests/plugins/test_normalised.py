"""Expected values are worked out by hand; the running statistics are also compared with NumPy's."""

import math
import random

import numpy as np
import pytest

import plugins.rewards.running as running
from core.checked_reward import score_metrics
from core.errors import ConfigError
from core.registry import build_reward
from core.report.changes import changes
from core.reward import Sample
from core.testing import reward_checks
from plugins.rewards.normalised import Normalised
from plugins.rewards.running import Moments, Running

NUMBER = {"name": "function", "path": "tests.plugins.rewards_for_tests:number"}


def samples(*scores: float | None) -> list[Sample]:
    return [Sample("p", "" if score is None else str(score)) for score in scores]


class Counted(Normalised):
    """Counts the samples that its part is asked for."""

    def __init__(self, **options):
        super().__init__(NUMBER, **options)
        self.asked = 0
        before = self.parts["of"].score

        def score(given):
            self.asked += len(given)
            return before(given)

        self.parts["of"].score = score


def test_before_the_first_collection_a_score_passes_as_it_is():
    assert Normalised(NUMBER, clip=1).score(samples(1, -7, None)) == [1.0, -7.0, None]


def test_one_collection_by_hand():
    """1, 3, 5, 7: mean 4, squared distances 9 + 1 + 1 + 9 = 20, std sqrt(5)."""
    source = Normalised(NUMBER)
    source.fit(samples(1, 3, None, 5, 7))
    assert source.state_dict() == {"statistics": {"count": 4, "mean": 4.0, "m2": 20.0}}
    scored = source.score_parts(samples(4, 9, None, 1))
    assert scored.scores == [0.0, pytest.approx(math.sqrt(5)), None, pytest.approx(-3 / math.sqrt(5))]
    assert scored.parts["of"].scores == [4.0, 9.0, None, 1.0]


def test_two_collections_by_hand():
    """1, 3 (mean 2, M2 2), then 10 (mean 10, M2 0): mean 14/3, M2 2 + 64 * 2/3 = 134/3."""
    source = Normalised(NUMBER)
    source.fit(samples(1, 3))
    source.fit(samples(10))
    state = source.state_dict()["statistics"]
    assert state == {"count": 3, "mean": pytest.approx(14 / 3), "m2": pytest.approx(134 / 3)}
    assert source.score(samples(10)) == [pytest.approx((16 / 3) / math.sqrt(134 / 9))]


@pytest.mark.parametrize("shift", [0.0, 1e8])
def test_running_statistics_are_those_of_all_scores(shift):
    """In groups of any size, far from zero too, where the textbook formula E[x^2] - E[x]^2 has no digit left."""
    draw = random.Random(3)
    groups = [[shift + draw.gauss(2, 3) for _ in range(size)] for size in (1, 7, 2, 90, 1, 30)]
    source = Running()
    for group in groups:
        source.take(group)
    everything = np.array([score for group in groups for score in group])
    assert source.moments.count == len(everything)
    assert source.moments.mean == pytest.approx(everything.mean(), rel=1e-14)
    assert source.moments.std == pytest.approx(everything.std(), rel=1e-7 if shift else 1e-12)


def test_moments_of_nothing_add_nothing():
    one = Moments.of([1.0, 2.0])
    assert one + Moments() == one == Moments() + one
    assert Moments.of([]) == Moments()
    assert Running().mean_and_std is None


def test_processes_agree_and_count_all(monkeypatch):
    """Two processes with 1, 3 and with 10 have the statistics of 1, 3, 10; so has one with nothing."""
    shares = [(2, 2.0, 2.0), (1, 10.0, 0.0)]
    found = []
    for own in ([1.0, 3.0], [10.0]):

        def gathered(mine, own=own):
            assert mine in shares
            return shares

        monkeypatch.setattr(running, "from_all_processes", gathered)
        source = Running()
        source.take(own)
        found.append(source.state_dict())
    assert found[0] == found[1] == {"count": 3, "mean": pytest.approx(14 / 3), "m2": pytest.approx(134 / 3)}


def test_equal_scores_are_centred():
    source = Normalised(NUMBER)
    source.fit(samples(0.1, 0.1, 0.1))  # three times 0.1 is not 0.3 in binary: rounding is no spread
    assert source.score(samples(0.1, 2.1)) == [pytest.approx(0.0, abs=1e-15), pytest.approx(2.0)]


def test_clip_and_center():
    """Mean 4, std 2: 14 is 5 deviations away."""
    options = {"mode": "fixed", "mean": 4, "std": 2}
    assert Normalised(NUMBER, **options).score(samples(14, 4, 0)) == [5.0, 0.0, -2.0]
    assert Normalised(NUMBER, **options, clip=1.5).score(samples(14, 5, 0)) == [1.5, 0.5, -1.5]
    assert Normalised(NUMBER, **options, clip=1.5, center_only=True).score(samples(14, 5, 0)) == [3.0, 1.0, -3.0]
    assert Normalised(NUMBER, mode="fixed", mean=4, center_only=True).score(samples(14, None)) == [10.0, None]


def test_fixed_numbers_do_not_learn():
    source = Normalised(NUMBER, mode="fixed", mean=0, std=1)
    source.fit(samples(5, 6))
    assert source.state_dict() == {}
    assert source.score(samples(5)) == [5.0]


def test_evaluation_leaves_no_trace():
    source = Normalised(NUMBER)
    source.fit(samples(1, 3))
    before = source.state_dict()
    source.score(samples(100, 200))
    source.score_parts(samples(100, 200))
    assert source.state_dict() == before


def test_a_collection_is_computed_once():
    source = Counted()
    rows = samples(1, 3)
    source.fit(rows)
    assert source.score(rows) == [-1.0, 1.0]
    assert source.asked == 2
    assert source.score(rows) == [-1.0, 1.0]  # an evaluation may give the same list; nothing is kept for ever
    assert source.asked == 4
    source.fit(rows)
    assert source.score(list(rows)) == [-1.0, 1.0]
    assert source.asked == 8


def test_nested_normalisation_computes_a_collection_once():
    inner = Counted()
    outer = Normalised({"name": "length"})
    outer.parts = {"of": inner}
    rows = samples(1, 3)
    outer.fit(rows)
    outer.score(rows)
    assert inner.asked == 2


def test_a_loaded_state_is_the_state():
    one, other = Normalised(NUMBER), Normalised(NUMBER)
    one.fit(samples(0.1, 0.7, 1e-9, 3))
    other.load_state_dict(one.state_dict())
    assert other.state_dict() == one.state_dict()
    assert other.score(samples(0.3, -5)) == one.score(samples(0.3, -5))
    rows = samples(1, 2)
    one.fit(rows)
    one.load_state_dict({})
    assert one.score(rows) == [1.0, 2.0]


def test_whose_scale_moves():
    """The ones that remember, and what is made of them; not their raw scores, nor a part that does not count."""
    rows = samples(1, 2)
    running = {"name": "normalised", "of": NUMBER}
    assert build_reward(running).score_parts(rows).moving
    assert not build_reward(running).score_parts(rows).parts["of"].moving
    assert not Normalised(NUMBER, mode="fixed", mean=0, std=1).score_parts(rows).moving
    assert Normalised(running, mode="fixed", mean=0, std=1).score_parts(rows).moving
    for weight, moves in ((1, True), (0, False)):
        parts = {"a": {"weight": weight, **running}, "b": {"weight": 1, **NUMBER}}
        assert build_reward({"name": "weighted", "parts": parts}).score_parts(rows).moving is moves
    for reduce in ("mean", "min"):
        ensemble = {"name": "ensemble", "reduce": reduce, "parts": [NUMBER, running]}
        assert build_reward(ensemble).score_parts(rows).moving
        assert not build_reward({**ensemble, "parts": [NUMBER, NUMBER]}).score_parts(rows).moving
    metrics = score_metrics("r", build_reward(running).score_parts(rows))
    assert metrics["r/moving"] == 1.0
    assert "r/of/moving" not in metrics


def test_a_run_is_not_said_to_change_what_only_its_units_changed():
    before = {"rewards/n/mean": 250.0, "rewards/n/of/mean": 250.0}
    after = {"reward": 0.1, "rewards/n/mean": 0.1, "rewards/n/moving": 1.0, "rewards/n/of/mean": 260.0}
    found = {change.key: change for change in changes(before, after)}
    assert found["rewards/n/mean"].before is None
    assert found["rewards/n/mean"].verdict == ""
    assert found["rewards/n/of/mean"].arrow == "up"


def test_units():
    assert Normalised("length").unit == "std"
    assert Normalised("length", center_only=True).unit == "tokens"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "reward.of is not set"),
        ({"of": "length", "mode": "batch"}, "reward.mode is batch"),
        ({"of": "length", "mean": 1}, "reward.mean is 1, and mode=running"),
        ({"of": "length", "std": 1}, "reward.std is 1, and mode=running"),
        ({"of": "length", "mode": "fixed"}, "reward.mean is not set"),
        ({"of": "length", "mode": "fixed", "mean": 1}, "reward.std is not set"),
        ({"of": "length", "mode": "fixed", "mean": 1, "center_only": True, "clip": 2}, "reward.std is not set"),
        ({"of": "length", "mode": "fixed", "mean": 1, "std": 0}, "reward.std is 0"),
        ({"of": "length", "mode": "fixed", "mean": float("nan"), "std": 1}, "reward.mean is nan"),
        ({"of": "length", "clip": 0}, "reward.clip is 0"),
        ({"of": {"name": "length", "max": 0}}, "reward.of.max is 0"),
        ({"of": {"unit": "words"}}, "reward.of is {'unit': 'words'}"),
    ],
)
def test_options_that_cannot_be(options, words):
    with pytest.raises(Exception) as caught:
        Normalised(**options)
    assert isinstance(caught.value, ConfigError.__mro__[1])
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "options", [{}, {"clip": 1}, {"center_only": True}, {"mode": "fixed", "mean": 5, "std": 2}], ids=lambda o: ",".join(o)
)
def test_contract(options):
    for check in reward_checks(build_reward({"name": "normalised", "of": "length", **options})):
        check.run()
