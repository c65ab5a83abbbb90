"""Randomness that derives from named parts, so that order, workers and resumption cannot change it."""

from __future__ import annotations

import hashlib

import numpy as np


def seed_for(*parts: int | str) -> int:
    """A 63-bit seed that is a pure function of ``parts``, such as (seed, purpose, epoch, utterance id)."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(*parts: int | str) -> np.random.Generator:
    """NumPy generator seeded by :func:`seed_for`."""
    return np.random.Generator(np.random.PCG64(seed_for(*parts)))
