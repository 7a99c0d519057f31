"""Llama 2's rule by hand. An answer "s h" has the safety score s and the helpfulness score h."""

import math

import pytest

from core.checked_reward import Reward, score_metrics
from core.compose import compose
from core.crosscheck import check_composed
from core.errors import ConfigError, DataError, PluginError, UserError
from core.registry import build_reward
from core.reward import Sample, needs_of
from core.rows import Row
from core.runfolder import read_jsonl
from core.testing import reward_checks
from core.train import fit
from plugins.objectives.dpo import DPO
from plugins.rewards.piecewise import Piecewise, logit, sigmoid
from tests.support import random_rows, tiny_run

HERE = "tests.plugins.rewards_for_tests"
PARTS = {
    "safety": {"name": "function", "path": f"{HERE}:first"},
    "helpfulness": {"name": "function", "path": f"{HERE}:second"},
}
PROBABILITIES = dict.fromkeys(("safety_scale", "helpfulness_scale", "output"), "probability") | {"whiten": "none"}


def sample(answer: str, label: str = "safe", **columns) -> Sample:
    return Sample("p", answer, columns={"safety_label": label, **columns}, row_id="row-1")


# tagged and unsafe; tagged and safe; untagged and unsafe; untagged and safe
FOUR = [sample("0.1 0.9", "unsafe"), sample("0.8 0.9", "unsafe"), sample("0.1 0.9"), sample("0.8 0.9")]


def test_the_papers_rule_is_or():
    scored = Piecewise(**PARTS, **PROBABILITIES).score_parts(FOUR)
    assert scored.scores == [0.1, 0.8, 0.1, 0.9]
    assert scored.decided == {"safety": [1.0, 1.0, 1.0, 0.0], "helpfulness": [0.0, 0.0, 0.0, 1.0]}
    assert scored.parts["safety"].scores == [0.1, 0.8, 0.1, 0.8]
    assert scored.parts["helpfulness"].scores == [0.9] * 4


def test_the_lectures_rule_is_and():
    scored = Piecewise(**PARTS, **PROBABILITIES, rule="and").score_parts(FOUR)
    assert scored.scores == [0.1, 0.9, 0.9, 0.9]
    assert scored.decided == {"safety": [1.0, 0.0, 0.0, 0.0], "helpfulness": [0.0, 1.0, 1.0, 1.0]}


def test_the_threshold_itself_is_safe():
    border = [sample("0.15 0.9"), sample(f"{math.nextafter(0.15, 0)} 0.9")]
    assert Piecewise(**PARTS, **PROBABILITIES).score_parts(border).decided["safety"] == [0.0, 1.0]
    half = Piecewise(**PARTS, threshold=0.5, whiten="none")  # log-odds 0 is one half
    assert half.score([sample("0 7"), sample("-0.001 7")]) == [7.0, -0.001]


def test_the_threshold_is_a_probability_whatever_the_scale():
    """log(0.15 / 0.85) = -1.7346."""
    source = Piecewise(**PARTS, whiten="none")
    assert source.score([sample("-1.73 5"), sample("-1.74 5")]) == [5.0, -1.74]


def test_log_odds_come_out_as_they_are_and_probabilities_by_logit():
    """logit(sigmoid(x)) = x, also where the sigmoid is 1 in floating point; logit(0.9) = log 9 = 2.1972."""
    raw = Piecewise(**PARTS, whiten="none")
    assert raw.score([sample("3 50"), sample("-50 1"), sample("2.5 1", "unsafe")]) == [50.0, -50.0, 2.5]
    mixed = Piecewise(**PARTS, whiten="none", helpfulness_scale="probability")
    assert mixed.score([sample("3 0.9"), sample("-2 0.9")]) == [pytest.approx(2.1972246), -2.0]
    back = Piecewise(**PARTS, whiten="none", output="probability")
    assert back.score([sample("3 0"), sample("3 1000"), sample("-1000 1")]) == [0.5, 1.0, 0.0]


def test_certain_probabilities_are_clamped():
    """log(0.999 / 0.001) = 6.9068; log(0.9 / 0.1) = 2.1972."""
    options = {**PARTS, "whiten": "none", "helpfulness_scale": "probability"}
    given = [sample("3 1"), sample("3 0"), sample("3 0.5")]
    assert Piecewise(**options).score(given) == [pytest.approx(6.9067548), pytest.approx(-6.9067548), 0.0]
    assert Piecewise(**options, clamp=0.1).score(given) == [pytest.approx(2.1972246), pytest.approx(-2.1972246), 0.0]


def test_whitening_by_hand():
    """1, 3, 5 (helpfulness) and -3 (safety): mean 1.5, squared distances 0.25 + 2.25 + 12.25 + 20.25 = 35."""
    rows = [sample("2 1"), sample("2 3"), sample("2 5"), sample("-3 9")]
    source = Piecewise(**PARTS)
    assert source.score(rows) == [1.0, 3.0, 5.0, -3.0]
    source.fit(rows)
    assert source.state_dict() == {"statistics": {"count": 4, "mean": 1.5, "m2": 35.0}}
    expected = [pytest.approx((x - 1.5) / math.sqrt(35 / 4)) for x in (1, 3, 5, -3)]
    assert source.score(rows) == expected
    assert source.score_parts(rows).decided == {"safety": [0.0, 0.0, 0.0, 1.0], "helpfulness": [1.0, 1.0, 1.0, 0.0]}
    assert source.score_parts(rows).parts["unwhitened"].scores == [1.0, 3.0, 5.0, -3.0]
    other = Piecewise(**PARTS)
    other.load_state_dict(source.state_dict())
    assert other.score(rows) == expected
    unwhitened = Piecewise(**PARTS, whiten="none")
    unwhitened.fit(rows)
    assert unwhitened.state_dict() == {}


def test_scores_that_are_missing():
    answers = [sample("- 1"), sample("- 1", "unsafe"), sample("2 -"), sample("-3 -"), sample("2 -", "unsafe")]
    either = Piecewise(**PARTS, whiten="none").score_parts(answers)
    assert either.scores == [None, None, None, -3.0, 2.0]
    assert either.decided == {"safety": [0.0, 0.0, 0.0, 1.0, 1.0], "helpfulness": [0.0] * 5}
    both = Piecewise(**PARTS, whiten="none", rule="and").score_parts(answers)
    assert both.scores == [1.0, None, None, None, None]  # untagged: its helpfulness, whatever its safety
    assert both.decided["helpfulness"] == [1.0, 0.0, 0.0, 0.0, 0.0]


def test_a_tag_of_ones_own():
    source = Piecewise(**PARTS, whiten="none", unsafe_column="risk", unsafe_values=[2, 3])
    assert source.score([sample("1 9", risk=2), sample("1 9", risk=1), sample("1 9", risk=3)]) == [1.0, 9.0, 1.0]
    assert source.needs == frozenset({"risk"})


def test_without_a_tag_the_threshold_decides_alone():
    source = Piecewise(**PARTS, whiten="none", unsafe_column=None)
    assert source.needs == frozenset()
    assert source.score([Sample("p", "1 9"), Sample("p", "-5 9")]) == [9.0, -5.0]


@pytest.mark.parametrize("columns", [{}, {"safety_label": None}])
def test_a_row_without_the_tag_is_named(columns):
    source = Piecewise(**PARTS)
    with pytest.raises(DataError, match=r"(?s)row 'row-7' has no safety_label.*unsafe_column=null"):
        source.score([Sample("p", "1 9", columns=columns, row_id="row-7")])


def test_the_tag_is_a_need_and_so_are_those_of_the_parts():
    source = build_reward({"name": "piecewise", "safety": "gold", "helpfulness": {"name": "normalised", "of": "rouge"}})
    assert needs_of(source) == {"safety_label", "task", "references"}
    with pytest.raises(PluginError, match=r'reward "piecewise" needs the column .references.'):
        Reward("piecewise", source).check_columns([Row("r", [3], columns={"safety_label": "safe", "task": 1})])


def test_a_probability_beyond_one_is_no_probability():
    source = Piecewise(**PARTS, helpfulness_scale="probability")
    with pytest.raises(PluginError, match=r"reward.helpfulness gave 7, and reward.helpfulness_scale=probability"):
        source.score([sample("1 7")])


def test_probabilities_read_as_log_odds_are_doubted_once(caplog):
    answers = [sample(f"{i / 7} {i}") for i in range(8)]
    source = Piecewise(**PARTS)
    source.score(answers[:7])
    assert caplog.messages == []
    source.score(answers)
    source.score(answers)
    (said,) = caplog.messages
    assert "all 8 scores of safety" in said
    assert "reward.safety_scale=probability" in said
    caplog.clear()
    Piecewise(**PARTS, safety_scale="probability").score(answers)
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"safety": None}, "reward.safety is not set"),
        ({"helpfulness": None}, "reward.helpfulness is not set"),
        ({"rule": "xor"}, "reward.rule is xor"),
        ({"threshold": 15}, "reward.threshold is 15"),
        ({"clamp": 0}, "reward.clamp is 0"),
        ({"safety_scale": "logit"}, "reward.safety_scale is logit"),
        ({"output": "raw"}, "reward.output is raw"),
        ({"whiten": "batch"}, "reward.whiten is batch"),
        ({"rule": "and", "unsafe_column": None}, "reward.unsafe_column is null with rule=and"),
        ({"unsafe_values": []}, "reward.unsafe_values is empty"),
        ({"unsafe_values": [1], "unsafe_column": None}, "reward.unsafe_values is [1], and reward.unsafe_column=null"),
        ({"safety": {"name": "length", "max": 0}}, "reward.safety.max is 0"),
        ({"helpfulness": {"name": "weighted", "parts": {"length": 0}}}, "reward.helpfulness.parts has no part"),
    ],
)
def test_options_that_cannot_be(options, words):
    with pytest.raises(ConfigError) as caught:
        Piecewise(**{**PARTS, **options})
    assert words in str(caught.value)


def test_sigmoid_and_logit():
    assert [sigmoid(x) for x in (0, 1000, -1000)] == [0.5, 1.0, 0.0]
    assert sigmoid(-1.7346010553881064) == pytest.approx(0.15)
    assert logit(0.75) == pytest.approx(math.log(3))


@pytest.mark.parametrize("rule", ["or", "and"])
def test_contract(rule):
    length = {"name": "length", "unit": "words"}
    source = Piecewise(safety={**length, "scale": -1}, helpfulness=length, rule=rule, unsafe_column="tag")
    rows = [Sample("p", "word " * n, columns={"tag": tag}) for n, tag in ((1, "unsafe"), (5, "safe"), (0, "safe"), (9, "x"))]
    for check in reward_checks(source, rows):
        check.run()


# -- from the command line to the metrics -------------------------------------------------------------------------------


def test_it_composes_from_the_command_line():
    found = compose(
        [
            "objective=dpo",
            "reward=piecewise",
            "reward.safety={name: gold}",
            "reward.safety_scale=probability",
            "reward.helpfulness={name: normalised, of: {name: length, unit: words}, clip: 3}",
        ]
    )
    check_composed(found)
    source = build_reward(found.config["reward"])
    assert list(source.parts) == ["safety", "helpfulness"]
    assert source.parts["helpfulness"].parts["of"].unit == "words"


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["reward.safety=gold", "reward.helpfulness={name: length, scale: 0}"], "reward.helpfulness.scale is 0"),
        (["reward.safety=gold", "reward.helpfulness=lenght"], 'reward.helpfulness: reward "lenght" is not known'),
        (["reward.safety=gold"], "reward.helpfulness is not set"),
        (["reward.safety=gold", "reward.helpfulness=[length]"], "reward.helpfulness is ['length']"),
    ],
)
def test_what_is_wrong_with_a_part_is_said_while_composing(overrides, words):
    with pytest.raises(UserError) as caught:
        check_composed(compose(["objective=dpo", "reward=piecewise", *overrides]))
    assert words in str(caught.value)


def test_metrics_of_parts_by_hand():
    """Safety 2, -3, 0, 1: mean 0, variance 14/4. The median of 1, 9, 2, 4 is 3; safety judges one of four."""
    scored = Piecewise(**PARTS, whiten="none").score_parts([sample("2 1"), sample("-3 9"), sample("0 2"), sample("1 4")])
    metrics = score_metrics("r", scored)
    assert metrics["r/mean"] == 1.0
    assert metrics["r/safety/mean"] == 0.0
    assert metrics["r/safety/std"] == pytest.approx(math.sqrt(14 / 4))
    assert metrics["r/helpfulness/p50"] == 3.0
    assert (metrics["r/safety/decided"], metrics["r/helpfulness/decided"]) == (0.25, 0.75)


def test_dpo_trains_on_it_and_logs_each_part(tmp_path):
    """End to end on a tiny model: pairs sampled and labelled by the rule, every part in metrics.jsonl."""
    from dataclasses import replace

    def rows(count, seed):
        made = random_rows(count, 1, seed)
        return [replace(r, columns={"safety_label": "unsafe" if i % 3 == 0 else "safe"}) for i, r in enumerate(made)]

    found = compose(
        [
            "objective=dpo",
            "reward=piecewise",
            "reward.safety={name: length, target: 3}",
            "reward.helpfulness={name: weighted, parts: {length: 1, words: {name: length, unit: words, weight: 0.5}}}",
        ]
    )
    check_composed(found)
    source = build_reward(found.config["reward"])
    settings = {"data": {"rows_per_epoch": 6}, "trainer": {"max_steps": 2}, "eval": {"every": 1, "prompts": 6}}
    run = tiny_run(tmp_path / "run", DPO(samples=3), rows(6, 1), rows(6, 2), reward=source, **settings)
    fit(run)
    records = [r for r in read_jsonl(tmp_path / "run" / "metrics.jsonl") if r["split"] == "validation"]
    assert [r["step"] for r in records] == [0, 1, 2]
    parts = ("safety", "helpfulness", "helpfulness/length", "helpfulness/words")
    for record in records:
        for part in parts:
            for key in ("mean", "std", "p05", "p50", "p95", "decided"):
                assert math.isfinite(record[f"rewards/test/{part}/{key}"]), (part, key)
        assert record["rewards/test/safety/decided"] + record["rewards/test/helpfulness/decided"] == pytest.approx(1)
        assert record["rewards/test/safety/decided"] >= 1 / 3  # the tagged ones at least
        assert record["reward"] == record["rewards/test/mean"]
        assert record["rewards/test/moving"] == 1.0
        assert "rewards/test/unwhitened/moving" not in record
    # Nothing was taken in before step 0, so nothing was whitened.
    assert records[0]["rewards/test/unwhitened/mean"] == records[0]["rewards/test/mean"]
    assert records[1]["rewards/test/unwhitened/mean"] != pytest.approx(records[1]["rewards/test/mean"])
    # One collection of 6 prompts with 3 answers each was taken in; the three evaluations were not.
    assert source.state_dict()["statistics"]["count"] == 18


def test_tags_that_no_prompt_has_are_doubted_once(caplog):
    def told(values, count):
        caplog.clear()
        source = Piecewise(**PARTS, unsafe_values=values)
        for _ in range(2):
            source.score([sample("7 -3", label=1) for _ in range(count)])
        return caplog.messages

    assert told([1], 64) == []
    assert told(["1"], 63) == []
    (said,) = told(["1"], 64)
    assert "none of 64 prompts has '1' in the column safety_label, which holds 1." in said
