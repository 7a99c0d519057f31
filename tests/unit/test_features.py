import pytest

from core.features import FEATURES, density, word_count


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", 0),
        (" \n\t ", 0),
        ("It's three words", 3),
        ("It’s a café in Łódź, no. 7!", 7),
        ("snake_case is two, and", 5),
        ("你好 world", 3),
        ("🙂 — …", 0),
        ("'quoted'", 1),
        ("Привет, мир", 2),
    ],
)
def test_words_of_any_script(text, words):
    assert word_count(text) == words


def test_densities_are_per_hundred_words():
    text = "- one\n- two\n3. three"  # "3" counts as a word: 4 words, 3 points
    assert FEATURES["lists"](text) == 75.0
    assert FEATURES["dashes"]("yes — no") == 50.0
    assert FEATURES["dashes"]("well-known") == 0.0
    assert FEATURES["hedges"]("Maybe it rains") == pytest.approx(100 / 3)
    assert FEATURES["flattery"]("Great question! It rains.") == 25.0
    assert density(lambda text: 3)("") == 0.0
    assert all(count("") == 0 for count in FEATURES.values())
