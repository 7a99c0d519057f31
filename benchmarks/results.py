"""What the benchmark makes of its measurements: settings, equal work or no comparison, ratios, tables."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks import online
from benchmarks.measure import Measurement
from benchmarks.ours_side import Work

TARGETS = {
    "sft": 2.5,
    "sft_demos": 2.5,
    "dpo_cached": 3.2,
    "dpo_live": 3.5,
    "reward_bt": 2.4,
    "grpo": 3.5,
    "rloo": 4.5,
}
BATCH = 8  # rows of an optimizer step; of an online one: prompts

FIRST_LOSS, EVERY_LOSS = 1e-3, 5e-3
"""How far the losses of the two sides may differ: at the first step, where the weights are equal, and at any step."""

SPREAD = 20.0
"""Standard deviation of an answer's length (tokens, up to 64): each side draws others from the same distribution."""

BUSY = 0.05
"""Where others used more than this share of the processors during a measurement, it is not worth much."""


@dataclass(frozen=True)
class Setting:
    """A way to run TRL: rows (or answers) per micro-batch, the rest is accumulation; and a variant of its trainer."""

    micro: int
    variant: str = "plain"
    batch: int = BATCH

    @property
    def ordered(self) -> bool:
        """Do its steps hold the rows in the given order? Grouping by length reorders them."""
        return self.variant != "group_by_length"

    def __str__(self) -> str:
        return f"{self.micro} x {self.batch // self.micro}" + ("" if self.variant == "plain" else f", {self.variant}")


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


def check_equal(pair: Pair, setting: Setting, work: Work) -> None:
    """Equal work or no comparison.

    Raises:
        UnequalWork: tokens, counts or losses differ. Of reordered rows only the sums can be compared.
    """
    ours, trl = pair.ours, pair.trl
    if ours.task in online.TASKS:
        check_equal_online(ours, trl, work)
        return
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


def check_equal_online(ours: Measurement, trl: Measurement, work: Work) -> None:
    """Of sampled answers: the same prompts in each step, as many answers to each, and lengths that chance can explain.

    Raises:
        UnequalWork: they are not.
    """
    for measured in (ours, trl):
        if measured.step_digests != work.step_digests or len(measured.losses) != len(work.step_digests):
            raise UnequalWork(f"{ours.task}: {measured.side} has other prompts than planned, or another number of answers")
        if not all(map(math.isfinite, measured.losses)):
            raise UnequalWork(f"{ours.task}: {measured.side} has a loss that is no number")
    check_lengths([Pair(ours, trl, 0.0)])


def check_lengths(pairs: Sequence[Pair]) -> None:
    """The two sides' answers are as long as those of one distribution, within four standard errors.

    Raises:
        UnequalWork: they are not.
    """
    ours, trl = (sum(sum(getattr(p, side).trained_tokens) for p in pairs) for side in ("ours", "trl"))
    answers = sum(p.ours.batch * len(p.ours.trained_tokens) for p in pairs)
    if abs(ours - trl) > 4 * SPREAD * math.sqrt(2 * answers):
        raise UnequalWork(f"{pairs[0].ours.task}: {ours} sampled tokens in {answers} answers, TRL {trl}")


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
    if split := [r for r in results if r.task in online.TASKS]:
        lines += ["", *split_table(split)]
    shares = [p.neighbours for r in results for p in r.pairs]
    busy = [share for share in shares if share > BUSY]
    if busy:
        lines.append(f"\n{len(busy)} of {len(shares)} pairs shared the processors (up to {max(busy):.0%}): measure again.")
    return "\n".join(lines)


def split_table(results: Sequence[Result]) -> list[str]:
    """Where an online step spends its time: seconds of each part, medians over steps and pairs, and TRL's by ours."""
    lines = ["| seconds of a step | TRL | ours | ratio |", "|---|---|---|---|"]
    for r in results:
        for part in online.PARTS:
            trl, ours = (statistics.median(getattr(p, s).part(part, r.warmup) for p in r.pairs) for s in ("trl", "ours"))
            lines.append(f"| {r.task}: {part} | {trl:.2f} | {ours:.2f} | {trl / max(ours, 1e-4):.1f} |")
        trl, ours = (_mean_length(r, side) for side in ("trl", "ours"))
        lines.append(f"| {r.task}: tokens of an answer | {trl:.1f} | {ours:.1f} | |")
    return lines


def _mean_length(result: Result, side: str) -> float:
    measured = [getattr(p, side) for p in result.pairs]
    return sum(sum(m.trained_tokens) for m in measured) / sum(m.batch * len(m.trained_tokens) for m in measured)
