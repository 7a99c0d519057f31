"""The C library's allocator, told to keep freed blocks.

By default glibc maps every block above a threshold anew and gives it back when freed, so each training step on a CPU
pays for fresh pages. Both thresholds must be set: one alone switches the other's adaptation off, and is slower than none.
"""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def keep_freed_blocks() -> bool:
    """Set both thresholds, where the C library is glibc. True if it was done."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, 1 << 30) and mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1))
