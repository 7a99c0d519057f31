"""Without the shared data these tests skip, and say so."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
from shared_folder import FOLDER


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder, or a loud skip."""
    if not (FOLDER / "hostile" / "manifest.jsonl").is_file():
        warnings.warn("shared data is absent: nothing of tests/data_shared ran; set ACCORDANT_SHARED_DATA", stacklevel=1)
        pytest.skip("SHARED DATA IS ABSENT: set ACCORDANT_SHARED_DATA to the folder that holds it")
    return FOLDER
