"""Sizes of batches rounded up, so that many batches share one shape."""

# N utterances, M modalities, Q readout nodes of each utterance, graphs of up to T nodes
from __future__ import annotations

import numpy as np

from gmsa.graph.layout import Numbers

LEAST_TOKENS = 64
"""Tokens of a modality in a batch, at least."""
LEAST_NODES = 16
"""Nodes of the largest graph, at least; what it is rounded up to is a multiple of 8, as GPUs like it."""


def rounded(count: int, least: int, parts: int = 1) -> int:
    """A count rounded up to ``least`` times a power of two, or between two of these to one of as many equal ``parts``.

    >>> [rounded(n, least=16) for n in (3, 16, 17, 33)]
    [16, 16, 32, 64]
    >>> [rounded(n, least=16, parts=2) for n in (3, 17, 25, 33, 49)]
    [16, 24, 32, 48, 64]
    """
    if count <= least:
        return least
    below = least << ((count - 1) // least).bit_length() - 1
    step = below // parts
    return -(-count // step) * step


def fillers(tokens: Numbers, readouts: int, positions: int) -> tuple[int, Numbers]:
    """The size to which graphs are padded, and the tokens of graphs that are added to those of a batch.

    Every modality then has a power of two of tokens, and the batch's other sizes follow from these, from the size and
    from N: batches of a corpus have few shapes. Added graphs have readout nodes too; they are as many as the worst
    batch of the shape needs, and share what is missing evenly.

    Args:
        tokens: of each modality and utterance ``[M, N]``.
        readouts: Q.
        positions: tokens of a modality in a graph, at most.

    Returns:
        T, and the tokens of each modality and added graph ``[M, F]``.

    >>> size, added = fillers(np.array([[7, 9, 5], [1, 0, 1]]), readouts=2, positions=512)
    >>> size, added.sum(axis=1)
    (16, array([43, 62]))
    """
    totals = tokens.sum(axis=1)
    wanted = np.array([rounded(total, LEAST_TOKENS) for total in totals.tolist()])
    size = rounded(int(tokens.sum(axis=0).max()) + readouts, LEAST_NODES, parts=2)
    most = np.where(wanted == LEAST_TOKENS, wanted, wanted // 2)  # that a batch of this shape can lack
    room = size - readouts - len(tokens)  # what is shared evenly may be one more of each modality
    count = max(-(-int(most.sum()) // room), *(-(-most // positions)).tolist())
    each, more = np.divmod(wanted - totals, count)
    return size, each[:, None] + (np.arange(count) < more[:, None])
