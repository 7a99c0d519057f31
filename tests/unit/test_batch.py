"""A batch of five responses, laid out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from core.batch import Segments, build_batch, count_of
from core.rows import Response, Row

YES, NO = True, False
ROWS = [
    Row(
        "a",
        [10, 11],
        (Response([20, 21, 22], [YES, NO, YES], score=0.5), Response([30, 31], [YES, YES])),
        margins=(2.5,),
        ties=(True,),
    ),
    Row("b", [12], (Response([40], [YES]), Response([50, 51, 52, 53], [NO, YES, YES, YES], score=-1.0))),
]
TARGETS = [20, 22, 30, 31, 40, 51, 52, 53]
SCATTER = [0, 2, 4, 5, 8, 13, 14, 15]  # in a flat (4, 4)


def test_responses_as_tensors():
    batch = build_batch(ROWS)
    assert batch.ids == ("a", "b")
    assert batch.tokens.tolist() == [[20, 21, 22, 0], [30, 31, 0, 0], [40, 0, 0, 0], [50, 51, 52, 53]]
    assert batch.valid.int().tolist() == [[1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 1]]
    assert batch.mask.int().tolist() == [[1, 0, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0], [0, 1, 1, 1]]
    assert batch.row_index.tolist() == [0, 0, 1, 1]
    assert batch.scores.nan_to_num(9.0).tolist() == [0.5, 9.0, 9.0, -1.0]
    assert batch.margins.nan_to_num(9.0).tolist() == [2.5, 9.0, 9.0, 9.0]
    assert batch.ties.tolist() == [True, False, False, False]
    assert batch.ties.dtype == torch.bool


def test_shared_plan_by_hand():
    plan = build_batch(ROWS, "shared").plan
    #                                 0   1 |  2   3   4 |  5   6 | 7 |  8 |  9  10  11  12
    assert plan.input_ids.tolist() == [[10, 11, 20, 21, 22, 30, 31, 12, 40, 50, 51, 52, 53]]
    assert plan.position_ids.tolist() == [[0, 1, 2, 3, 4, 2, 3, 0, 1, 1, 2, 3, 4]]
    assert plan.segments == (Segments(0, 2, (3, 2)), Segments(7, 1, (1, 4)))
    assert plan.attention_mask is None
    # The first token of each response is predicted at its prompt's last position, also that of the second response.
    assert plan.predict_at.tolist() == [1, 3, 1, 5, 7, 9, 10, 11]
    assert plan.targets.tolist() == TARGETS
    assert plan.scatter.tolist() == SCATTER
    assert plan.last.tolist() == [4, 6, 8, 12]
    assert plan.response_at.tolist() == [[2, 3, 4, 0], [5, 6, 0, 0], [8, 0, 0, 0], [9, 10, 11, 12]]


def test_packed_plan_by_hand():
    plan = build_batch(ROWS, "packed").plan
    #                                   0   1   2   3   4 |  5   6   7   8 |  9  10 | 11  12  13  14  15
    assert plan.input_ids.tolist() == [[10, 11, 20, 21, 22, 10, 11, 30, 31, 12, 40, 12, 50, 51, 52, 53]]
    assert plan.position_ids.tolist() == [[0, 1, 2, 3, 4, 0, 1, 2, 3, 0, 1, 0, 1, 2, 3, 4]]
    assert plan.segments == (Segments(0, 2, (3,)), Segments(5, 2, (2,)), Segments(9, 1, (1,)), Segments(11, 1, (4,)))
    assert plan.predict_at.tolist() == [1, 3, 6, 7, 9, 12, 13, 14]
    assert plan.targets.tolist() == TARGETS
    assert plan.scatter.tolist() == SCATTER
    assert plan.last.tolist() == [4, 8, 10, 15]


def test_padded_plan_by_hand():
    plan = build_batch(ROWS, "padded").plan
    assert plan.input_ids.tolist() == [[10, 11, 20, 21, 22], [10, 11, 30, 31, 0], [12, 40, 0, 0, 0], [12, 50, 51, 52, 53]]
    assert plan.attention_mask.sum(1).tolist() == [5, 4, 2, 5]
    assert plan.position_ids.tolist() == [[0, 1, 2, 3, 4]] * 4
    assert plan.segments == ()
    assert plan.predict_at.tolist() == [1, 3, 6, 7, 10, 16, 17, 18]
    assert plan.targets.tolist() == TARGETS
    assert plan.scatter.tolist() == SCATTER
    assert plan.last.tolist() == [4, 8, 11, 19]


@pytest.mark.parametrize("layout", ["shared", "packed", "padded"])
def test_every_plan_predicts_each_token_from_the_one_before(layout):
    """Whatever the layout: what stands at predict_at is the token before the target in its own sequence."""
    plan = build_batch(ROWS, layout).plan
    flat = plan.input_ids.view(-1)
    assert flat[plan.predict_at].tolist() == [11, 21, 11, 30, 12, 50, 51, 52]
    assert flat[plan.last].tolist() == [22, 31, 40, 53]


def test_token_fields_are_laid_out_like_tokens():
    rows = [
        row.with_responses([r.with_field("ref_logps", [-float(t) for t in r.tokens]) for r in row.responses]) for row in ROWS
    ]
    batch = build_batch(rows)
    assert batch["ref_logps"].tolist() == (-batch.tokens.float()).tolist()
    with pytest.raises(KeyError, match=r"'values'.*they carry: ref_logps"):
        batch["values"]


def test_a_field_on_some_responses_only_is_an_error():
    first, second = ROWS[0].responses
    row = ROWS[0].with_responses([first.with_field("old_logps", [0.0] * 3), second])
    with pytest.raises(ValueError, match="'old_logps' is on some responses"):
        build_batch([row])


def test_counts():
    batch = build_batch(ROWS)
    assert (batch.count("tokens"), batch.count("responses"), batch.count("rows")) == (8, 4, 2)
    assert [count_of(ROWS, over) for over in ("tokens", "responses", "rows")] == [8, 4, 2]


def test_pairs_take_chosen_and_rejected_in_turn():
    batch = build_batch(ROWS)
    chosen, rejected = batch.pairs(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    assert (chosen.tolist(), rejected.tolist()) == ([1.0, 3.0], [2.0, 4.0])
    with pytest.raises(ValueError, match="two responses a row"):
        build_batch([ROWS[0].with_responses(ROWS[0].responses[:1])]).pairs(torch.zeros(1))


def test_to_moves_everything():
    moved = build_batch(ROWS).to("meta")
    tensors = [moved.tokens, moved.mask, moved.valid, moved.scores, moved.margins, moved.ties, moved.row_index]
    tensors += [moved.plan.input_ids, moved.plan.position_ids, moved.plan.predict_at, moved.plan.targets, moved.plan.scatter]
    assert {t.device.type for t in tensors} == {"meta"}
    assert moved.ids == ("a", "b")


def test_a_single_response_has_no_margin():
    batch = build_batch([Row("s", [3], (Response([4], [True]),))])
    assert [math.isnan(m) for m in batch.margins.tolist()] == [True]
    assert batch.ties.tolist() == [False]


def test_a_wholly_masked_response_gives_no_target():
    batch = build_batch([Row("s", [3], (Response([4, 5], [False, False]),))])
    assert batch.count("tokens") == 0
    assert batch.plan.predict_at.tolist() == []
