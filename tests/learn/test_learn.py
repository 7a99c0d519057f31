"""Each objective learns a toy task in seconds, by the numbers that a user would look at."""

from __future__ import annotations

import dataclasses
import random

import pytest

from core.reward import RewardSource
from core.rows import Response, Row
from core.runfolder import read_jsonl
from core.train import fit
from plugins.objectives.dpo import DPO
from plugins.objectives.rejection_sampling import RejectionSampling
from plugins.objectives.sft import SFT
from tests.support import tiny_model, tiny_run

# Token t is the word w(t - 3). The task: after w<k>, say w<k + 1>, then stop.
FIRST, LAST = 3, 40


def answer(tokens):
    return Response(tokens, [True] * len(tokens), " ".join(f"w{t - 3}" for t in tokens if t > 2))


def tasks(count, seed, right_first=True):
    """One word; the good answer is the word after it, the bad one any other."""
    draw, rows = random.Random(seed), []
    for i in range(count):
        prompt = [draw.randrange(FIRST, LAST) for _ in range(1)]
        good = answer([prompt[-1] + 1, 1])
        bad = answer([draw.choice([t for t in range(FIRST, LAST) if t != prompt[-1] + 1]), 1])
        pair = (good, bad) if right_first else (bad, good)
        rows.append(Row(f"{seed}-{i}", prompt, pair, prompt_text=" ".join(f"w{t - 3}" for t in prompt)))
    return rows


class Successor(RewardSource):
    """1 for an answer that begins with the next word, less the further it is from it."""

    def score(self, samples):
        return [
            -abs(int(s.response.split()[0][1:]) - int(s.prompt.split()[-1][1:]) - 1) / 40 if s.response else -2.0
            for s in samples
        ]


class LowWords(RewardSource):
    """The share of an answer's words that are below w30: about half for a random model."""

    def score(self, samples):
        return [
            sum(int(w[1:]) < 30 for w in s.response.split() if w[1:].isdigit()) / max(1, len(s.response.split()))
            for s in samples
        ]


def learn(path, objective, train, validation, *, reward=None, lr, epochs, **data):
    """The first and the last validation's metrics."""
    run = tiny_run(
        path,
        objective,
        train,
        validation,
        reward=reward,
        model=tiny_model(tie_word_embeddings=True),
        lr=lr,
        data={"batch_size": 16, "microbatch_tokens": 4000, **data},
        trainer={"max_epochs": epochs, "enable_progress_bar": False, "log_every_n_steps": 20},
        eval={"every": 10**6, "prompts": 32},
    )
    run = dataclasses.replace(run, data=dataclasses.replace(run.data, prompts=[r.with_responses([]) for r in validation]))
    fit(run)
    seen = [m for m in read_jsonl(path / "metrics.jsonl") if m["split"] == "validation"]
    return seen[0], seen[-1]


def test_sft_learns_the_next_word(tmp_path):
    one = [row.with_responses(row.responses[:1]) for row in tasks(256, 1)]
    held_out = [row.with_responses(row.responses[:1]) for row in tasks(32, 2)]
    before, after = learn(tmp_path / "run", SFT(), one, held_out, lr=0.01, epochs=6)
    assert before["loss"] > 2.0
    assert after["loss"] < 0.4
    assert after["mean_token_accuracy"] > 0.9
    assert after["completions/mean_length"] < 3  # it has learnt to stop


def test_dpo_learns_the_order_of_labelled_pairs(tmp_path):
    before, after = learn(tmp_path / "run", DPO(beta=0.3), tasks(256, 1), tasks(32, 2), lr=0.01, epochs=8)
    assert before["rewards/accuracies"] == pytest.approx(0.0, abs=0.6)
    assert after["rewards/accuracies"] > 0.9
    assert after["rewards/margins"] > 0.5
    assert after["loss"] < before["loss"] - 0.2


def test_dpo_learns_the_rewards_order_where_labels_are_wrong(tmp_path):
    """The data prefers the wrong answer; the reward turns every pair round."""
    wrong = tasks(256, 1, right_first=False)
    held_out = tasks(32, 2, right_first=False)
    _, after = learn(
        tmp_path / "run", DPO(beta=0.3, pairs="relabelled"), wrong, held_out, reward=Successor(), lr=0.01, epochs=8
    )
    assert after["rewards/accuracies"] > 0.9
    _, after = learn(tmp_path / "labels", DPO(beta=0.3, pairs="dataset"), wrong, tasks(32, 2), lr=0.01, epochs=8)
    assert after["rewards/accuracies"] < 0.2  # without the reward it learns what the labels say: the opposite


def test_dpo_learns_from_its_own_samples(tmp_path):
    prompts = [row.with_responses([]) for row in tasks(64, 1)]
    held_out = [row.with_responses([]) for row in tasks(32, 2)]
    before, after = learn(tmp_path / "run", DPO(beta=0.1), prompts, held_out, reward=LowWords(), lr=0.01, epochs=4)
    assert before["reward"] < 0.6
    assert after["reward"] > before["reward"] + 0.25
    assert before["objective/kl"] == pytest.approx(0, abs=1e-4)
    assert after["objective/kl"] > 0.1
    rollouts = [list(read_jsonl(tmp_path / "run" / "rollouts" / f"epoch_00{k}.jsonl"))[:-1] for k in range(4)]
    scores = [[sum(r["score"] for r in row["responses"]) / 2 for row in rows] for rows in rollouts]
    assert sum(scores[3]) / len(scores[3]) > sum(scores[0]) / len(scores[0])


def test_rejection_sampling_learns_what_the_reward_likes(tmp_path):
    prompts = [row.with_responses([]) for row in tasks(64, 1)]
    held_out = [row.with_responses([]) for row in tasks(32, 2)]
    objective = RejectionSampling()
    before, after = learn(tmp_path / "run", objective, prompts, held_out, reward=LowWords(), lr=0.01, epochs=5)
    assert before["reward"] < 0.6
    assert after["reward"] > before["reward"] + 0.25
    assert before["objective/kl"] == pytest.approx(0, abs=1e-4)
    assert after["objective/kl"] > 0.1
    drawn = [m for m in read_jsonl(tmp_path / "run" / "metrics.jsonl") if "best_of/1" in m]
    assert [m["step"] for m in drawn] == [1, 5, 9, 13, 17]  # one curve for each collection
    assert all(m["best_of/1"] < m["best_of/2"] < m["best_of/4"] < m["best_of/8"] for m in drawn)
    assert drawn[-1]["best_of/1"] > drawn[0]["best_of/1"] + 0.2
    assert drawn[0]["kept/scores"] == pytest.approx(drawn[0]["best_of/8"])  # without earlier epochs, what it keeps
    assert drawn[1]["kept/scores"] > drawn[1]["best_of/8"]  # with them, better than the best of this one
