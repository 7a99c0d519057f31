"""One process, one measurement of TRL's GRPOTrainer or RLOOTrainer on the benchmark's prompts.

    python -m benchmarks.trl_online --task grpo --rows ordered.jsonl --model MODEL --steps 6 --micro 4

Fair to TRL: see trl_side.py; besides, one generation for the whole step, no second iteration over it, and the log-probs
that its trainer can do without are not computed (grpo: none with beta 0; rloo computes those of the policy in any case).
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

from benchmarks.measure import Measurement, digest_of_step, peak_memory_mb, write_measurement
from benchmarks.online import ANSWERS, BETA, CLIP, LR, NEW_TOKENS, PROMPTS, SAMPLES, TASKS, Stopwatch, length
from benchmarks.trl_side import QUIET, clock, parse, settings


def options(args: argparse.Namespace, folder: str) -> dict[str, Any]:
    """Of either trainer's config: a micro-batch is of answers, the rest of the step's 32 is accumulation."""
    common = settings(args, folder)
    for name in ("max_length", "train_sampling_strategy"):  # those trainers have samplers of their own
        common.pop(name)
    per_task = {"loss_type": "grpo", "scale_rewards": "group"} if args.task == "grpo" else {"normalize_advantages": False}
    return {
        **common,
        **per_task,
        "learning_rate": LR,
        "gradient_accumulation_steps": ANSWERS // args.micro,
        "num_generations": SAMPLES,
        "max_completion_length": NEW_TOKENS,
        "temperature": 1.0,
        "top_k": 0,
        "top_p": 1.0,
        "num_iterations": 1,
        "beta": BETA[args.task],
        "epsilon": CLIP,
        "shuffle_dataset": False,
    }


def build(args: argparse.Namespace, folder: str) -> Any:
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer

    rows = Dataset.from_json(str(args.rows), cache_dir=folder).select_columns("prompt").select(range(args.steps * PROMPTS))
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype="float32")
    given = {
        "model": model,
        "reward_funcs": length,
        "train_dataset": rows,
        "processing_class": AutoTokenizer.from_pretrained(args.model),
    }
    if args.task == "grpo":
        from trl import GRPOConfig, GRPOTrainer

        return GRPOTrainer(args=GRPOConfig(**options(args, folder)), **given)
    from trl import RLOOConfig, RLOOTrainer

    return RLOOTrainer(args=RLOOConfig(**options(args, folder)), **given)


def watch(trainer: Any, stopwatch: Stopwatch) -> list[tuple[list[list[int]], list[list[int]]]]:
    """Time the parts of each step. Returns where (prompts, answers) of each generation will be, as token ids."""
    seen: list[tuple[list[list[int]], list[list[int]]]] = []
    sample = trainer._generate

    def generate(*args: Any, **kwargs: Any) -> Any:
        made = sample(*args, **kwargs)
        seen.append((made[0], made[1]))
        return made

    trainer._generate = stopwatch.timed("sampling", generate)
    trainer._generate_and_score_completions = stopwatch.timed("scoring", trainer._generate_and_score_completions)
    return seen


def work_of(prompts: Sequence[Sequence[int]]) -> str:
    """The digest of a step, as on our side: each prompt, and how many answers it got."""
    rows = [prompts[i : i + SAMPLES] for i in range(0, len(prompts), SAMPLES)]
    assert all(list(p) == list(row[0]) for row in rows for p in row), "a prompt's answers do not stand together"
    return digest_of_step([[(row[0], len(row))] for row in rows])


def run(args: argparse.Namespace) -> Measurement:
    import torch
    from transformers.trainer_callback import PrinterCallback

    torch.set_num_threads(args.threads)
    stopwatch = Stopwatch()
    ends, logs, callback = clock(stopwatch.end_step)
    with tempfile.TemporaryDirectory(prefix="accordant-bench-trl-") as folder:
        trainer = build(args, folder)
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(callback)
        seen = watch(trainer, stopwatch)
        ready = peak_memory_mb()
        trainer.train()
    seconds = [b - a for a, b in itertools.pairwise(ends)]
    return Measurement(
        side="trl",
        task=args.task,
        setting={"micro": args.micro, "accumulation": ANSWERS // args.micro, "variant": args.variant},
        batch=ANSWERS,
        step_seconds=seconds,
        losses=[entry["loss"] for entry in logs],
        first_metrics=logs[0],
        peak_mb=peak_memory_mb(),
        peak_mb_before_training=ready,
        step_digests=[work_of(prompts) for prompts, _ in seen],
        trained_tokens=[sum(map(len, answers)) for _, answers in seen],
        parts=stopwatch.parts(seconds),
    )


def main() -> int:
    args = parse(tasks=TASKS)
    os.environ.update({k: v for k, v in QUIET.items() if k not in os.environ})
    write_measurement(run(args), args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
