import pytest

from core.data.records import RowError
from core.errors import ConfigError, DataError, PluginError
from core.registry import build_reward
from core.reward import Sample
from core.testing import reward_checks
from plugins.rewards.weighted import Weighted

HERE = "tests.plugins.rewards_for_tests"
FIRST, SECOND = ({"name": "function", "path": f"{HERE}:{name}"} for name in ("first", "second"))


def samples(*answers: str) -> list[Sample]:
    return [Sample("p", answer, row_id=f"row-{i}") for i, answer in enumerate(answers)]


def two(a: float, b: float, **options) -> Weighted:
    return Weighted({"a": {"weight": a, **FIRST}, "b": {"weight": b, **SECOND}}, **options)


def test_the_sum_by_hand_and_who_decided():
    """2 s_a - 0.5 s_b: 2 - 2 = 0, a tie; 6 - 0.5; 0 - 1; nothing at all."""
    scored = two(2, -0.5).score_parts(samples("1 4", "3 1", "0 2", "0 0"))
    assert scored.scores == [0.0, 5.5, -1.0, 0.0]
    assert scored.parts["a"].scores == [1.0, 3.0, 0.0, 0.0]
    assert scored.parts["b"].scores == [4.0, 1.0, 2.0, 0.0]
    assert scored.decided == {"a": [0.5, 1.0, 0.0, 0.5], "b": [0.5, 0.0, 1.0, 0.5]}


def test_a_part_without_a_score_leaves_none():
    scored = two(1, 1).score_parts(samples("- 4", "3 -", "- -", "1 2"))
    assert scored.scores == [None, None, None, 3.0]
    assert scored.decided == {"a": [0.0, 0.0, 0.0, 0.0], "b": [0.0, 0.0, 0.0, 1.0]}


def test_or_it_adds_nothing():
    scored = two(1, 10, missing="zero").score_parts(samples("- 4", "3 -", "- -", "1 2"))
    assert scored.scores == [40.0, 3.0, None, 21.0]
    assert scored.decided == {"a": [0.0, 1.0, 0.0, 0.0], "b": [1.0, 0.0, 0.0, 1.0]}


def test_a_part_of_weight_zero_is_only_measured():
    scored = two(1, 0).score_parts(samples("2 7", "3 -", "- 4"))
    assert scored.scores == [2.0, 3.0, None]
    assert scored.parts["b"].scores == [7.0, None, 4.0]
    assert scored.decided["b"] == [0.0, 0.0, 0.0]


def test_a_label_may_be_the_name_and_a_weight_may_stand_alone():
    source = Weighted({"length": 2, "words": {"name": "length", "unit": "words"}, "plain": {"name": "length", "max": 1}})
    assert source.weights == {"length": 2.0, "words": 1.0, "plain": 1.0}
    assert source.score([Sample("p", "one two", [5, 6, 7])]) == [2 * 3 + 2 + 1]
    assert Weighted({"length": {"weight": 3}}).score([Sample("p", "x", [5])]) == [3.0]


def test_no_samples_no_scores():
    assert two(1, 1).score([]) == []


DEEP = {"name": "weighted", "parts": {"y": {"name": "normalised", "of": {"name": "length", "max": 0}}}}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "reward.parts is not set"),
        ({"parts": {}}, "reward.parts is not set"),
        ({"parts": {"length": 1}, "missing": "one"}, "reward.missing is one"),
        ({"parts": {"length": 0}}, "weight other than 0"),
        ({"parts": {"length": True}}, "reward.parts.length is True"),
        ({"parts": {"length": "much"}}, "reward.parts.length is 'much'"),
        ({"parts": {"length": float("inf")}}, "reward.parts.length is inf"),
        ({"parts": {"x": {"name": "length", "weight": None}}}, "reward.parts.x.weight is None"),
        ({"parts": {"a/b": 1}}, "without a slash"),
        ({"parts": {1: 1}}, "label 1"),
        ({"parts": {"x": {"name": "length", "scale": 0}}}, "reward.parts.x.scale is 0"),
        (
            {"parts": {"x": {"name": "length", "max": 5, "target": 6}}},
            "x.target is 6, above reward.parts.x.max 5",
        ),
        ({"parts": {"lenght": 1}}, 'reward.parts.lenght: reward "lenght" is not known'),
        ({"parts": {"x": {"name": "length", "unti": "words"}}}, "reward.parts.x.unti is not an option"),
        ({"parts": {"x": DEEP}}, "reward.parts.x.parts.y.of.max is 0"),
    ],
)
def test_options_that_cannot_be(options, words):
    with pytest.raises((ConfigError, PluginError)) as caught:
        Weighted(**options)
    assert words in str(caught.value)


def test_the_hint_names_the_keys_of_the_part_too():
    with pytest.raises(ConfigError) as caught:
        Weighted({"x": {"name": "length", "target": 3, "scale": -1}})
    assert caught.value.message.startswith("reward.parts.x.scale is -1 with a target")
    with pytest.raises(ConfigError) as caught:
        Weighted({"x": {"name": "piecewise", "rule": "and", "unsafe_column": None}})
    assert "reward.parts.x.unsafe_column is null" in caught.value.message


def test_what_a_part_says_of_its_keys_while_scoring_names_them_too():
    inner = {"name": "weighted", "parts": {"length": 1}}
    with pytest.raises(ConfigError) as caught:
        Weighted({"a": {"name": "normalised", "of": inner}}).score([Sample("p", "no tokens")])
    assert caught.value.message.startswith("reward.parts.a.of.parts.length: reward=length counts tokens")
    assert caught.value.hint.startswith("Use reward.parts.a.of.parts.length.unit=words")


def test_an_error_of_another_shape_keeps_its_kind():
    error = RowError("a.jsonl:3", "prompt", "is empty, see reward.scale.", "Mend it.").of_part("parts.x")
    assert type(error) is DataError
    assert str(error) == "reward.parts.x: a.jsonl:3:prompt: is empty, see reward.parts.x.scale.\n  -> Mend it."


def test_a_part_that_breaks_its_contract_is_named():
    source = Weighted({"good": {"name": "length"}, "bad": {**FIRST}})
    source.parts["bad"].function = lambda **_: [1.0]
    with pytest.raises(PluginError, match="returned 1 rewards for 2"):
        source.score([Sample("p", "a", [5]), Sample("p", "b", [5])])

    class Short(type(source.parts["good"])):
        def score(self, samples):
            return super().score(samples)[:-1]

    class Wild(type(source.parts["good"])):
        def score(self, samples):
            return [float("inf") for _ in samples]

    class Texts(type(source.parts["good"])):
        def score(self, samples):
            return ["3" for _ in samples]

    short = 'part "good" of the reward returned 1 scores for 2'
    for kind, words in ((Short, short), (Wild, 'part "good".*inf for row'), (Texts, "part \"good\".*'3' for row")):
        broken = Weighted({"good": {"name": "length"}})
        broken.parts["good"] = kind()
        with pytest.raises(PluginError, match=words):
            broken.score([Sample("p", "a", [5]), Sample("p", "b", [5])])


NESTED = {
    "name": "weighted",
    "parts": {
        "rm": {
            "weight": 2,
            "name": "normalised",
            "of": {"name": "ensemble", "parts": ["length", {"name": "length", "unit": "characters"}], "reduce": "min"},
        },
        "length": -0.01,
    },
}


PLAIN = {"name": "weighted", "parts": {"length": 1, "x": {"name": "format"}}}


@pytest.mark.parametrize("options", [PLAIN, NESTED], ids=["plain", "nested"])
def test_contract(options):
    for check in reward_checks(build_reward(options)):
        check.run()


def test_labels_of_nested_parts_and_their_state():
    source = build_reward(NESTED)
    given = [Sample("p", "abcd", [1, 2]), Sample("p", "ab", [1, 2, 3, 4])]
    assert [label for label, _, _ in source.score_parts(given).walk()] == ["rm", "rm/of", "rm/of/0", "rm/of/1", "length"]
    source.fit(given)
    # The least of tokens and characters is 2 and 2: no spread, so they are centred.
    assert source.state_dict() == {"rm": {"statistics": {"count": 2, "mean": 2.0, "m2": 0.0}}}
    assert source.score(given) == [pytest.approx(-0.02), pytest.approx(-0.04)]
