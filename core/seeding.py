"""Random numbers as a function of (seed, step, rank): nothing to save, nothing that a validation could disturb."""

from __future__ import annotations

import hashlib
import random

import numpy as np
import torch


def seed_step(seed: int, step: int, rank: int = 0) -> None:
    """Seed Python, NumPy and torch for one step of one process."""
    digest = hashlib.blake2b(f"step/{seed}/{step}/{rank}".encode(), digest_size=8).digest()
    value = int.from_bytes(digest, "big") >> 1
    random.seed(value)
    np.random.seed(value % 2**32)
    torch.manual_seed(value)
