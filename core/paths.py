"""Where things that outlive a run are kept."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def cache_folder() -> Path:
    """The user's cache; the environment variable ACCORDANT_CACHE overrides it."""
    return Path(os.environ.get("ACCORDANT_CACHE") or platformdirs.user_cache_path("accordant"))
