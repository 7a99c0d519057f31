"""Means over prompts, each prompt weighing the same, with the bootstrap's intervals."""

from __future__ import annotations

import numpy as np

from core.preferences.bootstrap import Bootstrap, Estimate
from core.preferences.pairs import Floats, Ints


def mean_of(boot: Bootstrap, values: Floats, prompt: Ints) -> Estimate:
    """The mean over prompts of each prompt's mean of (n,) values; NaN values are left out."""
    known = np.isfinite(values)
    counts = np.bincount(prompt[known], minlength=boot.prompts)
    weight = np.zeros(len(values))
    weight[known] = 1.0 / counts[prompt[known]]
    return boot.mean(values, weight, prompt)


def per_token(boot: Bootstrap, sums: Floats, lengths: Floats, prompt: Ints) -> Estimate:
    """The sum over all tokens divided by their number, of (n,) answers with the sums over their tokens."""
    return boot.mean(sums / np.maximum(lengths, 1), lengths, prompt)
