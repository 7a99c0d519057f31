import itertools

import pytest

from core.reward import RewardSource, Sample
from core.testing import made_up_samples, objective_checks, reward_checks
from plugins.objectives.dpo import DPO
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


def test_needed_columns_ask_for_samples():
    (check,) = reward_checks(NeedsGrade())
    assert "grade" in check.run()
    samples = [Sample("p", text, columns={"grade": grade, "id": 1}) for text, grade in (("a", 1), ("b", 2), ("c", 3))]
    assert broken(NeedsGrade(), samples) == []


def test_made_up_samples_hold_an_empty_and_a_long_answer():
    lengths = [len(s.response) for s in made_up_samples()]
    assert min(lengths) == 0
    assert max(lengths) >= 1000


@pytest.mark.parametrize("objective", [SFT(), DPO(), DPO(pairs="relabelled"), DPO(pairs="dataset", reference="live")])
def test_our_objectives_keep_the_contract(objective):
    for check in objective_checks(objective):
        check.run()


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
    ],
)
def test_wrong_declarations_are_found(attribute, value):
    objective = SFT()
    setattr(objective, attribute, value)
    declares, *_ = objective_checks(objective)
    with pytest.raises(AssertionError, match=attribute if attribute != "frozen" else "trained and frozen"):
        declares.run()
