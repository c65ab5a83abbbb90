"""How the C library keeps memory for numbers."""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache

_LIMITS = {"MALLOC_MMAP_THRESHOLD_": (-3, 2**25), "MALLOC_TRIM_THRESHOLD_": (-1, 2**30)}
"""glibc's numbers of what these variables set, and bytes: the first at the most that it may be."""


@cache
def keep_freed_memory() -> bool:
    """Lets this process keep the memory that a training step frees for the next step.

    glibc gives large blocks back to the system at once and gets them anew, page by page, each cleared: up to a tenth
    of a step on a CPU. Blocks beyond 32 MiB are still given back. Other C libraries are left as they are, and so is
    glibc where the environment sets its limits. Results are the same bits.

    Returns:
        Whether the C library does so.
    """
    if not sys.platform.startswith("linux") or any(name in os.environ for name in _LIMITS):
        return False
    tune = getattr(ctypes.CDLL(None), "mallopt", None)
    return tune is not None and all(tune(which, size) == 1 for which, size in _LIMITS.values())
