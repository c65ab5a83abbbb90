"""Graphs in groups of similar sizes, so that padding one group to its largest graph pads little."""

# G graphs of up to T nodes, R of them receivers; V nodes and W receivers of all graphs
from __future__ import annotations

from collections.abc import Sequence
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
class Padding:
    """Rows of graphs, and the places that they have when graphs are padded, group by group, end to end."""

    index: Tensor
    """The place of each row ``[N]``."""
    rows: Tensor
    """The row of each place ``[P]``; where there is none, the first of that graph, or any where it has none at all."""
    empty: Tensor
    """Places where there is none, ascending."""
    is_same: bool
    """Whether the places are the rows, in their order."""

    def lay_out(self, x: Tensor) -> Tensor:
        """Rows of x ``[N, C]`` at their places ``[P, C]``, and the first row of a graph where it has none."""
        return x if self.is_same else x.index_select(0, self.rows)

    def lay_out_among_zeros(self, x: Tensor) -> Tensor:
        """Rows of x at their places, and zeros elsewhere."""
        found = self.lay_out(x)
        return found.index_fill_(0, self.empty, 0) if len(self.empty) else found

    def choose(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """The rows ``[N, C]`` of x ``[P, C]``, in which they lie at their places; written into ``out`` if given."""
        if self.is_same:
            return x if out is None else out.copy_(x)
        return torch.index_select(x, 0, self.index, out=out)


@dataclass(frozen=True, eq=False)
class SizeGroups:
    """All graphs of a batch in groups, whose padded graphs lie end to end."""

    groups: tuple[SizeGroup, ...]
    sources: Padding
    """Nodes among the padded nodes of all groups."""
    targets: Padding
    """Receivers among the padded receivers."""

    def with_receivers(self, receivers: npt.NDArray[np.int64]) -> SizeGroups:
        """The same groups, where so many nodes of each graph receive ``[G]``."""
        groups = [g._replace(receivers=max(1, int(receivers[g.graphs.numpy()].max()))) for g in self.groups]
        return SizeGroups(tuple(groups), self.sources, _pad(receivers, [(g.graphs, g.receivers) for g in groups]))


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
    number = np.searchsorted(cuts, sizes)
    groups = [
        SizeGroup(torch.from_numpy(np.flatnonzero(number == place)), size, fill_lanes(size))
        for place, size in enumerate(cuts.tolist())
    ]
    nodes = _pad(sizes, [(g.graphs, g.nodes) for g in groups])
    found = SizeGroups(tuple(groups), nodes, nodes)
    return found.with_receivers(sizes if receivers is None else receivers)


def _pad(counts: npt.NDArray[np.int64], groups: Sequence[tuple[Tensor, int]]) -> Padding:
    """Graphs of so many rows ``[G]``, padded.

    Args:
        groups: the graphs of each group, and to how many rows they are padded.
    """
    first, rows, real = np.cumsum(counts) - counts, [], []
    for graphs, most in groups:
        chosen, row = graphs.numpy()[:, None], np.arange(most)
        there = row < counts[chosen]
        rows.append((first[chosen] + row * there).ravel())
        real.append(there.ravel())
    row_of, there = (parts[0] if len(parts) == 1 else np.concatenate(parts) for parts in (rows, real))
    index, places = np.empty(first[-1] + counts[-1], dtype=np.int64), np.flatnonzero(there)
    index[row_of[places]] = places
    np.minimum(row_of, max(0, len(index) - 1), out=row_of)  # a graph without rows, behind all others
    empty, is_same = np.flatnonzero(~there), len(rows) == 1 and len(index) == len(row_of)
    return Padding(torch.from_numpy(index), torch.from_numpy(row_of), torch.from_numpy(empty), is_same)
