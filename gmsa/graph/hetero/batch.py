"""Graphs as PyG has them: from HeteroData to the batch that a model takes."""

# G dialogues, E edges of all graphs
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from gmsa.errors import DataError
from gmsa.graph.batch import GraphBatch, assemble
from gmsa.graph.connect import Connected, Graphs, connect
from gmsa.graph.context import edge_kinds
from gmsa.graph.hetero.graphs import BETWEEN, outer_type
from gmsa.graph.hetero.nodes import HeteroNodes, numbers_of
from gmsa.graph.kept import numbered, numbered_in_dialogues
from gmsa.graph.layout import Layout, Numbers, lay_out
from gmsa.graph.relations import stream_relations
from gmsa.graph.schema import DIALOGUE, READOUTS, UTTERANCE, Relation, is_among_tokens
from gmsa.graph.spec import GraphSpec
from gmsa.nn.edges import SparseEdges


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
    found = _Batches(data, spec)
    if spec.graph.scope != "hierarchical":
        return found.outer(spec, spec.streams) if found.of_dialogues else found.inner(spec)
    outside = found.outer(spec.outside, spec.outside_streams, with_features=False)
    return replace(found.inner(spec.inside), dialogues=outside)


class _Batches(HeteroNodes):
    """The batches that PyG's data makes: its nodes with their edges."""

    def inner(self, spec: GraphSpec) -> GraphBatch:
        """The graphs of the utterances."""
        places, counts = {}, np.zeros((self.total, len(spec.schema.node_types)), dtype=np.int64)
        for i, node_type in enumerate(spec.schema.node_types):
            wanted = int(node_type in spec.readouts) if node_type in READOUTS else None
            if node_type in self.data.node_types and (node_type in self.modalities or wanted is not None):
                places[node_type], _, counts[:, i] = self.sorted(node_type, self.utterance_of(node_type), self.total)
            self.check_count(node_type, counts[:, i], wanted)
        members = np.ones(self.total, dtype=np.int64)
        layout = lay_out(counts, members, len(spec.readouts))
        return self._batch(spec, layout, counts, members, places, {t: t for t in places}, spec.streams, self.features)

    def outer(self, spec: GraphSpec, streams: Sequence[str], with_features: bool = True) -> GraphBatch:
        """The graphs of the dialogues."""
        if self.scope == "dialogue" and self.members.max() > spec.positions:
            raise DataError(
                f"a dialogue has {self.members.max()} utterances, 'model.positions' allows {spec.positions}; raise it"
            )
        places, names = {}, {t: outer_type(t) for t in spec.schema.node_types}
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
                graph = self.graph_of(names[node_type])
                places[node_type], _, counts[:, i] = self.sorted(names[node_type], graph, self.count)
            self.check_count(names[node_type], counts[:, i], wanted)
        layout = lay_out(counts, self.members, len(spec.readouts))
        features = self.features if with_features else {}
        between = self._between(spec) if UTTERANCE in streams or not with_features else None
        streams = [stream for stream in streams if stream != UTTERANCE]
        found = self._batch(spec, layout, counts, self.members, places, names, streams, features, between)
        speakers = np.zeros(self.total, dtype=np.int64)
        speakers[self.number_of_utterance()] = self.attribute(UTTERANCE, "speaker")
        return replace(found, speakers=torch.from_numpy(speakers).to(self.device))

    def _between(self, spec: GraphSpec) -> SparseEdges:
        """The edges between utterances as such, sorted by target, each once."""
        index, kind = np.empty((2, 0), dtype=np.int64), np.empty(0, dtype=np.int64)
        if BETWEEN in self.data.edge_types:
            store, name = self.data[BETWEEN], "-".join(BETWEEN)
            index = self.number_of_utterance()[numbers_of(store.edge_index)]
            if "kind" not in store:
                raise DataError(f"edges '{name}' have no 'kind'; build the graph with gmsa.graph.as_hetero")
            kind = numbers_of(store.kind)
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
        index = numbers_of(store.edge_index)
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
