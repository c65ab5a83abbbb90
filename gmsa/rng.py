"""Random numbers seeded by named parts, so that order, workers and resuming cannot change them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor


def seed_for(*parts: int | str) -> int:
    """Returns a 63-bit seed that is a pure function of ``parts``, such as (seed, purpose, epoch, utterance id)."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def seeds_for(*parts: int | str, each: Iterable[str]) -> list[int]:
    """Returns ``seed_for(*parts, name)`` for each name in ``each``, hashing ``parts`` only once."""
    prefix = hashlib.sha256("".join(f"{part}\x1f" for part in parts).encode())
    found = []
    for name in each:
        digest = prefix.copy()
        digest.update(name.encode())
        found.append(int.from_bytes(digest.digest()[:8], "big") >> 1)
    return found


def generator(*parts: int | str) -> np.random.Generator:
    """Returns a NumPy generator seeded by :func:`seed_for`."""
    return np.random.Generator(np.random.PCG64(seed_for(*parts)))


def hashed_uniform(seed: Tensor, *numbers: Tensor) -> Tensor:
    """Returns uniform numbers in [0, 1), each a pure function of its seed and its numbers (counters).

    SplitMix64 (Steele et al., OOPSLA 2014), one round per counter. Use it for draws that must not depend on how many
    others are drawn.

    Args:
        seed: int64 seeds.
        numbers: int64 counters, such as an epoch or a step; they broadcast with ``seed``.

    Returns:
        float64, of the broadcast shape.
    """
    state = seed
    for number in numbers:
        state = _mix(state + (number + 1) * -0x61C8864680B583EB)
    return (_shift(state, 11)).double() / 2**53


def _mix(x: Tensor) -> Tensor:
    x = (x ^ _shift(x, 30)) * -0x40A7B892E31B1A47
    x = (x ^ _shift(x, 27)) * -0x6B2FB644ECCEEE15
    return x ^ _shift(x, 31)


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical right shift of int64; torch's own shift is arithmetic and copies the sign bit."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)
