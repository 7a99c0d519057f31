"""The same tiny model, answers and scores through TRL's GRPOTrainer and RLOOTrainer and through examples/accordant-grpo.

From the sampled answers on everything is compared: advantages, loss, gradients, metrics. TRL's numbers are kept in
tests/golden/trl_groups.json, so that the comparison also runs where TRL is not installed. They are made by

    python -m tests.plugins.trl_groups
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from core.batch import build_batch
from core.collect import ModelContext
from core.models import Models
from core.rows import Response, Row
from core.settings import Generation
from tests.plugins.trl_parity import _options, gradients, sine_model, summary
from tests.support import tiny_tokenizer

GOLDEN = Path(__file__).parents[1] / "golden" / "trl_groups.json"
END = 1

# Two prompts with three answers each; the second answer to the second prompt was cut, and one answer has no score.
FIRST = ([8, 9, 10, END], [12, END], [13, 14, 15, 16, 17, END])
ROWS = [
    Row("a", [5, 6, 7], tuple(Response(t, [True] * len(t)) for t in FIRST)),
    Row(
        "b",
        [20],
        (
            Response([21, 22, END], [True] * 3),
            Response([23, 24, 25, 26], [True] * 4, finished=False),
            Response([27, 28, END], [True] * 3),
        ),
    ),
]
SCORES: dict[str, list[list[float | None]]] = {
    "all": [[0.2, 1.0, -0.5], [0.3, 0.4, 0.9]],
    "one missing": [[0.2, 1.0, -0.5], [0.3, None, 0.9]],
    "one group flat": [[0.2, 1.0, -0.5], [0.4, 0.4, 0.4]],
}

# name: (TRL's options, ours, temperature, how far the policy has moved since, scores)
Case = tuple[dict[str, Any], dict[str, Any], float, float, str]
GRPO_CASES: dict[str, Case] = {
    "grpo": ({"loss_type": "grpo", "beta": 0.04}, {}, 1.0, 0.0, "all"),
    "moved": ({"loss_type": "grpo", "beta": 0.04}, {}, 1.0, 0.5, "one group flat"),
    "cooler, clip higher": (
        {"loss_type": "grpo", "beta": 0.3, "epsilon": 0.1, "epsilon_high": 0.3},
        {"beta": 0.3, "clip_range": 0.1, "clip_high": 0.3},
        0.7,
        0.5,
        "one missing",
    ),
    "unbiased kl": (
        {"loss_type": "grpo", "beta": 0.04, "use_bias_correction_kl": True},
        {"unbiased_kl": True},
        1.0,
        0.5,
        "all",
    ),
    "dapo": (
        {"loss_type": "dapo", "beta": 0.0, "scale_rewards": "batch"},
        {"loss": "dapo", "beta": 0.0, "scale_rewards": "batch"},
        1.0,
        0.5,
        "one missing",
    ),
    "dr_grpo": (
        {"loss_type": "dr_grpo", "beta": 0.04, "scale_rewards": "none", "max_completion_length": 8},
        {"loss": "dr_grpo", "max_length": 8, "scale_rewards": "none"},
        1.0,
        0.5,
        "all",
    ),
    "truncated masked": (
        {"loss_type": "grpo", "beta": 0.04, "mask_truncated_completions": True},
        {"mask_truncated": True},
        1.0,
        0.5,
        "all",
    ),
}
RLOO_CASES: dict[str, Case] = {
    "first step": ({"beta": 0.05}, {}, 1.0, 0.0, "all"),
    "clipped": ({"beta": 0.05, "epsilon": 0.2}, {"clip_range": 0.2}, 1.0, 0.5, "one missing"),
    "cooler, clip higher": (
        {"beta": 0.3, "epsilon": 0.1, "epsilon_high": 0.4, "mask_truncated_completions": True},
        {"beta": 0.3, "clip_range": 0.1, "clip_high": 0.4, "mask_truncated": True},
        0.7,
        0.5,
        "one missing",
    ),
}
METRICS = ("reward", "reward_std", "frac_reward_zero_std", "kl", "entropy")
CLIPPED = tuple(f"clip_ratio/{side}_mean" for side in ("low", "high", "region"))


def moved(n: int, t: int, by: float) -> float:
    """How much likelier token t of answer n was when it was sampled."""
    return by * math.sin(3.0 * n + 1.7 * t)


class Fixed(ModelContext):
    """A context whose sampler gives ROWS, and whose reward the numbers given."""

    def __init__(self, models: Models, temperature: float, scores: Sequence[Sequence[float | None]]) -> None:
        generation = Generation(temperature=temperature)
        super().__init__(models, tiny_tokenizer(), generation=generation, reward=None, seed=0, microbatch_tokens=1000)
        self.fixed = scores

    def generate(self, rows: Sequence[Row], n: int = 1, *, temperature: float | None = None) -> list[Row]:
        return self.token_logps("policy", ROWS, "old_logps", temperature=self.temperature)

    def score(self, rows: Sequence[Row]) -> list[Row]:
        return [
            row.with_responses([replace(r, score=s) for r, s in zip(row.responses, scores, strict=True)])
            for row, scores in zip(rows, self.fixed, strict=True)
        ]


def ours(make: Any, case: Case, layout: str) -> dict[str, Any]:
    """Advantages, loss, gradients, metrics. `make`: the class of the objective."""
    _, options, temperature, by, scores = case
    models = Models({"policy": sine_model(1.0), "reference": sine_model(1.1)}, trains=frozenset({"policy"}), layout=layout)
    models.temperature = temperature
    context, objective = Fixed(models, temperature, SCORES[scores]), make(samples=3, **options)
    rows = objective.collect([row.with_responses([]) for row in ROWS], context)
    seen = {name: total / count for name, (total, count) in context.logged().items()}
    advantages = [r.token_fields["advantages"][0] for row in rows for r in row.responses]
    n, later = 0, []
    for row in rows:
        answers = []
        for r in row.responses:
            old = [value + moved(n, t, by) for t, value in enumerate(r.token_fields["old_logps"])]
            answers.append(r.with_field("old_logps", old))
            n += 1
        later.append(row.with_responses(answers))
    out = objective.loss(models, build_batch(later, models.layout))
    out.loss.backward()
    metrics = seen | {name: float(value) for name, value in out.metrics.items()}
    return {
        "advantages": advantages,
        "loss": out.loss.item(),
        "gradients": summary(gradients(models.of("policy"))),
        "metrics": {name: metrics[name] for name in (*METRICS, *CLIPPED) if name in metrics},
    }


def trls(kind: str, case: Case) -> dict[str, Any]:
    """The same of TRL's trainer."""
    import trl
    from datasets import Dataset
    from trl.trainer import grpo_trainer

    options, _, temperature, by, scores = case
    flat = [score for row in SCORES[scores] for score in row]
    made = [r for row in ROWS for r in row.responses]
    prompts = [row.prompt for row in ROWS for _ in row.responses]
    completions = [r.tokens for r in made]
    common: dict[str, Any] = {
        "per_device_train_batch_size": 6,
        "num_generations": 3,
        "num_iterations": 2,
        "temperature": temperature,
    }
    with tempfile.TemporaryDirectory() as folder:
        if kind == "GRPO":
            common["use_bias_correction_kl"] = False  # TRL 1.16 has it on; the paper has not
        settings = getattr(trl, f"{kind}Config")(**_options(folder), **(common | options | {"beta": 0.0}))
        trainer = getattr(trl, f"{kind}Trainer")(
            model=sine_model(1.0),
            reward_funcs=lambda completions, **_: flat,
            args=settings,
            train_dataset=Dataset.from_list([{"prompt": "w2 w3"}]),
            processing_class=tiny_tokenizer(),
        )
        # With beta the trainer would load a reference by its name; this is what it then does to it.
        trainer.beta, trainer.ref_model = options["beta"], sine_model(1.1).eval()
        grpo_trainer.add_fused_lm_head(trainer.ref_model, temperature=temperature)
        texts = ["w1"] * len(made)
        rest = (None, texts, None, {}, None, None) if kind == "GRPO" else (texts,)
        trainer._generate = lambda given: (prompts, completions, *rest)
        trainer.current_gradient_accumulation_steps = 1
        trainer.model.train()
        inputs = trainer._generate_and_score_completions([{"prompt": "w2 w3"} for _ in made])
        mask = inputs["completion_mask"]
        shift = torch.tensor([[moved(n, t, by) for t in range(mask.shape[1])] for n in range(len(made))]) * mask
        if kind == "GRPO":
            inputs["old_per_token_logps"] = inputs["old_per_token_logps"] + shift
        else:
            inputs["old_logps"] = inputs["old_logps"] + shift.sum(1)
        loss = trainer.compute_loss(trainer.model, inputs)
        loss.backward()
        seen = {name: values[-1] for name, values in trainer._metrics["train"].items()}
    return {
        "advantages": inputs["advantages"].tolist(),
        "loss": loss.item(),
        "gradients": summary(gradients(trainer.model)),
        "metrics": {name: seen[name] for name in (*METRICS, *CLIPPED) if name in seen},
    }


def record() -> None:
    """Write TRL's numbers."""
    import transformers
    import trl

    made: dict[str, Any] = {
        "made by": "python -m tests.plugins.trl_groups",
        "versions": {"trl": trl.__version__, "transformers": transformers.__version__, "torch": torch.__version__},
        "GRPO": {name: trls("GRPO", case) for name, case in GRPO_CASES.items()},
        "RLOO": {name: trls("RLOO", case) for name, case in RLOO_CASES.items()},
    }
    GOLDEN.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    torch.set_num_threads(1)
    record()
