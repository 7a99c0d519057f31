import itertools
import random

import pytest

from core.errors import ConfigError, DataError
from core.reward import Sample
from core.testing import reward_checks
from plugins.rewards.rouge import Rouge, f1, lcs_length, words

VARIANTS = ("rouge1", "rouge2", "rougeL")
# answer, references, F1 of rouge1, rouge2, rougeL: RougeScorer([...], use_stemmer=False).score_multi of rouge-score 0.1.2.
RECORDED = [
    ("police kill the gunman", ["police killed the gunman"], [0.75, 0.3333333333, 0.75]),
    ("the gunman kill police", ["police killed the gunman"], [0.75, 0.3333333333, 0.5]),
    (
        "The cat sat on the mat, the cat!",
        ["the cat was on THE mat", "A cat sat."],
        [0.7142857143, 0.5, 0.7142857143],
    ),
    ("Paris.", ["Paris is the capital of France.", "It is Paris"], [0.5, 0.0, 0.5]),
    ("word", ["word"], [1.0, 0.0, 1.0]),
    ("", ["something"], [0.0, 0.0, 0.0]),
    ("?!", ["something"], [0.0, 0.0, 0.0]),
    (
        "a b c d e f g h i j",
        ["j i h g f e d c b a", "b d f h j", "a c b e d g f i h j"],
        [1.0, 0.0, 0.6666666667],
    ),
    (
        "It's 3.14, well-known: e-mail me at x@y.z",
        ["It is 3 14 and well known; mail me at x y z"],
        [0.8461538462, 0.5833333333, 0.8461538462],
    ),
    ("the the the the", ["the cat the dog", "the"], [0.5, 0.0, 0.5]),
]


def rouge(response, *references, **options):
    (score,) = Rouge(**options).score([Sample("p", response, references=references, row_id="r1")])
    return score


def test_the_examples_of_the_paper():
    # Lin 2004, section 3.1: S1 is the reference; ROUGE-L of S2 is 3/4, of S3 2/4; ROUGE-2 of both is equal.
    s1, s2, s3 = "police killed the gunman", "police kill the gunman", "the gunman kill police"
    assert (rouge(s2, s1), rouge(s3, s1)) == (3 / 4, 2 / 4)
    assert rouge(s2, s1, variant="rouge2") == rouge(s3, s1, variant="rouge2") == pytest.approx(1 / 3)


@pytest.mark.parametrize(("place", "variant"), list(enumerate(VARIANTS)))
def test_is_rouge_score(place, variant):
    for response, references, expected in RECORDED:
        assert rouge(response, *references, variant=variant) == pytest.approx(expected[place], abs=1e-9), response


def test_by_hand():
    # 2 of 3 words of the answer, 2 of 5 of the reference; the smaller count of "a" is 1.
    assert rouge("a a b", "a b c d e", variant="rouge1") == pytest.approx(2 * 2 / (3 + 5))
    assert rouge("a a b", "a b c d e", variant="rouge2") == pytest.approx(2 * 1 / (2 + 4))
    assert rouge("b a", "a b", scale=100.0) == pytest.approx(50.0)
    assert (f1(0, 0, 5), f1(0, 5, 0), f1(2, 2, 2)) == (0.0, 0.0, 1.0)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_best_of_several_references_counts(variant):
    references = ("something else", "the cat sat", "the cat sat on the mat")
    alone = [rouge("the cat sat down", text, variant=variant) for text in references]
    assert rouge("the cat sat down", *references, variant=variant) == max(alone) == alone[1] > alone[2]


def test_words_of_every_script():
    assert words("L'été, 2 fois_trois") == ["l", "été", "2", "fois", "trois"]
    assert words("हिन्दी में") == ["हिन्दी", "में"]
    assert words("Так,\n\tPARIS! 🎉") == ["так", "paris"]
    assert rouge("Это столица", "это СТОЛИЦА!") == 1.0


def longest(left, right):
    """The textbook's table."""
    rows = [[0] * (len(right) + 1) for _ in range(len(left) + 1)]
    for i, j in itertools.product(range(len(left)), range(len(right))):
        rows[i + 1][j + 1] = rows[i][j] + 1 if left[i] == right[j] else max(rows[i][j + 1], rows[i + 1][j])
    return rows[-1][-1]


def test_the_common_subsequence_is_that_of_the_textbook():
    rng = random.Random(3)
    for kinds in (1, 2, 4, 26):
        for _ in range(60):
            left, right = (rng.choices("abcdefghijklmnopqrstuvwxyz"[:kinds], k=rng.randint(0, 70)) for _ in range(2))
            assert lcs_length(left, right) == longest(left, right), (left, right)


def test_missing_references_are_no_zero():
    with pytest.raises(DataError, match="'r1' has no references, and reward=rouge"):
        rouge("the cat")
    assert Rouge.needs == {"references"}


@pytest.mark.parametrize("variant", VARIANTS)
def test_keeps_the_contract(variant):
    for check in reward_checks(Rouge(variant=variant)):
        check.run()


@pytest.mark.parametrize(("options", "word"), [({"variant": "rouge3"}, "variant"), ({"scale": 0}, "scale")])
def test_options_that_cannot_be(options, word):
    with pytest.raises(ConfigError, match=f"reward.{word} is"):
        Rouge(**options)


def test_the_unit_is_said_in_reports():
    assert [Rouge(variant=variant).unit for variant in VARIANTS] == ["ROUGE-1", "ROUGE-2", "ROUGE-L"]
    assert Rouge(scale=100.0).unit == ""
