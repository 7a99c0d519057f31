"""Does a difference of log-odds mean what it says? Guo et al. 2017, "On calibration of modern neural networks".

A Bradley-Terry reward claims P(i better than j) = sigmoid(s_i - s_j) (Bradley and Terry 1952). Which response comes first
in a pair is a convention, so the curve is drawn of the confidence sigmoid(|s_i - s_j|), from one half to one, against how
often the response that scored higher was the better one.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from core.preferences.bootstrap import Bootstrap, rounded
from core.preferences.pairs import Floats, Table

BINS = 10  # of equal width in confidence, from 0.5 to 1: as the 20 bins of [0, 1] of the usual, unsymmetric curve
_COLDEST, _HOTTEST = (
    1e-4,
    1e4,
)  # temperatures outside are none: the pairs are separated, or the order is no better than a coin


def calibration(bootstrap: Bootstrap, table: Table, delta: Floats, correct: Floats) -> dict[str, Any] | None:
    """Curve, expected calibration error, log-loss and the best temperature of (n,) differences of log-odds; None if empty.

    ECE = sum_b share_b |accuracy_b - confidence_b| (Guo et al., eq. 3), and `by_chance` is about what a perfectly
    calibrated source would show on as many pairs, taken for independent.
    """
    pairs = table.ordered
    known = np.isfinite(delta)
    if not known.any():
        return None
    confidence = _sigmoid(np.abs(delta))
    part = np.where(known, np.minimum((2 * BINS * (np.nan_to_num(confidence) - 0.5)).astype(np.int64), BINS - 1), -1)
    observed = bootstrap.means(correct, pairs.weight, pairs.prompt, part, BINS)
    claimed = bootstrap.means(confidence, pairs.weight, pairs.prompt, part, BINS)
    total = float(pairs.weight[known].sum())
    bins, error, noise = [], 0.0, 0.0
    for k in range(BINS):
        seen, said = observed[k], claimed[k].value
        if seen.value is None or said is None:
            continue
        share = float(pairs.weight[part == k].sum()) / total
        error += share * abs(seen.value - said)
        # The mean size of a normal number of that spread: a bin of n pairs strays so far from the truth by chance.
        noise += share * float(np.sqrt(2 * said * (1 - said) / (np.pi * seen.pairs)))
        bins.append({"confidence": rounded(said), "share": rounded(share), **seen.to_json()})
    weight, used = pairs.weight[known], delta[known]
    temperature = fit_temperature(used, weight)
    return {
        "bins": bins,
        "error": rounded(error),
        "by_chance": rounded(noise),
        "log_loss": rounded(_log_loss(used, weight, 1.0)),
        "temperature": rounded(temperature),
        "log_loss_calibrated": None if temperature is None else rounded(_log_loss(used, weight, temperature)),
    }


def fit_temperature(delta: Floats, weight: Floats) -> float | None:
    """T that minimises the log-loss of sigmoid(delta / T) where the first of each pair is the better one (Guo, sect. 4.2).

    The loss is convex in 1 / T, so the root of its slope is found by halving. None where there is no such T: all pairs are
    in the right order (T would be 0), or the order is no better than a coin's (T would be infinite).
    """

    def slope(inverse: float) -> float:
        return float(-(weight * delta * _sigmoid(-inverse * delta)).sum())

    low, high = 1 / _HOTTEST, 1 / _COLDEST
    if not len(delta) or slope(low) >= 0 or slope(high) <= 0:
        return None
    for _ in range(100):
        middle = np.sqrt(low * high)
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return float(1 / np.sqrt(low * high))


def _log_loss(delta: Floats, weight: Floats, temperature: float) -> float:
    return float((weight * np.logaddexp(0.0, -delta / temperature)).sum() / weight.sum())


def _sigmoid(x: Floats) -> Floats:
    # exp of a negative number only: a difference of 1000 must not overflow.
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + small), small / (1 + small))
