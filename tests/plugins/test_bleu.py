import importlib.util
import math
import random
import subprocess
import sys
from collections import Counter

import pytest
import sacrebleu

from core.collect import Reward
from core.errors import ConfigError, DataError, PluginError
from core.reward import Sample
from core.rows import Response, Row
from core.testing import reward_checks
from plugins.rewards.bleu import TOKENIZERS, Bleu
from tests.packages import ROOT

SMOOTHING = [("exp", None), ("floor", None), ("floor", 0.01), ("add-k", None), ("add-k", 0.5), ("none", None)]
SENTENCES = [
    "The cat sat on the mat.",
    "A cat was sitting on the mat, and it purred loudly.",
    "The cat sat on a chair; the cat sat on the mat again, and then it slept.",
    "It's 3.14, isn't it? (Roughly!)",
    "Так, Paris! 🎉 Это столица.",
    "猫坐在垫子上。",
    "word " * 30,
    "one",
    "?!",
    "tabs\tand\nlines\n\nand   spaces ",
    "THE CAT SAT ON THE MAT.",
]


def sample(response, *references):
    return Sample("p", response, references=references, row_id="r1")


def bleu(response, *references, **options):
    (score,) = Bleu(**options).score([sample(response, *references)])
    return score


def made_up(seed, texts):
    """Texts of few words, so that n-grams of every order match now and then."""
    rng = random.Random(seed)
    words = ["the", "a", "cat", "dog", "sat", "ran", "on", "mat", ".", ","]
    return [" ".join(rng.choices(words, k=rng.randint(1, 14))) for _ in range(texts)]


def by_definition(response, references, method, value):
    """Papineni et al. 2002 and Chen and Cherry 2014, written down once more; words are what white space separates."""
    words = response.split()
    others = [text.split() for text in references]
    nearest = min((abs(len(other) - len(words)), len(other)) for other in others)[1]
    log_sum, orders, misses = 0.0, 0, 0
    for n in range(1, (4 if method == "add-k" else min(4, len(words))) + 1):
        grams = Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))
        most = Counter()
        for other in others:
            most |= Counter(tuple(other[i : i + n]) for i in range(len(other) - n + 1))
        hits, total = sum(min(count, most[gram]) for gram, count in grams.items()), sum(grams.values())
        if n == 1 and hits == 0:
            return 0.0
        if method == "add-k" and n > 1:
            hits, total = hits + value, total + value
        if hits == 0:
            misses += 1
            hits = {"exp": 1 / 2**misses, "floor": value, "none": 0}[method]
            if hits == 0:
                return 0.0
        log_sum, orders = log_sum + math.log(hits / total), orders + 1
    penalty = 1.0 if len(words) >= nearest else math.exp(1 - nearest / len(words))
    return 100 * penalty * math.exp(log_sum / orders)


def test_a_case_by_hand():
    # Unigrams 5/5, bigrams 3/4, trigrams 2/3, 4-grams 1/2; 5 words against 6.
    expected = 100 * math.exp(1 - 6 / 5) * (1 * 3 / 4 * 2 / 3 * 1 / 2) ** (1 / 4)
    assert bleu("the cat sat on mat", "the cat sat on the mat") == pytest.approx(expected, abs=1e-9)
    assert expected == pytest.approx(57.8931, abs=1e-4)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, 50.0),  # p1 = 1/2, p2 = 1/2 of 1/1
        ({"smooth_method": "floor"}, 100 * math.sqrt(1 / 2 * 0.1)),
        ({"smooth_method": "floor", "smooth_value": 0.2}, 100 * math.sqrt(1 / 2 * 0.2)),
        # p2 = (0 + 1) / (1 + 1), and p3 = p4 = (0 + 1) / (0 + 1): add-k leaves no order out.
        ({"smooth_method": "add-k"}, 100 * (1 / 2 * 1 / 2) ** (1 / 4)),
        ({"smooth_method": "add-k", "smooth_value": 0.5}, 100 * (1 / 2 * 0.5 / 1.5) ** (1 / 4)),
        ({"smooth_method": "add-k", "max_ngram_order": 2}, 50.0),
        ({"smooth_method": "none"}, 0.0),
        ({"effective_order": False}, 0.0),  # an answer of two words has no 3-gram
        ({"max_ngram_order": 1}, 50.0),
        ({"max_ngram_order": 1, "smooth_method": "none"}, 50.0),
        ({"scale": 0.01}, 0.5),
        ({"scale": -1.0}, -50.0),
    ],
)
def test_smoothing_by_hand(options, expected):
    assert bleu("a b", "a c", **options) == pytest.approx(expected, abs=1e-9)


def test_counts_are_clipped_as_in_the_paper():
    # Papineni et al. 2002, section 2.1, example 2: modified unigram precision 2/7.
    references = ("the cat is on the mat", "there is a cat on the mat")
    assert bleu("the the the the the the the", *references, max_ngram_order=1) == pytest.approx(100 * 2 / 7, abs=1e-9)


def test_several_references_are_used_together():
    # Words from both; the length of the nearer one, and of two that are equally near the shorter.
    assert bleu("a b c", "a b c d", "a b") == pytest.approx(100.0, abs=1e-9)
    assert bleu("a b c", "a b c d") == pytest.approx(100 * math.exp(1 - 4 / 3), abs=1e-9)
    assert bleu("a z", "a y", "x z", max_ngram_order=1) == pytest.approx(100.0, abs=1e-9)
    assert bleu("x y", "a b", "x y", "c") == pytest.approx(100.0, abs=1e-9)


@pytest.mark.parametrize(("method", "value"), SMOOTHING)
def test_is_its_definition(method, value):
    texts = made_up(1, 120)
    samples = [sample(*texts[i : i + 1 + i % 3 + 1]) for i in range(100)]
    scores = Bleu(smooth_method=method, smooth_value=value, tokenize="none").score(samples)
    known = {"floor": 0.1, "add-k": 1.0}.get(method, 0.0) if value is None else value
    assert scores == pytest.approx([by_definition(s.response, s.references, method, known) for s in samples], abs=1e-9)
    assert 0 < min(filter(None, scores)) < max(scores) <= 100 + 1e-9


@pytest.mark.parametrize(("method", "value"), SMOOTHING)
@pytest.mark.parametrize("tokenize", ["13a", "intl", "char", "zh", "none"])
def test_is_sacrebleu(method, value, tokenize):
    lowercase = tokenize in ("13a", "char")
    texts = [*SENTENCES, *made_up(2, 6)]
    samples = [sample(a, b, SENTENCES[0], texts[-1]) for a in texts for b in texts]
    scores = Bleu(smooth_method=method, smooth_value=value, tokenize=tokenize, lowercase=lowercase).score(samples)
    expected = [
        sacrebleu.sentence_bleu(
            s.response, s.references, method, value, lowercase=lowercase, tokenize=tokenize, use_effective_order=True
        ).score
        for s in samples
    ]
    assert scores == expected
    assert len({round(score, 3) for score in scores}) > 3


def test_options_reach_sacrebleu():
    metric = sacrebleu.BLEU(effective_order=False, max_ngram_order=2, lowercase=True, tokenize="intl")
    samples = [sample(a, b) for a in SENTENCES for b in SENTENCES]
    scores = Bleu(effective_order=False, max_ngram_order=2, lowercase=True, tokenize="intl").score(samples)
    assert scores == [metric.sentence_score(s.response, s.references).score for s in samples]
    assert scores != Bleu(effective_order=False, max_ngram_order=2, tokenize="intl").score(samples)


@pytest.mark.parametrize(("method", "value"), SMOOTHING)
def test_an_empty_answer_is_zero(method, value):
    for text in ("", " ", "\n\t "):
        for tokenize in ("13a", "char", "none"):
            assert bleu(text, "the cat", " ", smooth_method=method, smooth_value=value, tokenize=tokenize) == 0.0
    assert bleu("dog", "the cat", smooth_method=method, smooth_value=value) == 0.0


def test_missing_references_are_no_zero():
    with pytest.raises(DataError, match=r"'r1' has no references, and reward=bleu(.|\n)*column references"):
        Bleu().score([sample("the cat", "the cat"), sample("the cat")])


def test_the_core_names_the_column_before_training():
    row = Row("r1", [1], (Response([2], [True], text="x"),), columns={"task": "t"})
    with pytest.raises(PluginError, match="needs the column 'references'; the row has: task"):
        Reward("bleu", Bleu()).check_columns([row])


@pytest.mark.parametrize("check", list(reward_checks(Bleu())), ids=str)
def test_keeps_the_contract(check):
    check.run()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"smooth_method": "expp"}, 'reward.smooth_method is "expp".*Did you mean "exp"'),
        ({"smooth_value": 1.0}, "reward.smooth_value is 1.0, and smooth_method=exp has no use"),
        ({"smooth_method": "none", "smooth_value": 0.1}, "smooth_method=none"),
        ({"smooth_method": "floor", "smooth_value": 0.0}, "reward.smooth_value is 0.0"),
        ({"smooth_method": "add-k", "smooth_value": float("inf")}, "reward.smooth_value is inf"),
        ({"smooth_method": "add-k", "smooth_value": float("nan")}, "reward.smooth_value is nan"),
        ({"tokenize": "13b"}, 'reward.tokenize is "13b".*Did you mean "13a"'),
        ({"max_ngram_order": 0}, "reward.max_ngram_order is 0"),
        ({"scale": 0}, "reward.scale is 0"),
        ({"scale": float("nan")}, "reward.scale is nan"),
    ],
)
def test_options_that_cannot_be(options, words):
    with pytest.raises(ConfigError, match=words):
        Bleu(**options)


def test_the_tokenizers_are_those_of_sacrebleu():
    from sacrebleu.metrics.bleu import _TOKENIZERS

    assert set(TOKENIZERS) == set(_TOKENIZERS)


def without(monkeypatch, package):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == package else real(name, *rest))


def test_what_is_not_installed_is_said_at_once(monkeypatch):
    without(monkeypatch, "sacrebleu")
    with pytest.raises(PluginError, match=r"reward=bleu needs the package sacrebleu(.|\n)*pip install 'accordant\[bleu\]'"):
        Bleu()


@pytest.mark.parametrize("tokenize", [name for name, extra in TOKENIZERS.items() if extra])
def test_a_tokenizers_package_is_looked_for(monkeypatch, tokenize):
    package, install = TOKENIZERS[tokenize]
    without(monkeypatch, package)
    with pytest.raises(PluginError) as caught:
        Bleu(tokenize=tokenize)
    assert package in str(caught.value)
    assert f"pip install '{install}'" in str(caught.value)


def test_a_tokenizer_that_cannot_be_fetched_is_a_users_error(monkeypatch):
    def offline(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr("sacrebleu.metrics.BLEU", offline)
    with pytest.raises(PluginError, match=r"reward.tokenize=13a.*no route to host"):
        bleu("a", "a")


def test_the_unit_is_said_in_reports():
    assert (Bleu().unit, Bleu(scale=0.01).unit) == ("BLEU", "")


def test_building_imports_neither_sacrebleu_nor_torch():
    code = (
        "import sys; from plugins.rewards import bleu, chrf, rouge, regex, format as form\n"
        "bleu.Bleu(), chrf.Chrf(), rouge.Rouge(), regex.Regex('a'), form.Format()\n"
        "print({'sacrebleu', 'torch', 'lightning'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "set()"
