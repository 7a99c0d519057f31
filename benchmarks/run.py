"""Ours against TRL on the same work, in one run: `make bench`, or `python -m benchmarks.run [--quick]`.

For each task: prepare the rows; find TRL's best setting in a short pre-pass; then alternate fresh processes, ours and
TRL's, pair after pair; print the ratio of rows per second (min, median, max) and the peak memory of both. Every pair is
checked for equal work first: the same tokens in each step, the same number of them in the loss, the same losses.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.measure import Measurement, Neighbours, read_measurement
from benchmarks.ours_side import ORDERED, Work
from benchmarks.workload import DataAbsent, Workload, make

ROOT = Path(__file__).resolve().parents[1]
TARGETS = {"sft": 2.5, "sft_demos": 2.5, "dpo_cached": 3.2, "dpo_live": 3.5, "reward_bt": 2.4}
BATCH = 8  # rows of an optimizer step
MICRO = (1, 2, 4, 8)  # rows of a micro-batch, TRL
OTHERS = ("group_by_length",)
VARIANTS = {
    "sft": (*OTHERS, "padding_free"),
    "sft_demos": (*OTHERS, "padding_free"),
    "dpo_cached": OTHERS,
    "dpo_live": OTHERS,
    "reward_bt": OTHERS,
}
FIRST_LOSS, EVERY_LOSS = 1e-3, 5e-3
"""How far the losses of the two sides may differ: at the first step, where the weights are equal, and at any step."""

PREPASS_WARMUP = 3
"""Steps of a pre-pass that are left out of its rate."""

BUSY = 0.05
"""Where others used more than this share of the processors during a measurement, it is not worth much."""


@dataclass(frozen=True)
class Setting:
    """A way to run TRL: rows per micro-batch (the rest of the batch is accumulation), and a variant of its trainer."""

    micro: int
    variant: str = "plain"

    @property
    def ordered(self) -> bool:
        """Do its steps hold the rows in the given order? Grouping by length reorders them."""
        return self.variant != "group_by_length"

    def __str__(self) -> str:
        return f"{self.micro} x {BATCH // self.micro}" + ("" if self.variant == "plain" else f", {self.variant}")


@dataclass(frozen=True)
class Pair:
    """One alternation; `neighbours` is the share of the processors that others used meanwhile."""

    ours: Measurement
    trl: Measurement
    neighbours: float


@dataclass(frozen=True)
class Result:
    """All that was measured of one task."""

    task: str
    best: Setting
    prepass: dict[str, float]
    pairs: list[Pair]
    warmup: int

    @property
    def ratios(self) -> list[float]:
        return sorted(p.ours.rate(self.warmup) / p.trl.rate(self.warmup) for p in self.pairs)

    def median_rate(self, side: str) -> float:
        return statistics.median(getattr(p, side).rate(self.warmup) for p in self.pairs)

    def peak_mb(self, side: str) -> float:
        return max(getattr(p, side).peak_mb for p in self.pairs)

    @property
    def meets(self) -> bool:
        ours, trl = self.peak_mb("ours"), self.peak_mb("trl")
        return statistics.median(self.ratios) >= TARGETS[self.task] and ours <= trl


class UnequalWork(Exception):
    """The two sides did not do the same, so their speeds cannot be compared."""


class Bench:
    """Runs the processes of a benchmark, with files in a scratch folder."""

    def __init__(self, args: argparse.Namespace, workload: Workload, scratch: Path) -> None:
        self.args, self.workload, self.scratch = args, workload, scratch
        self.environment = {**os.environ, "OMP_NUM_THREADS": str(args.threads), "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}

    def task(self, task: str) -> Result:
        folder = self.scratch / task
        self._python("ours_side", task, self.args.steps, folder, "--prepare", "--pool", str(self.workload.rows(task)))
        work = Work.read(folder)
        best, prepass = self.best_setting(task, folder, work)
        say(f"{task}: TRL's best setting is {best} ({prepass[str(best)]:.2f} rows/s of {len(prepass)} tried)")
        pairs = []
        for n in range(self.args.pairs):
            pairs.append(self.pair(task, folder, best, trl_first=n % 2 == 1))
            check_equal(pairs[-1], best, work)
            ours, trl = (m.rate(self.args.warmup) for m in (pairs[-1].ours, pairs[-1].trl))
            say(f"{task}: pair {n + 1} of {self.args.pairs}: ours {ours:.2f}, TRL {trl:.2f} rows/s, ratio {ours / trl:.2f}")
            if pairs[-1].neighbours > BUSY:
                say(f"{task}: others used {pairs[-1].neighbours:.0%} of the processors meanwhile")
        return Result(task, best, prepass, pairs, self.args.warmup)

    def pair(self, task: str, folder: Path, setting: Setting, *, trl_first: bool) -> Pair:
        """One measurement of each side. Which comes first alternates, so that a drift of the machine favours neither."""
        wait_for_quiet()
        neighbours = Neighbours()
        trl = self.trl(task, folder, setting, self.args.steps) if trl_first else None
        ours = self.ours(task, folder)
        trl = trl or self.trl(task, folder, setting, self.args.steps)
        return Pair(ours, trl, neighbours.share())

    def best_setting(self, task: str, folder: Path, work: Work) -> tuple[Setting, dict[str, float]]:
        """TRL's fastest setting over a few steps, and the rates of all. One that computes another loss does not count."""
        steps = self.args.prepass_steps
        tried: dict[Setting, Measurement] = {}
        for setting in candidates(task, self.args.quick):
            wait_for_quiet()
            try:
                tried[setting] = measured = self.trl(task, folder, setting, steps)
            except subprocess.CalledProcessError:
                say(f"{task}: TRL {setting} does not run")
                continue
            if setting.ordered and measured.step_digests != work.step_digests[:steps]:
                raise UnequalWork(f"{task}: TRL {setting} has other tokens")
            say(f"{task}: TRL {setting}: {measured.rate(PREPASS_WARMUP):.2f} rows/s, {measured.peak_mb:.0f} MB")
        loss = tried[Setting(1)].losses[0]
        wrong = [s for s, m in tried.items() if s.ordered and abs(m.losses[0] - loss) > FIRST_LOSS]
        for setting in wrong:
            found = tried.pop(setting).losses[0]
            say(f"{task}: TRL {setting} does not count: its first loss is {found:.4f}, not {loss:.4f}")
        rates = {s: m.rate(PREPASS_WARMUP) for s, m in tried.items()}
        return max(rates, key=lambda s: rates[s]), {str(s): r for s, r in rates.items()}

    def ours(self, task: str, folder: Path) -> Measurement:
        return self._python("ours_side", task, self.args.steps, folder)

    def trl(self, task: str, folder: Path, setting: Setting, steps: int) -> Measurement:
        options = ["--micro", str(setting.micro), "--variant", setting.variant, "--rows", str(folder / ORDERED)]
        return self._python("trl_side", task, steps, None, *options)

    def _python(self, module: str, task: str, steps: int, folder: Path | None, *options: str) -> Any:
        out = self.scratch / "out.json"
        out.unlink(missing_ok=True)
        command = [sys.executable, "-m", f"benchmarks.{module}", "--task", task, "--steps", str(steps), "--out", str(out)]
        command += ["--model", str(self.workload.start(task)), "--batch", str(BATCH), "--threads", str(self.args.threads)]
        command += options
        command += ["--folder", str(folder)] if folder else []
        done = subprocess.run(command, env=self.environment, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            say(done.stderr[-3000:])
            raise subprocess.CalledProcessError(done.returncode, command)
        return read_measurement(out) if out.is_file() else None


def candidates(task: str, quick: bool) -> Iterator[Setting]:
    """The settings of TRL that the pre-pass tries; `quick` tries the two that have ever won."""
    for micro in (1, 2) if quick else MICRO:
        yield Setting(micro)
    for variant in () if quick else VARIANTS[task]:
        for micro in (4, 8):
            yield Setting(micro, variant)


def check_equal(pair: Pair, setting: Setting, work: Work) -> None:
    """Equal work or no comparison.

    Raises:
        UnequalWork: tokens, counts or losses differ. Of reordered rows only the sums can be compared.
    """
    ours, trl = pair.ours, pair.trl
    if sum(ours.trained_tokens) != sum(trl.trained_tokens):
        raise UnequalWork(f"{ours.task}: {sum(ours.trained_tokens)} trained tokens, TRL {sum(trl.trained_tokens)}")
    if len(ours.losses) != len(trl.losses) or len(ours.losses) != len(work.step_digests):
        raise UnequalWork(f"{ours.task}: {len(ours.losses)} steps, TRL {len(trl.losses)}, planned {len(work.step_digests)}")
    if not setting.ordered:
        return
    if ours.step_digests != trl.step_digests:
        first = next(i for i, (a, b) in enumerate(zip(ours.step_digests, trl.step_digests, strict=True)) if a != b)
        raise UnequalWork(f"{ours.task}: the tokens of step {first + 1} differ")
    for step, (a, b) in enumerate(zip(ours.losses, trl.losses, strict=True)):
        if not abs(a - b) <= (EVERY_LOSS if step else FIRST_LOSS):
            raise UnequalWork(f"{ours.task}: loss {a:.5f} at step {step + 1}, TRL {b:.5f}")
    for name in ("logps/chosen", "logps/rejected", "margin", "mean_reward"):
        a, b = (m.first_metrics.get(name, 0.0) for m in (ours, trl))
        if abs(a - b) > 1e-4 * max(1.0, abs(b)):
            raise UnequalWork(f"{ours.task}: {name} is {a:.4f} at the first step, TRL {b:.4f}")


def wait_for_quiet(patience: int = 60) -> None:
    """Wait up to `patience` seconds for others to leave the processors alone."""
    for _ in range(patience):
        neighbours = Neighbours()
        time.sleep(1)
        if neighbours.share() < 2 * BUSY:  # one second is a short look: a little noise is no neighbour
            return


def table(results: Sequence[Result]) -> str:
    """The results as a Markdown table."""
    lines = [
        "| work | TRL's best | TRL rows/s | ours rows/s | ratio min - median - max | target | peak of TRL | ours | met |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for r in results:
        low, middle, high = r.ratios[0], statistics.median(r.ratios), r.ratios[-1]
        lines.append(
            f"| {r.task} | {r.best} | {r.median_rate('trl'):.2f} | {r.median_rate('ours'):.2f} "
            f"| {low:.2f} - **{middle:.2f}** - {high:.2f} | {TARGETS[r.task]} "
            f"| {r.peak_mb('trl'):.0f} MB | {r.peak_mb('ours'):.0f} MB | {'yes' if r.meets else 'no'} |"
        )
    shares = [p.neighbours for r in results for p in r.pairs]
    busy = [share for share in shares if share > BUSY]
    if busy:
        lines.append(f"\n{len(busy)} of {len(shares)} pairs shared the processors (up to {max(busy):.0%}): measure again.")
    return "\n".join(lines)


def environment(args: argparse.Namespace, workload: Workload) -> dict[str, Any]:
    """What the numbers depend on."""
    names = ("accordant", "torch", "lightning", "transformers", "trl", "accelerate", "datasets", "numpy")
    return {
        "date": time.strftime("%Y-%m-%d"),
        "commit": _git("rev-parse", "HEAD"),
        "changed_files": len(_git("status", "--porcelain").splitlines()),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": args.threads,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in names},
        "workload": dict(workload.counts),
        "options": {k: getattr(args, k) for k in ("pairs", "steps", "warmup", "prepass_steps", "quick")},
    }


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor())


def say(text: str) -> None:
    print(text, flush=True)


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one pair, few steps: does it run, and roughly how fast")
    parser.add_argument("--tasks", nargs="+", choices=list(TARGETS), default=list(TARGETS))
    parser.add_argument("--pairs", type=int, help="alternations per task (default 5; quick: 1)")
    parser.add_argument("--steps", type=int, help="optimizer steps of each process (default 40; quick: 12)")
    parser.add_argument("--warmup", type=int, help="first steps left out of the rate (default 8; quick: 3)")
    parser.add_argument("--prepass-steps", type=int, help="steps of each process of the pre-pass (default 12; quick: 6)")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results", help="folder for the JSON")
    args = parser.parse_args(argv)
    for name, (full, quick) in {"pairs": (5, 1), "steps": (40, 12), "warmup": (8, 3), "prepass_steps": (12, 6)}.items():
        if getattr(args, name) is None:
            setattr(args, name, quick if args.quick else full)
    if not 0 < args.warmup < args.steps or args.prepass_steps > args.steps:
        parser.error("--warmup and --prepass-steps must be smaller than --steps")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """0 = measured; 1 = the two sides did unequal work; 3 = there is nothing to measure on."""
    args = parse(argv)
    try:
        workload = make()
    except DataAbsent as error:
        say(f"SKIPPED: nothing was measured. {error}.")
        return 3
    with tempfile.TemporaryDirectory(prefix="accordant-bench-") as scratch:
        bench = Bench(args, workload, Path(scratch))
        try:
            results = [bench.task(task) for task in args.tasks]
        except UnequalWork as error:
            say(f"UNEQUAL WORK: {error}. Nothing was compared.")
            return 1
    facts = environment(args, workload)
    say(f"\n{facts['processor']}, {args.threads} threads, float32, {BATCH} rows a step, {args.pairs} pairs\n")
    say(table(results) + "\n")
    args.results.mkdir(parents=True, exist_ok=True)
    path = args.results / f"{facts['date']}-{facts['commit'][:8]}{'-quick' if args.quick else ''}.json"
    path.write_text(json.dumps({**facts, "results": [_plain(r) for r in results]}, indent=1) + "\n", encoding="utf-8")
    say(f"Raw numbers: {os.path.relpath(path)}")
    return 0


def _plain(result: Result) -> dict[str, Any]:
    return {**dataclasses.asdict(result), "best": str(result.best), "ratios": result.ratios, "meets": result.meets}


if __name__ == "__main__":
    sys.exit(main())
