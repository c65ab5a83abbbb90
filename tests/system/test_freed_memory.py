"""Memory that a step frees."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

CODE = """
import resource
import numpy
from gmsa.system.memory import keep_freed_memory
print(keep_freed_memory())
def step():  # five blocks of 8 MiB, which glibc gives back together
    return [numpy.ones(2**20) for _ in range(5)]
step(); step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")


def faults(**environment: str) -> tuple[str, int]:
    """Whether freed memory is kept, and how many pages ten steps get from the system."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    done = subprocess.run(
        [sys.executable, "-c", CODE], env=kept | environment, capture_output=True, text=True, check=True
    )
    said, count = done.stdout.split()
    return said, int(count)


@glibc
def test_a_step_gets_no_new_pages() -> None:
    kept, count = faults()
    assert kept == "True"
    assert count < 1000  # of the 100,000 that ten steps write


@glibc
def test_the_environment_has_the_last_word() -> None:
    kept, count = faults(MALLOC_TRIM_THRESHOLD_=str(2**20), MALLOC_MMAP_THRESHOLD_=str(2**20))
    assert kept == "False"
    assert count > 10_000
