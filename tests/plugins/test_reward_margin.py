"""reward_margin: the loss by hand, where margins come from, what is missing, and against TRL's RewardTrainer."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
import torch

from core.batch import build_batch
from core.data.load import DataConfig, load_data
from core.errors import ConfigError, DataError
from core.testing import objective_checks
from core.trial import ScriptedContext
from plugins.objectives.reward_margin import LARGE, SMALL, RewardMargin
from tests.plugins import trl_parity as parity
from tests.plugins.test_reward_bt import Scripted, bt, learn, preferences, row
from tests.plugins.test_sft import assert_equals
from tests.support import tiny_tokenizer

GOLDEN = json.loads(parity.GOLDEN.read_text(encoding="utf-8"))


def with_margin(margin=None, row_id="a", **columns):
    made = row(row_id, 2, **columns)
    return dataclasses.replace(made, margins=None if margin is None else (margin,), source=f"pairs.jsonl:{row_id}")


def collected(rows, **options):
    """The margins that the loss will subtract, and what was said."""
    context = ScriptedContext()
    made = RewardMargin(**options).collect(rows, context)
    return [r.margins[0] for r in made], context.notes


# --- the loss ----------------------------------------------------------------------------------------------------------


def loss_of(scores, margins, **options):
    rows = [with_margin(m, str(i)) for i, m in enumerate(margins)]
    objective = RewardMargin(**options)
    return objective.loss(Scripted(*scores), build_batch(objective.collect(rows, ScriptedContext())))


def test_the_margin_is_taken_off_the_difference():
    out = loss_of([2.0, 0.5, 0.0, 1.0], [1.0, 0.5])
    assert out.loss.item() == pytest.approx((bt(1.5 - 1.0) + bt(-1.0 - 0.5)) / 2)
    assert out.count == 2
    assert float(out.metrics["asked_margin"]) == 0.75
    assert float(out.metrics["margin"]) == pytest.approx((1.5 - 1.0) / 2)
    assert float(out.metrics["accuracy"]) == 0.5


def test_scale_label_smoothing_and_centring():
    d, m = 1.5, 2 * 1.0
    out = loss_of([2.0, 0.5], [1.0], scale=2.0, label_smoothing=0.1, centre_coef=0.01)
    assert out.loss.item() == pytest.approx(0.9 * bt(d - m) + 0.1 * bt(-d - m) + 0.01 * 2.5**2)


def test_no_margin_is_bradley_terry():
    from plugins.objectives.reward_bt import RewardBT

    scores = [2.0, 0.5, 0.0, 1.0]
    plain = RewardBT().loss(Scripted(*scores), build_batch([row("a", 2), row("b", 2)]))
    assert loss_of(scores, [0.0, 0.0]).loss.item() == pytest.approx(plain.loss.item())


def test_a_swapped_pair_is_seen():
    assert loss_of([0.5, 2.0], [1.0]).loss.item() > loss_of([2.0, 0.5], [1.0]).loss.item() + 1


# --- where margins come from -------------------------------------------------------------------------------------------


def test_the_datas_own():
    assert collected([with_margin(0.5), with_margin(2.0)]) == ([0.5, 2.0], [])
    assert collected([with_margin(0.5)], scale=3.0)[0] == [1.5]


def test_llama_2s_tables():
    """Touvron et al. 2023, table 27: 1, 2/3, 1/3, 0 and 3, 2, 1, 0."""
    levels = ["significantly better", "better", "slightly better", "negligibly better", "unsure"]
    assert [SMALL[x] for x in levels] == pytest.approx([1, 2 / 3, 1 / 3, 0, 0])
    assert [LARGE[x] for x in levels] == [3, 2, 1, 0, 0]
    rows = [with_margin(preference_level=level) for level in levels]
    assert collected(rows, margins="small")[0] == pytest.approx([1, 2 / 3, 1 / 3, 0, 0])
    assert collected(rows, margins="large")[0] == [3, 2, 1, 0, 0]


@pytest.mark.parametrize("levels", [(1, 2, 3), ("1", "2", "3")], ids=["numbers", "texts"])
def test_a_map_of_ones_own(levels):
    rows = [with_margin(strength=level) for level in levels]
    assert collected(rows, margins={1: 0, 2: 0.5, 3: 1.0}, level_column="strength")[0] == [0.0, 0.5, 1.0]
    assert collected(rows, margins={"1": 0, "2": 0.5, "3": 1.0}, level_column="strength", scale=2)[0] == [0.0, 1.0, 2.0]


def test_a_map_wins_over_the_datas_margins():
    assert collected([with_margin(9.0, preference_level="better")], margins="large")[0] == [2.0]


def test_a_level_that_the_table_does_not_know():
    rows = [with_margin(preference_level="better"), with_margin(row_id="7", preference_level="so so")]
    with pytest.raises(
        DataError, match=r"pairs\.jsonl:7:preference_level: is 'so so'; expected one of significantly better"
    ):
        collected(rows, margins="small")


@pytest.mark.parametrize(
    ("options", "column"), [({}, "margin"), ({"margins": "large"}, "preference_level")], ids=["margin", "level"]
)
def test_a_missing_margin_is_an_error_or_zero(options, column):
    rows = [with_margin(1.0, preference_level="better"), with_margin(row_id="12"), with_margin(row_id="13")]
    with pytest.raises(DataError, match=rf"pairs\.jsonl:12:{column}: 2 of 3 rows have no margin") as caught:
        collected(rows, **options)
    assert "objective.missing=zero" in str(caught.value)
    margins, notes = collected(rows, **options, missing="zero")
    assert margins[1:] == [0.0, 0.0]
    assert margins[0] > 0
    assert notes == ["2 of 3 rows have no margin; theirs is taken for 0."]


def test_a_file_in_which_some_rows_have_margins(tmp_path):
    """The reader lets them through; the error names file, line and column."""
    pairs = [{"prompt": f"w{i}", "chosen": " w2", "rejected": " w3"} for i in range(3)]
    pairs[0]["margin"], pairs[1]["margin"] = 1.0, 0.5
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(p) + "\n" for p in pairs))
    config = DataConfig(name="jsonl", path=str(file), validation_fraction=0.0)
    data = load_data(config, tiny_tokenizer(), "pairs", margins_may_miss=RewardMargin.margins_may_miss)
    with pytest.raises(DataError, match=r"pairs\.jsonl:3:margin: 1 of 3 rows have no margin"):
        collected(data.train)
    assert collected(data.train, missing="zero")[0] == [1.0, 0.5, 0.0]


# --- what it learns ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("margins", ["data", "large"])
def test_learns_a_preference(margins, tmp_path):
    """Margins ask for a wider gap than pairs alone."""
    rows = []
    for made in preferences(400, 2, 1) + preferences(100, 2, 2):
        clear = sum(t < 13 for t in made.responses[0].tokens) - sum(t < 13 for t in made.responses[1].tokens) > 1
        level = "significantly better" if clear else "slightly better"
        rows.append(dataclasses.replace(made, margins=(LARGE[level],), columns={"preference_level": level}))
    last, _ = learn(tmp_path / "run", RewardMargin(margins=margins), rows[:400], rows[400:], epochs=2)
    assert last["accuracy"] > 0.9
    assert last["margin"] > last["asked_margin"] > 1


# --- options -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"margins": "medium"}, "margins"),
        ({"margins": {"better": -1.0}}, "margins.better"),
        ({"margins": {"better": "much"}}, "margins.better"),
        ({"margins": {"better": math.nan}}, "margins.better"),
        ({"scale": 0.0}, "scale"),
        ({"scale": math.inf}, "scale"),
        ({"missing": "skip"}, "missing"),
        ({"label_smoothing": 0.5}, "label_smoothing"),
        ({"centre_coef": -1.0}, "centre_coef"),
        ({"zero": "mean"}, "zero"),
        ({"zero_rows": 0}, "zero_rows"),
    ],
    ids=str,
)
def test_options_that_cannot_work(options, key):
    with pytest.raises(ConfigError, match=rf"objective\.{key} is .*; expected"):
        RewardMargin(**options)


@pytest.mark.parametrize("check", list(objective_checks(RewardMargin())), ids=str)
def test_contract(check):
    check.run()


# --- against TRL -------------------------------------------------------------------------------------------------------

MARGIN = [case for case, (_, _, _, margins) in parity.REWARD_CASES.items() if margins]


@pytest.mark.parametrize("layout", ["shared", "packed", "padded"])
@pytest.mark.parametrize("case", MARGIN)
def test_equals_trls_recorded_numbers(case, layout):
    assert_equals(parity.our_reward(case, layout), **GOLDEN["reward"][case])


@pytest.mark.parametrize("case", MARGIN)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_equals_trl_live(case):
    pytest.importorskip("trl", reason="TRL is not installed (pip install 'accordant[parity]')")
    loss, slopes, metrics = parity.trl_reward(case)
    assert_equals(parity.our_reward(case, "shared"), loss, slopes, metrics)


@pytest.mark.parametrize("wrong", ["forgotten", "added"])
def test_the_comparison_would_see_a_mistake(wrong, monkeypatch):
    factor = {"forgotten": 0.0, "added": -1.0}[wrong]
    monkeypatch.setattr(parity, "MARGINS", [factor * m for m in parity.MARGINS])
    with pytest.raises(AssertionError):
        assert_equals(parity.our_reward("margin", "shared"), **GOLDEN["reward"]["margin"])


def test_margins_come_back_in_order():
    """The batch's margins stand at each row's first response."""
    batch = build_batch([with_margin(1.0, "a"), with_margin(2.0, "b")])
    assert batch.pairs(batch.margins)[0].tolist() == [1.0, 2.0]
    assert torch.isnan(batch.pairs(batch.margins)[1]).all()
