"""Counts of hostile input, which `benchmarks/hostile.py` gathers from the report of the tests."""

from __future__ import annotations

import json
from collections.abc import Callable

Recorder = Callable[[str, object], None]
"""pytest's fixture ``record_property``."""


def tell(record: Recorder, what: str, refused: int, right: int) -> None:
    """Records how many were refused with one line, and how many gave a right result; others fail the test."""
    counts = {"what": what, "tried": refused + right, "refused": refused, "right": right, "other": 0}
    record("counts", json.dumps(counts))
