"""The same tiny models and the same answers through TRL's last PPOTrainer and through ours; GAE through Stable-Baselines3.

Both are kept in tests/golden, as neither can be installed beside the TRL of today. They are made in a folder of their own by

    pip install --no-deps --target FOLDER trl==1.10.0
    PYTHONPATH=FOLDER python -m tests.plugins.ppo_parity trl
    pip install --no-deps --target OTHER stable-baselines3==2.3.2
    pip install --target OTHER gymnasium==0.29.1 matplotlib
    PYTHONPATH=OTHER python -m tests.plugins.ppo_parity sb3

TRL's trainer runs as it is, for one collection and two passes with plain SGD, but for three things that are given to it:
the answers (with the log-probs of a fresh forward), the optimizer, and the order of the rows.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from core.batch import Batch, build_batch
from core.collect import ModelContext
from core.models import Models
from core.rows import Response, Row
from core.settings import Generation
from plugins.objectives.ppo import PPO
from tests.plugins.trl_parity import sine_model, sine_scorer, summary
from tests.support import tiny_tokenizer

TRL_GOLDEN = Path(__file__).parents[1] / "golden" / "ppo_trl.json"
SB3_GOLDEN = Path(__file__).parents[1] / "golden" / "gae_sb3.json"
TEMPERATURE, WIDTH = 0.7, 5


def prompts() -> list[list[int]]:
    return [[3 + (7 * i + 5 * k) % 60 for k in range(1 + i % 4)] for i in range(8)]


def answers(lengths: Sequence[int]) -> list[list[int]]:
    """Of each length; those of even number end with the end token, 1."""
    made = [[3 + (11 * i + 17 * k) % 60 for k in range(n)] for i, n in enumerate(lengths)]
    return [[*tokens[:-1], 1] if i % 2 == 0 or len(tokens) < WIDTH else tokens for i, tokens in enumerate(made)]


@dataclass(frozen=True)
class Case:
    """TRL's options, ours, the lengths of the answers, and the learning rate of SGD."""

    theirs: dict[str, Any]
    ours: dict[str, Any]
    lengths: Sequence[int] = (WIDTH,) * 8
    lr: float = 0.05


CASES = {
    "defaults": Case({}, {}),
    "discounted, k3, whitened rewards, missing end": Case(
        {
            "kl_estimator": "k3",
            "kl_coef": 0.3,
            "gamma": 0.9,
            "lam": 0.7,
            "whiten_rewards": True,
            "missing_eos_penalty": 0.8,
            "cliprange": 0.05,
            "cliprange_value": 0.01,
            "vf_coef": 0.5,
        },
        {
            "kl_estimator": "k3",
            "kl_coef": 0.3,
            "gamma": 0.9,
            "lam": 0.7,
            "whiten_rewards": True,
            "missing_eos_penalty": 0.8,
            "clip_range": 0.05,
            "value_clip_range": 0.01,
            "vf_coef": 0.5,
        },
    ),
    # TRL gives an answer that ended before the others one more state, after its end, and puts the score there. With
    # gamma = lam = 1 its value cancels from the advantages, and with vf_coef = 0 from the update.
    "lengths of their own": Case(
        {"kl_coef": 0.2, "lam": 1.0, "vf_coef": 0.0}, {"kl_coef": 0.2, "lam": 1.0, "vf_coef": 0.0}, (5, 2, 4, 3, 1, 5, 3, 2)
    ),
}


def networks() -> tuple[Any, Any, Any]:
    """Policy, reference, value network."""
    value = sine_scorer()
    with torch.no_grad():
        value.score.weight.mul_(0.3)
    return sine_model(1.0), sine_model(1.02), value


def scores_of(case: Case) -> list[float]:
    """What the reward says: given, as TRL wants a network of its own for it."""
    return [round((0.37 * i) % 2 - 0.8, 3) for i in range(len(case.lengths))]


# -- ours ---------------------------------------------------------------------------------------------------------------


class Given(ModelContext):
    """A real context whose answers and scores are given."""

    case: Case

    def generate(self, rows: Sequence[Row], n: int = 1, *, temperature: float | None = None) -> list[Row]:
        made = [
            row.with_responses([Response(a, [True] * len(a), finished=a[-1] == 1)])
            for row, a in zip(rows, answers(self.case.lengths), strict=True)
        ]
        return self.token_logps("policy", made, "old_logps", temperature=self.temperature)

    def score(self, rows: Sequence[Row]) -> list[Row]:
        return [
            row.with_responses([replace(row.responses[0], score=s)])
            for row, s in zip(rows, scores_of(self.case), strict=True)
        ]


def our_run(name: str, layout: str = "shared") -> dict[str, Any]:
    """The collection, the metrics of two steps, and the policy's weights after them."""
    case = CASES[name]
    policy, reference, value = networks()
    objective = PPO(**case.ours)
    models = Models({"policy": policy, "reference": reference, "value": value}, trains=objective.trains, layout=layout)
    models.temperature = TEMPERATURE
    context = Given(
        models,
        tiny_tokenizer(),
        generation=Generation(temperature=TEMPERATURE),
        reward=None,
        seed=0,
        microbatch_tokens=60,
    )
    context.case = case
    batch = build_batch(objective.collect([Row(str(i), p) for i, p in enumerate(prompts())], context), models.layout)
    parameters = [p for _, p in models.trained_parameters()]
    steps = [_step(objective, models, batch, parameters, case.lr) for _ in range(2)]
    collected = {name: total / count for name, (total, count) in context.logged().items()}
    return {"batch": batch, "collected": collected, "steps": steps, "weights": summary(dict(policy.named_parameters()))}


def _step(objective: PPO, models: Models, batch: Batch, parameters: list[Any], lr: float) -> dict[str, float]:
    out = objective.loss(models, batch)
    grads = torch.autograd.grad(out.loss, parameters, allow_unused=True)
    with torch.no_grad():
        for parameter, grad in zip(parameters, grads, strict=True):
            if grad is not None:
                parameter.sub_(lr * grad)
    return {"loss": out.loss.item()} | {name: float(value) for name, value in out.metrics.items()}


# -- TRL's --------------------------------------------------------------------------------------------------------------

OF_COLLECTION = ["logprobs", "ref_logprobs", "values", "scores", "rewards", "advantages", "returns", "kl", "padding_mask"]
OF_STEP = ["pg_loss", "vf_loss", "loss", "ratio", "vf_loss_max", "logprobs_diff", "vpred", "logits"]


def trl_run(name: str) -> dict[str, Any]:
    """The same of TRL's trainer: what its `train` has in hand when it goes back, and what it logs."""
    from datasets import Dataset
    from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer

    case = CASES[name]
    policy, reference, value = networks()
    seen: dict[str, Any] = {"steps": []}
    of_prompt = {tuple(p): (k, a) for k, (p, a) in enumerate(zip(prompts(), answers(case.lengths), strict=True))}
    order: list[int] = []

    def given(model: Any, queries: Any, _size: int, pad: int, _config: Any) -> tuple[Any, Any]:
        found = [of_prompt[tuple(t for t in q.tolist() if t != pad)] for q in queries]
        order[:] = [k for k, _ in found]
        told = torch.tensor([a + [pad] * (WIDTH - len(a)) for _, a in found])
        both = torch.cat([queries, told], dim=1)
        logits = ppo_trainer.forward(model, both, pad).logits[:, queries.shape[1] - 1 : -1]
        return both, logits / (TEMPERATURE + 1e-7)

    def reward(model: Any, both: Any, pad: int, context: int) -> tuple[Any, Any, Any]:
        full, _, lengths = get_reward(model, both, pad, context)
        return full, torch.tensor(scores_of(case))[order], lengths

    get_reward = ppo_trainer.get_reward
    ppo_trainer.batch_generation, ppo_trainer.get_reward = given, reward
    tokenizer = tiny_tokenizer()
    tokenizer.padding_side = "left"
    sgd = torch.optim.SGD([*policy.parameters(), *value.parameters()], lr=case.lr)
    with tempfile.TemporaryDirectory() as folder:
        options = {
            "output_dir": folder,
            "report_to": "none",
            "use_cpu": True,
            "bf16": False,
            "gradient_checkpointing": False,
            "disable_tqdm": True,
            "save_strategy": "no",
            "num_sample_generations": 0,
            "per_device_train_batch_size": 8,
            "total_episodes": 8,
            "num_ppo_epochs": 2,
            "response_length": WIDTH,
            "temperature": TEMPERATURE,
            "stop_token": "eos",
        }
        trainer = PPOTrainer(
            args=PPOConfig(**options, **case.theirs),
            processing_class=tokenizer,
            model=policy,
            ref_model=reference,
            reward_model=sine_scorer(),
            value_model=value,
            train_dataset=Dataset.from_list([{"input_ids": p} for p in prompts()]),
            eval_dataset=Dataset.from_list([{"input_ids": prompts()[0]}]),
            optimizers=(sgd, torch.optim.lr_scheduler.LambdaLR(sgd, lambda _: 1.0)),
        )
        backward = trainer.accelerator.backward

        def watched(loss: Any) -> None:
            here = sys._getframe(1).f_locals
            back = {row: at for at, row in enumerate(here["micro_batch_inds"].tolist())}
            at = [back[i] for i in _sorted(order)]
            seen["steps"].append({n: _in_order(here[n], at) for n in OF_STEP})
            seen.update({n: _in_order(here[n], _sorted(order)) for n in OF_COLLECTION})
            backward(loss)

        trainer.accelerator.backward = watched
        trainer.log = lambda metrics: seen.update(metrics=dict(metrics))
        trainer.train()
    for step in seen["steps"]:
        step["entropy"] = _entropy(torch.tensor(step.pop("logits")))
    seen["weights"] = summary(dict(policy.named_parameters()))
    return seen


def _sorted(order: list[int]) -> list[int]:
    """Where the rows of 0, 1, ... stand."""
    return sorted(range(len(order)), key=order.__getitem__)


def _in_order(values: Any, at: list[int]) -> Any:
    values = values.detach()
    return values.item() if values.ndim == 0 else values[at].tolist()


def _entropy(logits: Any) -> list[list[float]]:
    log_probs = torch.log_softmax(logits, dim=-1)
    entropy: list[list[float]] = (-(log_probs.exp() * log_probs).sum(-1)).tolist()
    return entropy


def record_trl() -> None:
    import transformers
    import trl

    versions = {"trl": trl.__version__, "transformers": transformers.__version__, "torch": torch.__version__}
    made: dict[str, Any] = {"made by": "python -m tests.plugins.ppo_parity trl", "versions": versions}
    made["cases"] = {name: trl_run(name) for name in CASES}
    TRL_GOLDEN.write_text(_compact(made), encoding="utf-8")


# -- Stable-Baselines3's ------------------------------------------------------------------------------------------------


def episodes() -> list[tuple[list[float], list[float]]]:
    """Rewards and values of answers of 1 to 6 tokens."""
    made = []
    for n in range(1, 7):
        rewards = [round(((3 * n + 5 * t) % 11) / 4 - 1.2, 3) for t in range(n)]
        made.append((rewards, [round(((7 * n + 2 * t) % 13) / 5 - 1.0, 3) for t in range(n)]))
    return made


DISCOUNTS = [(1.0, 0.95), (1.0, 1.0), (0.9, 0.0), (0.97, 0.8)]


def record_sb3() -> None:
    """Each answer is an episode of its own in a rollout buffer."""
    import numpy as np
    import stable_baselines3
    from gymnasium import spaces
    from stable_baselines3.common.buffers import RolloutBuffer

    made: dict[str, Any] = {
        "made by": "python -m tests.plugins.ppo_parity sb3",
        "versions": {"stable-baselines3": stable_baselines3.__version__, "torch": torch.__version__},
        "cases": [],
    }
    box = spaces.Box(-1, 1, (1,))
    for gamma, lam in DISCOUNTS:
        total = sum(len(rewards) for rewards, _ in episodes())
        buffer = RolloutBuffer(total, box, box, device="cpu", gae_lambda=lam, gamma=gamma, n_envs=1)
        for rewards, values in episodes():
            for t, (r, v) in enumerate(zip(rewards, values, strict=True)):
                zero = np.zeros((1, 1))
                buffer.add(zero, zero, np.array([r]), np.array([t == 0]), torch.tensor([v]), torch.zeros(1))
        buffer.compute_returns_and_advantage(last_values=torch.tensor([123.0]), dones=np.array([True]))
        made["cases"].append(
            {
                "gamma": gamma,
                "lam": lam,
                "advantages": buffer.advantages[:, 0].tolist(),
                "returns": buffer.returns[:, 0].tolist(),
            }
        )
    SB3_GOLDEN.write_text(_compact(made), encoding="utf-8")


def _compact(made: dict[str, Any]) -> str:
    """JSON of few digits (those of fp32), a line for each list of numbers."""
    rounded = json.loads(json.dumps(made), parse_float=lambda text: float(f"{float(text):.8g}"))
    return json.dumps(rounded, indent=None).replace('], "', '],\n"').replace('}, "', '},\n"') + "\n"


if __name__ == "__main__":
    torch.set_num_threads(1)
    {"trl": record_trl, "sb3": record_sb3}[sys.argv[1]]()
