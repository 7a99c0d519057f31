"""What a reward is held against: length in words, and BLEU on the rows that have references."""

from __future__ import annotations

import pytest

from core.baselines import baselines, score_table
from core.rows import Response, Row

pytest.importorskip("sacrebleu")


def row(name: str, texts: tuple[str, ...], references: tuple[str, ...] = ()) -> Row:
    return Row(name, [0], tuple(Response([], [], text) for text in texts), references=references)


WITH = row("with", ("the cat sat on the mat", "a dog"), ("the cat sat on the mat",))
WITHOUT = row("without", ("one two three", ""))


def test_length_counts_words_and_bleu_abstains_where_there_is_no_reference():
    scores = dict(score_table(baselines([WITH, WITHOUT], (), {}), [WITH, WITHOUT]))
    assert scores["length"] == [[6.0, 2.0], [3.0, 0.0]]
    assert scores["bleu"] == [[pytest.approx(100.0), 0.0], [None, None]]


def test_without_any_reference_there_is_no_bleu():
    assert [reward.name for reward in baselines([WITHOUT], (), {})] == ["length"]


def test_what_is_measured_already_is_no_baseline_again():
    assert [reward.name for reward in baselines([WITH], ("length",), {})] == ["bleu"]
    assert baselines([WITH], ("length", "bleu"), {}) == []
