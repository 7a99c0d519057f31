import importlib.util
import itertools

import pytest
import sacrebleu

from core.errors import ConfigError, DataError, PluginError
from core.reward import Sample
from core.testing import reward_checks
from plugins.rewards.chrf import Chrf

SENTENCES = [
    "The cat sat on the mat.",
    "A cat was sitting on the mat, and it purred (loudly).",
    "Так, Paris! 🎉 Это столица.",
    "猫坐在垫子上。",
    "THE CAT",
    "a",
    "tabs\tand\nlines ",
]


def sample(response, *references):
    return Sample("p", response, references=references, row_id="r1")


def chrf(response, *references, **options):
    (score,) = Chrf(**options).score([sample(response, *references)])
    return score


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        # Characters: P = 2/2, R = 2/3; pairs: P = 1/1, R = 1/2. So P = 1, R = 7/12.
        ({"beta": 1.0}, 100 * 14 / 19),
        ({}, 100 * 35 / 55),
        ({"scale": 0.01}, 35 / 55),
        # The one word differs: P = 2/3, R = 7/18 over three orders.
        ({"beta": 1.0, "word_order": 1}, 100 * 2 * (2 / 3) * (7 / 18) / (2 / 3 + 7 / 18)),
    ],
)
def test_a_case_by_hand(options, expected):
    assert chrf("ab", "abc", char_order=2, **options) == pytest.approx(expected, abs=1e-9)


def test_the_best_of_several_references_counts():
    alone = [chrf("the cat", text) for text in ("a dog", "the cats", "the cat sat")]
    assert chrf("the cat", "a dog", "the cats", "the cat sat") == max(alone) == alone[1]
    assert chrf("the cat", "a dog", "the cat") == pytest.approx(100.0)


@pytest.mark.parametrize(
    ("char_order", "word_order", "beta", "lowercase", "whitespace"),
    [(6, 0, 2, False, False), (6, 2, 2, False, False), (3, 1, 1, True, False), (6, 0, 3, False, True)],
)
def test_is_sacrebleu(char_order, word_order, beta, lowercase, whitespace):
    samples = [sample(a, b, SENTENCES[0]) for a, b in itertools.product(SENTENCES, SENTENCES)]
    scores = Chrf(char_order, word_order, float(beta), lowercase, whitespace).score(samples)
    metric = sacrebleu.CHRF(char_order, word_order, beta, lowercase, whitespace)
    expected = [metric.sentence_score(s.response, s.references).score for s in samples]
    assert scores == pytest.approx(expected, abs=1e-9)
    assert len({round(score, 3) for score in scores}) > 10


def test_an_empty_answer_is_zero():
    assert [chrf(text, "the cat") for text in ("", " ", "\n")] == [0.0, 0.0, 0.0]


def test_missing_references_are_no_zero():
    with pytest.raises(DataError, match="'r1' has no references, and reward=chrf"):
        Chrf().score([sample("the cat")])
    assert Chrf.needs == {"references"}


@pytest.mark.parametrize("word_order", [0, 2])
def test_keeps_the_contract(word_order):
    for check in reward_checks(Chrf(word_order=word_order)):
        check.run()


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"char_order": 0}, "char_order"),
        ({"word_order": -1}, "word_order"),
        ({"beta": 0.0}, "beta"),
        ({"beta": float("inf")}, "beta"),
        ({"scale": 0}, "scale"),
    ],
)
def test_options_that_cannot_be(options, word):
    with pytest.raises(ConfigError, match=f"reward.{word} is"):
        Chrf(**options)


def test_what_is_not_installed_is_said_at_once(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(PluginError, match=r"reward=chrf needs the package sacrebleu(.|\n)*accordant\[bleu\]"):
        Chrf()


def test_the_unit_is_said_in_reports():
    assert [Chrf(word_order=order).unit for order in (0, 1, 2, 3)] == ["chrF", "chrF+", "chrF++", "chrF++"]
    assert Chrf(scale=0.01).unit == ""
