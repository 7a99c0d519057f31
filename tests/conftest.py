"""One thread, no network, quiet libraries, a cache of its own: set before anything heavy is imported."""

from __future__ import annotations

import os
import shutil
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"
os.environ.setdefault("OMP_NUM_THREADS", "1")
_CACHE = tempfile.mkdtemp(prefix="accordant-tests-")
os.environ["ACCORDANT_CACHE"] = _CACHE


def pytest_runtest_setup() -> None:
    """One thread for each test: what it computes does not depend on the machine, and workers do not crowd it."""
    import torch

    torch.set_num_threads(1)


def pytest_unconfigure() -> None:
    shutil.rmtree(_CACHE, ignore_errors=True)
