import itertools

import pytest

from core.errors import PluginError
from core.registry import build_reward
from core.reward import Compared, RewardSource, Sample, Scored, checked_comparison, compares
from core.testing import made_up_samples, objective_checks, reward_checks
from plugins.objectives.sft import SFT
from plugins.rewards.length import Length


class Fair(RewardSource):
    def score(self, samples):
        return [float(len(s.response)) for s in samples]


class Short(Fair):
    def score(self, samples):
        return super().score(samples)[:-1]


class Infinite(Fair):
    def score(self, samples):
        return [float("inf") if not s.response else 1.0 for s in samples]


class Counting(Fair):
    def __init__(self):
        self.count = itertools.count()

    def score(self, samples):
        return [float(next(self.count)) for _ in samples]


class Positional(Fair):
    def score(self, samples):
        return [float(i) for i, _ in enumerate(samples)]


class Centred(Fair):
    def score(self, samples):
        scores = super().score(samples)
        return [score - sum(scores) / len(scores) for score in scores]


class Undeclared(Fair):
    def score(self, samples):
        return [float(s.columns["grade"]) for s in samples]


class NeedsReferences(Fair):
    needs = frozenset({"references"})

    def score(self, samples):
        return [float(s.response == s.references[0]) for s in samples]


class OneSided(Fair):
    def compare(self, first, second):
        return Compared([1.0 for _ in first])


class NeedsGrade(Undeclared):
    needs = frozenset({"grade"})


def broken(source: RewardSource, samples=None) -> list[str]:
    failed = []
    for check in reward_checks(source, samples):
        try:
            check.run()
        except AssertionError:
            failed.append(check.name.split(":")[0])
    return failed


@pytest.mark.parametrize(
    "source", [Fair(), NeedsReferences(), Length(), Length(unit="characters", target=20)], ids=lambda s: type(s).__name__
)
def test_a_fair_source_keeps_every_promise(source):
    assert broken(source) == []


@pytest.mark.parametrize(
    ("source", "promise"),
    [
        (Short(), "gives one finite number (or None) per sample"),
        (Infinite(), "gives one finite number (or None) per sample"),
        (Counting(), "is pure"),
        (Positional(), "does not depend on the order of samples"),
        (Centred(), "does not depend on the size of the batch"),
        (Undeclared(), "reads only the columns that `needs` declares"),
        (OneSided(), "compare gives one number from 0 to 1 per pair, and turns round with the sides"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, RewardSource) else "",
)
def test_a_broken_promise_is_found(source, promise):
    if isinstance(source, Undeclared):
        (first, *_) = reward_checks(source)
        with pytest.raises(AssertionError, match="grade"):
            first.run()
        assert str(first) == promise
    else:
        assert promise in broken(source)


def test_by_default_the_higher_score_wins_and_equal_ones_tie():
    """Each pair is a row of its own, so that a source that compares within a row compares these two."""
    seen = []

    class Watched(Fair):
        def score(self, samples):
            seen.extend(s.row_id for s in samples)
            return [None if s.response == "?" else float(len(s.response)) for s in samples]

    first = [Sample("p", text, row_id="r") for text in ("aa", "a", "b", "?")]
    second = [Sample("p", text, row_id="r") for text in ("a", "aa", "a", "a")]
    assert Watched().compare(first, second) == Compared([1.0, 0.0, 0.5, None])
    assert seen == [f"r#{i}" for i in (0, 0, 1, 1, 2, 2, 3, 3)]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (Compared([1.0]), "1 comparisons for 2 pairs"),
        (Compared([1.0, 2.0]), "returned 2.0"),
        (Compared([1.0, float("nan")]), "returned nan"),
        (Compared([1.0, 0.0], ([1.0, 0.0], [-1.0, 0.0])), "returned -1.0"),
        (Compared([1.0, 0.0], ([1.0, 0.0], [])), "0 comparisons for 2 pairs"),
    ],
)
def test_comparisons_are_checked(given, words):
    with pytest.raises(PluginError, match=words):
        checked_comparison("it", given, 2)
    whole = checked_comparison("it", Compared([1, None], ([1, 0], [1, None])), 2)
    assert whole == Compared([1.0, None], ([1.0, 0.0], [1.0, None]))


def test_a_part_that_compares_makes_the_whole_compare():
    part, whole = Fair(), Fair()
    whole.parts = {"a": Fair(), "b": part}
    assert not compares(whole)
    part.compares = True
    assert compares(whole)


def test_needed_columns_ask_for_samples():
    (check,) = reward_checks(NeedsGrade())
    assert "grade" in check.run()
    samples = [Sample("p", text, columns={"grade": grade, "id": 1}) for text, grade in (("a", 1), ("b", 2), ("c", 3))]
    assert broken(NeedsGrade(), samples) == []


def test_made_up_samples_hold_an_empty_and_a_long_answer():
    lengths = [len(s.response) for s in made_up_samples()]
    assert min(lengths) == 0
    assert max(lengths) >= 1000


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ("reads", "essays"),
        ("collects", "sometimes"),
        ("mean_over", "letters"),
        ("reward_use", "maybe"),
        ("trains", frozenset()),
        ("trains", frozenset({"critic"})),
        ("frozen", frozenset({"policy"})),
        ("default_lr", 0.0),
        ("default_eps", -1e-8),
        ("minibatches", 0),
        ("passes", 1.5),
        ("on_policy", True),
    ],
)
def test_wrong_declarations_are_found(attribute, value):
    objective = SFT()
    setattr(objective, attribute, value)
    declares, *_ = objective_checks(objective)
    with pytest.raises(AssertionError, match=attribute if attribute != "frozen" else "trained and frozen"):
        declares.run()


# -- rewards that remember ------------------------------------------------------------------------------------------------


class Mean(Fair):
    """The score less the mean of all collections, done right; the ones below each break one promise."""

    def __init__(self):
        self.scores = []

    def fit(self, samples):
        self.scores = self.scores + super().score(samples)

    def score(self, samples):
        mean = sum(self.scores) / len(self.scores) if self.scores else 0.0
        return [score - mean for score in super().score(samples)]

    def state_dict(self):
        return {"scores": list(self.scores)} if self.scores else {}

    def load_state_dict(self, state):
        self.scores = list(state.get("scores", ()))


class Secretive(Mean):
    """What it remembers is in no checkpoint."""

    def state_dict(self):
        return {}


class Live(Mean):
    """Gives out its own list, which the next fit changes."""

    def fit(self, samples):
        self.scores += Fair.score(self, samples)

    def state_dict(self):
        return {"scores": self.scores} if self.scores else {}


class Stubborn(Mean):
    """Does not forget."""

    def load_state_dict(self, state):
        self.scores = list(state.get("scores", self.scores))


class Lossy(Mean):
    """Comes back changed."""

    def load_state_dict(self, state):
        self.scores = [round(score / 100) for score in state.get("scores", ())]


class Numbers(Mean):
    """A set is no plain container."""

    def state_dict(self):
        return {"scores": set(self.scores)} if self.scores else {}


class Startled(Mean):
    """A process without samples of its own."""

    def fit(self, samples):
        self.scores = [max(super().score(samples))]


class TwoAnswers(Fair):
    """Its parts are of other scores."""

    def score_parts(self, samples):
        return Scored([score + 1 for score in self.score(samples)])


class ShortPart(Fair):
    def score_parts(self, samples):
        return Scored(self.score(samples), {"a": Scored([1.0])})


class Decisive(Fair):
    def score_parts(self, samples):
        return Scored(self.score(samples), {"a": Scored(self.score(samples))}, {"a": [2.0] * len(samples)})


GATHERS = "what fit gathers is in its state, as plain containers"
LOADS = "a state that is loaded gives its scores again; {} forgets"
PARTS = "score is score_parts without the parts"


def test_a_reward_that_remembers_rightly_keeps_every_promise_and_what_it_knew():
    source = Mean()
    source.fit(made_up_samples())
    before = source.state_dict()
    assert broken(source) == []
    assert source.state_dict() == before


@pytest.mark.parametrize(
    ("source", "promise"),
    [
        (Secretive(), GATHERS),
        (Stubborn(), LOADS),
        (Lossy(), LOADS),
        (TwoAnswers(), PARTS),
        (ShortPart(), PARTS),
        (Decisive(), PARTS),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, RewardSource) else "",
)
def test_a_broken_memory_or_part_is_found(source, promise):
    assert promise in broken(source)


def test_a_state_that_is_given_out_is_a_copy():
    source = Live()
    source.fit(made_up_samples()[:1])
    assert GATHERS in broken(source)


def test_a_state_that_is_no_plain_container_is_found():
    with pytest.raises(TypeError, match="set"):
        [check.run() for check in reward_checks(Numbers()) if check.name == GATHERS]


def test_a_process_may_have_no_samples():
    with pytest.raises(ValueError, match="empty"):
        [check.run() for check in reward_checks(Startled()) if check.name == GATHERS]


def test_needs_of_parts_count():
    source = build_reward({"name": "weighted", "parts": {"gold": 1, "length": 1}})
    (check,) = reward_checks(source)
    assert "task" in check.run()
    named = build_reward({"name": "weighted", "parts": {"rouge": 1, "length": 1}})
    assert broken(named) == []
