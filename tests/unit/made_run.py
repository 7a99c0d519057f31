"""A run folder such as a DPO run with a length reward leaves behind, made without training. For tests of the report."""

import math
import random
from pathlib import Path
from typing import Any

from core.runfolder import RunFolder

CONFIG: dict[str, Any] = {
    "seed": 7,
    "resume": "none",
    "run": {"root": "runs", "name": "dpo-length", "tags": ["demo"], "group": None},
    "objective": {"name": "dpo", "beta": 0.1, "loss": "sigmoid", "label_smoothing": 0.0, "pairs": "auto", "sft_weight": 0.0},
    "reward": {"name": "length", "unit": "tokens", "target": None, "clip": 200},
    "model": {"name": "pocket", "policy": None, "reference": None, "tokenizer": None, "dtype": "float32", "lora": None},
    "data": {"name": "sandbox", "prompts": 512, "batch_size": 32, "microbatch_tokens": 4096},
    "generation": {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "max_new_tokens": 64, "stop": []},
    "optim": {"name": "adamw", "lr": 5e-4, "betas": [0.9, 0.95], "schedule": "linear", "warmup_ratio": 0.1},
    "trainer": {"max_epochs": 4, "max_steps": -1, "precision": "32-true", "log_every_n_steps": 1},
}
PLUGINS = [
    {"kind": "objective", "name": "dpo", "distribution": "accordant", "version": "0.1.0"},
    {"kind": "reward", "name": "length", "distribution": "accordant", "version": "0.1.0"},
]
PAIRS = [
    (
        "What is the capital of France?",
        "Paris.",
        "The capital of France is Paris, a city on the Seine in the north of the country.",
    ),
    (
        "Add 17 and 25.",
        "42",
        "17 and 25 together make 42. One can see it by adding 17 and 20, which gives 37, and then 5 more.",
    ),
    (
        "Name three fruits.",
        "apple, pear, plum",
        "Three fruits are the apple, the pear and the plum.\n\n- apple\n- pear\n- plum",
    ),
    ("Please rewrite politely: give me the report.", "Give me the report, please.", "Could you kindly send me the report?"),
    ("Which is heavier, a feather or a stone?", "A stone.", "A stone is heavier than a feather, for it has far more mass."),
    ("Spell the word cat backwards.", "tac", "Backwards, the word cat is spelt t, a, c: tac"),
]


def make_run(path: Path, steps: int = 240, every: int = 24) -> RunFolder:
    """A run that is still open; call `.finish("finished")` for one that has ended."""
    run = RunFolder.create(path, CONFIG, PLUGINS, ["python", "-m", "core.run", "objective=dpo", "reward=length"])
    made = random.Random(3)
    for step in range(steps + 1):
        done = 1 - math.exp(-3 * step / steps)
        head = {"step": step, "epoch": 4 * step / steps, "time": round(0.4 * step, 3)}
        if step:
            noise = made.gauss(0, 1)
            train = {
                "loss": 0.693 - 0.25 * done + 0.03 * noise,
                "grad_norm": 1.5 - 0.6 * done + 0.2 * abs(noise),
                "lr": 5e-4 * min(1.0, step / (0.1 * steps)) * (1 - step / (steps * 1.1)),
                "logps/chosen": -60 - 6 * done + 3 * noise,
                "logps/rejected": -52 - 25 * done + 3 * noise,
                "log_ratios/chosen": -6 * done,
                "log_ratios/rejected": -25 * done,
                "speed/tokens_per_second": 5200 + 150 * made.gauss(0, 1),
            }
            run.append("metrics.jsonl", {**head, "split": "train", **train})
        if step % every == 0:
            validation = {
                "loss": 0.693 - 0.22 * done,
                "completions/mean_length": 9.4 + 18 * done,
                "completions/clipped_ratio": 0.01 + 0.05 * done,
                "reward": 9.4 + 17.2 * done,
                "rewards/length/mean": 9.4 + 17.2 * done,
                "rewards/gold/mean": 0.61 - 0.08 * done,
                "rewards/chosen": -0.6 * done,
                "rewards/rejected": -2.5 * done,
                "rewards/margins": 1.9 * done,
                "rewards/accuracies": 0.5 + 0.36 * done,
                "logps/chosen": -60 - 6 * done,
                "logps/rejected": -52 - 25 * done,
                "log_ratios/chosen": -6 * done,
                "log_ratios/rejected": -25 * done,
                "objective/kl": 3.1 * done,
            }
            run.append("metrics.jsonl", {**head, "split": "validation", **validation})
            run.write_jsonl(f"samples/step_{step:06d}.jsonl", [sample(i, p, step > 0) for i, p in enumerate(PAIRS)])
    run.note(0, "info", "pairs", "Pairs are sampled: 500 of 512 prompts gave a pair, in 12 all answers scored alike.")
    run.note(96, "advice", "likelihood", "The chosen answers become less likely; try objective.sft_weight=0.1.")
    run.record(data={"source": "sandbox", "rows": {"train": 512, "validation": 64}, "dropped": {"too long": 3, "empty": 0}})
    return run


def sample(index: int, pair: tuple[str, str, str], trained: bool) -> dict[str, Any]:
    """One line of samples/*.jsonl."""
    response = pair[2] if trained else pair[1]
    tokens = len(response.split()) + 1
    scores = {"length": float(tokens), "gold": round(0.9 - 0.01 * tokens, 2)}
    finished = index != 3 or not trained
    return {
        "id": f"p{index}",
        "prompt": pair[0],
        "response": response,
        "finished": finished,
        "tokens": tokens,
        "scores": scores,
    }
