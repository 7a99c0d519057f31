"""Equal set-ups, equal training: how a step is cut or laid out does not show in the weights.

The loss is a mean over the tokens (sft) or pairs (dpo) of the whole optimizer step. A mean of micro-batch means would
depend on the cut; the last test puts one in and sees it.
"""

from __future__ import annotations

import dataclasses

import pytest
import torch

from core import module as module_file
from core.runfolder import read_jsonl
from core.train import fit
from plugins.objectives.dpo import DPO
from plugins.objectives.ppo import PPO
from plugins.objectives.rejection_sampling import RejectionSampling
from plugins.objectives.reward_bt import RewardBT
from plugins.objectives.reward_margin import RewardMargin
from plugins.objectives.sft import SFT
from tests.support import random_rows, tiny_run
from tests.trials import TokenSum, metrics_of

OBJECTIVES = {
    "sft": (SFT, 1),
    "sft smoothed": (lambda: SFT(label_smoothing=0.1), 1),
    "dpo live": (lambda: DPO(reference="live"), 2),
    "dpo cached": (DPO, 2),
    "dpo anchored ipo": (lambda: DPO(loss="ipo", sft_coef=0.2), 2),
    "reward_bt": (lambda: RewardBT(zero="none", centre_coef=0.01), 3),
    "reward_bt plackett_luce": (lambda: RewardBT(zero="none", loss="plackett_luce"), 3),
    "reward_margin": (lambda: RewardMargin(zero="none", missing="zero"), 2),
}
ONLINE = {
    "ppo": lambda: PPO(kl_control="adaptive", kl_horizon=20, kl_target=0.1, samples=2, passes=2),
    "rejection_sampling": lambda: RejectionSampling(samples=3),
}
WHOLE, MANY = 10**6, 30
"""Budgets of tokens: all rows of a step in one micro-batch, and about two rows in each."""


def train(path, kind, *, budget=WHOLE, layout="auto", seen=None):
    """Weights after three steps of six rows, and the metrics of each step."""
    make, responses = OBJECTIVES[kind]
    run = tiny_run(
        path,
        make(),
        random_rows(18, responses, seed=4),
        layout=layout,
        data={"batch_size": 6, "microbatch_tokens": budget},
        trainer={"max_epochs": 1, "enable_progress_bar": False},
        eval={"every": 100, "at_start": False},
    )
    # AdamW divides by the gradient's size: where that is near zero, rounding alone would move a weight by lr.
    run = dataclasses.replace(run, optim=dataclasses.replace(run.optim, eps=1e-2))
    fit(run)
    if seen is not None:
        seen.append(run)
    return {name: p.detach().clone() for name, p in run.models.trained_parameters()}


def furthest(left, right):
    return max((left[name] - right[name]).abs().max().item() for name in left)


@pytest.mark.parametrize("kind", OBJECTIVES)
def test_one_micro_batch_equals_many_equals_padded(kind, tmp_path):
    whole = train(tmp_path / "whole", kind)
    moved = furthest(
        whole, dict(tiny_run(tmp_path / "start", OBJECTIVES[kind][0](), random_rows(2, 2)).models.trained_parameters())
    )
    assert moved > 1e-4  # three steps did something
    for name, options in {
        "many": {"budget": MANY},
        "one row each": {"budget": 1},
        "padded": {"layout": "padded"},
        "padded, many": {"layout": "padded", "budget": 60},
        "packed": {"layout": "packed"},
    }.items():
        assert furthest(whole, train(tmp_path / name.replace(" ", "-"), kind, **options)) < 1e-6, name


def test_the_metrics_of_a_step_are_equal_too(tmp_path):
    for kind in OBJECTIVES:
        steps = []
        for budget in (WHOLE, 1):
            seen = []
            train(tmp_path / f"{kind}-{budget}".replace(" ", "-"), kind, budget=budget, seen=seen)
            steps.append([m for m in read_jsonl(seen[0].folder.path / "metrics.jsonl") if m["split"] == "train"])
        assert len(steps[0]) == 3
        for whole, cut in zip(*steps, strict=True):
            timed = {k for k in whole if "time" in k or "seconds" in k or "per_second" in k or "memory" in k}
            # Before the first update policy and reference are equal, and who is ahead is a matter of rounding.
            noise = {"rewards/accuracies"} if whole["step"] == 1 else set()
            for name in whole.keys() - timed - noise - {"split"}:
                assert cut[name] == pytest.approx(whole[name], abs=2e-5, rel=1e-5), (kind, name)


def train_online(path, kind, *, budget=WHOLE, layout="auto"):
    """Weights and objective's state after a collection of 9 prompts in steps of 5, and the metrics of each step."""
    run = tiny_run(
        path,
        ONLINE[kind](),
        random_rows(9, 0, seed=4),
        layout=layout,
        reward=TokenSum(scale=0.01),
        data={"batch_size": 5, "microbatch_tokens": budget},
        trainer={"max_epochs": 1, "enable_progress_bar": False},
        eval={"every": 100, "at_start": False, "prompts": 0},
    )
    run = dataclasses.replace(run, optim=dataclasses.replace(run.optim, eps=1e-2))
    fit(run)
    weights = {name: p.detach().clone() for name, p in run.models.trained_parameters()}
    return weights, run.objective.state_dict(), [r for r in metrics_of(path) if r["split"] == "train"]


@pytest.mark.parametrize("kind", ONLINE)
def test_an_online_objective_is_equal_too(kind, tmp_path):
    """A collection in parts as well: reference, values, and what the sampler is asked."""
    whole, state, steps = train_online(tmp_path / "whole", kind)
    start = tiny_run(tmp_path / "start", ONLINE[kind](), random_rows(2, 0), reward=TokenSum())
    assert furthest(whole, dict(start.models.trained_parameters())) > 1e-4
    for name, options in {"many": {"budget": MANY}, "padded": {"layout": "padded", "budget": 60}}.items():
        weights, its_state, its_steps = train_online(tmp_path / name, kind, **options)
        assert furthest(whole, weights) < 1e-6, name
        for ours, theirs in zip(steps, its_steps, strict=True):
            for metric in ours.keys() - {"split"}:
                assert theirs[metric] == pytest.approx(ours[metric], abs=1e-4, rel=1e-4), (name, metric)
        if kind == "ppo":
            assert its_state == pytest.approx(state, rel=1e-6)


@pytest.mark.parametrize("kind", ["sft", "dpo live"])
def test_a_mean_of_means_would_be_seen(kind, tmp_path, monkeypatch):
    """Each micro-batch weighs the same, as accumulating trainers long did."""
    whole = train(tmp_path / "whole", kind)
    build = module_file.AlignmentModule.training_step

    def careless(self, batch, batch_idx):
        objective = self.objective
        right = objective.loss

        def loss(models, micro):
            out = right(models, micro)
            share = batch.count / (len(batch.micro) * out.count)
            return dataclasses.replace(out, loss=out.loss * share)

        objective.loss = loss
        try:
            return build(self, batch, batch_idx)
        finally:
            del objective.loss

    monkeypatch.setattr(module_file.AlignmentModule, "training_step", careless)
    assert furthest(whole, train(tmp_path / "one", kind)) < 1e-6  # one micro-batch: no difference
    assert furthest(whole, train(tmp_path / "many", kind, budget=MANY)) > 1e-5


def test_the_number_of_threads_does_not_show(tmp_path):
    one = train(tmp_path / "one", "sft")
    torch.set_num_threads(2)
    assert furthest(one, train(tmp_path / "two", "sft")) < 1e-6
