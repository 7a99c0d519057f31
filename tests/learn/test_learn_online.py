"""PPO and REINFORCE learn a toy reward from their own samples, by the numbers that a user would look at."""

from __future__ import annotations

import statistics

import pytest
import torch

from core.runfolder import read_jsonl
from core.train import fit
from plugins.objectives.ppo import PPO
from tests.learn.test_learn import LowWords, tasks
from tests.support import tiny_model, tiny_run

PROMPTS, BATCH, COLLECTIONS = 64, 32, 12


def learn(path, objective, seed, lr):
    """The records of training, the first and the last validation's, and the mean score of each collection."""
    rows, held_out = ([row.with_responses([]) for row in tasks(n, seed)] for n, seed in ((PROMPTS, 1), (32, 2)))
    run = tiny_run(
        path,
        objective,
        rows,
        held_out,
        reward=LowWords(),
        model=tiny_model(seed, tie_word_embeddings=True),
        lr=lr,
        seed=seed,
        data={"batch_size": BATCH, "microbatch_tokens": 4000, "rows_per_epoch": BATCH * objective.minibatches},
        trainer={"max_epochs": COLLECTIONS, "enable_progress_bar": False},
        eval={"every": 10**6, "prompts": 32},
    )
    if objective.value:  # as core.value begins one
        torch.nn.init.zeros_(run.models.of("value").score.weight)
    fit(run)
    records = list(read_jsonl(path / "metrics.jsonl"))
    seen = [m for m in records if m["split"] == "validation"]
    scores = [m["objective/scores"] for m in records if "objective/scores" in m]
    return [m for m in records if m["split"] == "train"], seen[0], seen[-1], scores


def assert_learnt(before, after, scores):
    """The reward is a share: about half for a random model. The smallest rise of three seeds was 0.35."""
    assert before["reward"] < 0.6
    assert after["reward"] > before["reward"] + 0.25
    assert len(scores) == COLLECTIONS
    assert statistics.mean(scores[-3:]) > statistics.mean(scores[:2]) + 0.25
    assert before["objective/kl"] == pytest.approx(0, abs=1e-4)
    assert 2 < after["objective/kl"] < 40  # it went away from where it began, and did not break


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_ppo_learns_a_reward(tmp_path, seed):
    steps, before, after, scores = learn(tmp_path / "run", PPO(kl_coef=0.01, minibatches=1, passes=2), seed, 0.02)
    assert_learnt(before, after, scores)
    ratios = [m["val/ratio"] for m in steps if "val/ratio" in m]
    assert len(ratios) == 2 * COLLECTIONS
    assert ratios[0::2] == pytest.approx([1.0] * COLLECTIONS, abs=1e-4)  # before its first update
    assert max(abs(r - 1) for r in ratios[1::2]) > 0.01
    losses = [m["loss/value_avg"] for m in steps if "loss/value_avg" in m]
    explained = [m["val/explained_variance"] for m in steps if "val/explained_variance" in m]
    assert explained[0] == 0  # a zero head explains nothing
    assert losses[1] < losses[0]
    assert max(explained[1:]) > 0.1


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_reinforce_learns_a_reward(tmp_path, seed):
    objective = PPO(kl_coef=0.01, clip_range=None, value=False, passes=1, minibatches=1)
    steps, before, after, scores = learn(tmp_path / "run", objective, seed, 0.02)
    assert_learnt(before, after, scores)
    assert not (tmp_path / "run" / "value").exists()
    ratios = [m["val/ratio"] for m in steps if "val/ratio" in m]
    assert ratios == pytest.approx([1.0] * COLLECTIONS, abs=1e-4)
