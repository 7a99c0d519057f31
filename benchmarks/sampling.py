"""Sampling: core.generate against transformers' own `generate`, of one model, from the same prompts, in one process.

    python -m benchmarks.sampling [--repeats 5] [--threads 2]

The model is the workload's after a short SFT of ours (so that answers end), kept beside it; the prompts are those of
`harmless_pairs`. Two sizes: 8 prompts with 4 responses each, and 32 with 8, up to 64 new tokens, temperature 1, the whole
distribution. transformers gets each prompt K times, padded on the left, rows in length order, at several batch sizes; its
best counts. Greedy tokens are compared before speed is. Each repeat measures both, in turn. Peak memory is that of a fresh
process that samples twice.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.workload import DataAbsent, Workload, make, short_sft
from core.generate import Job, sample, sample_seed
from core.settings import Generation

SIZES = ((8, 4), (32, 8))
NEW_TOKENS = 64


def load(folder: Path) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return AutoModelForCausalLM.from_pretrained(folder).float().eval(), AutoTokenizer.from_pretrained(folder)


def prompts_of(workload: Workload, tokenizer: Any, count: int) -> list[list[int]]:
    lines = workload.pairs.read_text(encoding="utf-8").splitlines()[:count]
    return [tokenizer(json.loads(line)["prompt"], add_special_tokens=False)["input_ids"] for line in lines]


def ours(model: Any, tokenizer: Any, prompts: Sequence[list[int]], samples: int, *, greedy: bool = False) -> list[list[int]]:
    jobs = [Job(p, sample_seed(0, str(i), k)) for i, p in enumerate(prompts) for k in range(samples)]
    settings = Generation(max_new_tokens=NEW_TOKENS, temperature=0.0 if greedy else 1.0)
    return [s.tokens for s in sample(model, tokenizer, jobs, settings)]


def theirs(
    model: Any, tokenizer: Any, prompts: Sequence[list[int]], samples: int, batch: int, *, greedy: bool = False
) -> list[list[int]]:
    rows = sorted((i for i in range(len(prompts)) for _ in range(samples)), key=lambda i: len(prompts[i]))
    out: list[list[list[int]]] = [[] for _ in prompts]
    for start in range(0, len(rows), batch):
        part = rows[start : start + batch]
        encoded = tokenizer.pad({"input_ids": [prompts[i] for i in part]}, padding_side="left", return_tensors="pt")
        how: dict[str, Any] = {"do_sample": False} if greedy else {"do_sample": True, "top_k": 0, "top_p": 1.0}
        with torch.no_grad():
            ids = model.generate(**encoded, **how, temperature=1.0, max_new_tokens=NEW_TOKENS)
        for i, row in zip(part, ids[:, encoded["input_ids"].shape[1] :].tolist(), strict=True):
            end = tokenizer.eos_token_id
            out[i].append(row[: row.index(end) + 1] if end in row else row)
    return [answer for answers in out for answer in answers]


def seconds(work: Callable[[], list[list[int]]]) -> tuple[float, int]:
    """Wall time, and the tokens that were made."""
    start = time.perf_counter()
    tokens = sum(map(len, work()))
    return time.perf_counter() - start, tokens


def child(side: str, prompts: int, samples: int, batch: int, threads: int) -> float:
    """Peak memory (MiB) of a fresh process, above what it held before it sampled."""
    command = [sys.executable, "-m", "benchmarks.sampling", "--side", side, "--threads", str(threads)]
    command += ["--size", f"{prompts},{samples},{batch}"]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    return float(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)


def sample_once(side: str, size: str) -> None:
    """What the child does."""
    prompts, samples, batch = map(int, size.split(","))
    workload = make()
    model, tokenizer = load(short_sft(workload))
    asked = prompts_of(workload, tokenizer, prompts)
    before = forget_peak()
    for _ in range(2):
        if side == "ours":
            ours(model, tokenizer, asked, samples)
        else:
            theirs(model, tokenizer, asked, samples, batch)
    print(peak_memory_mb() - before)


def forget_peak() -> float:
    """From here on the kernel counts the peak anew (Linux). Resident memory now, in MiB."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return peak_memory_mb()


def peak_memory_mb() -> float:
    """Peak resident memory since `forget_peak`, in MiB."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**10


def compare(workload: Workload, size: tuple[int, int], repeats: int, threads: int) -> bool:
    """One size: print its line. False where the two sides do not do the same work."""
    prompts, samples = size
    rows = prompts * samples
    model, tokenizer = load(short_sft(workload))
    asked = prompts_of(workload, tokenizer, prompts)
    if ours(model, tokenizer, asked, 1, greedy=True) != theirs(model, tokenizer, asked, 1, prompts, greedy=True):
        print("UNEQUAL WORK: greedy tokens differ. Nothing was compared.")
        return False
    batches = [b for b in (rows // 8, rows // 4, rows // 2, rows) if b >= 4]
    rates = {b: rows / seconds(lambda b=b: theirs(model, tokenizer, asked, samples, b))[0] for b in batches}  # type: ignore[misc]
    best = max(rates, key=lambda b: rates[b])
    measured = []
    for _ in range(repeats):
        measured.append(
            (
                seconds(lambda: theirs(model, tokenizer, asked, samples, best)),
                seconds(lambda: ours(model, tokenizer, asked, samples)),
            )
        )
    for name, side in (("transformers", 0), ("ours", 1)):
        rate = statistics.median(rows / m[side][0] for m in measured)
        tokens = statistics.median(m[side][1] / m[side][0] for m in measured)
        mean = statistics.median(m[side][1] / rows for m in measured)
        memory = child(name, prompts, samples, best, threads)
        print(f"{prompts} x {samples}  {name:12}  {rate:6.1f} responses/s  {tokens:7.0f} tokens/s", end="  ")
        print(f"mean length {mean:4.1f}  peak memory +{memory:.0f} MiB")
    ratios = [m[0][0] / m[1][0] for m in measured]
    per_token = [m[0][0] / m[0][1] / (m[1][0] / m[1][1]) for m in measured]
    low, middle, high = min(ratios), statistics.median(ratios), max(ratios)
    print(f"{prompts} x {samples}  ratio {low:.2f} - {middle:.2f} - {high:.2f}", end="  ")
    print(f"(by tokens {statistics.median(per_token):.2f}; transformers' best batch: {best} of {batches})")
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--side", choices=["ours", "transformers"], help=argparse.SUPPRESS)
    parser.add_argument("--size", help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    if args.side:
        sample_once(args.side, args.size)
        return 0
    try:
        workload = make()
    except DataAbsent as error:
        print(f"SKIPPED: nothing was measured. {error}.")
        return 3
    return 0 if all(compare(workload, size, args.repeats, args.threads) for size in SIZES) else 1


if __name__ == "__main__":
    raise SystemExit(main())
