"""Reads the nodes of PyG's data, and says what a model's graphs lack or have not."""

# N utterances, M modalities
from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Batch, HeteroData

from gmsa.errors import DataError, cut, listed
from gmsa.graph.hetero.graphs import BETWEEN, outer_type
from gmsa.graph.layout import Numbers
from gmsa.graph.nodes import token_count
from gmsa.graph.schema import READOUTS, UTTERANCE
from gmsa.graph.spec import GraphSpec


class HeteroNodes:
    """The nodes that PyG's data holds, read and checked for a spec."""

    def __init__(self, data: HeteroData, spec: GraphSpec) -> None:
        self.data, self.scope = data, spec.graph.scope
        self.of_dialogues = spec.graph.has_dialogues
        self._check_types(spec)
        self.count = data.num_graphs if isinstance(data, Batch) else 1
        self.members = np.ones(self.count, dtype=np.int64)
        if self.of_dialogues:
            self.members = np.bincount(self.graph_of(UTTERANCE), minlength=self.count)
        self.first = np.cumsum(self.members) - self.members
        """Index of the first utterance of each graph."""
        self.total = int(self.members.sum())
        if not self.total or not self.members.all():
            raise DataError("a graph has no utterance (no nodes of type 'utterance'); leave it out")
        self.ids = self._ids()
        self.modalities = [m for m in spec.schema.node_types if m in data.node_types and "x" in data[m]]
        self.labels = self._labels()
        for modality in spec.schema.modalities:
            if modality in data.node_types and modality not in self.modalities and data[modality].num_nodes:
                raise DataError(f"nodes '{modality}' have no features 'x'; build the graph with gmsa.graph.as_hetero")
        if not self.modalities:
            raise DataError(f"no nodes have features 'x' (expected some of {listed(spec.schema.modalities)})")
        self.device = data[self.modalities[0]].x.device
        self.features: dict[str, Tensor] = {}
        self.lengths = self._lengths(spec)

    def _check_types(self, spec: GraphSpec) -> None:
        inner = spec.schema if not self.of_dialogues else spec.inside.schema
        expected = set(inner.node_types) - (set(READOUTS) if self.scope == "dialogue" else set())
        relations = set() if self.scope == "dialogue" else set(inner.relations)
        if self.of_dialogues:
            if UTTERANCE not in self.data.node_types:
                raise DataError(
                    f"the graph has no nodes '{UTTERANCE}', which 'graph.scope: {self.scope}' needs; "
                    "build it with gmsa.graph.as_hetero"
                )
            outer = spec.schema if self.scope == "dialogue" else spec.outside.schema
            expected |= {UTTERANCE, *map(outer_type, outer.node_types)}
            relations |= {BETWEEN, *((outer_type(s), stream, outer_type(t)) for s, stream, t in outer.relations)}
        if more := [t for t in self.data.node_types if t not in expected]:
            raise DataError(
                f"the graph has nodes '{cut(more[0])}', which the model's graphs have not "
                f"(they have {listed(sorted(expected))}); leave them out"
            )
        if unknown := ["-".join(r) for r in self.data.edge_types if r not in relations]:
            raise DataError(
                f"the graph has edges '{cut(unknown[0])}', which the model's graphs have not; leave them out"
            )

    def graph_of(self, node_type: str) -> Numbers:
        """The graph of each node of a type ``[N_type]``."""
        store = self.data[node_type]
        if "batch" in store:
            return numbers_of(store.batch)
        return np.zeros(store.num_nodes, dtype=np.int64)

    def _ids(self) -> tuple[str, ...]:
        key = "ids" if self.of_dialogues else "id"
        found: Any = self.data[key] if key in self.data else []  # noqa: SIM401 (HeteroData has no get)
        parts = [found] if isinstance(found, str) else found
        flat = [one for part in parts for one in ([part] if isinstance(part, str) else part)]
        return tuple(flat) if len(flat) == self.total else tuple(map(str, range(self.total)))

    def _labels(self) -> Tensor:
        key = next((key for key in ("y", "label") if key in self.data), None)
        if key is None:
            return torch.full((self.total,), float("nan"))
        labels: Tensor = self.data[key]
        if labels.shape != (self.total,):
            raise DataError(f"'{key}' must hold a label per utterance, {self.total} in all (got {list(labels.shape)})")
        return labels

    def _lengths(self, spec: GraphSpec) -> dict[str, Numbers]:
        """The steps of each utterance, per modality ``[N]``; its features are in :attr:`features`."""
        columns = [t for t in self.data.node_types if t in spec.schema.modalities]
        steps = numbers_of(self.data.steps) if "steps" in self.data else None
        if steps is not None and steps.shape != (self.total, len(columns)):
            raise DataError(
                f"'steps' must hold the lengths of {len(columns)} modalities ({listed(columns)}) of {self.total} "
                f"utterances (got {list(steps.shape)})"
            )
        found = {}
        for modality in self.modalities:
            x, stride = self.data[modality].x, spec.strides[modality]
            _, order, count = self.sorted(modality, self.utterance_of(modality), self.total)
            if steps is None and stride > 1:
                raise DataError(
                    f"the graph has no 'steps', the lengths before nodes of {modality} took {stride} each; "
                    "build it with gmsa.graph.as_hetero"
                )
            length = count if steps is None else steps[:, columns.index(modality)]
            if len(wrong := np.flatnonzero(token_count(length, stride) != count)):
                i = int(wrong[0])
                raise DataError(
                    f"{modality} of '{cut(self.ids[i])}' has {count[i]} nodes, not the "
                    f"{token_count(length[i], stride)} of its {length[i]} steps; a model needs all nodes of a modality"
                )
            if len(wrong := np.flatnonzero(count > spec.positions)) and self.scope != "dialogue":
                i = int(wrong[0])
                raise DataError(
                    f"{modality} of '{cut(self.ids[i])}' has {count[i]} tokens, 'model.positions' allows "
                    f"{spec.positions}; raise it, or stride more in 'model.encoders.{modality}'"
                )
            if x.dim() != 2 or x.shape[1] % stride:
                raise DataError(
                    f"'x' of {modality} must be [nodes, {stride} x features] (got {list(x.shape)}): a node has "
                    f"{stride} steps side by side"
                )
            found[modality], self.features[modality] = length, _unfolded(x, order, count, length, stride)
        return found

    def utterance_of(self, node_type: str) -> Numbers:
        """The utterance of each token, or readout node of tokens' graphs ``[N_type]``."""
        graph = self.graph_of(node_type)
        if not self.of_dialogues:
            return graph
        utterance = self.attribute(node_type, "utterance")
        if (wrong := (utterance < 0) | (utterance >= self.members[graph])).any():
            raise DataError(
                f"a node '{node_type}' is of utterance {utterance[wrong][0]}, its dialogue has "
                f"{self.members[graph][wrong][0]}; number them from 0 on"
            )
        return self.first[graph] + utterance

    def attribute(self, node_type: str, name: str) -> Numbers:
        store = self.data[node_type]
        if name not in store:
            raise DataError(f"nodes '{node_type}' have no '{name}'; build the graph with gmsa.graph.as_hetero")
        return numbers_of(store[name])

    def sorted(self, node_type: str, unit: Numbers, units: int) -> tuple[Numbers, Numbers, Numbers]:
        """Unit and place of each node ``[2, N_type]``, the nodes in order ``[N_type]``, how many each unit has."""
        place = self._places(node_type, unit, units)
        order, count = np.lexsort((place, unit)), np.bincount(unit, minlength=units)
        expected = np.arange(len(unit)) - np.repeat(np.cumsum(count) - count, count)
        if len(wrong := np.flatnonzero(place[order] != expected)):
            raise DataError(
                f"nodes '{node_type}' must be numbered 0, 1, 2 ... in 'pos' (got {place[order][wrong[0]]} instead of "
                f"{expected[wrong[0]]}): a node was dropped or is there twice, and a model needs all of them"
            )
        return np.stack([unit, place]), order, count

    def _places(self, node_type: str, unit: Numbers, units: int) -> Numbers:
        if "pos" in self.data[node_type]:
            return numbers_of(self.data[node_type].pos)
        count = np.bincount(unit, minlength=units)
        place = np.empty_like(unit)
        place[np.argsort(unit, kind="stable")] = np.arange(len(unit)) - np.repeat(np.cumsum(count) - count, count)
        return place

    def check_count(self, node_type: str, count: Numbers, wanted: Any) -> None:
        if wanted is None or (count == wanted).all():
            return
        i = int(np.flatnonzero(count != wanted)[0])
        expected = np.broadcast_to(wanted, count.shape)[i]
        raise DataError(
            f"graph {i} has {count[i]} nodes '{node_type}', the model's graphs have {expected}; "
            "build it with gmsa.graph.as_hetero and the model's spec"
        )

    def number_of_utterance(self) -> Numbers:
        """The number of each node of the type ``utterance`` among all utterances in their order ``[N]``."""
        return self.first[self.graph_of(UTTERANCE)] + self.attribute(UTTERANCE, "pos")


def numbers_of(values: Tensor) -> Numbers:
    """Whole numbers as NumPy has them."""
    return values.detach().cpu().numpy().astype(np.int64, copy=False)


def _unfolded(x: Tensor, order: Numbers, count: Numbers, length: Numbers, stride: int) -> Tensor:
    """The steps of all utterances end to end, from nodes of ``stride`` steps each."""
    if (order[1:] < order[:-1]).any():
        x = x.index_select(0, torch.from_numpy(order).to(x.device))
    if stride == 1:
        return x
    steps = x.reshape(len(x) * stride, x.shape[1] // stride)
    first = np.repeat((np.cumsum(count) - count) * stride - (np.cumsum(length) - length), length)
    return steps.index_select(0, torch.from_numpy(first + np.arange(len(first))).to(x.device))
