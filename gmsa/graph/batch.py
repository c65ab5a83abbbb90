"""Collation: the graphs of many utterances as one batch."""

# N utterances, G graphs (utterances or dialogues) of up to T nodes, V nodes and E edges in all
from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from operator import itemgetter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gmsa.data.lazy import Utterances, taken, videos_of
from gmsa.data.utterance import Utterance
from gmsa.errors import ConfigError, DataError
from gmsa.graph.build import speakers_of
from gmsa.graph.connect import Connected, Graphs, connect, utterance_edges
from gmsa.graph.context import check_context_builder
from gmsa.graph.conv_windows import conv_windows
from gmsa.graph.edges import complete, looks_at_times
from gmsa.graph.kept import build_edges
from gmsa.graph.layout import Layout, Numbers, embedding_rows, lay_out
from gmsa.graph.nodes import token_count
from gmsa.graph.rounding import fillers
from gmsa.graph.schema import DIALOGUE, READOUTS, UTTERANCE, Relation, Schema, builder_of
from gmsa.graph.spec import GraphSpec
from gmsa.nn.edges import Edges, NodePairs, SparseEdges
from gmsa.registry import EDGE_BUILDERS


@dataclass(frozen=True, eq=False)
class GraphBatch:
    """The graphs of N utterances, their nodes end to end without padding, as in PyG.

    The same graphs as PyG's ``Batch.from_data_list`` makes of :func:`gmsa.graph.build_graph` (or of
    :func:`gmsa.graph.build_dialogue_graph`). A graph's nodes are in the order of its schema's ``node_types``, as
    val, cls, audio, text, vision, without the readout nodes that the spec leaves out. In scope ``hierarchical`` these
    are the graphs of the utterances, and ``dialogues`` has those whose nodes are states of utterances.
    """

    schema: Schema
    """The types of nodes and edges."""
    ids: tuple[str, ...]
    """Utterance ids; rows beyond them, which round a batch up, are of no utterance."""
    features: Mapping[str, Tensor]
    """Per modality, the steps of all utterances end to end :math:`[\\sum L_m, D_m]`."""
    lengths: Mapping[str, Tensor]
    """Per modality, the number of steps ``[N]``, in the order of the graphs; 0 where it is missing."""
    conv_windows: Mapping[str, tuple[Tensor, ...]]
    """Per modality and convolution of its encoder, the rows that each output reads ``[M, kernel]``."""
    labels: Tensor
    """Sentiment intensity ``[N]``; NaN where unlabeled."""
    node_type: Tensor
    """Index of each node's type in the schema's ``node_types`` ``[V]``."""
    position: Tensor
    """Index of each node among those of its type in its graph ``[V]``."""
    embedding_row: Tensor
    """Row of each node in the table of embeddings: 0 for the node of a readout or a dialogue, then the tokens of each
    modality in the order of ``features`` (graphs of dialogues: the utterances, once per modality) ``[V]``."""
    padded_index: Tensor
    """Index of each node when all graphs are padded to T nodes: ``g * T + t`` ``[V]``."""
    readout_index: Tensor
    """The readout nodes of all graphs, ``[Q N]`` for Q of them per utterance; they are the first nodes of their
    graph."""
    readout_padded_index: Tensor
    """Index of each readout node when each graph's readout nodes are padded to R: ``g * R + r`` ``[Q N]``."""
    readout_rows: Tensor
    """Rows of ``readout_index`` that are the readout nodes of each utterance, val (if any) and cls ``[N, Q]``."""
    utterance_order: Tensor
    """Index of each utterance among those of all graphs in their order, which is that of ``features`` and ``lengths``
    ``[N]``."""
    edges: Mapping[str, Edges]
    """Edges among all nodes, per stream that the model reads."""
    readout_edges: Mapping[str, Edges]
    """Those edges that end at readout nodes; the receivers are ``readout_index``."""
    shape: tuple[int, int, int]
    """G, T and R: graphs, nodes of the largest, readout nodes of the largest."""
    sizes: tuple[int, ...]
    """Utterances of each graph ``[G]``."""
    utterance_edges: SparseEdges | None = None
    """In graphs of dialogues, the edges between utterances, and of each to itself, in the order of the graphs; their
    types are those by distance, then by speakers. In ``dialogues``, or where the spec has the stream ``utterance``."""
    speakers: Tensor | None = None
    """In graphs of dialogues, the number of each utterance's speaker ``[N]``, in the order of the graphs: among those
    that ``graph.speakers`` lists, else in the order in which they first speak."""
    dialogues: GraphBatch | None = None
    """The graphs of the dialogues in scope ``hierarchical``: their nodes start as states of the utterances, so that
    they have no features."""

    def __len__(self) -> int:
        return len(self.ids)

    def readout(self, z: Tensor) -> tuple[Tensor | None, Tensor]:
        """Takes from the states of all nodes ``[V, C]`` those of val and of cls of each utterance ``[N, C]``.

        val is None where the target is one of K classes.
        """
        *val, cls = z.index_select(0, self.readout_index)[self.readout_rows].unbind(1)
        return (val[0] if val else None), cls

    def node_index(self, node_type: str) -> Tensor:
        """The nodes of one type, in PyG's batching order ``[N_type]``."""
        return (self.node_type == self.schema.numbers[node_type]).nonzero().squeeze(1)

    def edge_index(self, stream: str) -> Tensor:
        """Edges of a stream among the nodes, sorted by target: ``[2, E]``."""
        edges = self.edges[stream]
        if isinstance(edges, SparseEdges):
            return edges.index
        graph, target, source = edges.adjacency.nonzero(as_tuple=True)
        node = torch.full((self.shape[0] * self.shape[1],), -1, device=self.padded_index.device)
        node[self.padded_index] = torch.arange(len(self.padded_index), device=self.padded_index.device)
        return torch.stack([node[graph * self.shape[1] + source], node[graph * self.shape[1] + target]])

    def edge_index_dict(self) -> dict[Relation, Tensor]:
        """Edges per relation, in PyG's numbering of each node type: ``{relation: [2, E]}``."""
        return {relation: edges for relation, (edges, _) in self.typed_edge_index_dict().items()}

    def typed_edge_index_dict(self) -> dict[Relation, tuple[Tensor, Tensor]]:
        """The same, and the type of each edge ``[E]``, 0 where edges are not typed."""
        number = torch.zeros_like(self.node_type)
        for node_type in self.schema.node_types:
            index = self.node_index(node_type)
            number[index] = torch.arange(len(index), device=index.device)
        found, types = {}, self.schema.numbers
        for source, stream, target in self.schema.relations:
            index, edge_type = self.edge_index(stream), self._edge_type(stream)
            chosen = (self.node_type[index[0]] == types[source]) & (self.node_type[index[1]] == types[target])
            found[source, stream, target] = number[index[:, chosen]], edge_type[chosen]
        return found

    def _edge_type(self, stream: str) -> Tensor:
        edges = self.edges[stream]
        if isinstance(edges, SparseEdges):
            return torch.zeros_like(edges.index[0]) if edges.edge_type is None else edges.edge_type
        return edges.adjacency[edges.adjacency != 0].long() - 1

    def to(self, device: torch.device | str) -> GraphBatch:
        """The same batch on another device."""
        return self.map(lambda tensor: tensor.to(device, non_blocking=True))

    def map(self, change: Callable[[Tensor], Tensor]) -> GraphBatch:
        """The same batch with each tensor changed, always in the same order."""
        changed: dict[int, Tensor] = {}  # a tensor that several fields share is moved once

        def move(value: Any) -> Any:
            if isinstance(value, Tensor):
                if id(value) not in changed:
                    changed[id(value)] = change(value)
                return changed[id(value)]
            if isinstance(value, Mapping):
                return {k: move(v) for k, v in value.items()}
            if isinstance(value, tuple):
                return tuple(map(move, value))
            return moved(value) if isinstance(value, Edges | GraphBatch | NodePairs) else value

        def moved(value: Any) -> Any:
            return replace(value, **{f.name: move(getattr(value, f.name)) for f in fields(value) if f.init})

        batch: GraphBatch = moved(self)
        return batch


def collate(
    utterances: Sequence[Utterance],
    spec: GraphSpec,
    dropout_seeds: Mapping[str, int] | None = None,
    streams: Sequence[str] | None = None,
    rounded: bool = False,
) -> GraphBatch:
    """Builds the batch of ``utterances``, which must agree in modalities and feature dimensions.

    Args:
        spec: how the graphs look.
        dropout_seeds: a seed per utterance id for ``graph.edge_dropout`` and ``graph.context_dropout``; without it no
            edge is dropped.
        streams: whose edges to build, in scope ``hierarchical`` between utterances; by default those of ``spec``.
        rounded: in scope ``utterance``, adds graphs without an id and rounds sizes up, so that many batches share one
            shape (:func:`~gmsa.graph.rounding.fillers`). Not where builders look at features or times.

    Raises:
        DataError: a sequence has more tokens than ``model.positions``.
        ConfigError: graphs of dialogues are to be rounded up.
    """
    if rounded and spec.graph.scope != "utterance":
        raise ConfigError(f"only graphs of utterances can be rounded up (got 'graph.scope: {spec.graph.scope}')")
    if spec.graph.scope == "hierarchical":
        inside = _collate(utterances, spec.inside, dropout_seeds)
        outside = _collate(utterances, spec.outside, dropout_seeds, streams, with_features=False)
        return replace(inside, dialogues=outside)
    if spec.graph.scope == "dialogue" and spec.graph.distances == "auto":
        spec = replace(spec, graph=spec.graph.outside)
    return _collate(utterances, spec, dropout_seeds, streams, rounded=rounded)


def _collate(
    utterances: Sequence[Utterance],
    spec: GraphSpec,
    dropout_seeds: Mapping[str, int] | None,
    streams: Sequence[str] | None = None,
    with_features: bool = True,
    rounded: bool = False,
) -> GraphBatch:
    is_dialogue = spec.graph.scope == "dialogue"
    groups = dialogues_of(utterances) if is_dialogue else [[i] for i in range(len(utterances))]
    order = [i for group in groups for i in group]
    ordered = [utterances[i] for i in order]
    node_types = spec.schema.node_types
    modalities = [m for m in node_types if m in utterances[0].features]
    strides = spec.strides
    # NumPy: on arrays this small, a step of it costs a fifth of what one of torch does.
    lengths = np.array(list(map(itemgetter(*modalities), (u.lengths for u in ordered)))).reshape(len(ordered), -1).T
    tokens = -(-lengths // np.array([[strides[m]] for m in modalities]))
    members = np.array([len(group) for group in groups])
    if (members if is_dialogue else tokens).max() > spec.positions:
        check_positions(utterances, spec)
    size, further = 0, 0
    if rounded:
        size, filling = fillers(tokens, len(spec.readouts), spec.positions)
        further = filling.shape[1]
        lengths = np.concatenate([lengths, filling * np.array([[strides[m]] for m in modalities])], axis=1)
        tokens = np.concatenate([tokens, filling], axis=1)
        members = np.ones(len(groups) + further, dtype=np.int64)
        order = [*order, *range(len(order), len(members))]
    counts = np.zeros((len(members), len(node_types)), dtype=np.int64)
    for i, node_type in enumerate(node_types):
        if node_type in READOUTS:
            counts[:, i] = members * (node_type in spec.readouts)
        elif node_type == DIALOGUE:
            counts[:, i] = 1 if spec.graph.reach[1] else members
        elif node_type in modalities:
            counts[:, i] = members if is_dialogue else tokens[modalities.index(node_type)]
    layout = lay_out(counts, members, len(spec.readouts), size)
    seeds = None
    if dropout_seeds is not None and spec.graph.edge_dropout:
        seeds = torch.tensor([*(dropout_seeds[utterances[group[0]].id] for group in groups), *[0] * further])
    members_of = [[utterances[i] for i in group] for group in groups]
    utterance_seeds = None
    if dropout_seeds is not None and is_dialogue and spec.graph.context_dropout:
        utterance_seeds = [torch.tensor([dropout_seeds[u.id] for u in group]) for group in members_of]
    graphs = Graphs(
        counts,
        layout.node_type,
        layout.padded_index,
        layout.readout_padded_index,
        layout.size,
        members_of,
        spec,
        utterance_seeds,
    )
    wanted_streams = [*(spec.streams if streams is None else streams)]
    between, speakers = None, None
    if is_dialogue:
        speakers = torch.tensor([n for group in members_of for n in speakers_of(group, spec.graph)])
        if UTTERANCE in wanted_streams or not with_features:
            between = utterance_edges(graphs, seeds)
    features: dict[str, Tensor] = {}
    for i, m in enumerate(modalities if with_features else ()):
        steps = [u.features[m] for u in ordered]
        if rounded:
            rows = strides[m] * int(tokens[i].sum()) - sum(map(len, steps))
            steps.append(steps[0].new_zeros(rows, steps[0].shape[1]))
        features[m] = torch.cat(steps)
    return assemble(
        spec,
        layout,
        connect(graphs, [s for s in wanted_streams if s != UTTERANCE], seeds),
        ids=tuple(u.id for u in utterances),
        features=features,
        lengths=dict(zip(modalities, lengths, strict=True)),
        labels=torch.tensor([*(math.nan if u.label is None else u.label for u in utterances), *[math.nan] * further]),
        members=members,
        utterance_order=np.argsort(order),
        utterance_edges=between,
        speakers=speakers,
    )


def assemble(
    spec: GraphSpec,
    layout: Layout,
    connected: Mapping[str, Connected],
    *,
    ids: tuple[str, ...],
    features: Mapping[str, Tensor],
    lengths: Mapping[str, Numbers],
    labels: Tensor,
    members: Numbers,
    utterance_order: Numbers,
    utterance_edges: SparseEdges | None,
    speakers: Tensor | None,
) -> GraphBatch:
    """The batch of graphs whose nodes are laid out and connected."""
    count, strides = len(ids), spec.strides
    if spec.graph.scope == "dialogue":
        rows = dict.fromkeys(lengths, count)
    else:
        rows = {m: int(token_count(x, strides[m]).sum()) for m, x in lengths.items()}
    numbers = {spec.schema.numbers[m]: size for m, size in rows.items()}
    return GraphBatch(
        schema=spec.schema,
        ids=ids,
        features=features,
        lengths={m: torch.from_numpy(x) for m, x in lengths.items()},
        conv_windows={m: conv_windows(lengths[m], spec.convs[m], len(x)) for m, x in features.items()},
        labels=labels,
        node_type=torch.from_numpy(layout.node_type),
        position=torch.from_numpy(layout.position),
        embedding_row=torch.from_numpy(embedding_rows(layout.node_type, numbers)),
        padded_index=torch.from_numpy(layout.padded_index),
        readout_index=torch.from_numpy(layout.readout_index),
        readout_padded_index=torch.from_numpy(layout.readout_padded_index),
        readout_rows=torch.from_numpy(layout.readout_rows[utterance_order]),
        utterance_order=torch.from_numpy(utterance_order),
        edges={stream: found.edges for stream, found in connected.items()},
        readout_edges={stream: found.to_readouts for stream, found in connected.items()},
        shape=(len(members), layout.size, int(members.max()) * len(spec.readouts)),
        sizes=tuple(members.tolist()),
        utterance_edges=utterance_edges,
        speakers=speakers,
    )


def dialogues_of(utterances: Sequence[Utterance]) -> list[list[int]]:
    """Indices of the utterances of each dialogue, in the order of its clips; dialogues in order of appearance."""
    groups: dict[str, list[int]] = {}
    for i, utterance in enumerate(utterances):
        groups.setdefault(utterance.video, []).append(i)
    return [sorted(group, key=lambda i: utterances[i].clip) for group in groups.values()]


def check_positions(utterances: Sequence[Utterance], spec: GraphSpec) -> None:
    """Refuses graphs with more nodes of a modality than ``model.positions``.

    Raises:
        DataError: an utterance's modality has too many tokens; in scope ``dialogue``, a dialogue too many utterances.
    """
    allowed = spec.positions
    if spec.graph.scope == "dialogue":
        for video, count in Counter(videos_of(utterances)).items():
            if count > allowed:
                raise DataError(
                    f"dialogue '{video}' has {count} utterances, 'model.positions' allows {allowed}; raise it"
                )
        return
    strides = spec.strides
    if isinstance(utterances, Utterances):
        too_long = np.zeros(len(utterances), bool)
        for modality in utterances.modalities:
            too_long |= token_count(utterances.lengths(modality), strides[modality]) > allowed
        utterances = taken(utterances, np.flatnonzero(too_long)[:1])
    for utterance in utterances:
        for modality, length in utterance.lengths.items():
            tokens = token_count(length, strides[modality])
            if tokens > allowed:
                raise DataError(
                    f"{modality} of '{utterance.id}' has {tokens} tokens, 'model.positions' allows {allowed}; "
                    f"raise it, or stride more in 'model.encoders.{modality}'"
                )


def check_builders(dims: Mapping[str, int], spec: GraphSpec) -> None:
    """Refuses a builder that cannot work on features of these dimensions.

    Raises:
        ConfigError: ``knn`` between modalities whose nodes have features of different dimensions; a builder that is
            not gmsa's own and does not return an edge_index for sequences of 5 and 3 steps, or, in dialogues, does not
            choose among the edges of 5 utterances.
    """
    if spec.graph.has_dialogues:
        check_context_builder(dims, spec.graph.outside)
    if spec.graph.scope == "dialogue":
        return
    widths = {m: dim * spec.strides[m] for m, dim in dims.items()}
    for source, stream, target in spec.schema.token_relations:
        if source not in dims or target not in dims:
            continue
        name, parameters = builder_of((source, stream, target), spec.graph)
        if EDGE_BUILDERS.module_of(name) != complete.__module__:
            steps, others = torch.ones(5, widths[source]), torch.ones(3, widths[target])
            if looks_at_times(name):
                steps, others = (torch.arange(n)[:, None] + torch.tensor([0.0, 1.0]) for n in (5, 3))
            build_edges(name, steps, steps if source == target else others, parameters)
        elif name == "knn" and widths[source] != widths[target]:
            raise ConfigError(
                f"'graph.{stream}.{source}_to_{target}' is {name}, which compares features, but a node of {source} has "
                f"{widths[source]} and one of {target} {widths[target]}; choose another builder"
            )
