"""The steps that each output of a strided convolution reads."""

# N sequences of S steps and M outputs in all
from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


def conv_windows(
    lengths: npt.NDArray[np.int64], convs: Sequence[tuple[int, int]], steps: int = 0
) -> tuple[Tensor, ...]:
    r"""For each convolution (kernel k, stride s) of a stack, the inputs of its outputs.

    A sequence of L inputs gives :math:`\lceil L / s \rceil` outputs; the j-th reads the k inputs from
    :math:`s j - \lfloor (k - s) / 2 \rfloor` on, and zeros beyond the sequence's own ends. (0, s) reads s inputs.

    Args:
        steps: S, where it is more than the sequences have; a multiple of all strides together. Each convolution then
            has S over its stride outputs, the last of which read nothing.

    Shapes:
        - lengths :math:`(N)` of the sequences, which lie end to end; output: for each convolution :math:`(M, k)`
          rows of its input, or the row after the last one, S, where there is none
    """
    found = []
    sizes, inputs = lengths, int(lengths.sum())
    longer = steps > inputs
    inputs = max(steps, inputs)
    for size, stride in convs:
        kernel = size or stride
        counts = -(-sizes // stride)
        read = np.concatenate([_steps(length, kernel, stride) for length in sizes.tolist()])
        start = np.repeat(np.cumsum(sizes) - sizes, counts)[:, None]
        rows = np.where(read < 0, inputs, read + start)
        if longer:
            rows = np.pad(rows, ((0, inputs // stride - len(rows)), (0, 0)), constant_values=inputs)
        found.append(torch.from_numpy(rows))
        sizes, inputs = counts, len(rows)
    return tuple(found)


@lru_cache(maxsize=4096)
def _steps(length: int, kernel: int, stride: int) -> npt.NDArray[np.int64]:
    """Steps that each output reads of a sequence of ``length`` steps ``[M, k]``; -1 beyond its ends."""
    first = stride * np.arange(-(-length // stride)) - (kernel - stride) // 2
    steps = first[:, None] + np.arange(kernel)
    return np.where(steps < length, steps, -1).clip(-1)
