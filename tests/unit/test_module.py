"""One training step: its count, its metrics, and the guard between a bad number and the weights."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

from core.errors import PluginError, TrainingError
from core.objective import LossOutput, Objective
from core.runfolder import RunFolder, read_jsonl
from core.settings import Optim
from core.step import checked, mean_metrics, metric_sums
from core.train import fit
from plugins.objectives.dpo import DPO
from plugins.objectives.sft import SFT
from tests.support import random_rows, tiny_run
from tests.trials import (
    KINDS,
    TokenSum,
    assert_equal_runs,
    assert_same,
    finished,
    fitted,
    last_checkpoint,
    metrics_of,
    trial,
    watched,
)

# -- arithmetic -----------------------------------------------------------------------------------------------------


def output(loss: float, count: int, **metrics: float) -> LossOutput:
    return LossOutput(torch.tensor(loss), count, metrics)


def test_metrics_are_weighted_by_their_counts() -> None:
    """(2 * 1 + 5 * 3) / 4 = 4.25, and (0.5 * 1 + 0.1 * 3) / 4 = 0.2."""
    means = mean_metrics(metric_sums([output(2.0, 1, accuracy=0.5), output(5.0, 3, accuracy=0.1)]))
    assert means == pytest.approx({"loss": 4.25, "accuracy": 0.2})


def test_a_metric_of_fewer_items_has_its_own_count() -> None:
    """(0.5 * 1 + 0.1 * 1) / 2 = 0.3; where no item has it, there is none."""
    some = [
        replace(output(2.0, 2, accuracy=a, other=1.0), counts={"accuracy": n}) for a, n in ((0.5, 1), (0.1, 1), (9.0, 0))
    ]
    assert mean_metrics(metric_sums(some)) == pytest.approx({"loss": 2.0, "accuracy": 0.3, "other": 1.0})
    assert mean_metrics(metric_sums(some[2:])) == {"loss": 2.0, "other": 1.0}


def test_a_count_of_no_metric_is_refused() -> None:
    with pytest.raises(PluginError, match="count of 'acuracy', which is none of its metrics"):
        checked(replace(output(1.0, 2, accuracy=0.5), counts={"acuracy": 1}), 2, SFT())


@pytest.mark.parametrize("bad", [output(1.0, 3), LossOutput(torch.ones(2), 2), LossOutput(torch.ones(1), 2)])
def test_a_loss_over_another_count_is_refused(bad: LossOutput) -> None:
    with pytest.raises(PluginError, match=rf"SFT.loss returned .* over {bad.count} items; expected a scalar over 2 tokens"):
        checked(bad, 2, SFT())


class Sabotaged(Objective):
    """SFT whose loss goes wrong on some calls of training. `how`: loss | gradient | count."""

    mean_over = "tokens"
    generates = False

    def __init__(self, how: str, calls: set[int]) -> None:
        self.inner, self.how, self.calls = SFT(), how, calls
        self.call = 0

    def loss(self, models: Any, batch: Any) -> LossOutput:
        out = self.inner.loss(models, batch)
        if not torch.is_grad_enabled():
            return out
        self.call += 1
        if self.call not in self.calls:
            return out
        if self.how == "count":
            return LossOutput(out.loss, out.count + 1, out.metrics)
        if self.how == "loss":
            return LossOutput(out.loss * float("nan"), out.count, out.metrics)
        # A finite loss with an infinite gradient: d sqrt(x - x) = 0.5 / 0.
        zero = (out.loss - out.loss).clamp(min=0)
        return LossOutput(out.loss + zero.sqrt(), out.count, out.metrics)


class Weights(L.Callback):
    """The policy's weights after each step; key 0 is before the first."""

    def __init__(self) -> None:
        self.after: dict[int, list[torch.Tensor]] = {}

    def note(self, module: Any, step: int) -> None:
        self.after[step] = [p.detach().clone() for p in module.models.parameters()]

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.note(pl_module, 0)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.note(pl_module, batch.index + 1)


def moved(weights: Weights, step: int) -> bool:
    """Did this step (from 1) change anything?"""
    pairs = zip(weights.after[step - 1], weights.after[step], strict=True)
    return any(not torch.equal(a, b) for a, b in pairs)


def sabotaged(path: Path, how: str, calls: set[int], **changes: Any) -> Any:
    settings = {"data": {"batch_size": 4, "microbatch_tokens": 10_000}, "eval": {"at_start": False}} | changes
    return tiny_run(path / "run", Sabotaged(how, calls), random_rows(16, 1, 1), **settings)


@pytest.mark.parametrize("how", ["loss", "gradient"])
def test_a_non_finite_step_leaves_the_weights(tmp_path: Path, how: str) -> None:
    """Steps 3 and 5 of 8 go wrong. Momentum and decay must not move the weights either."""
    run = sabotaged(tmp_path, how, {3, 5})
    run.optim = Optim(lr=0.01, weight_decay=0.1, warmup_ratio=0.1)
    weights = Weights()
    with watched(weights):
        fit(run)
    assert [step for step in range(1, 9) if moved(weights, step)] == [1, 2, 4, 6, 7, 8]
    assert all(torch.isfinite(p).all() for p in run.models.parameters())
    train = [r for r in metrics_of(run.folder.path) if r["split"] == "train"]
    assert [r["skipped_steps"] for r in train] == [0, 0, 1, 0, 1, 0, 0, 0]
    assert train[2]["loss" if how == "loss" else "grad_norm"] is None
    assert finished(run.folder.path)["status"] == "finished"


def test_a_non_finite_step_leaves_the_optimizer(tmp_path: Path) -> None:
    """Its moments would carry a NaN into every later step. Seven of eight steps are counted."""
    run = sabotaged(tmp_path, "loss", {3})
    fit(run)
    for state in last_checkpoint(run.folder.path)["optimizer_states"][0]["state"].values():
        assert float(state["step"]) == 7
        assert torch.isfinite(state["exp_avg"]).all()


def test_one_bad_micro_batch_spoils_its_step_alone(tmp_path: Path) -> None:
    weights = Weights()
    run = sabotaged(tmp_path, "loss", {2}, data={"batch_size": 4, "microbatch_tokens": 1})
    with watched(weights):
        fit(run)
    assert [step for step in range(1, 9) if moved(weights, step)] == [2, 3, 4, 5, 6, 7, 8]


def test_too_many_in_a_row_stop_the_run_and_name_the_rows(tmp_path: Path) -> None:
    run = sabotaged(tmp_path, "loss", {4, 5, 6}, checkpoint={"every": 1, "keep": 9})
    run.optim = Optim(lr=0.01, max_skipped=3)
    weights = Weights()
    with watched(weights), pytest.raises(TrainingError, match=r"3 steps in a row .* the last at step 6") as error:
        fit(run)
    order = run.schedule.rows_of(1)
    for i in run.schedule.rows_of_step(5, 16):
        assert f"row-{order[i]}" in str(error.value)
    assert not moved(weights, 4)
    assert not moved(weights, 5)
    assert finished(run.folder.path)["status"] == "failed"
    assert "TrainingError" in finished(run.folder.path)["reason"]


def test_fewer_in_a_row_do_not_stop_it(tmp_path: Path) -> None:
    run = sabotaged(tmp_path, "loss", {1, 2, 4, 5, 7, 8})
    run.optim = Optim(lr=0.01, max_skipped=3)
    fit(run)
    assert finished(run.folder.path)["status"] == "finished"


def test_steps_skipped_in_a_row_are_counted_across_a_resume(tmp_path: Path) -> None:
    run = sabotaged(tmp_path, "loss", {3, 4})
    run.optim = Optim(lr=0.01, max_skipped=3)
    assert fitted(run, 4).exit == 143
    again = tiny_run(
        tmp_path / "run",
        Sabotaged("loss", {1}),
        random_rows(16, 1, 1),
        folder=RunFolder.reopen(tmp_path / "run"),
        data={"batch_size": 4, "microbatch_tokens": 10_000},
    )
    again.optim = Optim(lr=0.01, max_skipped=3)
    with pytest.raises(TrainingError, match="3 steps in a row"):
        fit(again)


def test_a_wrong_count_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match=r"over .* items; expected a scalar over"):
        fit(sabotaged(tmp_path, "count", {2}))


def test_no_memory_left_names_the_knobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = sabotaged(tmp_path, "loss", set(), checkpoint={"every": 1, "keep": 9})
    before = run.objective.loss

    def loss(models: Any, batch: Any) -> LossOutput:
        if run.objective.call == 3:
            raise torch.OutOfMemoryError("tried to allocate 20 GiB")
        return before(models, batch)

    monkeypatch.setattr(run.objective, "loss", loss)
    with pytest.raises(TrainingError, match="tried to allocate 20 GiB") as error:
        fit(run)
    for knob in ("data.microbatch_tokens", "model.gradient_checkpointing", "generation.batch_rows"):
        assert knob in error.value.hint
    assert last_checkpoint(run.folder.path)["accordant"]["steps_done"] == 3


# -- leaving an epoch early -------------------------------------------------------------------------------------------


class Contented(Objective):
    """SFT on its own rows, collected each epoch; has had enough at the given calls of `enough` (from 1)."""

    mean_over = "tokens"
    collects = "every_epoch"
    generates = False

    def __init__(self, *at: int) -> None:
        self.inner, self.at, self.asked, self.collected = SFT(), at, 0, 0

    def collect(self, rows: Any, ctx: Any) -> Any:
        self.collected += 1
        return rows

    def loss(self, models: Any, batch: Any) -> LossOutput:
        return self.inner.loss(models, batch)

    def enough(self, metrics: Any) -> bool:
        assert {"loss", "mean_token_accuracy", "lr"} <= metrics.keys()
        self.asked += 1
        return self.asked in self.at

    def state_dict(self) -> dict[str, Any]:
        return {"asked": self.asked, "collected": self.collected}

    def load_state_dict(self, state: Any) -> None:
        self.asked, self.collected = state["asked"], state["collected"]


def contented(path: Path, *at: int, folder: RunFolder | None = None) -> Any:
    """Two epochs of four steps; every step in several micro-batches."""
    settings = {"data": {"batch_size": 4, "microbatch_tokens": 30}, "eval": {"at_start": False}}
    run = tiny_run(path / "run", Contented(*at), random_rows(16, 1, 1), folder=folder, **settings)
    run.optim = Optim(lr=0.01, weight_decay=0.1, warmup_ratio=0.1)
    return run


def test_the_rest_of_an_epoch_is_left_out_and_the_next_one_is_not(tmp_path: Path) -> None:
    """Enough at step 2: neither it nor 3 and 4 move a weight or a moment. Steps and learning rates are counted on."""
    run, weights = contented(tmp_path, 2), Weights()
    with watched(weights):
        fit(run)
    assert [step for step in range(1, 9) if moved(weights, step)] == [1, 5, 6, 7, 8]
    train = [r for r in metrics_of(run.folder.path) if r["split"] == "train"]
    assert [r["left_out"] for r in train] == [0, 1, 1, 1, 0, 0, 0, 0]
    assert ["loss" in r for r in train] == [True, True, False, False, True, True, True, True]
    assert [r["skipped_steps"] for r in train] == [0] * 8
    whole = contented(tmp_path / "whole")
    fit(whole)
    assert [r["lr"] for r in train] == [r["lr"] for r in metrics_of(whole.folder.path) if r["split"] == "train"]
    state = last_checkpoint(run.folder.path)["optimizer_states"][0]["state"]
    assert {float(s["step"]) for s in state.values()} == {5.0}
    assert run.objective.asked == 6  # steps 1 and 2, then 5 to 8


def test_enough_at_an_epochs_last_step_leaves_that_one_out(tmp_path: Path) -> None:
    run, weights = contented(tmp_path, 4, 5), Weights()
    with watched(weights):
        fit(run)
    assert [step for step in range(1, 9) if moved(weights, step)] == [1, 2, 3]


@pytest.mark.parametrize("stop", [2, 3, 4])
def test_a_left_epoch_stays_left_through_a_resume(tmp_path: Path, stop: int) -> None:
    """With the objective's state, which says when it has had enough."""
    whole = contented(tmp_path / "a", 2, 4)
    fit(whole)
    assert fitted(contented(tmp_path / "b", 2, 4), stop).exit == 143
    saved = last_checkpoint(tmp_path / "b" / "run")["accordant"]
    assert (saved["left_epoch"], saved["objective"]) == (0, {"asked": 2, "collected": 1})
    rest = contented(tmp_path / "b", 2, 4, folder=RunFolder.reopen(tmp_path / "b" / "run"))
    fit(rest)
    assert_equal_runs(whole.folder.path, rest.folder.path)
    assert rest.objective.state_dict() == whole.objective.state_dict()


def test_state_of_an_objective_that_keeps_none_is_refused() -> None:
    """A checkpoint of another objective: silently forgotten state would be another run."""
    SFT().load_state_dict(SFT().state_dict())
    with pytest.raises(ValueError, match=r"SFT keeps nothing, and got the state \['best'\]"):
        SFT().load_state_dict({"best": 1})


# -- a whole step ---------------------------------------------------------------------------------------------------


def first_step(path: Path, objective: Objective, responses: int, **changes: Any) -> tuple[dict[str, Any], list[Any]]:
    """The metrics and the weights after one step on 8 rows."""
    run = tiny_run(path / "run", objective, random_rows(8, responses, 3), **changes)
    fit(run)
    train = [r for r in metrics_of(run.folder.path) if r["split"] == "train"]
    return train[0], list(run.models.roles["policy"].parameters())


@pytest.mark.parametrize("kind", ["sft", "dpo"])
def test_how_a_step_is_cut_does_not_matter(tmp_path: Path, kind: str) -> None:
    """Rows of unequal length: a mean of means would differ in the first digits."""
    make, responses = (SFT, 1) if kind == "sft" else (DPO, 2)
    base = {"trainer": {"max_epochs": 1}}
    whole, w = first_step(tmp_path / "a", make(), responses, data={"batch_size": 8, "microbatch_tokens": 10_000}, **base)
    cut, c = first_step(tmp_path / "b", make(), responses, data={"batch_size": 8, "microbatch_tokens": 1}, **base)
    assert whole.keys() == cut.keys()
    for name, value in whole.items():
        assert cut[name] == (value if isinstance(value, str) else pytest.approx(value, rel=1e-4, abs=1e-6)), name
    assert max(float((a - b).detach().abs().max()) for a, b in zip(w, c, strict=True)) < 1e-4


def test_gradient_is_clipped_to_its_norm_and_the_norm_before_is_logged(tmp_path: Path) -> None:
    """SGD in disguise: with one step, AdamW's first moment is 0.1 g, so the moment shows the clipped gradient."""
    settings = {"data": {"batch_size": 8}}
    free, _ = first_step(tmp_path / "a", SFT(), 1, trainer={"max_epochs": 1, "gradient_clip_val": None}, **settings)
    held, _ = first_step(tmp_path / "b", SFT(), 1, trainer={"max_epochs": 1, "gradient_clip_val": 0.25}, **settings)
    assert held["grad_norm"] == free["grad_norm"] > 1
    norms = []
    for name in ("a", "b"):
        state = last_checkpoint(tmp_path / name / "run")["optimizer_states"][0]["state"]
        norms.append(10 * math.sqrt(sum(float(s["exp_avg"].square().sum()) for s in state.values())))
    assert norms == pytest.approx([free["grad_norm"], 0.25], rel=1e-4)


def test_learning_rate_of_each_step_is_the_one_it_was_made_with(tmp_path: Path) -> None:
    run = tiny_run(tmp_path / "run", SFT(), random_rows(16, 1, 3), lr=0.02, trainer={"max_epochs": 1})
    run.optim = Optim(lr=0.02, warmup_ratio=0.25)
    fit(run)
    train = [r for r in metrics_of(tmp_path / "run") if r["split"] == "train"]
    assert [r["lr"] for r in train] == pytest.approx([0.01, 0.02, 0.02 * 2 / 3, 0.02 / 3])
    assert [r["epoch"] for r in train] == [0.25, 0.5, 0.75, 1.0]


@pytest.mark.parametrize("kind", KINDS)
def test_bf16_mixed_runs_and_keeps_float32_weights(tmp_path: Path, kind: str) -> None:
    done = trial(tmp_path / "run", kind, trainer={"precision": "bf16-mixed", "max_epochs": 1})
    assert done.exit == 0
    assert all(p.dtype == torch.float32 for p in done.run.models.parameters())
    train = [r for r in metrics_of(tmp_path / "run") if r["split"] == "train"]
    assert all(math.isfinite(r["loss"]) and math.isfinite(r["grad_norm"]) for r in train if "loss" in r)


def test_frozen_reference_does_not_move_and_has_no_gradient(tmp_path: Path) -> None:
    run = tiny_run(tmp_path / "run", DPO(reference="live"), random_rows(8, 2, 3))
    before = [p.detach().clone() for p in run.models.roles["reference"].parameters()]
    fit(run)
    assert_same(before, [p.detach() for p in run.models.roles["reference"].parameters()])
    assert all(p.grad is None for p in run.models.roles["reference"].parameters())


def test_a_collection_sees_the_weights_after_the_step_before_it(tmp_path: Path) -> None:
    """Lightning fetches nothing ahead: rollouts of stale weights would be off-policy without anybody knowing."""
    k = KINDS["dpo_sampled"]
    run = tiny_run(tmp_path / "run", k.make(), random_rows(18, 2, 1), reward=TokenSum(), **k.settings)
    weights, at_collection = Weights(), []
    collect = run.objective.collect

    def noting(rows: Any, ctx: Any) -> Any:
        at_collection.append([p.detach().clone() for p in run.models.parameters()])
        return collect(rows, ctx)

    run.objective.collect = noting  # type: ignore[method-assign]
    with watched(weights):
        fit(run)
    assert len(at_collection) == 2
    assert_same(at_collection[0], weights.after[0])
    assert_same(at_collection[1], weights.after[3])
    assert moved(weights, 3)


def test_metrics_of_validation_are_of_all_rows_and_weighted(tmp_path: Path) -> None:
    """In steps of 4 or all at once: the same numbers."""
    seen = []
    for name, size in (("a", 4), ("b", 6)):
        run = tiny_run(
            tmp_path / name / "run", SFT(), random_rows(12, 1, 1), random_rows(6, 1, 2), data={"batch_size": size}
        )
        fit(run)
        seen.append(next(r for r in read_jsonl(tmp_path / name / "run" / "metrics.jsonl") if r["split"] == "validation"))
    assert seen[0]["step"] == seen[1]["step"] == 0
    assert seen[0]["loss"] == pytest.approx(seen[1]["loss"], rel=1e-5)
    assert seen[0]["mean_token_accuracy"] == pytest.approx(seen[1]["mean_token_accuracy"], rel=1e-5)
