"""The steps that each output of a strided convolution reads."""

# N sequences of S steps and M outputs in all
from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


def conv_windows(lengths: npt.NDArray[np.int64], convs: Sequence[tuple[int, int]]) -> tuple[Tensor, ...]:
    r"""For each convolution (kernel k, stride s) of a stack, the inputs of its outputs.

    A sequence of L inputs gives :math:`\lceil L / s \rceil` outputs; the j-th reads the k inputs from
    :math:`s j - \lfloor (k - s) / 2 \rfloor` on, and zeros beyond the sequence's own ends. (0, s) reads s inputs.

    Shapes:
        - lengths :math:`(N)` of the sequences, which lie end to end; output: for each convolution :math:`(M, k)`
          rows of its input, or the row after the last one, S, where there is none
    """
    found = []
    sizes = lengths
    for size, stride in convs:
        kernel = size or stride
        counts = -(-sizes // stride)
        steps = np.concatenate([_steps(length, kernel, stride) for length in sizes.tolist()])
        start = np.repeat(np.cumsum(sizes) - sizes, counts)[:, None]
        found.append(torch.from_numpy(np.where(steps < 0, sizes.sum(), steps + start)))
        sizes = counts
    return tuple(found)


@lru_cache(maxsize=4096)
def _steps(length: int, kernel: int, stride: int) -> npt.NDArray[np.int64]:
    """Steps that each output reads of a sequence of ``length`` steps ``[M, k]``; -1 beyond its ends."""
    first = stride * np.arange(-(-length // stride)) - (kernel - stride) // 2
    steps = first[:, None] + np.arange(kernel)
    return np.where(steps < length, steps, -1).clip(-1)
