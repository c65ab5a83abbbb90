"""The nodes of a batch, numbered."""

# N utterances, G graphs of up to T nodes, R of them readout nodes; V nodes
from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from gmsa.graph.schema import READOUTS

Numbers = npt.NDArray[np.int64]


class Layout(NamedTuple):
    """The nodes of a batch, numbered; the fields as :class:`~gmsa.graph.GraphBatch` has them, ``size`` is T."""

    node_type: Numbers
    padded_index: Numbers
    position: Numbers
    readout_index: Numbers
    readout_padded_index: Numbers
    readout_rows: Numbers
    size: int


def lay_out(counts: Numbers, members: Numbers, readouts: int, size: int = 0) -> Layout:
    """Numbers the nodes of graphs with these ``counts`` of each type ``[G, types]``; each of the ``members`` utterances
    ``[G]`` has as many readout nodes.

    Args:
        size: T, at least.
    """
    types = counts.shape[1]
    runs = counts.reshape(-1)
    run = np.repeat(np.arange(len(runs)), runs)
    number = np.arange(len(run))
    node_type, graph = run % types, run // types
    per_graph = counts.sum(1)
    size, most = max(1, size, int(per_graph.max())), int(members.max()) * readouts
    within = number - np.repeat(np.cumsum(per_graph) - per_graph, per_graph)
    readout_index = np.flatnonzero(node_type < len(READOUTS))
    # A graph's readout nodes are val of all its utterances, then cls of all.
    before = np.repeat(np.cumsum(members) - members, members)
    first = before * (readouts - 1) + np.arange(len(before))
    rows = first[:, None] + np.repeat(members, members)[:, None] * np.arange(readouts)
    return Layout(
        node_type=node_type,
        padded_index=graph * size + within,
        position=number - np.repeat(np.cumsum(runs) - runs, runs),
        readout_index=readout_index,
        readout_padded_index=graph[readout_index] * most + within[readout_index],
        readout_rows=rows,
        size=size,
    )


def embedding_rows(node_type: Numbers, rows: Mapping[int, int]) -> Numbers:
    """Row of each node in a table of one row for readout nodes and then ``rows`` of each modality, by its number."""
    row = np.zeros_like(node_type)
    first = 1
    for number, count in rows.items():
        row[node_type == number] = np.arange(first, first + count)
        first += count
    return row
