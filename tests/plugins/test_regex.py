import re
import time

import pytest

from core.errors import ConfigError, PluginError
from core.reward import Sample
from core.testing import reward_checks
from plugins.rewards import regex
from plugins.rewards.regex import Pattern, Regex

TEXTS = ["I live in Paris.", "paris, PARIS and Paris", "", "Paris", "Paris\n", "Так, Париж! 🎉"]


def scores(pattern, **options):
    return Regex(pattern, **options).score([Sample("p", text, row_id="r1") for text in TEXTS])


@pytest.mark.parametrize(
    ("pattern", "options", "expected"),
    [
        ("Paris", {}, [1, 1, 0, 1, 1, 0]),
        ("Paris", {"negate": True}, [0, 0, 1, 0, 0, 1]),
        ("Paris", {"value": -2.5}, [-2.5, -2.5, 0, -2.5, -2.5, 0]),
        ("^paris", {"flags": ["ignorecase"]}, [0, 1, 0, 1, 1, 0]),
        ("Paris", {"mode": "fullmatch"}, [0, 0, 0, 1, 0, 0]),
        (r"Paris\s*", {"mode": "fullmatch"}, [0, 0, 0, 1, 1, 0]),
        (r".*", {"mode": "fullmatch", "negate": True}, [0, 0, 0, 0, 1, 0]),
        (r".*", {"mode": "fullmatch", "flags": ["dotall"]}, [1, 1, 1, 1, 1, 1]),
        ("paris", {"mode": "count", "flags": ["ignorecase"]}, [1, 3, 0, 1, 1, 0]),
        ("paris", {"mode": "count", "flags": ["ignorecase"], "max": 2, "value": 0.5}, [0.5, 1, 0, 0.5, 0.5, 0]),
        ("a", {"mode": "count", "value": -1.0}, [-1, -3, 0, -1, -1, 0]),
        ("a*", {"mode": "count"}, [1, 3, 0, 1, 1, 0]),  # empty matches do not count
        (r"\w+", {"mode": "count"}, [4, 4, 0, 1, 1, 2]),
        (r"\w+", {"mode": "count", "flags": ["ascii"]}, [4, 4, 0, 1, 1, 0]),
        (r"\p{Cyrillic}", {}, [0, 0, 0, 0, 0, 1]),
        ("P a r i s  # the town", {"flags": ["verbose"]}, [1, 1, 0, 1, 1, 0]),
        (r"^$", {}, [0, 0, 1, 0, 0, 0]),
    ],
)
def test_scores(pattern, options, expected):
    assert scores(pattern, **options) == expected


@pytest.mark.parametrize("pattern", ["strasse", "[a-c-]s", "^x*|b", "(?i)PARIS", r"\bis\b"])
def test_reads_patterns_as_python_does(pattern):
    for text in [*TEXTS, "Straße", "as bs --s", "xx b", "is it?"]:
        matches = [match for match in re.finditer(pattern, text, re.IGNORECASE) if match[0]]
        (score,) = Regex(pattern, mode="count", flags=["ignorecase"]).score([Sample("p", text)])
        assert score == len(matches), text


def test_a_think_and_answer_format():
    pattern = r"<think>.*?</think>\s*<answer>.*?</answer>\s*"
    texts = [
        "<think>2+2\nis 4</think>\n<answer>4</answer>\n",
        "<think>4</think><answer>4</answer> Done.",
        "<answer>4</answer><think>4</think>",
    ]
    source = Regex(pattern, mode="fullmatch", flags=["dotall"])
    assert source.score([Sample("p", text) for text in texts]) == [1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("pattern", "shown"),
    [
        ("(a|b", ["missing )", "line 1, character 5", "\n  (a|b\n      ^"]),
        ("[z-a]x", ["bad character range", "\n  [z-a]x\n      ^"]),
        ("*a", ["nothing to repeat", "\n  *a\n  ^"]),
        ("one\n(two", ["line 2, character 5", "\n  (two\n      ^"]),
        (r"\L<names>", ["undefined named list"]),
        ("(" * 5000, ["no regular expression"]),
        ("", ["empty"]),
    ],
)
def test_a_bad_pattern_shows_where(pattern, shown):
    with pytest.raises(ConfigError) as caught:
        Regex(pattern)
    assert str(caught.value).startswith("reward.pattern is ")
    for text in shown:
        assert text in str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mode": "match"}, 'reward.mode is "match"'),
        ({"value": 0}, "reward.value is 0"),
        ({"value": float("nan")}, "reward.value is nan"),
        ({"max": 3}, "reward.max is 3, and mode=search counts nothing"),
        ({"mode": "count", "max": 0}, "reward.max is 0"),
        ({"mode": "count", "negate": True}, "reward.negate says nothing with mode=count"),
        ({"flags": ["ignorecas"]}, '"ignorecas" is no flag. Did you mean "ignorecase"'),
        ({"timeout": 0}, "reward.timeout is 0"),
        ({"timeout": 61}, "reward.timeout is 61"),
        ({"timeout": float("nan")}, "reward.timeout is nan"),
    ],
)
def test_options_that_cannot_be(options, words):
    with pytest.raises(ConfigError, match=words):
        Regex("a", **options)


@pytest.mark.parametrize("pattern", [r"(a+)+b", r"(\w+\s*)+\.$", r"^(\d|\d\d)+$", r"(x+x+)+y", r"(.*)(.*)(.*)(.*)q$"])
def test_a_pattern_that_never_ends_is_seen_at_once(pattern):
    started = time.monotonic()
    with pytest.raises(ConfigError, match="over and over"):
        Regex(pattern, timeout=0.1)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    "pattern",
    [
        r"(a++)++b",
        r"(\w++\s*+)++\.$",
        r"(?s)<think>.*?</think>\s*<answer>.*?</answer>",
        r"\\boxed\{[^}]*\}",
        r".*foo.*bar.*baz",
        r"^\s*[-*] .+$",
        r"[A-Z][^.!?]*[.!?]",
    ],
)
def test_good_patterns_pass(pattern):
    assert Regex(pattern).score([Sample("p", "")]) == [0.0]


@pytest.mark.parametrize("mode", ["search", "fullmatch", "count"])
def test_an_answer_that_takes_too_long_is_an_error_and_no_score(monkeypatch, mode):
    monkeypatch.setattr(Pattern, "_probe", lambda self: None)
    source = Regex(r"^(a|aa)+$", mode=mode, timeout=0.1)
    assert source.score([Sample("p", "aaa")]) == [1.0]
    with pytest.raises(PluginError, match=r"more than 0.1 s on one answer of 3001 characters \(row 'r7', 'aaa") as caught:
        source.score([Sample("p", "aaa"), Sample("p", "a" * 3000 + "b", row_id="r7")])
    assert "possessive" in str(caught.value)


def test_a_limit_that_is_reached_too_early_is_doubled():
    """The package counts the time of all threads; what counts here is the clock on the wall."""
    limits = []

    def busy_machine(limit):
        limits.append(limit)
        if limit < 8:
            raise TimeoutError
        return "found"

    assert regex._in_time(busy_machine, 1.0) == "found"
    assert limits == [1.0, 2.0, 4.0, 8.0]

    def slow(limit):
        time.sleep(0.02)
        raise TimeoutError

    with pytest.raises(TimeoutError):
        regex._in_time(slow, 0.01)


@pytest.mark.parametrize("options", [{}, {"mode": "count"}, {"mode": "fullmatch", "negate": True}])
def test_keeps_the_contract(options):
    for check in reward_checks(Regex("Paris", **options)):
        check.run()


def test_the_unit_is_said_in_reports():
    assert (Regex("a").unit, Regex("a", mode="count").unit, Regex("a", mode="count", value=2.0).unit) == ("", "matches", "")
