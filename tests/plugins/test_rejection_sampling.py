"""Rejection sampling by hand: what is kept, from which epoch, what is said of it, and that the loss is sft's."""

from __future__ import annotations

import dataclasses
import io
import math

import pytest
import torch

from core.batch import build_batch
from core.errors import CollectionError, ConfigError, DataError
from core.rows import Response, Row
from core.trial import ScriptedContext, trial_models, trial_rows
from plugins.objectives.rejection_sampling import RejectionSampling
from plugins.objectives.sft import SFT

PROMPTS = [Row("a", [3]), Row("b", [4])]


class Draws(ScriptedContext):
    """The answers to each prompt are given, as (token, score); an answer has as many tokens as its token says."""

    def __init__(self, draws, epoch=0, temperature=1.0):
        super().__init__(epoch)
        self.draws, self.temperature, self.asked, self.counts = draws, temperature, [], {}

    def generate(self, rows, n=1, *, temperature=None):
        self.asked.append((n, temperature))
        return [row.with_responses([answer(token) for token, _ in self.draws[row.id]]) for row in rows]

    def score(self, rows):
        scores = {row.id: [score for _, score in self.draws[row.id]] for row in rows}
        return [
            row.with_responses([dataclasses.replace(r, score=s) for r, s in zip(row.responses, scores[row.id], strict=True)])
            for row in rows
        ]

    def log(self, metrics, count):
        super().log(metrics, count)
        self.counts |= dict.fromkeys(metrics, count)


def answer(token):
    return Response(
        [token] * token, [True] * token, f"{token}", finished=token != 9, token_fields={"old_logps": [-1.0] * token}
    )


def collected(objective, draws, epoch=0, prompts=None):
    """Prompt -> (token, score) of what is learnt, and the context."""
    context = Draws(draws, epoch)
    made = objective.collect(PROMPTS if prompts is None else prompts, context)
    return {row.id: [(r.tokens[0], r.score) for r in row.responses] for row in made}, context


# --- what is kept --------------------------------------------------------------------------------------------------------


def test_the_best_of_each_prompt():
    objective = RejectionSampling(samples=3)
    kept, context = collected(objective, {"a": [(5, 0.1), (6, 0.9), (7, 0.5)], "b": [(5, -3.0), (6, -5.0), (7, -4.0)]})
    assert kept == {"a": [(6, 0.9)], "b": [(5, -3.0)]}
    assert context.asked == [(3, None)]
    assert context.notes == []


def test_kept_answers_are_demonstrations():
    """All their tokens count, and nothing of the sampling stays on them; the row is the prompt's otherwise."""
    prompt = dataclasses.replace(PROMPTS[0], references=("R",), columns={"topic": "x"}, prompt_text="P")
    (made,) = RejectionSampling(samples=2).collect([prompt], Draws({"a": [(5, 1.0), (6, 2.0)]}))
    assert made == prompt.with_responses([Response([6] * 6, [True] * 6, "6", score=2.0)])


def test_of_equal_answers_the_first():
    kept, _ = collected(
        RejectionSampling(samples=3), {"a": [(5, 1.0), (6, 2.0), (7, 2.0)], "b": [(8, 0.0), (7, 0.0), (6, 0.0)]}
    )
    assert kept == {"a": [(6, 2.0)], "b": [(8, 0.0)]}


@pytest.mark.parametrize(("share", "samples", "most"), [(0.5, 4, 2), (0.25, 8, 2), (0.25, 2, 1), (0.3, 10, 3), (0.9, 3, 3)])
def test_the_top_share_of_each_prompt(share, samples, most):
    draws = [(k + 1, float(k)) for k in range(samples)]
    kept, _ = collected(RejectionSampling(samples=samples, keep="top", share=share), {"a": draws}, prompts=PROMPTS[:1])
    assert kept == {"a": draws[::-1][:most]}


def test_an_answer_that_was_drawn_twice_counts_once():
    """A judge may score the same answer differently: its best counts."""
    draws = {"a": [(5, 2.0), (6, 1.0), (5, 3.0), (7, 0.5)]}
    kept, _ = collected(RejectionSampling(samples=4, keep="top", share=0.75), draws, prompts=PROMPTS[:1])
    assert kept == {"a": [(5, 3.0), (6, 1.0), (7, 0.5)]}


def test_all_that_reach_the_threshold():
    objective = RejectionSampling(samples=4, keep="threshold", threshold=0.5)
    kept, context = collected(
        objective,
        {"a": [(5, 0.5), (6, 0.4), (7, 0.9), (8, None)], "b": [(5, 0.1), (6, 0.49), (7, -1.0), (8, 0.0)]},
    )
    assert kept == {"a": [(7, 0.9), (5, 0.5)]}
    assert context.notes == ["1 of 2 prompts keep no answer: none has a score, or none reaches the threshold."]


def test_thresholds_by_epoch():
    """A list has one for each epoch, and the last repeats (ReST raises it)."""
    objective = RejectionSampling(samples=3, keep="threshold", threshold=[0.0, 2.0], best_so_far=False)
    draws = {"a": [(5, 1.0), (6, 2.0), (7, 3.0)]}
    counts = [len(collected(objective, draws, epoch, PROMPTS[:1])[0]["a"]) for epoch in range(4)]
    assert counts == [3, 2, 2, 2]


def test_a_prompt_without_a_score_is_left_out_and_counted():
    kept, context = collected(RejectionSampling(samples=2), {"a": [(5, None), (6, None)], "b": [(5, None), (6, -9.0)]})
    assert kept == {"b": [(6, -9.0)]}
    assert context.notes == ["1 of 2 prompts keep no answer: none has a score, or none reaches the threshold."]


# --- from which epoch ----------------------------------------------------------------------------------------------------

FIRST = {"a": [(5, 0.7), (6, 0.2)], "b": [(5, 0.3), (6, 0.1)]}
SECOND = {"a": [(7, 0.6), (8, 0.5)], "b": [(7, 0.4), (8, 0.9)]}
THIRD = {"a": [(8, 0.7), (6, 0.7)], "b": [(5, None), (6, None)]}


def test_the_best_so_far_by_hand():
    """a: 5 stands in the second epoch; in the third, of equal scores, the newer. b: without a score the old one stands."""
    objective = RejectionSampling(samples=2)
    assert collected(objective, FIRST, 0)[0] == {"a": [(5, 0.7)], "b": [(5, 0.3)]}
    kept, context = collected(objective, SECOND, 1)
    assert kept == {"a": [(5, 0.7)], "b": [(8, 0.9)]}
    assert context.metrics["kept/earlier"] == 0.5
    kept, context = collected(objective, THIRD, 2)
    assert kept == {"a": [(8, 0.7)], "b": [(8, 0.9)]}
    assert context.metrics["kept/earlier"] == 0.5


def test_without_it_each_epoch_stands_alone():
    objective = RejectionSampling(samples=2, best_so_far=False)
    collected(objective, FIRST, 0)
    kept, context = collected(objective, SECOND, 1)
    assert kept == {"a": [(7, 0.6)], "b": [(8, 0.9)]}
    assert context.metrics["kept/earlier"] == 0
    assert objective.state_dict() == {}


def test_the_top_so_far():
    objective = RejectionSampling(samples=2, keep="top", share=0.9)
    assert collected(objective, FIRST, 0)[0]["a"] == [(5, 0.7), (6, 0.2)]
    assert collected(objective, SECOND, 1)[0]["a"] == [(5, 0.7), (7, 0.6)]


def test_those_above_a_threshold_so_far_are_bounded():
    """No more of a prompt than `samples`, however many epochs there are: what is remembered does not grow."""
    objective = RejectionSampling(samples=2, keep="threshold", threshold=0.0)
    for epoch, draws in enumerate((FIRST, SECOND)):
        kept, _ = collected(objective, draws, epoch)
    assert kept == {"a": [(5, 0.7), (7, 0.6)], "b": [(8, 0.9), (7, 0.4)]}


def test_a_threshold_that_rises_drops_earlier_answers():
    objective = RejectionSampling(samples=2, keep="threshold", threshold=[0.0, 0.65])
    collected(objective, FIRST, 0)
    assert collected(objective, SECOND, 1)[0] == {"a": [(5, 0.7)], "b": [(8, 0.9)]}


def test_prompts_that_do_not_come_in_an_epoch_are_remembered():
    objective = RejectionSampling(samples=2)
    collected(objective, FIRST, 0)
    kept, _ = collected(objective, SECOND, 1, prompts=PROMPTS[1:])
    assert kept == {"b": [(8, 0.9)]}
    assert collected(objective, SECOND, 2)[0]["a"] == [(5, 0.7)]


def test_what_was_kept_comes_back_from_a_checkpoint():
    objective, other = RejectionSampling(samples=2), RejectionSampling(samples=2)
    collected(objective, {**FIRST, "a": [(9, 0.7), (6, 0.2)]}, 0)  # 9 did not end
    file = io.BytesIO()
    torch.save(objective.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert other.state_dict() == objective.state_dict() != {}
    made = [each.collect(PROMPTS, Draws(SECOND, 1)) for each in (objective, other)]
    assert made[0] == made[1]
    assert made[0][0].responses == (Response([9] * 9, [True] * 9, "9", score=0.7, finished=False),)


def test_a_state_is_a_copy():
    """The loader goes back to it where a collection is left half-way."""
    objective = RejectionSampling(samples=2)
    fresh = objective.state_dict()
    collected(objective, FIRST, 0)
    before = objective.state_dict()
    collected(objective, SECOND, 1)
    objective.load_state_dict(before)
    assert objective.state_dict() == before
    objective.load_state_dict(fresh)
    assert objective.state_dict() == {}


def test_every_process_remembers_what_all_kept(monkeypatch):
    """Also one that had no prompts; what another kept counts when the prompt comes here."""
    theirs = {"a": [Response([5] * 5, [True] * 5, "5", score=0.7)]}
    given = []

    def gathered(mine):
        given.append(mine)
        return [mine, theirs]

    objective = RejectionSampling(samples=2)
    with monkeypatch.context() as patch:
        patch.setattr("core.processes._gathered", gathered)
        assert collected(objective, {}, 0, prompts=[])[0] == {}
    assert given == [{}]
    assert objective.state_dict() == {"a": [{"tokens": [5] * 5, "text": "5", "score": 0.7, "finished": True}]}
    assert collected(objective, SECOND, 1)[0]["a"] == [(5, 0.7)]


def test_another_processs_error_is_not_waited_for(monkeypatch):
    monkeypatch.setattr("core.processes._gathered", lambda mine: [mine, DataError("judge: no answer.")])
    with pytest.raises(DataError, match="no answer") as caught:
        collected(RejectionSampling(samples=2), FIRST)
    assert caught.value.everywhere


# --- temperatures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("temperature", "asked"), [(None, [None] * 4), (0.7, [0.7] * 4), ([1.0, 1.2], [1.0, 1.2, 1.2, 1.2]), ([0.9], [0.9] * 4)]
)
def test_temperatures_by_epoch(temperature, asked):
    objective, seen = RejectionSampling(samples=2, temperature=temperature), []
    for epoch in range(4):
        seen += collected(objective, FIRST, epoch)[1].asked
    assert seen == [(2, t) for t in asked]


def test_greedy_answers_are_refused():
    with pytest.raises(CollectionError, match="temperature is 0: all 2 answers"):
        RejectionSampling(samples=2).collect(PROMPTS, Draws(FIRST, temperature=0.0))
    assert RejectionSampling(samples=2, temperature=1.0).collect(PROMPTS, Draws(FIRST, temperature=0.0))


# --- what is said --------------------------------------------------------------------------------------------------------


def test_metrics_by_hand():
    """a: of 0, 1, 2, 3 the best of two is 14/6 on average; b: all 4. Kept: 3 of 9 tokens, unfinished, and 4 of 5 tokens."""
    objective = RejectionSampling(samples=4)
    _, context = collected(
        objective, {"a": [(5, 0.0), (6, 1.0), (7, 2.0), (9, 3.0)], "b": [(5, 4.0), (6, 4.0), (7, 4.0), (8, 4.0)]}
    )
    assert context.metrics == pytest.approx(
        {
            "objective/scores": 2.75,
            "objective/scores_std": math.sqrt(5 / 3) / 2,
            "frac_reward_zero_std": 0.5,
            "best_of/1": (1.5 + 4) / 2,
            "best_of/2": (14 / 6 + 4) / 2,
            "best_of/4": (3 + 4) / 2,
            "kept/share": 1 / 4,
            "kept/scores": 3.5,
            "kept/mean_length": 7.0,
            "kept/clipped_ratio": 0.5,
            "kept/earlier": 0.0,
        }
    )
    assert {name: count for name, count in context.counts.items() if count != 2} == {"objective/scores": 8}


def test_the_first_line_says_what_is_learnt():
    assert RejectionSampling().bind("gold") == (
        "8 responses sampled per prompt each epoch; learnt: the best by gold, earlier epochs' included."
    )
    said = RejectionSampling(samples=16, keep="top", best_so_far=False).bind("gold")
    assert said == "16 responses sampled per prompt each epoch; learnt: the best 4 by gold."
    said = RejectionSampling(keep="threshold", threshold=[0.5, 0.7]).bind("gold")
    assert "learnt: those from [0.5, 0.7] by gold" in said


def test_declarations():
    objective = RejectionSampling(minibatches=3, passes=2)
    assert (objective.minibatches, objective.passes) == (3, 2)
    assert objective.mean_over == SFT.mean_over
    assert (objective.trains, objective.frozen) == ({"policy"}, {"reference"})
    assert RejectionSampling(measure_kl=False).frozen == frozenset()


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"samples": 1}, "samples"),
        ({"keep": "worst"}, "keep"),
        ({"keep": "top", "share": 0.0}, "share"),
        ({"keep": "top", "share": 1.0}, "share"),
        ({"share": 0.5}, "share"),  # of no use with keep=best
        ({"threshold": 0.5}, "threshold"),
        ({"keep": "threshold"}, "threshold"),
        ({"keep": "threshold", "threshold": []}, "threshold"),
        ({"keep": "threshold", "threshold": [0.1, math.nan]}, "threshold"),
        ({"temperature": 0.0}, "temperature"),
        ({"temperature": [1.0, -1.0]}, "temperature"),
        ({"temperature": math.inf}, "temperature"),
        ({"minibatches": 0}, "minibatches"),
        ({"passes": 0}, "passes"),
    ],
    ids=str,
)
def test_options_that_cannot_work(options, key):
    with pytest.raises(ConfigError, match=rf"objective\.{key} is .*; expected"):
        RejectionSampling(**options)


# --- the loss ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [{}, {"keep": "top", "share": 0.5}], ids=["one a prompt", "several a prompt"])
def test_the_loss_is_sfts_on_the_kept_answers(keep):
    objective = RejectionSampling(samples=4, **keep)
    rows = objective.collect(trial_rows("prompts"), ScriptedContext())
    models = trial_models(objective)
    ours = objective.loss(models, build_batch(rows))
    one_each = [row.with_responses([r]) for row in rows for r in row.responses]  # as demonstrations, one a row
    theirs = SFT().loss(models, build_batch(one_each))
    assert ours.loss.item() == pytest.approx(theirs.loss.item(), abs=1e-6)
    assert ours.count == theirs.count == sum(len(r.tokens) for row in rows for r in row.responses)
    assert {k: float(v) for k, v in ours.metrics.items()} == pytest.approx({k: float(v) for k, v in theirs.metrics.items()})
