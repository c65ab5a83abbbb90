"""Counts of hostile input, which `benchmarks/hostile.py` gathers from the report of the tests."""

from __future__ import annotations

import json
from collections.abc import Callable

Recorder = Callable[[str, object], None]
"""pytest's fixture ``record_property``."""


def tell(record: Recorder, what: str, refused: int, right: int, other: int = 0) -> None:
    """Records how many were refused with one line, how many gave a right result, and how many did neither."""
    counts = {"what": what, "tried": refused + right + other, "refused": refused, "right": right, "other": other}
    record("counts", json.dumps(counts))
