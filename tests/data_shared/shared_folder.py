"""Where the shared data lies: beside the checkout, or where ACCORDANT_SHARED_DATA says."""

from __future__ import annotations

import os
from pathlib import Path

FOLDER = Path(os.environ.get("ACCORDANT_SHARED_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data")
