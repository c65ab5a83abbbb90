"""Which steps each output of a strided convolution reads."""

# N sequences of S steps and M outputs in all
from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def taps(lengths: Tensor, convs: Sequence[tuple[int, int]]) -> tuple[Tensor, ...]:
    r"""For each convolution (kernel k, stride s) of a stack, the inputs of its outputs.

    A sequence of L inputs gives :math:`\lceil L / s \rceil` outputs; the j-th reads the k inputs from
    :math:`s j - \lfloor (k - s) / 2 \rfloor` on, and zeros beyond the sequence's own ends.

    Shapes:
        - lengths :math:`(N)` of the sequences, which lie end to end; output: for each convolution :math:`(M, k)`
          rows of its input, or the row after the last one, S, where there is none
    """
    found = []
    # NumPy: on arrays this small, a step of it costs a fifth of what one of torch does.
    sizes = lengths.numpy()
    for kernel, stride in convs:
        counts = -(-sizes // stride)
        first, outputs = np.cumsum(counts) - counts, np.arange(counts.sum())
        step = (stride * (outputs - np.repeat(first, counts)) - (kernel - stride) // 2)[:, None] + np.arange(kernel)
        inside = (step >= 0) & (step < np.repeat(sizes, counts)[:, None])
        start = np.repeat(np.cumsum(sizes) - sizes, counts)[:, None]
        found.append(torch.from_numpy(np.where(inside, start + step, sizes.sum())))
        sizes = counts
    return tuple(found)
