"""Diversity of answers: distinct-n, self-BLEU and repeats, by hand and against sacrebleu."""

import pytest

from core.policies import texts
from core.policies.texts import distinct, repeated, self_bleu, words


def test_words_are_runs_of_letters_and_single_marks():
    assert words("It's 3.5 — ok?") == ["It", "'", "s", "3", ".", "5", "—", "ok", "?"]
    assert words("так, добре") == ["так", ",", "добре"]
    assert words(" \n ") == []


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        (1, 3 / 7),  # a b a b | a b c: a, b, c of seven words
        (2, 3 / 5),  # ab ba ab | ab bc: ab, ba, bc of five
        (3, 3 / 3),  # aba bab | abc
        (4, 1 / 1),  # abab
    ],
)
def test_distinct_n_by_hand(order, expected):
    assert distinct(["a b a b", "a b c"], order) == pytest.approx(expected)


def test_n_grams_do_not_span_answers_and_may_be_missing():
    assert distinct(["a", "b"], 2) is None
    assert distinct([], 1) is None
    assert distinct(["a b", "c"], 2) == 1.0  # ab alone, not bc
    assert distinct(["same thing", "same thing"], 1) == 0.5


def test_repeated_by_hand():
    assert repeated(["a", "b", "a", "a"]) == 0.5
    assert repeated(["a"]) == 0.0
    assert repeated(["a", "a "]) == 0.0


def test_self_bleu_is_sacrebleus_of_each_answer_against_the_others():
    sacrebleu = pytest.importorskip("sacrebleu")
    answers = ["the cat sat on the mat today", "the cat sat on a mat", "a dog ran"]
    (found,) = self_bleu([answers])
    expected = [sacrebleu.sentence_bleu(answer, [other for other in answers if other != answer]).score for answer in answers]
    assert found == pytest.approx(sum(expected) / 3, abs=1e-9)
    assert 0 < found < 100


def test_self_bleu_of_equal_empty_and_single_answers():
    pytest.importorskip("sacrebleu")
    alike, empty, one, two = self_bleu([["a b c d e"] * 3, ["", " ", "a"], ["a b c d"], ["a b c d", "", "e f g h"]])
    assert alike == pytest.approx(100.0)
    assert (empty, one) == (None, None)
    assert two == 0.0  # an empty answer is left out, and the two others share no word


def test_without_sacrebleu_there_is_none(monkeypatch):
    monkeypatch.setattr(texts.importlib.util, "find_spec", lambda name: None)
    assert self_bleu([["a", "b"]]) is None
