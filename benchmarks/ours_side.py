"""One process, one measurement of this project on the benchmark's rows, by the command that everybody uses.

    python -m benchmarks.ours_side --task sft --prepare --folder F --pool rows.jsonl --model MODEL --steps 30
    python -m benchmarks.ours_side --task sft           --folder F --model MODEL --steps 30 --warmup 5

`--prepare` picks the rows, works out the order in which the run will train on them, and writes that order for the other
side, so that step n of both sides holds the same rows. The measurement is `python -m core.run` in a fresh process; its
step times are those of metrics.jsonl, its peak memory is the whole process's, start-up and export included.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import online
from benchmarks.measure import Measurement, digest_of_step, write_measurement

INPUT, ORDERED, WORK = "rows.jsonl", "ordered.jsonl", "work.json"
"""In the prepared folder: our data set, the same rows in training order, and what each step holds."""

ONLINE = [
    f"objective.samples={online.SAMPLES}",
    f"objective.clip_range={online.CLIP}",
    "objective.minibatches=1",
    "objective.passes=1",
    "reward=function",
    "reward.path=benchmarks.online:length",
    f"generation.max_new_tokens={online.NEW_TOKENS}",
    "generation.temperature=1.0",
    "generation.top_k=0",
    "generation.top_p=1.0",
    "trainer.max_epochs=1",
]
OBJECTIVE = {
    "sft": ["objective=sft"],
    "sft_demos": ["objective=sft"],
    "dpo_cached": ["objective=dpo", "objective.reference=cached"],
    "dpo_live": ["objective=dpo", "objective.reference=live"],
    "reward_bt": ["objective=reward_bt", "objective.zero=none"],
    "grpo": ["objective=grpo", "objective.loss=grpo", "objective.scale_rewards=group", *ONLINE],
    "rloo": ["objective=rloo", *ONLINE],
}


@dataclass(frozen=True)
class Work:
    """What a task's run is: read by both sides' checks.

    Attributes:
        step_digests: see `digest_of_step`; trained_tokens: by step.
    """

    step_digests: list[str]
    trained_tokens: list[int]

    @classmethod
    def read(cls, folder: Path) -> Work:
        return cls(**json.loads((folder / WORK).read_text(encoding="utf-8")))


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--task", choices=list(OBJECTIVE), required=True)
    parser.add_argument("--folder", type=Path, required=True, help="of the prepared rows")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--prepare", action="store_true")
    parser.add_argument("--pool", type=Path, help="with --prepare: JSONL to take the first rows from")
    parser.add_argument("--out", type=Path, help="where the JSON goes; default: standard output")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--batch", type=int, default=8, help="rows per optimizer step")
    parser.add_argument("--lr", type=float, default=1e-5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(argv)


def overrides(args: argparse.Namespace) -> list[str]:
    """The command line of the run: an ordinary one, with what would interrupt the steps switched off."""
    is_online = args.task in online.TASKS
    return [
        *OBJECTIVE[args.task],
        *(
            [f"objective.beta={online.BETA[args.task]}", f"data.rows_per_epoch={args.batch}"]
            if is_online
            else ["reward=none"]
        ),
        "model=hf",
        f"model.{'reward' if args.task == 'reward_bt' else 'policy'}={args.model}",
        "data=jsonl",
        f"data.path={args.folder / INPUT}",
        "data.validation_fraction=0",
        "data.max_length=512",
        f"data.batch_size={args.batch}",
        f"seed={args.seed}",
        f"optim.lr={online.LR if is_online else args.lr}",
        "optim.betas=[0.9,0.999]",
        "optim.schedule=constant",
        "optim.warmup_ratio=0",
        "trainer.accelerator=cpu",
        "trainer.log_every_n_steps=1",
        "trainer.enable_progress_bar=false",
        f"trainer.max_steps={args.steps}",
        "eval.at_start=false",
        "eval.prompts=0",
        f"eval.every={args.steps}",
    ]


def prepare(args: argparse.Namespace) -> None:
    """Write our data set, the same rows in the order of training, and what each step holds."""
    from core.build import plan
    from core.compose import compose
    from core.data.load import DataConfig, load_data
    from core.loading import load_tokenizer
    from core.registry import build_objective

    args.folder.mkdir(parents=True, exist_ok=True)
    lines = args.pool.read_text(encoding="utf-8").splitlines()[: args.steps * args.batch]
    (args.folder / INPUT).write_text("\n".join(lines) + "\n", encoding="utf-8")
    by_id = {json.loads(line)["id"]: line for line in lines}
    config = compose(overrides(args)).config
    objective = build_objective(config["objective"])
    objective.bind(None)
    data = load_data(DataConfig(**config["data"]), load_tokenizer(str(args.model)), objective.reads)
    schedule = plan(config, objective, len(data.train))
    if args.task in online.TASKS:  # an epoch is a collection, and a step
        steps = [[data.train[i] for i in schedule.rows_of(epoch)] for epoch in range(args.steps)]
        sequences = [[[(row.prompt, online.SAMPLES)] for row in step] for step in steps]
    else:
        epoch = [data.train[i] for i in schedule.rows_of(0)]
        steps = [[epoch[i] for i in schedule.rows_of_step(step, len(epoch))] for step in range(args.steps)]
        sequences = [
            [[(row.prompt + r.tokens, _trained(args.task, row.prompt, r)) for r in row.responses] for row in step]
            for step in steps
        ]
    work = Work(
        step_digests=[digest_of_step(step) for step in sequences],
        trained_tokens=[sum(trained for row in step for _, trained in row) for step in sequences],
    )
    (args.folder / WORK).write_text(json.dumps(dataclasses.asdict(work)), encoding="utf-8")
    ordered = "\n".join(by_id[row.id] for step in steps for row in step) + "\n"
    (args.folder / ORDERED).write_text(ordered, encoding="utf-8")


def _trained(task: str, prompt: list[int], response: Any) -> int:
    """Tokens in the loss; a reward's score is of the whole sequence."""
    return len(prompt) + len(response.tokens) if task == "reward_bt" else sum(response.mask)


def run(args: argparse.Namespace) -> Measurement:
    """One `python -m core.run`, in a process and folders of its own."""
    stopwatch = online.Stopwatch()
    with tempfile.TemporaryDirectory(prefix="accordant-bench-ours-") as scratch:
        root = Path(scratch)
        # A cache of its own: reference log-probs are computed in the run, as on the other side.
        environment = {**os.environ, "ACCORDANT_CACHE": str(root / "cache"), "OMP_NUM_THREADS": str(args.threads)}
        is_online, laps = args.task in online.TASKS, root / "laps.json"
        module = ["benchmarks.ours_online", str(laps)] if is_online else ["core.run"]
        command = [sys.executable, "-m", *module, *overrides(args), f"run.root={root}", "run.name=bench"]
        with (root / "log.txt").open("w") as log:
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            raise SystemExit(f"{' '.join(command)}\nfailed:\n{(root / 'log.txt').read_text()}")
        [metrics] = root.glob("bench*/metrics.jsonl")
        records = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
        sampled = [_sampled(file) for file in sorted(metrics.parent.glob("rollouts/epoch_*.jsonl"))] if is_online else []
        stopwatch.steps += json.loads(laps.read_text()) if is_online else []
    work = Work.read(args.folder)
    steps = [r for r in records if r["split"] == "train" and "loss" in r]
    times = [0.0, *(r["time"] for r in steps)]
    seconds = [b - a for a, b in itertools.pairwise(times)]
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return Measurement(
        side="ours",
        task=args.task,
        setting={},
        batch=online.ANSWERS if is_online else args.batch,
        step_seconds=seconds,
        losses=[r["loss"] for r in steps],
        first_metrics=_numbers(steps[0]),
        peak_mb=usage.ru_maxrss / unit,
        peak_mb_before_training=0.0,
        step_digests=[digest for digest, _ in sampled] or work.step_digests,
        trained_tokens=[tokens for _, tokens in sampled] or work.trained_tokens,
        parts=stopwatch.parts(seconds) if is_online else {},
    )


def _sampled(rollouts: Path) -> tuple[str, int]:
    """The digest of a step's prompts with the number of answers to each, and the tokens of all answers."""
    lines = [json.loads(line) for line in rollouts.read_text(encoding="utf-8").splitlines()]
    rows = [line for line in lines if "prompt" in line]
    digest = digest_of_step([[(row["prompt"], len(row["responses"]))] for row in rows])
    return digest, sum(len(r["tokens"]) for row in rows for r in row["responses"])


def _numbers(record: dict[str, Any]) -> dict[str, float]:
    return {k: float(v) for k, v in record.items() if isinstance(v, int | float)}


def main() -> int:
    args = parse()
    if args.prepare:
        prepare(args)
    else:
        write_measurement(run(args), args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
