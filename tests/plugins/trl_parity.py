"""The same tiny model and the same rows through TRL's trainers and through ours.

TRL's numbers are kept in tests/golden/trl_parity.json, so that the comparison also runs where TRL is not installed.
They are made, with the package extra `parity` installed, by

    python -m tests.plugins.trl_parity

Weights are sines, not random numbers: they are the same under every version of torch.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import torch

from core.batch import build_batch
from core.models import Models
from core.rows import Response, Row
from core.scorer import with_new_head
from core.trial import ScriptedContext
from plugins.objectives.dpo import DPO
from plugins.objectives.reward_bt import RewardBT
from plugins.objectives.reward_margin import RewardMargin
from plugins.objectives.sft import SFT
from tests.support import tiny_model, tiny_tokenizer

GOLDEN = Path(__file__).parents[1] / "golden" / "trl_parity.json"


def sine_model(frequency: float) -> Any:
    """A Llama of one layer and width 8 whose every weight is a sine of its place."""
    model = tiny_model(
        hidden_size=8, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1
    )
    with torch.no_grad():
        for k, parameter in enumerate(model.parameters()):
            places = torch.arange(parameter.numel(), dtype=torch.float64)
            waves = 0.8 * torch.sin(frequency * places + k)
            parameter.copy_(waves.view(parameter.shape) + (1.0 if parameter.ndim == 1 else 0.0))
    return model


def pair(row_id: str, prompt: list[int], chosen: list[int], rejected: list[int]) -> Row:
    return Row(row_id, prompt, tuple(Response([*t, 1], [True] * (len(t) + 1)) for t in (chosen, rejected)))


PAIRS = [
    pair("a", [5, 6, 7], [8, 9, 10, 11], [12, 13]),
    pair("b", [20], [21], [22, 23, 24, 25, 26, 27]),
    pair("c", [30, 31, 32, 33, 34, 35], [36, 37, 38], [39, 40, 41]),
]
DEMONSTRATIONS = [
    Row("a", [5, 6, 7], (Response([8, 9, 10, 11, 1], [True, False, True, True, True]),)),
    Row("b", [20], (Response([21, 1], [True, True]),)),
    Row("c", [30, 31, 32], (Response([33, 34, 35, 36, 37, 38, 39], [False, False, False, True, True, False, True]),)),
]

# name: (TRL's options, ours, how many pairs)
DPO_CASES: dict[str, tuple[dict[str, Any], dict[str, Any], int]] = {
    "sigmoid": ({"loss_type": ["sigmoid"], "beta": 0.1}, {"beta": 0.1}, 3),
    "sigmoid, large beta": ({"loss_type": ["sigmoid"], "beta": 1.5}, {"beta": 1.5}, 3),
    "ipo": ({"loss_type": ["ipo"], "beta": 0.3}, {"beta": 0.3, "loss": "ipo"}, 3),
    "hinge": ({"loss_type": ["hinge"], "beta": 0.4}, {"beta": 0.4, "loss": "hinge"}, 3),
    "length normalised": ({"loss_type": ["sigmoid_norm"], "beta": 2.0}, {"beta": 2.0, "length_normalised": True}, 3),
    # TRL's sigmoid takes no label smoothing. Its AOT does, and of a single pair AOT is the sigmoid loss.
    "label smoothing": (
        {"loss_type": ["aot"], "beta": 0.5, "label_smoothing": 0.2},
        {"beta": 0.5, "label_smoothing": 0.2},
        1,
    ),
    # TRL's anchor is a mean over all chosen tokens, ours over responses: equal for a single pair.
    "sft anchor": (
        {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.3], "beta": 0.1},
        {"beta": 0.1, "sft_coef": 0.3},
        1,
    ),
}
SFT_CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {}),
    "label smoothing": ({"label_smoothing_factor": 0.1}, {"label_smoothing": 0.1}),
}
# name: (TRL's options, ours, the pairs, do they have margins)
REWARD_CASES: dict[str, tuple[dict[str, Any], dict[str, Any], list[int], bool]] = {
    "plain": ({}, {}, [0, 1, 2], False),
    "one pair": ({}, {}, [1], False),
    "centred": ({"center_rewards_coefficient": 0.1}, {"centre_coef": 0.1}, [0, 1, 2], False),
    "margin": ({}, {}, [0, 1, 2], True),
    "margin, centred": ({"center_rewards_coefficient": 0.05}, {"centre_coef": 0.05}, [0, 1, 2], True),
}
MARGINS = [0.5, 3.0, 0.0]
REWARD_METRICS = ["accuracy", "margin", "mean_reward"]
METRICS = ["rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies", "logps/chosen", "logps/rejected"]


def gradients(model: Any) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters()}


def our_dpo(case: str, layout: str, reference: str = "live") -> tuple[float, dict[str, torch.Tensor], dict[str, float]]:
    """Loss, gradients, metrics."""
    _, options, count = DPO_CASES[case]
    models = Models({"policy": sine_model(1.0), "reference": sine_model(1.1)}, trains=frozenset({"policy"}), layout=layout)
    rows = PAIRS[:count]
    if reference == "cached":
        batch = build_batch(rows, models.layout)
        values = models.token_logps("reference", batch)[batch.valid].tolist()
        given = iter(values)
        rows = [
            r.with_responses([a.with_field("ref_logps", [next(given) for _ in a.tokens]) for a in r.responses]) for r in rows
        ]
    out = DPO(**options, reference=reference).loss(models, build_batch(rows, models.layout))
    out.loss.backward()
    return out.loss.item(), gradients(models.of("policy")), {k: float(v) for k, v in out.metrics.items()}


def our_sft(case: str, layout: str) -> tuple[float, dict[str, torch.Tensor], dict[str, float]]:
    models = Models({"policy": sine_model(1.0)}, trains=frozenset({"policy"}), layout=layout)
    out = SFT(**SFT_CASES[case][1]).loss(models, build_batch(DEMONSTRATIONS, models.layout))
    out.loss.backward()
    return out.loss.item(), gradients(models.of("policy")), {k: float(v) for k, v in out.metrics.items()}


def sine_scorer() -> Any:
    """The sine model with a head in place of the vocabulary, its weights a sine too."""
    model = with_new_head(sine_model(1.0), "float32", ())
    with torch.no_grad():
        places = torch.arange(model.score.weight.numel(), dtype=torch.float64)
        model.score.weight.copy_((1.5 * torch.sin(0.7 * places + 0.3)).view(1, -1))
    return model


def our_reward(case: str, layout: str) -> tuple[float, dict[str, torch.Tensor], dict[str, float]]:
    """reward_margin where the pairs have margins, else reward_bt."""
    _, options, which, margins = REWARD_CASES[case]
    models = Models({"reward": sine_scorer()}, trains=frozenset({"reward"}), layout=layout)
    rows = [PAIRS[i].with_responses(PAIRS[i].responses, margins=(MARGINS[i],) if margins else None) for i in which]
    objective: Any = (RewardMargin if margins else RewardBT)(**options)
    out = objective.loss(models, build_batch(objective.collect(rows, ScriptedContext()), models.layout))
    out.loss.backward()
    return out.loss.item(), gradients(models.of("reward")), {k: float(v) for k, v in out.metrics.items()}


def _options(folder: str) -> dict[str, Any]:
    return {
        "output_dir": folder,
        "report_to": "none",
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "remove_unused_columns": False,
        "disable_tqdm": True,
    }


def trl_dpo(case: str) -> tuple[float, dict[str, torch.Tensor], dict[str, float]]:
    """Loss, gradients and metrics of TRL's DPOTrainer."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    options, _, count = DPO_CASES[case]
    texts = [{"prompt": "w2 w3", "chosen": " w4", "rejected": " w5"}]
    with tempfile.TemporaryDirectory() as folder:
        trainer = DPOTrainer(
            model=sine_model(1.0),
            ref_model=sine_model(1.1),
            args=DPOConfig(**_options(folder), **options),
            train_dataset=Dataset.from_list(texts),
            processing_class=tiny_tokenizer(),
        )
        examples = [
            {"prompt_ids": r.prompt, "chosen_ids": r.responses[0].tokens, "rejected_ids": r.responses[1].tokens}
            for r in PAIRS[:count]
        ]
        loss = trainer.compute_loss(trainer.model, trainer.data_collator(examples))
        loss.backward()
        metrics = {name: trainer._metrics["train"][name][-1] for name in METRICS}
    return loss.item(), gradients(trainer.model), metrics


def trl_sft(case: str) -> tuple[float, dict[str, torch.Tensor], dict[str, float]]:
    """Loss, gradients and metrics of TRL's SFTTrainer."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    with tempfile.TemporaryDirectory() as folder:
        trainer = SFTTrainer(
            model=sine_model(1.0),
            args=SFTConfig(**_options(folder), **SFT_CASES[case][0]),
            train_dataset=Dataset.from_list([{"text": "w2 w3"}]),
            processing_class=tiny_tokenizer(),
        )
        examples = []
        for row in DEMONSTRATIONS:
            answer = row.responses[0]
            learnt = [t if counts else -100 for t, counts in zip(answer.tokens, answer.mask, strict=True)]
            examples.append({"input_ids": row.prompt + answer.tokens, "labels": [-100] * len(row.prompt) + learnt})
        loss = trainer.compute_loss(trainer.model, trainer.data_collator(examples))
        loss.backward()
        metrics = {name: trainer._metrics["train"][name][-1] for name in ("entropy", "mean_token_accuracy")}
    return loss.item(), gradients(trainer.model), metrics


def trl_reward(case: str) -> tuple[float, dict[str, torch.Tensor], dict[str, float]]:
    """Loss, gradients and metrics of TRL's RewardTrainer."""
    from datasets import Dataset
    from trl import RewardConfig, RewardTrainer

    options, _, which, margins = REWARD_CASES[case]
    with tempfile.TemporaryDirectory() as folder:
        trainer = RewardTrainer(
            model=sine_scorer(),
            args=RewardConfig(**_options(folder), **options),
            train_dataset=Dataset.from_list([{"chosen": "w2 w3", "rejected": "w2 w4"}]),
            processing_class=tiny_tokenizer(),
        )
        examples = []
        for i in which:
            chosen, rejected = (PAIRS[i].prompt + r.tokens for r in PAIRS[i].responses)
            examples.append({"chosen_ids": chosen, "rejected_ids": rejected, **({"margin": MARGINS[i]} if margins else {})})
        loss = trainer.compute_loss(trainer.model, trainer.data_collator(examples))
        loss.backward()
        kept = [*REWARD_METRICS, *(("min_reward", "max_reward") if len(which) == 1 else ())]
        metrics = {name: trainer._metrics["train"][name][-1] for name in kept}
    return loss.item(), gradients(trainer.model), metrics


def summary(slopes: dict[str, torch.Tensor]) -> dict[str, list[float]]:
    """Of each parameter's gradient: its norm, and its product with two fixed waves."""
    out = {}
    for name, grad in sorted(slopes.items()):
        flat = grad.double().flatten()
        places = torch.arange(len(flat), dtype=torch.float64)
        out[name] = [flat.norm().item(), (flat @ torch.sin(places)).item(), (flat @ torch.cos(2.3 * places)).item()]
    return out


def record() -> None:
    """Write TRL's numbers."""
    import transformers
    import trl

    made: dict[str, Any] = {
        "made by": "python -m tests.plugins.trl_parity",
        "versions": {"trl": trl.__version__, "transformers": transformers.__version__, "torch": torch.__version__},
        "what": "loss; gradient of each parameter: [norm, product with sin(i), product with cos(2.3 i)]; metrics",
    }
    kinds: list[tuple[str, Any, Any]] = [
        ("dpo", trl_dpo, DPO_CASES),
        ("sft", trl_sft, SFT_CASES),
        ("reward", trl_reward, REWARD_CASES),
    ]
    for kind, run, cases in kinds:
        made[kind] = {}
        for case in cases:
            loss, slopes, metrics = run(case)
            made[kind][case] = {"loss": loss, "gradients": summary(slopes), "metrics": metrics}
    GOLDEN.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    torch.set_num_threads(1)
    record()
