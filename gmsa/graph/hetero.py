"""Graphs as PyG has them: utterances as the HeteroData that a model takes, and from it to the model's batch."""

# N utterances, U of a dialogue, G dialogues; V nodes and E edges of all graphs
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch_geometric.data import Batch, HeteroData

from gmsa.data.utterance import Utterance
from gmsa.errors import DataError, cut, listed
from gmsa.graph.batch import GraphBatch, Layout, assemble, check_positions, lay_out
from gmsa.graph.build import build_dialogue_graph, build_graph, node_features, speakers_of, token_count
from gmsa.graph.connect import (
    Connected,
    Graphs,
    Numbers,
    connect,
    edges_between,
    numbered,
    numbered_in_dialogues,
)
from gmsa.graph.context import edge_kinds
from gmsa.graph.relations import stream_relations
from gmsa.graph.schema import DIALOGUE, READOUTS, UTTERANCE, Relation, is_among_tokens
from gmsa.graph.spec import GraphSpec
from gmsa.nn.edges import SparseEdges

OF_UTTERANCE = f"{UTTERANCE}."
"""Prefix of the types of nodes that stand for a whole utterance, such as ``utterance.text``."""
BETWEEN = (UTTERANCE, "context", UTTERANCE)
"""Edges between the utterances of a dialogue as such, and of each to itself."""


def as_hetero(utterances: Utterance | Sequence[Utterance], spec: GraphSpec) -> HeteroData:
    """The graph that a model takes, as PyG has it: of one utterance, or of a dialogue in scopes of dialogues.

    Of an utterance it is what :func:`build_graph` gives. Of a dialogue it has the tokens of all its utterances, their
    edges in scope ``hierarchical``, and the nodes and edges that :func:`build_dialogue_graph` gives, with the prefix
    ``utterance.`` before their types, as in ``utterance.text``, and without features, which tokens have.

    Args:
        utterances: one; of a dialogue, all of its utterances.
        spec: how the graphs look.

    Shapes:
        - as those of :func:`build_graph`, with ``y`` instead of ``label``; of a dialogue, tokens and readout nodes also
          have ``utterance`` :math:`(N_m)`, the index of theirs; ``y`` :math:`(U)`, ``steps`` :math:`(U, M)`, and nodes
          ``utterance`` have ``speaker`` :math:`(U)`, and edges ``("utterance", "context", "utterance")`` with ``kind``
          :math:`(E)`, by distance and speakers

    Raises:
        DataError: the utterances are not of one graph; one has more nodes than ``model.positions``.
    """
    members = [utterances] if isinstance(utterances, Utterance) else list(utterances)
    found = len({u.video if spec.graph.has_dialogues else u.id for u in members})
    if found != 1:
        kind = "a dialogue" if spec.graph.has_dialogues else "one utterance"
        raise DataError(
            f"expected the utterances of one graph, that of {kind} (got {found}: "
            f"{listed(u.id for u in members)}); gmsa.graph.as_dataset parts them"
        )
    check_positions(members, spec.inside if spec.graph.scope == "hierarchical" else spec)
    if not spec.graph.has_dialogues:
        data = build_graph(members[0], spec.graph, spec.strides, spec.convs, spec.readouts)
    else:
        data = _dialogue(sorted(members, key=lambda u: u.clip), spec)
    data.y = data.label
    del data.label
    return data


def _dialogue(members: Sequence[Utterance], spec: GraphSpec) -> HeteroData:
    context = build_dialogue_graph(members, spec.graph, spec.convs, spec.readouts)
    data, strides = HeteroData(), spec.strides
    modalities = spec.schema.modalities
    if spec.graph.scope == "hierarchical":
        tokens = Batch.from_data_list(
            [build_graph(u, spec.inside.graph, strides, spec.convs, spec.readouts) for u in members]
        )
        for node_type, store in tokens.node_items():
            more = {"x": store.x} if "x" in store else {}
            data[node_type].update({"num_nodes": store.num_nodes, "pos": store.pos, "utterance": store.batch} | more)
        for relation, store in tokens.edge_items():
            data[relation].update({"edge_index": store.edge_index, "temporal_type": store.temporal_type})
    else:
        for modality in modalities:
            parts = [node_features(u.features[modality], strides[modality]) for u in members if modality in u.features]
            counts = torch.tensor([len(part) for part in parts], dtype=torch.long)
            store = data[modality]
            store.num_nodes = int(counts.sum())
            store.pos = torch.cat([torch.empty(0, dtype=torch.long), *map(torch.arange, counts.tolist())])
            store.utterance = torch.repeat_interleave(counts)
            if parts:
                store.x = torch.cat(parts)
    data[UTTERANCE].num_nodes, data[UTTERANCE].pos = len(members), torch.arange(len(members))
    data[UTTERANCE].speaker = torch.tensor(speakers_of(members, spec.graph))
    for node_type, store in context.node_items():
        kept = {key: value for key, value in store.items() if key != "x"}
        data[_outer(node_type)].update(kept)
    for (source, stream, target), store in context.edge_items():
        data[_outer(source), stream, _outer(target)].update(dict(store.items()))
    between = edges_between(members, spec.outside)
    data[BETWEEN].edge_index, data[BETWEEN].kind = between.pairs.clone(), between.kind.clone()
    data.id, data.ids, data.speakers, data.label = context.id, context.ids, context.speakers, context.label
    data.steps = torch.tensor([[len(u.features.get(m, ())) for m in modalities] for u in members])
    return data


def _outer(node_type: str) -> str:
    return f"{OF_UTTERANCE}{node_type}"


def from_hetero(data: HeteroData, spec: GraphSpec) -> GraphBatch:
    """The batch that a model takes, from graphs of PyG: of one, or of several that PyG's ``Batch`` joins.

    Nodes, features and edges are those of the data, whatever made or changed them: an edge that a transform dropped or
    added is dropped or added for the model. Edges of relations that are not there are none, an edge that is there twice
    counts once, and ``edge_weight`` :math:`(E)` of a relation, above 0, says how many times each of its edges counts.
    All tokens of an utterance must be there: an encoder reads its whole sequence. Gradients reach ``x``. Attributes
    that :func:`as_hetero` does not name are not looked at. Utterances are in the order of the data.

    Args:
        data: as :func:`as_hetero` gives it; in scope ``utterance`` also as :func:`build_graph` does.
        spec: how the graphs look.

    Raises:
        DataError: the data lacks nodes or attributes, has ones of other graphs, or they do not fit.
    """
    if not isinstance(data, HeteroData):
        raise DataError(f"expected PyG's HeteroData or a Batch of it (got {type(data).__name__})")
    found = _Graphs(data, spec)
    if spec.graph.scope != "hierarchical":
        return found.outer(spec, spec.streams) if found.of_dialogues else found.inner(spec)
    outside = found.outer(spec.outside, spec.outside_streams, with_features=False)
    return replace(found.inner(spec.inside), dialogues=outside)


class _Graphs:
    """What PyG's data holds, read for a spec."""

    def __init__(self, data: HeteroData, spec: GraphSpec) -> None:
        self.data, self.scope = data, spec.graph.scope
        self.of_dialogues = spec.graph.has_dialogues
        self._check_types(spec)
        self.count = data.num_graphs if isinstance(data, Batch) else 1
        self.members = np.ones(self.count, dtype=np.int64)
        if self.of_dialogues:
            self.members = np.bincount(self._graph(UTTERANCE), minlength=self.count)
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
            expected |= {UTTERANCE, *map(_outer, outer.node_types)}
            relations |= {BETWEEN, *((_outer(s), stream, _outer(t)) for s, stream, t in outer.relations)}
        if more := [t for t in self.data.node_types if t not in expected]:
            raise DataError(
                f"the graph has nodes '{cut(more[0])}', which the model's graphs have not "
                f"(they have {listed(sorted(expected))}); leave them out"
            )
        if unknown := ["-".join(r) for r in self.data.edge_types if r not in relations]:
            raise DataError(
                f"the graph has edges '{cut(unknown[0])}', which the model's graphs have not; leave them out"
            )

    def _graph(self, node_type: str) -> Numbers:
        """The graph of each node of a type ``[N_type]``."""
        store = self.data[node_type]
        if "batch" in store:
            return _numbers(store.batch)
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
        steps = _numbers(self.data.steps) if "steps" in self.data else None
        if steps is not None and steps.shape != (self.total, len(columns)):
            raise DataError(
                f"'steps' must hold the lengths of {len(columns)} modalities ({listed(columns)}) of {self.total} "
                f"utterances (got {list(steps.shape)})"
            )
        found = {}
        for modality in self.modalities:
            x, stride = self.data[modality].x, spec.strides[modality]
            _, order, count = self._sorted(modality, self._utterance(modality), self.total)
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

    def _utterance(self, node_type: str) -> Numbers:
        """The utterance of each token, or readout node of tokens' graphs ``[N_type]``."""
        graph = self._graph(node_type)
        if not self.of_dialogues:
            return graph
        utterance = self._attribute(node_type, "utterance")
        if (wrong := (utterance < 0) | (utterance >= self.members[graph])).any():
            raise DataError(
                f"a node '{node_type}' is of utterance {utterance[wrong][0]}, its dialogue has "
                f"{self.members[graph][wrong][0]}; number them from 0 on"
            )
        return self.first[graph] + utterance

    def _attribute(self, node_type: str, name: str) -> Numbers:
        store = self.data[node_type]
        if name not in store:
            raise DataError(f"nodes '{node_type}' have no '{name}'; build the graph with gmsa.graph.as_hetero")
        return _numbers(store[name])

    def _sorted(self, node_type: str, unit: Numbers, units: int) -> tuple[Numbers, Numbers, Numbers]:
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
            return _numbers(self.data[node_type].pos)
        count = np.bincount(unit, minlength=units)
        place = np.empty_like(unit)
        place[np.argsort(unit, kind="stable")] = np.arange(len(unit)) - np.repeat(np.cumsum(count) - count, count)
        return place

    def inner(self, spec: GraphSpec) -> GraphBatch:
        """The graphs of the utterances."""
        places, counts = {}, np.zeros((self.total, len(spec.schema.node_types)), dtype=np.int64)
        for i, node_type in enumerate(spec.schema.node_types):
            wanted = int(node_type in spec.readouts) if node_type in READOUTS else None
            if node_type in self.data.node_types and (node_type in self.modalities or wanted is not None):
                places[node_type], _, counts[:, i] = self._sorted(node_type, self._utterance(node_type), self.total)
            self._check_count(node_type, counts[:, i], wanted)
        members = np.ones(self.total, dtype=np.int64)
        layout = lay_out(counts, members, len(spec.readouts))
        return self._batch(spec, layout, counts, members, places, {t: t for t in places}, spec.streams, self.features)

    def outer(self, spec: GraphSpec, streams: Sequence[str], with_features: bool = True) -> GraphBatch:
        """The graphs of the dialogues."""
        if self.scope == "dialogue" and self.members.max() > spec.positions:
            raise DataError(
                f"a dialogue has {self.members.max()} utterances, 'model.positions' allows {spec.positions}; raise it"
            )
        places, names = {}, {t: _outer(t) for t in spec.schema.node_types}
        counts = np.zeros((self.count, len(spec.schema.node_types)), dtype=np.int64)
        for i, node_type in enumerate(spec.schema.node_types):
            wanted = self.members
            if node_type in READOUTS:
                wanted = self.members * (node_type in spec.readouts)
            elif node_type == DIALOGUE and spec.graph.reach[1]:
                wanted = np.ones_like(self.members)
            elif node_type != DIALOGUE and node_type not in self.modalities:
                wanted = np.zeros_like(self.members)
            if names[node_type] in self.data.node_types:
                graph = self._graph(names[node_type])
                places[node_type], _, counts[:, i] = self._sorted(names[node_type], graph, self.count)
            self._check_count(names[node_type], counts[:, i], wanted)
        layout = lay_out(counts, self.members, len(spec.readouts))
        features = self.features if with_features else {}
        between = self._between(spec) if UTTERANCE in streams or not with_features else None
        streams = [stream for stream in streams if stream != UTTERANCE]
        found = self._batch(spec, layout, counts, self.members, places, names, streams, features, between)
        speakers = np.zeros(self.total, dtype=np.int64)
        speakers[self._number_of_utterance()] = self._attribute(UTTERANCE, "speaker")
        return replace(found, speakers=torch.from_numpy(speakers).to(self.device))

    def _check_count(self, node_type: str, count: Numbers, wanted: Any) -> None:
        if wanted is None or (count == wanted).all():
            return
        i = int(np.flatnonzero(count != wanted)[0])
        expected = np.broadcast_to(wanted, count.shape)[i]
        raise DataError(
            f"graph {i} has {count[i]} nodes '{node_type}', the model's graphs have {expected}; "
            "build it with gmsa.graph.as_hetero and the model's spec"
        )

    def _number_of_utterance(self) -> Numbers:
        """The number of each node of the type ``utterance`` among all utterances in their order ``[N]``."""
        return self.first[self._graph(UTTERANCE)] + self._attribute(UTTERANCE, "pos")

    def _between(self, spec: GraphSpec) -> SparseEdges:
        """The edges between utterances as such, sorted by target, each once."""
        index, kind = np.empty((2, 0), dtype=np.int64), np.empty(0, dtype=np.int64)
        if BETWEEN in self.data.edge_types:
            store, name = self.data[BETWEEN], "-".join(BETWEEN)
            index = self._number_of_utterance()[_numbers(store.edge_index)]
            if "kind" not in store:
                raise DataError(f"edges '{name}' have no 'kind'; build the graph with gmsa.graph.as_hetero")
            kind = _numbers(store.kind)
            kinds = edge_kinds(spec.graph)
            if kind.shape != index[0].shape or kind.min(initial=0) < 0 or kind.max(initial=0) >= kinds:
                raise DataError(f"'kind' of '{name}' must hold a number from 0 to {kinds - 1} for each edge")
        _, kept = np.unique(index[1] * self.total + index[0], return_index=True)
        graph = torch.repeat_interleave(torch.from_numpy(self.members))
        return SparseEdges(torch.from_numpy(index[:, kept]), torch.from_numpy(kind[kept]), graph=graph)

    def _batch(
        self,
        spec: GraphSpec,
        layout: Layout,
        counts: Numbers,
        members: Numbers,
        places: Mapping[str, Numbers],
        names: Mapping[str, str],
        streams: Sequence[str],
        features: Mapping[str, Tensor],
        utterance_edges: SparseEdges | None = None,
    ) -> GraphBatch:
        before = np.cumsum(counts, axis=1) - counts
        # Of each node its graph, and its index among all nodes of that graph.
        nodes = {t: (unit, before[unit, spec.schema.numbers[t]] + place) for t, (unit, place) in places.items()}
        edges, weights = {}, {}
        for stream in streams:
            possible = [r for r in stream_relations(stream, spec.schema) if r[0] in nodes and r[2] in nodes]
            keys = {r: (names[r[0]], r[1], names[r[2]]) for r in possible}
            if keys and not set(self.data.edge_types) & set(keys.values()):
                example = "-".join(next(iter(keys.values())))
                raise DataError(f"the graph has no edges of stream '{stream}', such as '{example}'; add them")
            for relation, key in keys.items():
                if key in self.data.edge_types and relation not in edges:
                    edges[relation], weights[relation] = self._edges(relation, key, nodes, spec)
        is_weighed = any(weight is not None for weight in weights.values())
        if is_weighed and not spec.takes_weights:
            raise DataError(
                "edges have 'edge_weight', and the model, or its layer, takes no weights of edges; leave it out, or "
                "choose others, such as semi_iin with attention"
            )
        graphs = Graphs(
            counts,
            layout.node_type,
            layout.padded_index,
            layout.readout_padded_index,
            layout.size,
            (),
            replace(spec, route="edge") if is_weighed else spec,
            found=edges,
        )
        connected = connect(graphs, streams)
        if is_weighed:
            is_readout = layout.node_type < len(READOUTS)
            for stream in streams:
                among = [r for r in stream_relations(stream, spec.schema) if r in edges]
                connected[stream] = _weighed(connected[stream], among, edges, weights, is_readout)
        found = assemble(
            spec,
            layout,
            connected,
            ids=self.ids,
            features=features,
            lengths=self.lengths,
            labels=self.labels,
            members=members,
            utterance_order=np.arange(self.total),
            utterance_edges=utterance_edges,
            speakers=None,
        )
        return found if self.device.type == "cpu" else found.to(self.device)

    def _edges(
        self, relation: Relation, key: Relation, nodes: Mapping[str, tuple[Numbers, Numbers]], spec: GraphSpec
    ) -> tuple[Tensor, Tensor | None]:
        """Graph, source, target and type of the edges of a relation ``[4, E]``, each once, and their weights."""
        store, name = self.data[key], "-".join(key)
        index = _numbers(store.edge_index)
        (first, source), (second, target) = nodes[relation[0]], nodes[relation[2]]
        if index.shape[1] and (index.min() < 0 or index[0].max() >= len(source) or index[1].max() >= len(target)):
            raise DataError(f"edges '{name}' name nodes that are not there ({len(source)} and {len(target)} are)")
        graph, of_target = first[index[0]], second[index[1]]
        if (graph != of_target).any():
            raise DataError(f"an edge '{name}' joins nodes of different graphs; leave it out")
        kind = self._edge_types(relation, key, index.shape[1], spec)
        weight = store.edge_weight if "edge_weight" in store else None
        if weight is not None and (weight.shape != index[0].shape or not bool((weight > 0).all())):
            raise DataError(
                f"'edge_weight' of '{name}' must be a number above 0 for each of {index.shape[1]} edges (got "
                f"{list(weight.shape)}); drop the edges that weigh 0"
            )
        edges = np.stack([graph, source[index[0]], target[index[1]], kind])
        size = int(edges[1:3].max(initial=0)) + 1
        place = (edges[0] * size + edges[2]) * size + edges[1]
        if (place[1:] <= place[:-1]).any():
            kept = np.unique(place, return_index=True)[1]
            edges = edges[:, kept]
            weight = weight if weight is None else weight[torch.from_numpy(kept).to(weight.device)]
        return torch.from_numpy(edges), weight

    def _edge_types(self, relation: Relation, key: Relation, count: int, spec: GraphSpec) -> Numbers:
        """The types of the edges of a relation among those of all ``[E]``."""
        types, config = spec.schema, spec.graph
        between = config.scope == "dialogue"
        attribute = "kind" if between else "temporal_type"
        if not (relation in types.typed_relations if between else config.typed and is_among_tokens(relation)):
            number = torch.zeros(count, dtype=torch.long)
        elif attribute not in self.data[key] or len(self.data[key][attribute]) != count:
            there = f"{len(self.data[key][attribute])}" if attribute in self.data[key] else "none"
            raise DataError(
                f"edges '{'-'.join(key)}' need a '{attribute}' each, {count} in all (there are {there}): the "
                "model's edges are typed"
            )
        else:
            number = self.data[key][attribute].detach().cpu().long()
        most = edge_kinds(config) if between else 3
        if count and (number.min() < 0 or number.max() >= most):
            raise DataError(
                f"'{attribute}' of edges '{'-'.join(key)}' must be from 0 to {most - 1} (got "
                f"{int(number.min())} to {int(number.max())}): the graph was built with other settings than the model"
            )
        found = numbered_in_dialogues(relation, number, types, config) if between else numbered(relation, number, types)
        return found.numpy()


def _weighed(
    found: Connected,
    relations: Sequence[Relation],
    edges: Mapping[Relation, Tensor],
    weights: Mapping[Relation, Tensor | None],
    is_readout: npt.NDArray[np.bool_],
) -> Connected:
    """The edges of a stream with their weights."""
    assert isinstance(found.edges, SparseEdges)
    assert isinstance(found.to_readouts, SparseEdges)
    like = next(weight for weight in weights.values() if weight is not None)
    every, parts = [like.new_ones(0)], [torch.empty(4, 0, dtype=torch.long)]
    for relation in relations:
        weight, count = weights[relation], edges[relation].shape[1]
        every.append(like.new_ones(count) if weight is None else weight)
        parts.append(edges[relation])
    graph, source, target, _ = torch.cat(parts, dim=1)
    order = np.lexsort((source.numpy(), target.numpy(), graph.numpy()))
    log_weight = torch.cat(every).index_select(0, torch.from_numpy(order).to(like.device)).log()
    ends = torch.from_numpy(is_readout)[found.edges.index[1]].to(like.device)
    return Connected(found.edges.weighed(log_weight), found.to_readouts.weighed(log_weight[ends]))


def _numbers(values: Tensor) -> Numbers:
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
