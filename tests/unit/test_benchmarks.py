"""The benchmark's checks: it must refuse to compare unequal work, and its ratios are those of the steps after warm-up."""

from __future__ import annotations

import dataclasses

import pytest

from benchmarks import online
from benchmarks.measure import Measurement, digest_of_step
from benchmarks.ours_side import OBJECTIVE, Work, overrides
from benchmarks.ours_side import parse as parse_ours
from benchmarks.results import TARGETS, Pair, Result, Setting, UnequalWork, check_equal, check_lengths, table
from benchmarks.run import Amounts, candidates, parse
from benchmarks.trl_online import work_of

STEP_A = [[([1, 2, 3], 1)], [([4, 5], 1)]]
STEP_B = [[([1, 2, 9], 1)], [([4, 5], 1)]]
DIGESTS = [digest_of_step(STEP_A), digest_of_step(STEP_B)]
WORK = Work(DIGESTS, [2, 2])


def measurement(side: str, **changes: object) -> Measurement:
    made = Measurement(
        side=side,
        task="sft",
        setting={},
        batch=8,
        step_seconds=[100.0, 2.0],
        losses=[9.0, 8.9],
        first_metrics={"logps/chosen": -350.0},
        peak_mb=700.0,
        peak_mb_before_training=400.0,
        step_digests=DIGESTS,
        trained_tokens=[2, 2],
    )
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


def test_a_step_has_one_digest_in_any_order_of_rows_and_another_with_other_tokens_or_masks() -> None:
    assert digest_of_step(STEP_A) == digest_of_step(STEP_A[::-1])
    assert digest_of_step(STEP_A) != digest_of_step(STEP_B)
    assert digest_of_step(STEP_A) != digest_of_step([[([1, 2, 3], 2)], [([4, 5], 1)]])


def test_equal_work_is_accepted() -> None:
    check_equal(Pair(measurement("ours"), measurement("trl", losses=[9.0009, 8.904]), 0.0), Setting(1), WORK)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"trained_tokens": [2, 3]}, "4 trained tokens, TRL 5"),
        ({"losses": [9.0]}, "2 steps, TRL 1"),
        ({"step_digests": DIGESTS[::-1]}, "tokens of step 1 differ"),
        ({"losses": [9.002, 8.9]}, "loss 9.00000 at step 1"),
        ({"losses": [9.0, 8.906]}, "at step 2"),
        ({"losses": [float("nan"), 8.9]}, "at step 1"),
        ({"first_metrics": {"logps/chosen": -350.5}}, "logps/chosen is -350.0"),
    ],
)
def test_unequal_work_is_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(UnequalWork, match=said):
        check_equal(Pair(measurement("ours"), measurement("trl", **changes), 0.0), Setting(1), WORK)


def test_of_reordered_rows_only_the_sums_are_compared() -> None:
    trl = measurement("trl", step_digests=DIGESTS[::-1], losses=[8.9, 9.0])
    check_equal(Pair(measurement("ours"), trl, 0.0), Setting(8, "group_by_length"), WORK)


def test_rates_leave_the_warm_up_out_and_the_table_says_what_was_missed() -> None:
    assert measurement("ours").rate(1) == 4.0  # 8 rows in 2 seconds
    # Ratios 2, 4 and 3: the median meets the target of 2.5, ...
    pairs = [Pair(measurement("ours", step_seconds=[9.0, 2.0 / k]), measurement("trl"), 0.0) for k in (2, 4, 3)]
    result = Result("sft", Setting(1), {}, pairs, 1)
    assert result.ratios == [2.0, 3.0, 4.0]
    assert result.meets
    assert "| 2.00 - **3.00** - 4.00 | 2.5 | 700 MB | 700 MB | yes |" in table([result])
    # ... but not with more memory than TRL in any one pair, and a busy machine is named.
    pairs[1] = Pair(measurement("ours", peak_mb=701.0), measurement("trl"), 0.3)
    assert not Result("sft", Setting(1), {}, pairs, 1).meets
    assert "1 of 3 pairs shared the processors (up to 30%)" in table([Result("sft", Setting(1), {}, pairs, 1)])


def test_the_pre_pass_tries_every_micro_batch_and_what_each_trainer_offers() -> None:
    assert {s.micro for s in candidates("dpo_live", quick=False) if s.ordered} == {1, 2, 4, 8}
    assert Setting(8, "padding_free") in set(candidates("sft", quick=False))
    assert str(Setting(2)) == "2 x 4"


# -- the online step ------------------------------------------------------------------------------------------------

PROMPTS = [[[([1, 2], 4)], [([3], 4)]], [[([5], 4)], [([6, 7], 4)]]]
ONLINE_WORK = Work([digest_of_step(step) for step in PROMPTS], [8, 8])


def online_measurement(side: str, **changes: object) -> Measurement:
    parts = {"sampling": [9.0, 1.0], "scoring": [9.0, 0.5], "update": [9.0, 0.5]}
    given = {"task": "grpo", "batch": 8, "step_digests": ONLINE_WORK.step_digests, "losses": [0.0, 0.1], "parts": parts}
    return measurement(side, **{**given, "trained_tokens": [200, 200], **changes})


def test_equal_online_work_is_the_same_prompts_and_about_as_many_tokens() -> None:
    """Each side draws other answers: their losses say nothing, and their lengths differ by chance.

    16 answers with a deviation of 20 tokens: four standard errors of the difference are 4 * 20 * sqrt(32) = 452.5 tokens. Of
    four such pairs it is 905, and 4 * 300 is more.
    """
    ours = online_measurement("ours", losses=[-3.0, 7.0])
    pair = Pair(ours, online_measurement("trl", trained_tokens=[200, 500]), 0.0)
    check_equal(pair, Setting(4), ONLINE_WORK)
    with pytest.raises(UnequalWork, match="1600 sampled tokens in 64 answers, TRL 2800"):
        check_lengths([pair] * 4)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"trained_tokens": [200, 660]}, "400 sampled tokens in 16 answers, TRL 860"),
        ({"step_digests": ONLINE_WORK.step_digests[::-1]}, "trl has other prompts than planned"),
        ({"losses": [0.0]}, "trl has other prompts than planned, or another number"),
        ({"losses": [0.0, float("nan")]}, "trl has a loss that is no number"),
    ],
)
def test_unequal_online_work_is_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(UnequalWork, match=said):
        check_equal(Pair(online_measurement("ours"), online_measurement("trl", **changes), 0.0), Setting(4), ONLINE_WORK)


def test_both_sides_have_one_digest_for_a_step() -> None:
    """TRL's generation repeats each prompt for its answers; ours has a row for it."""
    trl = [[3]] * online.SAMPLES + [[1, 2]] * online.SAMPLES
    assert work_of(trl) == ONLINE_WORK.step_digests[0]
    with pytest.raises(AssertionError, match="do not stand together"):
        work_of([[3], [1, 2]] * online.SAMPLES)


def test_time_in_a_part_within_a_part_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sampling takes 2 of the 3 seconds of scoring; the update is what is left of a step of 10."""
    now = [0.0]
    monkeypatch.setattr(online.time, "perf_counter", lambda: now[0])
    stopwatch = online.Stopwatch()

    def sampling() -> str:
        now[0] += 2.0
        return "answers"

    sample = stopwatch.timed("sampling", sampling)

    def scoring() -> str:
        now[0] += 1.0
        return sample()

    assert stopwatch.timed("scoring", scoring)() == "answers"
    stopwatch.end_step()
    stopwatch.end_step()  # a step that needed no new answers
    assert stopwatch.parts([10.0, 4.0]) == {"sampling": [2.0, 0.0], "scoring": [1.0, 0.0], "update": [7.0, 4.0]}


def test_the_table_shows_where_an_online_step_spends_its_time() -> None:
    trl = online_measurement("trl", parts={"sampling": [9.0, 4.0], "scoring": [9.0, 2.0], "update": [9.0, 1.0]})
    result = Result("grpo", Setting(4, batch=32), {}, [Pair(online_measurement("ours"), trl, 0.0)], 1)
    shown = table([result])
    assert "| grpo | 4 x 8 |" in shown
    assert "| grpo: sampling | 4.00 | 1.00 | 4.0 |" in shown
    assert "| grpo: update | 1.00 | 0.50 | 2.0 |" in shown
    assert "| grpo: tokens of an answer | 25.0 | 25.0 | |" in shown


def test_an_online_task_takes_fewer_and_longer_steps_unless_told_otherwise() -> None:
    full = parse(["--tasks", "grpo", "sft"])
    assert [Amounts.of(task, full).steps for task in ("grpo", "sft")] == [5, 40]
    told = Amounts.of("rloo", parse(["--tasks", "rloo", "--steps", "9", "--pairs", "2"]))
    assert (told.steps, told.pairs, told.warmup) == (9, 2, 1)
    with pytest.raises(SystemExit):
        parse(["--tasks", "rloo", "--steps", "1"])
    assert {s.micro for s in candidates("grpo", quick=False)} == {1, 2, 8, 32}
    assert {s.batch for s in candidates("rloo", quick=True)} == {32}


def test_every_task_has_a_target_and_a_command() -> None:
    assert OBJECTIVE.keys() == TARGETS.keys()
    args = parse_ours(["--task", "rloo", "--folder", "f", "--model", "m"])
    assert {"objective=rloo", "objective.beta=0.05", "data.rows_per_epoch=8", "reward=function"} <= set(overrides(args))
    args = parse_ours(["--task", "sft", "--folder", "f", "--model", "m"])
    assert "reward=none" in overrides(args)
    assert not any(line.startswith(("objective.beta", "data.rows_per_epoch")) for line in overrides(args))
