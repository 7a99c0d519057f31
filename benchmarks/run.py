"""Ours against TRL on the same work, in one run: `make bench`, or `python -m benchmarks.run [--quick]`.

For each task: prepare the rows (of an online task: the prompts); find TRL's best setting in a short pre-pass; then
alternate fresh processes, ours and TRL's, pair after pair; print the ratio of rows (or answers) per second (min, median,
max) and the peak memory of both. Every pair is checked for equal work first (benchmarks/results.py).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks import online
from benchmarks.measure import Measurement, Neighbours, read_measurement
from benchmarks.ours_side import ORDERED, Work
from benchmarks.results import (
    BATCH,
    BUSY,
    FIRST_LOSS,
    TARGETS,
    Pair,
    Result,
    Setting,
    UnequalWork,
    check_equal,
    check_lengths,
    table,
)
from benchmarks.workload import DataAbsent, Workload, make

ROOT = Path(__file__).resolve().parents[1]
MICRO = (1, 2, 4, 8)  # rows of a micro-batch, TRL
MICRO_ANSWERS = (1, 2, 8, 32)
OTHERS = ("group_by_length",)
VARIANTS = {
    "sft": (*OTHERS, "padding_free"),
    "sft_demos": (*OTHERS, "padding_free"),
    "dpo_cached": OTHERS,
    "dpo_live": OTHERS,
    "reward_bt": OTHERS,
    "grpo": (),
    "rloo": (),
}


@dataclass(frozen=True)
class Amounts:
    """How much is measured of a task: alternations, steps of a process, first steps that do not count; the pre-pass's."""

    pairs: int
    steps: int
    warmup: int
    prepass_steps: int
    prepass_warmup: int = 3

    @classmethod
    def of(cls, task: str, args: argparse.Namespace) -> Amounts:
        """What the command line says, else what the task takes: an online step is longer, and all of them are alike."""
        usual = {
            (False, False): (5, 40, 8, 12, 3),
            (False, True): (1, 12, 3, 6, 3),
            (True, False): (3, 5, 1, 3, 1),
            (True, True): (1, 3, 1, 2, 1),
        }[task in online.TASKS, args.quick]
        named = ("pairs", "steps", "warmup", "prepass_steps")
        given = {name: getattr(args, name) for name in named if getattr(args, name) is not None}
        return dataclasses.replace(cls(*usual), **given)


class Bench:
    """Runs the processes of a benchmark, with files in a scratch folder."""

    def __init__(self, args: argparse.Namespace, workload: Workload, scratch: Path) -> None:
        self.args, self.workload, self.scratch, self.seed = args, workload, scratch, 0
        self.environment = {**os.environ, "OMP_NUM_THREADS": str(args.threads), "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}
        if set(args.tasks) & set(online.TASKS):
            paths = [str(third_party(scratch)), str(ROOT), os.environ.get("PYTHONPATH", "")]
            self.environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))

    def task(self, task: str) -> Result:
        folder, amounts = self.scratch / task, Amounts.of(task, self.args)
        work = self._prepared(task, folder)
        best, prepass = self.best_setting(task, folder, work)
        say(f"{task}: TRL's best setting is {best} ({prepass[str(best)]:.2f} rows/s of {len(prepass)} tried)")
        pairs = []
        for n in range(amounts.pairs):
            if n and task in online.TASKS:  # other answers, so that pairs tell more than one does
                self.seed = n
                work = self._prepared(task, folder := self.scratch / f"{task}-{n}")
            pairs.append(self.pair(task, folder, best, trl_first=n % 2 == 1))
            check_equal(pairs[-1], best, work)
            ours, trl = (m.rate(amounts.warmup) for m in (pairs[-1].ours, pairs[-1].trl))
            say(f"{task}: pair {n + 1} of {amounts.pairs}: ours {ours:.2f}, TRL {trl:.2f} rows/s, ratio {ours / trl:.2f}")
            if pairs[-1].neighbours > BUSY:
                say(f"{task}: others used {pairs[-1].neighbours:.0%} of the processors meanwhile")
        self.seed = 0
        if task in online.TASKS:
            check_lengths(pairs)
        return Result(task, best, prepass, pairs, amounts.warmup)

    def _prepared(self, task: str, folder: Path) -> Work:
        steps, pool = Amounts.of(task, self.args).steps, str(self.workload.rows(task))
        self._python("ours_side", task, steps, folder, "--prepare", "--pool", pool)
        return Work.read(folder)

    def pair(self, task: str, folder: Path, setting: Setting, *, trl_first: bool) -> Pair:
        """One measurement of each side. Which comes first alternates, so that a drift of the machine favours neither."""
        wait_for_quiet()
        neighbours, steps = Neighbours(), Amounts.of(task, self.args).steps
        trl = self.trl(task, folder, setting, steps) if trl_first else None
        ours = self.ours(task, folder)
        trl = trl or self.trl(task, folder, setting, steps)
        return Pair(ours, trl, neighbours.share())

    def best_setting(self, task: str, folder: Path, work: Work) -> tuple[Setting, dict[str, float]]:
        """TRL's fastest setting over a few steps, and the rates of all. One that computes another loss does not count."""
        amounts = Amounts.of(task, self.args)
        steps, warmup = amounts.prepass_steps, amounts.prepass_warmup
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
            say(f"{task}: TRL {setting}: {measured.rate(warmup):.2f} rows/s, {measured.peak_mb:.0f} MB")
        if task not in online.TASKS:  # of sampled answers, each process has others
            self._leave_out_wrong(task, tried)
        rates = {s: m.rate(warmup) for s, m in tried.items()}
        return max(rates, key=lambda s: rates[s]), {str(s): r for s, r in rates.items()}

    def _leave_out_wrong(self, task: str, tried: dict[Setting, Measurement]) -> None:
        loss = tried[Setting(1)].losses[0]
        wrong = [s for s, m in tried.items() if s.ordered and abs(m.losses[0] - loss) > FIRST_LOSS]
        for setting in wrong:
            found = tried.pop(setting).losses[0]
            say(f"{task}: TRL {setting} does not count: its first loss is {found:.4f}, not {loss:.4f}")

    def ours(self, task: str, folder: Path) -> Measurement:
        return self._python("ours_side", task, Amounts.of(task, self.args).steps, folder)

    def trl(self, task: str, folder: Path, setting: Setting, steps: int) -> Measurement:
        options = ["--micro", str(setting.micro), "--variant", setting.variant, "--rows", str(folder / ORDERED)]
        return self._python("trl_online" if task in online.TASKS else "trl_side", task, steps, None, *options)

    def _python(self, module: str, task: str, steps: int, folder: Path | None, *options: str) -> Any:
        out = self.scratch / "out.json"
        out.unlink(missing_ok=True)
        command = [sys.executable, "-m", f"benchmarks.{module}", "--task", task, "--steps", str(steps), "--out", str(out)]
        command += ["--model", str(self.workload.start(task)), "--batch", str(BATCH), "--threads", str(self.args.threads)]
        command += ["--seed", str(self.seed), *options]
        command += ["--folder", str(folder)] if folder else []
        done = subprocess.run(command, env=self.environment, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            say(done.stderr[-3000:])
            raise subprocess.CalledProcessError(done.returncode, command)
        return read_measurement(out) if out.is_file() else None


def candidates(task: str, quick: bool) -> Iterator[Setting]:
    """The settings of TRL that the pre-pass tries; `quick` tries the two that have ever won."""
    if task in online.TASKS:
        for micro in MICRO_ANSWERS[1:3] if quick else MICRO_ANSWERS:
            yield Setting(micro, batch=online.ANSWERS)
        return
    for micro in (1, 2) if quick else MICRO:
        yield Setting(micro)
    for variant in () if quick else VARIANTS[task]:
        for micro in (4, 8):
            yield Setting(micro, variant)


def third_party(scratch: Path) -> Path:
    """The example package that brings grpo and rloo, installed into a folder for the path, offline."""
    source, site = scratch / "accordant-grpo", scratch / "site"
    shutil.copytree(ROOT / "examples" / "accordant-grpo", source)  # building leaves nothing in the checkout
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--disable-pip-version-check", "--target", str(site), str(source)], check=True)
    return site


def wait_for_quiet(patience: int = 60) -> None:
    """Wait up to `patience` seconds for others to leave the processors alone."""
    for _ in range(patience):
        neighbours = Neighbours()
        time.sleep(1)
        if neighbours.share() < 2 * BUSY:  # one second is a short look: a little noise is no neighbour
            return


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
        "options": {task: dataclasses.asdict(Amounts.of(task, args)) for task in args.tasks} | {"quick": args.quick},
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
    parser.add_argument("--pairs", type=int, help="alternations per task (default 5, online 3; quick: 1)")
    parser.add_argument("--steps", type=int, help="optimizer steps of each process (default 40, online 5; quick: 12, 3)")
    parser.add_argument("--warmup", type=int, help="first steps left out of the rate (default 8, online 1; quick: 3, 1)")
    parser.add_argument("--prepass-steps", type=int, help="steps of the pre-pass (default 12, online 3; quick: 6, 2)")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results", help="folder for the JSON")
    args = parser.parse_args(argv)
    for amounts in (Amounts.of(task, args) for task in args.tasks):
        if not 0 < amounts.warmup < amounts.steps or not amounts.prepass_warmup < amounts.prepass_steps <= amounts.steps:
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
    pairs = " to ".join(map(str, sorted({len(r.pairs) for r in results})))
    say(f"\n{facts['processor']}, {args.threads} threads, float32, {BATCH} rows a step, {pairs} pairs\n")
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
