"""Graphs in groups of similar sizes, so that padding one group to its largest graph pads little."""

# G graphs of up to T nodes, R of them receivers; V nodes and W receivers of all graphs
from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

CALL = 2**13
"""Pairs of nodes whose attention takes about as long as the calls for a further group."""

LANES = 16
"""Nodes whose scores a CPU takes at once; those left over it takes one by one, which is slower by far."""


class SizeGroup(NamedTuple):
    """Some graphs, padded to the largest of them."""

    graphs: Tensor
    """Their numbers among all graphs."""
    receivers: int
    """Receivers of the largest."""
    nodes: int
    """Nodes of the largest, or a few more (:func:`fill_lanes`)."""


@dataclass(frozen=True, eq=False)
class SizeGroups:
    """All graphs of a batch in groups, whose padded graphs lie end to end."""

    groups: tuple[SizeGroup, ...]
    source_index: Tensor
    """Index of every node among the padded nodes of all groups ``[V]``."""
    target_index: Tensor
    """Index of every receiver among the padded receivers ``[W]``."""


def fill_lanes(nodes: int) -> int:
    """To how many nodes to pad a graph of so many: up to full lanes, but where a few nodes alone are left over.

    >>> [fill_lanes(nodes) for nodes in (2, 11, 16, 18, 60)]
    [2, 16, 16, 18, 64]
    """
    return nodes if nodes % LANES < LANES // 3 else -(-nodes // LANES) * LANES


def cut_sizes(sizes: npt.NDArray[np.int64], call: int = CALL) -> list[int]:
    """The largest size of each group, ascending, into which to part graphs of these sizes ``[G]``.

    It has the least cost: the squares of the sizes to which graphs are padded, and ``call`` for each group.

    >>> cut_sizes(np.array([20] * 16 + [100] * 16))
    [20, 100]
    >>> cut_sizes(np.array([20, 21, 25]))
    [25]
    """
    largest = int(sizes.max(initial=1))
    if len(sizes) * largest**2 - int((sizes**2).sum()) <= call:
        return [largest]
    known, counts = np.unique(sizes, return_counts=True)
    before = np.concatenate([[0], np.cumsum(counts)])
    best, begins = np.zeros(len(known) + 1), [0]
    for end, size in enumerate(known, start=1):
        costs = best[:end] + (before[end] - before[:end]) * size**2
        begins.append(int(costs.argmin()))
        best[end] = costs[begins[-1]] + call
    ends, end = [], len(known)
    while end:
        ends.append(int(known[end - 1]))
        end = begins[end]
    return ends[::-1]


def padded_pairs(sizes: npt.NDArray[np.int64]) -> int:
    """Pairs of nodes of the graphs of these sizes ``[G]`` when each group of :func:`cut_sizes` is padded."""
    cuts = np.array(cut_sizes(sizes))
    return int((cuts[np.searchsorted(cuts, sizes)] ** 2).sum())


def group_by_size(
    sizes: npt.NDArray[np.int64], receivers: npt.NDArray[np.int64] | None = None, call: int = CALL
) -> SizeGroups:
    """Graphs of these sizes and numbers of ``receivers`` ``[G]`` in groups, whose lanes are filled.

    Args:
        receivers: by default all nodes.
        call: as :func:`cut_sizes` takes it.
    """
    cuts = np.array(cut_sizes(sizes, call))
    receivers = sizes if receivers is None else receivers
    number = np.searchsorted(cuts, sizes)
    groups, begins = [], np.zeros((2, len(sizes)), dtype=np.int64)
    end = np.zeros(2, dtype=np.int64)
    for place in range(len(cuts)):
        graphs = np.flatnonzero(number == place)
        most = np.array([max(1, int(receivers[graphs].max())), fill_lanes(int(cuts[place]))])
        begins[:, graphs] = end[:, None] + most[:, None] * np.arange(len(graphs))
        end += most * len(graphs)
        groups.append(SizeGroup(torch.from_numpy(graphs), *most.tolist()))
    of_targets, of_sources = (_places(begin, count) for begin, count in zip(begins, (receivers, sizes), strict=True))
    return SizeGroups(tuple(groups), of_sources, of_targets)


def _places(begin: npt.NDArray[np.int64], count: npt.NDArray[np.int64]) -> Tensor:
    """The ``count`` places of each graph from its ``begin`` on, end to end."""
    return torch.from_numpy(np.arange(count.sum()) + np.repeat(begin - (np.cumsum(count) - count), count))
