"""One process, one measurement of TRL's own trainer on the benchmark's rows.

    python -m benchmarks.trl_side --task dpo_cached --rows ordered.jsonl --model MODEL --steps 30 --micro 1

Fair to TRL: gradient checkpointing off (its default is on), float32, dropout off, the data tokenised before the clock
starts, reference log-probs precomputed for the cached case, fused AdamW (the default of its configs), no saving, no
evaluation, no progress bar. Nothing of ours is imported, so its peak memory is its own.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.measure import Measurement, digest_of_step, peak_memory_mb, write_measurement

QUIET = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "TRL_EXPERIMENTAL_SILENCE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TQDM_DISABLE": "1",
    "WANDB_DISABLED": "true",
}


TASKS = ("sft", "sft_demos", "dpo_cached", "dpo_live", "reward_bt")


def parse(argv: list[str] | None = None, tasks: Sequence[str] = TASKS) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--task", choices=tasks, required=True)
    parser.add_argument("--rows", type=Path, required=True, help="JSONL in the order of training")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, help="where the JSON goes; default: standard output")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--batch", type=int, default=8, help="rows per optimizer step")
    parser.add_argument("--micro", type=int, default=1, help="rows per micro-batch; the rest is accumulation")
    parser.add_argument("--variant", choices=["plain", "group_by_length", "padding_free"], default="plain")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lr", type=float, default=1e-5)
    return parser.parse_args(argv)


def settings(args: argparse.Namespace, folder: str) -> dict[str, Any]:
    """The arguments that every TRL config takes."""
    return {
        "output_dir": folder,
        "per_device_train_batch_size": args.micro,
        "gradient_accumulation_steps": args.batch // args.micro,
        "max_steps": args.steps,
        "learning_rate": args.lr,
        "lr_scheduler_type": "constant",
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "optim": "adamw_torch_fused",
        "bf16": False,
        "fp16": False,
        "use_cpu": True,
        "gradient_checkpointing": False,
        "max_length": 512,
        "train_sampling_strategy": "group_by_length" if args.variant == "group_by_length" else "sequential",
        "logging_steps": 1,
        "report_to": "none",
        "save_strategy": "no",
        "eval_strategy": "no",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "dataloader_num_workers": 0,
        "seed": args.seed,
    }


def build(args: argparse.Namespace, folder: str) -> Any:
    """TRL's trainer, with its data tokenised (and its reference log-probs computed, where they are cached)."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer

    rows = Dataset.from_json(str(args.rows), cache_dir=folder).remove_columns("id").select(range(args.steps * args.batch))
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    options = settings(args, folder)

    def load() -> Any:
        return AutoModelForCausalLM.from_pretrained(args.model, dtype="float32")

    if args.task.startswith("sft"):
        from trl import SFTConfig, SFTTrainer

        config = SFTConfig(**options, padding_free=args.variant == "padding_free")
        return SFTTrainer(model=load(), args=config, train_dataset=rows, processing_class=tokenizer)
    if args.task == "reward_bt":
        return _reward_trainer(args, rows, tokenizer, options)
    from trl import DPOConfig, DPOTrainer

    cached = args.task == "dpo_cached"
    config = DPOConfig(
        **options, beta=0.1, precompute_ref_log_probs=cached, precompute_ref_batch_size=args.micro if cached else None
    )
    return DPOTrainer(model=load(), args=config, train_dataset=rows, processing_class=tokenizer)


def _reward_trainer(args: argparse.Namespace, rows: Any, tokenizer: Any, options: dict[str, Any]) -> Any:
    from transformers import AutoModelForSequenceClassification
    from trl import RewardConfig, RewardTrainer

    model = AutoModelForSequenceClassification.from_pretrained(args.model, dtype="float32")
    return RewardTrainer(model=model, args=RewardConfig(**options), train_dataset=rows, processing_class=tokenizer)


def tokens_of(task: str, example: dict[str, Any]) -> list[tuple[list[int], int]]:
    """(all tokens, how many of them are trained on) of each sequence of one prepared example of TRL's data set."""
    if task.startswith("sft"):
        return [(list(example["input_ids"]), sum(label != -100 for label in example["labels"]))]
    sides = ("chosen_ids", "rejected_ids")
    if task == "reward_bt":  # the score is of the whole sequence, which is all that this trainer keeps
        return [(list(example[k]), len(example[k])) for k in sides]
    return [(list(example["prompt_ids"] + example[k]), len(example[k])) for k in sides]


def clock(end_step: Callable[[], None] = lambda: None) -> tuple[list[float], list[dict[str, float]], Any]:
    """Where the times will be (of the start, and of the end of each step), where the logs will be, and the callback."""
    from transformers import TrainerCallback

    ends: list[float] = []
    seen: list[dict[str, float]] = []

    class Clock(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            ends.append(time.perf_counter())

        def on_step_end(self, *_: Any, **__: Any) -> None:
            ends.append(time.perf_counter())
            end_step()

        def on_log(self, *_: Any, logs: dict[str, float] | None = None, **__: Any) -> None:
            if logs and "loss" in logs:
                seen.append({k: float(v) for k, v in logs.items()})

    return ends, seen, Clock()


def run(args: argparse.Namespace) -> Measurement:
    """Train, timing the end of each optimizer step; logging included, as it is on our side."""
    import torch
    from transformers.trainer_callback import PrinterCallback

    torch.set_num_threads(args.threads)
    ends, logs, callback = clock()
    with tempfile.TemporaryDirectory(prefix="accordant-bench-trl-") as folder:
        trainer = build(args, folder)
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(callback)
        ready = peak_memory_mb()
        trainer.train()
        prepared = [tokens_of(args.task, example) for example in trainer.train_dataset]
    steps = [prepared[i : i + args.batch] for i in range(0, len(prepared), args.batch)]
    return Measurement(
        side="trl",
        task=args.task,
        setting={"micro": args.micro, "accumulation": args.batch // args.micro, "variant": args.variant},
        batch=args.batch,
        step_seconds=[b - a for a, b in itertools.pairwise(ends)],
        losses=[entry["loss"] for entry in logs],
        first_metrics=logs[0],
        peak_mb=peak_memory_mb(),
        peak_mb_before_training=ready,
        step_digests=[digest_of_step(step) for step in steps],
        trained_tokens=[sum(n for row in step for _, n in row) for step in steps],
    )


def main() -> int:
    args = parse()
    os.environ.update({k: v for k, v in QUIET.items() if k not in os.environ})
    write_measurement(run(args), args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
