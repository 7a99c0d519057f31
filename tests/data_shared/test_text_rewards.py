"""Rewards from text on real references: the numbers of sacrebleu, and answers to the prompt before answers to another."""

import gzip
import json
from itertools import islice

import pytest
import sacrebleu

from core.reward import Sample
from plugins.rewards.bleu import Bleu
from plugins.rewards.chrf import Chrf
from plugins.rewards.rouge import Rouge


@pytest.fixture(scope="module")
def samples(shared):
    """Each reference as an answer against the other references of its prompt, and the answer of another prompt."""
    with gzip.open(shared / "references/test.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [row for row in map(json.loads, file) if len(row["references"]) > 1]
    rows = list(islice(rows, 12))
    own, others = [], []
    for row, after in zip(rows, [*rows[1:], rows[0]], strict=True):
        first, *rest = row["references"]
        own.append(Sample(row["prompt"], first, references=tuple(rest), row_id=row["id"]))
        others.append(Sample(row["prompt"], after["references"][0], references=tuple(rest), row_id=row["id"]))
    return own, others


@pytest.mark.parametrize(("method", "value"), [("exp", None), ("floor", None), ("add-k", 0.5), ("none", None)])
def test_bleu_is_sacrebleu(samples, method, value):
    both = [*samples[0], *samples[1]]
    expected = [
        sacrebleu.sentence_bleu(s.response, s.references, method, value, use_effective_order=True).score for s in both
    ]
    assert Bleu(smooth_method=method, smooth_value=value).score(both) == expected


@pytest.mark.parametrize("word_order", [0, 2])
def test_chrf_is_sacrebleu(samples, word_order):
    own = samples[0]
    expected = [sacrebleu.sentence_chrf(s.response, s.references, word_order=word_order).score for s in own]
    assert Chrf(word_order=word_order).score(own) == expected


@pytest.mark.parametrize("source", [Bleu(), Chrf(), Rouge(), Rouge("rouge1"), Rouge("rouge2")], ids=lambda s: s.unit)
def test_an_answer_to_the_prompt_beats_an_answer_to_another(samples, source):
    own, others = (source.score(part) for part in samples)
    assert sum(a > b for a, b in zip(own, others, strict=True)) >= 0.9 * len(own)
