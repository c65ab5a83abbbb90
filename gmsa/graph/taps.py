"""Which steps each output of a strided convolution reads."""

# N sequences of S steps and M outputs in all
from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


def taps(lengths: npt.NDArray[np.int64], convs: Sequence[tuple[int, int]]) -> tuple[Tensor, ...]:
    r"""For each convolution (kernel k, stride s) of a stack, the inputs of its outputs.

    A sequence of L inputs gives :math:`\lceil L / s \rceil` outputs; the j-th reads the k inputs from
    :math:`s j - \lfloor (k - s) / 2 \rfloor` on, and zeros beyond the sequence's own ends.

    Shapes:
        - lengths :math:`(N)` of the sequences, which lie end to end; output: for each convolution :math:`(M, k)`
          rows of its input, or the row after the last one, S, where there is none
    """
    found = []
    sizes = lengths
    for kernel, stride in convs:
        counts = -(-sizes // stride)
        first, outputs = np.cumsum(counts) - counts, np.arange(counts.sum())
        sequence = np.repeat(np.arange(len(sizes)), counts)
        step = (stride * (outputs - first[sequence]) - (kernel - stride) // 2)[:, None] + np.arange(kernel)
        inside = (step >= 0) & (step < sizes[sequence, None])
        start = (np.cumsum(sizes) - sizes)[sequence, None]
        found.append(torch.from_numpy(np.where(inside, start + step, sizes.sum())))
        sizes = counts
    return tuple(found)
