"""The benchmark's checks: it must refuse to compare unequal work, and its ratios are those of the steps after warm-up."""

from __future__ import annotations

import dataclasses

import pytest

from benchmarks.measure import Measurement, digest_of_step
from benchmarks.ours_side import Work
from benchmarks.run import Pair, Result, Setting, UnequalWork, candidates, check_equal, table

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
