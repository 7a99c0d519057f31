import pytest

from core.errors import ConfigError
from core.reward import Sample
from core.testing import reward_checks
from plugins.rewards.format import RULES, Format

DEEP = "[" * 100_000
LONG = "9" * 5000


def kept(rule, text, *, finished=True):
    (score,) = Format([rule]).score([Sample("p", text, finished=finished)])
    assert score in (0.0, 1.0)
    return score == 1.0


# rule, an answer that keeps it, one that does not
CASES = [
    ("not_empty", ["a", " . "], ["", " \n\t"]),
    (
        "json",
        ['{"a": [1, null, 2.5e3]}', " [] \n", '"text"', "-1", "true", LONG, '{"a": 1, "a": 2}', '"é🎉"'],
        ["", "{", "{'a': 1}"],
    ),
    ("json", [], ["NaN", '{"a": Infinity}', '```json\n{"a": 1}\n```', 'Here: {"a": 1}', '{"a": 1} {"b": 2}', DEEP, "01"]),
    ({"json": "object"}, ["{}", '{"a": []}'], ["[]", "1", "null", "{"]),
    ({"json": "array"}, ["[]", "[{}]"], ["{}", '"[]"']),
    ({"json": True}, ["1"], ["x"]),
    (
        {"json_keys": ["name", "age"]},
        ['{"age": 1, "name": null, "x": 2}'],
        ['{"name": 1}', '["name", "age"]', "", "name age"],
    ),
    ({"json_keys": "name"}, ['{"name": 1}'], ['{"Name": 1}', '{"x": {"name": 1}}']),
    (
        {"tags": ["think", "answer"]},
        [
            "<think>a</think><answer>b</answer>",
            "So: <think>\na\n</think> then <answer>b</answer> done",
            "<think><b></think><answer>x</answer>",
        ],
        [
            "",
            "<think>a</think>",
            "<answer>b</answer><think>a</think>",
            "<think>a<answer>b</answer></think>",
            "<think>a</think><think>a</think><answer>b</answer>",
            "<think>a</think><answer>b</answer></answer>",
            "<think> </think><answer>b</answer>",
            "</think>a<think><answer>b</answer>",
            "<Think>a</Think><answer>b</answer>",
            "<think>a</think><answer>b",
        ],
    ),
    (
        {"only_tags": ["think", "answer"]},
        ["<think>a</think><answer>b</answer>", " <think>a</think>\n\n<answer>b</answer>\n"],
        [
            "x<think>a</think><answer>b</answer>",
            "<think>a</think>x<answer>b</answer>",
            "<think>a</think><answer>b</answer>x",
        ],
    ),
    ({"tags": "answer"}, ["<answer>4</answer>"], ["4"]),
    ({"min_words": 2}, ["two words", "it is three"], ["", "one", " one "]),
    ({"max_words": 2}, ["", "two\nwords"], ["it is three"]),
    ({"min_characters": 3}, ["abc", "🎉🎉🎉"], ["ab", ""]),
    ({"max_characters": 3}, ["abc", ""], ["abcd"]),
    ({"must_contain": ["a b", "c"]}, ["c a b"], ["a b", "c", "A B c", ""]),
    ({"must_contain": "Paris"}, ["It is Paris."], ["paris"]),
    ({"must_not_contain": ["sorry", "cannot"]}, ["yes", "", "Sorry"], ["I am sorry", "I cannot"]),
    ({"starts_with": ["Yes", "No"]}, ["Yes.", "\n No!"], ["Maybe yes", "", "yes"]),
    ({"ends_with": [".", "!"]}, ["Yes.", "No! \n"], ["Yes", "", ". no"]),
    ({"matches": "^(Yes|No)\\b"}, ["Yes, it is", "No"], ["Now", "It is. Yes"]),
    ({"matches": ["a", "b"]}, ["ba"], ["a", "b"]),
    ("no_code", ["use `x`", "a ```b``` c", ""], ["```\nx\n```", "So:\n  ```python\nx", "~~~\nx\n~~~"]),
    (
        "no_lists",
        ["a - b", "-5 degrees", "1.5 is less", "**bold**", "In 2020. Yes", ""],
        ["- a", "x\n* b", " 1. a", "2) b", "• c"],
    ),
    ("no_headings", ["#tag", "a # b", "", "C# is"], ["# Title", "text\n## Part", "   ###### Six"]),
]


@pytest.mark.parametrize(("rule", "good", "bad"), CASES, ids=[f"{i}-{case[0]}" for i, case in enumerate(CASES)])
def test_rules(rule, good, bad):
    assert [text[:60] for text in good if not kept(rule, text)] == []
    assert [text[:60] for text in bad if kept(rule, text)] == []


def test_ended_is_that_the_answer_was_not_cut():
    assert kept("ended", "It is")
    assert not kept("ended", "It is.", finished=False)


def test_every_rule_is_tested():
    assert set(RULES) == {"ended", *(rule if isinstance(rule, str) else next(iter(rule)) for rule, _, _ in CASES)}


SAMPLES = [Sample("p", "one two three"), Sample("p", "one", finished=False), Sample("p", "", finished=False)]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [1, 1 / 2, 0]),
        ({"mode": "all"}, [1, 0, 0]),
        ({"rules": ["ended", "not_empty", {"max_words": 2}]}, [2 / 3, 2 / 3, 1 / 3]),
        ({"rules": ["ended", "not_empty", {"max_words": 2}], "mode": "all"}, [0, 0, 0]),
        ({"rules": [{"max_words": 2}]}, [0, 1, 1]),
    ],
)
def test_share_and_all(options, expected):
    assert Format(**options).score(SAMPLES) == pytest.approx(expected)


def test_each_rule_is_a_part_of_the_score():
    scored = Format(["ended", {"max_words": 2}], mode="all").score_parts(SAMPLES)
    assert {name: list(part.scores) for name, part in scored.parts.items()} == {"ended": [1, 0, 0], "max_words": [0, 1, 1]}
    assert list(scored.scores) == [0, 0, 0]
    assert list(Format().score_parts([]).scores) == []


def test_the_share_of_each_rule_is_measured():
    from core.evaluation import score_metrics

    metrics = score_metrics("rewards/format", Format(["ended", {"max_words": 2}]).score_parts(SAMPLES))
    assert metrics["rewards/format/mean"] == pytest.approx(1 / 2)
    assert metrics["rewards/format/ended/mean"] == pytest.approx(1 / 3)
    assert metrics["rewards/format/max_words/mean"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ([], "reward.rules is empty"),
        (["endet"], "'endet', which is no rule. Did you mean \"ended\""),
        ([3], "3, which is no rule"),
        ([["ended"]], "no rule"),
        (["ended", "ended"], "ended twice"),
        ([{"max_words": 3}, {"max_words": 4}], "max_words twice"),
        ([{"max_words": 3, "min_words": 1}], "one rule in each item"),
        ([{}], "one rule in each item"),
        (["max_words"], "max_words came with nothing; expected a whole number above 0"),
        ([{"max_words": 0}], "max_words came with 0"),
        ([{"max_words": True}], "max_words came with True"),
        ([{"max_words": "many"}], "max_words came with 'many'"),
        ([{"min_words": 5}, {"max_words": 4}], "min_words 5 is above max_words 4"),
        ([{"min_characters": 5}, {"max_characters": 4}], "min_characters 5 is above"),
        ([{"ended": 3}], "ended came with 3, and needs nothing"),
        ([{"no_code": False}], "no_code came with False"),
        ([{"json": "map"}], "json came with 'map'; expected nothing, object or array"),
        (["tags"], "tags came with nothing"),
        ([{"tags": []}], "tags came with"),
        ([{"tags": ["<think>"]}], "without brackets"),
        ([{"tags": ["a", "a"]}], "names a tag twice"),
        ([{"must_contain": ["a", 3]}], "must_contain came with"),
        ([{"must_contain": [""]}], "must_contain came with"),
        ([{"must_not_contain": ""}], "must_not_contain came with ''"),
        ([{"matches": "(a"}], r"reward.rules: matches is no regular expression: missing \)"),
    ],
)
def test_rules_that_cannot_be(rules, words):
    with pytest.raises(ConfigError, match=words):
        Format(rules)


def test_modes_that_cannot_be():
    with pytest.raises(ConfigError, match="share or all"):
        Format(mode="any")


@pytest.mark.parametrize(
    "options", [{}, {"rules": ["json", {"tags": "a"}, {"max_words": 9}, {"matches": "a"}], "mode": "all"}]
)
def test_keeps_the_contract(options):
    for check in reward_checks(Format(**options)):
        check.run()
