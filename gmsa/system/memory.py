"""The memory of the machine, and how the C library keeps what is freed."""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path

_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""Where Linux keeps the limit of a container."""
UNKNOWN = 2**60
_KEPT = {"MALLOC_MMAP_THRESHOLD_": (-3, 2**25), "MALLOC_TRIM_THRESHOLD_": (-1, 2**30)}
"""glibc's numbers of what these variables set, and bytes: the first at the most that it may be."""


def memory_of_machine() -> int:
    """Bytes of memory that the machine has, or that the container may use; very many where the system does not say."""
    found = [UNKNOWN]
    with suppress(AttributeError, ValueError, OSError):  # not on Windows
        found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for path in _LIMITS:
        with suppress(OSError, ValueError):  # there is none, or it says "max"
            found.append(int(path.read_text()))
    return min(size for size in found if size > 0)


@cache
def keep_freed_memory() -> bool:
    """Lets this process keep the memory that a training step frees for the next step.

    glibc gives large blocks back to the system at once and gets them anew, page by page, each cleared: up to a tenth
    of a step on a CPU. Blocks beyond 32 MiB are still given back. Other C libraries are left as they are, and so is
    glibc where the environment sets its limits. Results are the same bits.

    Returns:
        Whether the C library does so.
    """
    if not sys.platform.startswith("linux") or any(name in os.environ for name in _KEPT):
        return False
    tune = getattr(ctypes.CDLL(None), "mallopt", None)
    return tune is not None and all(tune(which, size) == 1 for which, size in _KEPT.values())
