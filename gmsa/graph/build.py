"""From an utterance, or a dialogue, to a heterogeneous graph."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from gmsa.config import GraphConfig
from gmsa.config.components import component_name
from gmsa.data.utterance import Utterance
from gmsa.graph.context import ContextEdges, DialogueEdges, Turns, wanted
from gmsa.graph.edges import PRESENT, looks_at_times
from gmsa.graph.kept import build_edges
from gmsa.graph.nodes import node_features, node_times, times_of
from gmsa.graph.schema import DIALOGUE, READOUTS, Relation, Schema, builder_of, schema, timed_modalities


def build_graph(
    utterance: Utterance,
    config: GraphConfig,
    strides: Mapping[str, int] | None = None,
    modalities: Iterable[str] | None = None,
    readouts: Sequence[str] = READOUTS,
) -> HeteroData:
    """Builds the graph of one utterance, with every node and edge type, empty if need be.

    A node of a modality is one step of its sequence, or, where the encoder strides, ``stride``
    consecutive steps side by side (zeros after the end). A missing modality gives no nodes.

    Args:
        modalities: those that have a place in the graph (see :func:`gmsa.graph.schema`); by default the utterance's.
        readouts: the readout nodes that the graph has.

    Shapes:
        - a node store for each modality: ``x`` :math:`(N_m, s_m D_m)`, ``pos`` :math:`(N_m)`
          with :math:`N_m = \\lceil L_m / s_m \\rceil`; no ``x`` where the data lacks the modality; ``val``, ``cls``:
          at most one node each
        - an edge store for every relation: ``edge_index`` :math:`(2, E)`, without duplicates, sorted by target;
          ``temporal_type`` :math:`(E)`, whether the source is past, present or future
        - graph: ``id``, ``label`` :math:`(1)` (NaN where unlabeled), ``steps`` :math:`(1, M)` the lengths
          :math:`L_m` in the order of the schema's ``modalities``
    """
    nodes = {readout: torch.zeros(int(readout in readouts), 0) for readout in READOUTS}
    types = schema(utterance.features if modalities is None else modalities)
    for modality in types.modalities:
        sequence = utterance.features.get(modality, torch.zeros(0, 1))
        nodes[modality] = node_features(sequence, (strides or {}).get(modality, 1))
    times = {m: node_times(times_of(utterance, m), (strides or {}).get(m, 1)) for m in timed_modalities(types, config)}
    data = _hetero(nodes, times, types, config)
    for modality in types.modalities:
        if modality in utterance.features:
            data[modality].x = nodes[modality]
    data.id = utterance.id
    data.label = torch.tensor([float("nan") if utterance.label is None else utterance.label])
    data.steps = torch.tensor([[len(utterance.features.get(m, ())) for m in types.modalities]])
    return data


def build_dialogue_graph(
    utterances: Sequence[Utterance],
    config: GraphConfig,
    modalities: Iterable[str] | None = None,
    readouts: Sequence[str] = READOUTS,
) -> HeteroData:
    """Builds the graph of a dialogue of U utterances in their order: ``graph.scope: dialogue``, or the outer graph of
    ``hierarchical``.

    A node of a modality is one utterance; its features are the mean over the steps, zeros where the modality is
    missing: its node stays, and a model gives it a learned token. A modality that the data set lacks (not in
    ``features``) has no nodes.

    Args:
        modalities: those that have a place in the graph; by default the first utterance's.
        readouts: the readout nodes that each utterance has.

    Shapes:
        - a node store for each modality: ``x`` :math:`(U, D_m)`, ``present`` :math:`(U)`;
          ``val``, ``cls``: U nodes each, or none; ``dialogue``, if the config asks for it: one, or U of a causal
          graph; every node's ``pos`` is its utterance's index
        - edge stores as :func:`build_graph` has them, with ``distance`` :math:`(E)`, how many utterances after the
          target the source is, ``same_speaker`` :math:`(E)`, and ``kind`` :math:`(E)`, the number of the edge's type
          among those of its relation
        - graph: ``id`` of the dialogue, ``ids`` and ``speakers`` of the utterances, ``label`` :math:`(U)` (NaN where
          unlabeled)
    """
    joined, config, count = config.scope == "hierarchical", config.outside, len(utterances)
    types = schema(utterances[0].features if modalities is None else modalities, config.dialogue_node, joined)
    found, numbers = dialogue_edges(utterances, config, types.modalities), torch.tensor(speaker_numbers(utterances))
    data = HeteroData()
    means = {m: mean_features(utterances, m) for m in types.modalities}
    sizes = {DIALOGUE: 1 if config.reach[1] else count} | {r: count * (r in readouts) for r in READOUTS}
    for node_type in (*types.modalities, *READOUTS, *([DIALOGUE] if config.dialogue_node else [])):
        if node_type in types.modalities:
            data[node_type].x = means[node_type]
            there = [u.present[node_type] for u in utterances if node_type in u.present]
            data[node_type].present = torch.tensor(there, dtype=torch.bool)
        data[node_type].num_nodes = size = sizes.get(node_type, len(means.get(node_type, ())))
        data[node_type].pos = torch.arange(size)
    for relation in types.relations:
        source, _, target = relation
        joins = bool(data[source].num_nodes and data[target].num_nodes)
        edges, store = found.of(relation) if joins else NO_EDGES, data[relation]
        first, second = edges.pairs
        store["edge_index"], store["distance"], store["kind"] = edges.pairs.clone(), first - second, edges.kind.clone()
        store["temporal_type"] = PRESENT + (first - second).sign()
        if DIALOGUE not in (source, target) and joins:
            store["same_speaker"] = numbers[first] == numbers[second]
    data.id, data.ids = utterances[0].video, [u.id for u in utterances]
    data.speakers = [u.speaker for u in utterances]
    data.label = torch.tensor([float("nan") if u.label is None else u.label for u in utterances])
    return data


NO_EDGES = ContextEdges(torch.empty(2, 0, dtype=torch.long), torch.empty(0, dtype=torch.long))


def mean_features(utterances: Sequence[Utterance], modality: str) -> Tensor:
    """Mean features of a modality, of each utterance ``[U, D]``; of none where the data lacks it ``[0, 1]``."""
    sequences = [u.features[modality] for u in utterances if modality in u.features]
    means = [s.sum(0) / max(1, len(s)) for s in sequences]
    return torch.stack(means) if means else torch.zeros(0, 1)


def dialogue_edges(utterances: Sequence[Utterance], config: GraphConfig, modalities: Iterable[str]) -> DialogueEdges:
    """The edges of a dialogue's graph, whose builder may look at the mean features of these modalities."""
    means = None
    if "features" in wanted(component_name(config.between)):
        means = {m: mean_features(utterances, m) for m in modalities}
    return DialogueEdges(turns_of(utterances, config), config, means)


def turns_of(utterances: Sequence[Utterance], config: GraphConfig) -> Turns:
    """What the edges of a dialogue depend on."""
    if config.speakers == "none" and "speakers" not in wanted(component_name(config.between)):
        return Turns(len(utterances))
    listed = speakers_of(utterances, config) if isinstance(config.speakers, tuple) else ()
    return Turns(len(utterances), speaker_numbers(utterances), listed)


def speakers_of(utterances: Sequence[Utterance], config: GraphConfig) -> tuple[int, ...]:
    """The number of each utterance's speaker among those that ``graph.speakers`` lists, else in the order in which they
    first speak."""
    return speaker_numbers(utterances, config.speakers if isinstance(config.speakers, tuple) else None)


def speaker_numbers(utterances: Sequence[Utterance], listed: Sequence[str] | None = None) -> tuple[int, ...]:
    """The number of each utterance's speaker, in the order in which they first speak, or among those ``listed``.

    Utterances without a name are of one speaker; all that are not listed have the number after the last.
    """
    names = listed or [*dict.fromkeys(u.speaker for u in utterances)]
    number = {name: i for i, name in enumerate(names)}
    return tuple(number.get(u.speaker, len(names)) for u in utterances)


def _hetero(nodes: Mapping[str, Tensor], times: Mapping[str, Tensor], types: Schema, config: GraphConfig) -> HeteroData:
    data = HeteroData()
    for node_type in (*types.modalities, *READOUTS):
        store = data[node_type]
        store["num_nodes"], store["pos"] = len(nodes[node_type]), torch.arange(len(nodes[node_type]))
    for relation, (name, parameters) in _builders(types, config):
        source, _, target = relation
        ends = times if looks_at_times(name) else nodes
        edge_index, temporal_type = build_edges(name, ends[source], ends[target], parameters)
        store = data[relation]
        # Others share what is built.
        store["edge_index"], store["temporal_type"] = edge_index.clone(), temporal_type.clone()
    return data


@lru_cache
def _builders(types: Schema, config: GraphConfig) -> tuple[tuple[Relation, tuple[str, dict[str, Any]]], ...]:
    """The edge builder of each relation, found once: to hash a config for each costs as much as to build the edges."""
    return tuple((relation, builder_of(relation, config)) for relation in types.relations)
