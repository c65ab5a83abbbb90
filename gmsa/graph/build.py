"""From an utterance, or a video, to a heterogeneous graph."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.data import HeteroData

from gmsa.config import GraphConfig
from gmsa.data.utterance import Utterance
from gmsa.graph.edges import build_edges
from gmsa.graph.schema import READOUTS, Relation, Schema, builder_of, schema


def token_count(length: Any, stride: int) -> Any:
    """Tokens that an encoder with this total stride leaves of sequences: ``ceil(length / stride)``.

    Takes and returns a whole number or a tensor of them.
    """
    return -(-length // stride)


def node_features(sequence: Tensor, stride: int) -> Tensor:
    """Features of a modality's nodes: ``stride`` consecutive steps side by side, zeros after the end.

    Shapes:
        - sequence :math:`(L, D)`; output :math:`(\\lceil L / s \\rceil, s D)`; the sequence itself for stride 1
    """
    if stride == 1:
        return sequence
    count = token_count(len(sequence), stride)
    padded = F.pad(sequence, (0, 0, 0, count * stride - len(sequence)))
    return padded.reshape(count, stride * sequence.shape[1])


def relation_edges(relation: Relation, source: Tensor, target: Tensor, config: GraphConfig) -> tuple[Tensor, Tensor]:
    """Edges of a relation between nodes with these features: edge_index [2, E] and each one's temporal type [E]."""
    name, parameters = builder_of(relation, config)
    return build_edges(name, source, target, parameters)


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
          with :math:`N_m = \\lceil L_m / s_m \\rceil`; ``val``, ``cls``: at most one node each
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
    data = _hetero(nodes, types, config)
    data.id = utterance.id
    data.label = torch.tensor([float("nan") if utterance.label is None else utterance.label])
    data.steps = torch.tensor([[len(utterance.features.get(m, ())) for m in types.modalities]])
    return data


def build_video_graph(
    utterances: Sequence[Utterance],
    config: GraphConfig,
    modalities: Iterable[str] | None = None,
    readouts: Sequence[str] = READOUTS,
) -> HeteroData:
    """Builds the graph of a video of U utterances in their order: ``graph.scope: video``.

    A node of a modality is one utterance; its features are the mean over the steps, zeros where the modality is
    missing: its node stays, and a model gives it a learned token. A modality that the data set lacks (not in
    ``features``) has no nodes.

    Args:
        modalities: those that have a place in the graph; by default the first utterance's.
        readouts: the readout nodes that each utterance has.

    Shapes:
        - a node store for each modality: ``x`` :math:`(U, D_m)`, ``present`` :math:`(U)`;
          ``val``, ``cls``: U nodes each, or none; every node's ``pos`` is its utterance's index
        - edge stores as :func:`build_graph` has them
        - graph: ``id`` of the video, ``ids`` of the utterances, ``label`` :math:`(U)` (NaN where unlabeled)
    """
    count = len(utterances)
    nodes = {readout: torch.zeros(count * (readout in readouts), 0) for readout in READOUTS}
    types = schema(utterances[0].features if modalities is None else modalities)
    for modality in types.modalities:
        sequences = [u.features[modality] for u in utterances if modality in u.features]
        means = [s.sum(0) / max(1, len(s)) for s in sequences]
        nodes[modality] = torch.stack(means) if means else torch.zeros(0, 1)
    data = _hetero(nodes, types, config)
    for modality in types.modalities:
        data[modality].present = torch.tensor([u.present[modality] for u in utterances if modality in u.present])
    data.id, data.ids = utterances[0].video, [u.id for u in utterances]
    data.label = torch.tensor([float("nan") if u.label is None else u.label for u in utterances])
    return data


def _hetero(nodes: Mapping[str, Tensor], types: Schema, config: GraphConfig) -> HeteroData:
    data = HeteroData()
    for node_type in (*types.modalities, *READOUTS):
        if node_type in types.modalities:
            data[node_type].x = nodes[node_type]
        data[node_type].num_nodes = len(nodes[node_type])
        data[node_type].pos = torch.arange(len(nodes[node_type]))
    for relation in types.relations:
        source, _, target = relation
        edge_index, temporal_type = relation_edges(relation, nodes[source], nodes[target], config)
        data[relation].edge_index, data[relation].temporal_type = (
            edge_index.clone(),
            temporal_type.clone(),
        )  # others share them
    return data
