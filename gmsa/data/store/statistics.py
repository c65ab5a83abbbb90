"""Means and standard deviations of the features that a store is written with."""

# L steps, D features
from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from gmsa.data.normalize import statistics
from gmsa.data.store.files import HEADER
from gmsa.data.store.growing import GrowingRows

_ROWS, _BYTES = 4096, 4 << 20
"""Most rows, and about most bytes, that are read together."""


def statistics_of(rows: GrowingRows, start: int, stop: int, begins: Sequence[int], dim: int) -> np.ndarray:
    """Mean and standard deviation of a modality over the steps of some rows, float64 ``[2, D]``, to the bit as
    :meth:`gmsa.data.Normalizer.fit` finds them.

    Args:
        rows: what is written, with all files finished.
        start, stop: the rows.
        begins: the row at which each file begins.
        dim: D.
    """
    offsets = np.fromfile(rows.offsets.path, rows.offsets.dtype, offset=HEADER)
    ends = [*begins[1:], len(offsets) - 1]

    def pieces() -> Iterator[Sequence[Tensor]]:
        for file, begin, end in zip(rows.files, begins, ends, strict=True):
            size = dim * np.dtype(file.dtype).itemsize
            bounds = _bounds(offsets, max(start, begin), min(stop, end), size)
            with open(file.path, "rb") as opened:
                for first, last in pairwise(bounds):
                    opened.seek(HEADER + size * int(offsets[first] - offsets[begin]))
                    steps = int(offsets[last] - offsets[first])
                    values = np.frombuffer(opened.read(size * steps), file.dtype).reshape(steps, dim)
                    lengths = np.diff(offsets[first : last + 1])
                    yield torch.from_numpy(values.astype(np.float32)).split(lengths[lengths > 0].tolist())

    return torch.stack(statistics(pieces, dim)).numpy()


def _bounds(offsets: np.ndarray, start: int, stop: int, size: int) -> list[int]:
    """Rows from ``start`` to ``stop`` at which pieces begin and end; none if there are no rows."""
    found = [start]
    while found[-1] < stop:
        fitting = int(np.searchsorted(offsets, offsets[found[-1]] + _BYTES // size, "right")) - 1
        found.append(min(stop, max(found[-1] + 1, min(fitting, found[-1] + _ROWS))))
    return found
