"""From an utterance to a heterogeneous graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch_geometric.data import HeteroData

from gmsa.config import MODALITIES, GraphConfig
from gmsa.data.utterance import Utterance
from gmsa.graph.edges import build_edges
from gmsa.graph.schema import READOUTS, Relation, relations


def token_count(length: Any, stride: int) -> Any:
    """Tokens that an encoder with this total stride leaves of sequences: ``ceil(length / stride)``.

    Takes and returns a whole number or a tensor of them.
    """
    return -(-length // stride)


def builder_of(relation: Relation, config: GraphConfig) -> str:
    """Name of the edge builder of a relation; readout nodes always join every token."""
    source, stream, target = relation
    if source in READOUTS or target in READOUTS:
        return "complete"
    return config.intra if stream == "intra" else config.inter


def build(utterance: Utterance, config: GraphConfig, strides: Mapping[str, int] | None = None) -> HeteroData:
    """Builds the graph of one utterance, with every node and edge type, empty if need be.

    A node of a modality is one step of its sequence, or, where the encoder strides, ``stride``
    consecutive steps side by side (zeros after the end). A missing modality gives no nodes.

    Shapes:
        - node stores ``text``, ``audio``, ``vision``: ``x`` :math:`(N_m, s_m D_m)`, ``pos`` :math:`(N_m)`
          with :math:`N_m = \\lceil L_m / s_m \\rceil`; ``val``, ``cls``: one node each
        - an edge store for every relation: ``edge_index`` :math:`(2, E)`, without duplicates, sorted by target
        - graph: ``id``, ``label`` :math:`(1)` (NaN where unlabeled), ``steps`` :math:`(1, 3)` the lengths
          :math:`L_m` in the order text, audio, vision
    """
    data = HeteroData()
    counts = dict.fromkeys(READOUTS, 1)
    for modality in MODALITIES:
        sequence = utterance.features.get(modality, torch.zeros(0, 1))
        stride = (strides or {}).get(modality, 1)
        counts[modality] = count = token_count(len(sequence), stride)
        data[modality].x = F.pad(sequence, (0, 0, 0, count * stride - len(sequence))).reshape(
            count, stride * sequence.shape[1]
        )
        data[modality].pos = torch.arange(count)
    for readout in READOUTS:
        data[readout].num_nodes = 1
        data[readout].pos = torch.zeros(1, dtype=torch.long)
    for relation in relations():
        source, _, target = relation
        data[relation].edge_index = build_edges(builder_of(relation, config), counts[source], counts[target], config)
    data.id = utterance.id
    data.label = torch.tensor([float("nan") if utterance.label is None else utterance.label])
    data.steps = torch.tensor([[len(utterance.features.get(m, ())) for m in MODALITIES]])
    return data
