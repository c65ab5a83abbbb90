"""A batch of graphs as a flat dictionary of tensors, such as an exported program takes, and back."""

# N utterances, G graphs of up to T nodes
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from gmsa.graph.batch import GraphBatch
from gmsa.graph.schema import UTTERANCE
from gmsa.graph.spec import GraphSpec
from gmsa.nn.edges import DenseEdges, Edges, SparseEdges

GRID = "grid"
"""Name of what tells the shape of the padded graphs, where no adjacency does."""
OUTSIDE = "dialogues."
"""How the names of the graphs of dialogues begin in scope ``hierarchical``."""
_BY_MODALITY = ("features", "lengths")
_BY_STREAM = ("edges", "readout_edges")
_FIELDS = tuple(field.name for field in fields(GraphBatch))  # once: what traces a program cannot ask for them
_FIXED = {"features": 1, "conv_windows": 1, "readout_rows": 1, "index": 0}
_LEFT_OUT = ("labels",)
"""What no prediction reads."""


def to_tensors(batch: GraphBatch) -> dict[str, Tensor]:
    """The tensors of a batch by the names of its fields: ``features.text``, ``edges.intra.adjacency``.

    Beside them is ``grid`` ``[G, T]``, which of the places of padded graphs hold a node.
    """
    found: dict[str, Tensor] = {GRID: _grid(batch)}
    for field in _FIELDS:
        value = getattr(batch, field)
        if isinstance(value, Tensor) and field not in _LEFT_OUT:
            found[field] = value
        elif field in _BY_MODALITY:
            found |= {f"{field}.{m}": x for m, x in value.items()}
        elif field == "conv_windows":
            found |= {f"{field}.{m}.{i}": rows for m, all_rows in value.items() for i, rows in enumerate(all_rows)}
        elif field in _BY_STREAM:
            for stream, edges in value.items():
                found |= {f"{field}.{stream}.{name}": x for name, x in _columns(edges).items()}
    if batch.utterance_edges is not None:
        found |= {f"utterance_edges.{name}": x for name, x in _columns(batch.utterance_edges).items()}
    if batch.dialogues is not None:
        found |= {f"{OUTSIDE}{name}": x for name, x in to_tensors(batch.dialogues).items()}
    return found


def from_tensors(tensors: Mapping[str, Tensor], spec: GraphSpec) -> GraphBatch:
    """The batch of :func:`to_tensors`, without ids, labels and the ``sizes`` of dialogues.

    What is not among the tensors is empty: a model that does not read it needs none.
    """
    outside = spec.graph.scope == "hierarchical"
    inside = {name: x for name, x in tensors.items() if not name.startswith(OUTSIDE)}
    batch = _batch(inside, spec.inside if outside else spec)
    if not outside:
        return batch
    rest = {name.removeprefix(OUTSIDE): x for name, x in tensors.items() if name.startswith(OUTSIDE)}
    values = {field: getattr(batch, field) for field in _FIELDS}
    return GraphBatch(**values | {"dialogues": _batch(rest, spec.outside)})


def fixed_axis(name: str) -> int | None:
    """The axis of a tensor by that name whose size all batches of a model share; None where there is none."""
    name = name.removeprefix(OUTSIDE)
    return _FIXED.get(name.partition(".")[0], _FIXED.get(name.rpartition(".")[2]))


def _batch(tensors: Mapping[str, Tensor], spec: GraphSpec) -> GraphBatch:
    nothing = torch.zeros(0, dtype=torch.long)
    values: dict[str, Any] = {field: tensors.get(field, nothing) for field in _FIELDS}
    values |= {name: _below(tensors, name) for name in _BY_MODALITY}
    windows: dict[str, list[Tensor]] = {}
    for name, rows in _below(tensors, "conv_windows").items():  # convolutions come in their order
        windows.setdefault(name.rpartition(".")[0], []).append(rows)
    values["conv_windows"] = {m: tuple(rows) for m, rows in windows.items()}
    for name, targets in (("edges", "padded_index"), ("readout_edges", "readout_padded_index")):
        columns: dict[str, dict[str, Tensor]] = {}
        for key, x in _below(tensors, name).items():
            stream, _, column = key.rpartition(".")
            columns.setdefault(stream, {})[column] = x
        nodes = values["padded_index"], values[targets]
        values[name] = {s: _edges(columns.get(s, {}), *nodes) for s in spec.streams if s != UTTERANCE}
    between: dict[str, Any] = _below(tensors, "utterance_edges")
    values["utterance_edges"] = SparseEdges(**between) if between else None
    values |= {"speakers": tensors.get("speakers"), "dialogues": None, "schema": spec.schema, "ids": (), "sizes": ()}
    padded = [edges.adjacency for edges in values["edges"].values() if isinstance(edges, DenseEdges)]
    graphs, size = (padded[0] if padded else tensors.get(GRID, nothing[:, None])).shape[:2]
    return GraphBatch(**values | {"shape": (graphs, size, len(spec.readouts))})


def _below(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key.removeprefix(f"{name}."): x for key, x in tensors.items() if key.startswith(f"{name}.")}


def _columns(edges: Edges) -> dict[str, Tensor]:
    if isinstance(edges, DenseEdges):
        return {"adjacency": edges.adjacency}
    columns = {field.name: getattr(edges, field.name) for field in fields(edges) if field.init}
    return {name: x for name, x in columns.items() if isinstance(x, Tensor)}  # counts change with a batch


def _edges(columns: Mapping[str, Tensor], sources: Tensor, targets: Tensor) -> Edges:
    if "adjacency" in columns:
        return DenseEdges(columns["adjacency"], sources, targets)
    found: dict[str, Any] = {"index": sources.new_zeros(2, 0), **columns}
    return SparseEdges(**found)


def _grid(batch: GraphBatch) -> Tensor:
    graphs, size, _ = batch.shape
    return torch.zeros(graphs * size, dtype=torch.bool).index_fill(0, batch.padded_index, True).view(graphs, size)
