"""What several answers to each prompt scored: which is best, how good the best of K is, how many prompts tell nothing.

No torch here. `core.api` exports this to objectives that sample.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from core.rows import Response, Row

if TYPE_CHECKING:
    from core.collect import CollectContext


def ranked(responses: Iterable[Response]) -> list[tuple[float, Response]]:
    """(score, response) of those that have a score, best first; equal ones in the order given."""
    known = [(response.score, response) for response in responses if response.score is not None]
    return sorted(known, key=lambda pair: pair[0], reverse=True)


def best_of(scores: Sequence[float], k: int) -> float:
    """The expected best of k answers, from n of them: the mean of the best over all subsets of size k.

    E = sum_{i=k}^{n} C(i - 1, k - 1) / C(n, k) * s_(i)        s_(1) <= ... <= s_(n), the scores in order

    Unbiased for the best of k fresh draws, and of smaller variance than drawing k anew.

    Args:
        scores: (n,) of independent draws.
        k: 1 to n; 1 gives the mean, n the largest.

    Raises:
        ValueError: k is none of these.
    Source: Nakano et al. 2021 (WebGPT), appendix I. With scores 0 and 1 it is pass@k (Chen et al. 2021, eq. 1).
    """
    n = len(scores)
    if not 1 <= k <= n:
        raise ValueError(f"the best of {k} cannot be told from {n} scores.")
    subsets = math.comb(n, k)
    return math.fsum(math.comb(i, k - 1) / subsets * score for i, score in enumerate(sorted(scores)))


def curve_points(samples: int) -> list[int]:
    """The K of a best-of-K curve: 1, 2, 4, 8, ... and the number of samples itself."""
    return sorted({2**i for i in range(samples.bit_length()) if 2**i <= samples} | {samples})


def log_scores(ctx: CollectContext, rows: Sequence[Row]) -> None:
    """Log what the sampled answers of a collection scored.

        objective/scores        mean over all answers that have a score
        objective/scores_std    standard deviation of one prompt's scores (n - 1), mean over prompts with two at least
        frac_reward_zero_std    share of these prompts whose scores are all equal, so that none is better
        best_of/1, /2, /4 ...   expected best of K, over the prompts whose answers all have a score (`best_of`)

    Args:
        rows: with the same number of responses each, as `ctx.generate` and `ctx.score` gave them.
    """
    known = [[float(r.score) for r in row.responses if r.score is not None] for row in rows]
    scores = [score for found in known for score in found]
    if scores:
        ctx.log({"objective/scores": statistics.fmean(scores)}, len(scores))
    several = [found for found in known if len(found) > 1]
    if several:
        spread = statistics.fmean(statistics.stdev(found) for found in several)
        equal = statistics.fmean(min(found) == max(found) for found in several)
        ctx.log({"objective/scores_std": spread, "frac_reward_zero_std": equal}, len(several))
    whole = [found for found, row in zip(known, rows, strict=True) if found and len(found) == len(row.responses)]
    if whole:
        points = curve_points(min(map(len, whole)))
        ctx.log({f"best_of/{k}": statistics.fmean(best_of(found, k) for found in whole) for k in points}, len(whole))
