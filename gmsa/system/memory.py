"""The memory of the machine."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""Where Linux keeps the limit of a container."""
UNKNOWN = 2**60


def memory_of_machine() -> int:
    """Bytes of memory that the machine has, or that the container may use; very many where the system does not say."""
    found = [UNKNOWN]
    with suppress(AttributeError, ValueError, OSError):  # not on Windows
        found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for path in _LIMITS:
        with suppress(OSError, ValueError):  # there is none, or it says "max"
            found.append(int(path.read_text()))
    return min(size for size in found if size > 0)
