"""Many utterances as one batch of padded tokens with the edges among them."""

# B utterances, T nodes of the longest one, S_m steps of the longest sequence of modality m
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from gmsa.config import GraphConfig
from gmsa.data.utterance import Utterance
from gmsa.graph.build import builder_of, token_count
from gmsa.graph.edges import build_edges
from gmsa.graph.schema import NODE_TYPES, READOUTS, Relation, relations

TOKEN_TYPES = tuple(t for t in NODE_TYPES if t not in READOUTS)


@dataclass(frozen=True, eq=False)
class GraphBatch:
    """The graphs of B utterances, their nodes packed in the order val, cls, audio, text, vision.

    The same graphs as PyG's ``Batch.from_data_list`` makes of :func:`gmsa.graph.build`, laid out for
    dense attention; :meth:`edge_index` and :meth:`edge_index_dict` give the sparse view.
    """

    ids: tuple[str, ...]
    """Utterance ids."""
    features: Mapping[str, Tensor]
    """Per modality, the padded steps ``[B, S_m, D_m]``; S_m is at least 1."""
    lengths: Mapping[str, Tensor]
    """Per modality, the number of steps ``[B]``; 0 where it is missing."""
    labels: Tensor
    """Sentiment intensity ``[B]``; NaN where unlabeled."""
    node_type: Tensor
    """Number of each node's type in ``NODE_TYPES`` ``[B, T]``; -1 is padding."""
    position: Tensor
    """Place of each node within its modality ``[B, T]``."""
    slot: Tensor
    """Where each node's embedding stands in ``[val, cls, audio, text, vision]``, each modality padded to
    its longest sequence of tokens in the batch ``[B, T]``; 0 for padding."""
    adjacency: Mapping[str, Tensor]
    """Per stream, whether the node of a row receives from the node of a column ``[B, T, T]``; ``global`` is both."""
    density: Mapping[str, float]
    """Per stream, the share of the adjacency that is edges."""
    _edges: dict[tuple[str, int | None], Tensor] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def mask(self) -> Tensor:
        """Which nodes are real ``[B, T]``."""
        return self.node_type >= 0

    def edge_index(self, stream: str, receivers: int | None = None) -> Tensor:
        """Edges of a stream among the flattened nodes ``b * T + t``, sorted by target: ``[2, E]``.

        With ``receivers`` = R, those to the first R nodes of each utterance, numbered ``b * R + r``.
        """
        if (stream, receivers) not in self._edges:
            utterance, target, source = self.adjacency[stream][:, :receivers].nonzero(as_tuple=True)
            size = self.node_type.shape[1]
            edges = torch.stack([utterance * size + source, utterance * (receivers or size) + target])
            self._edges[stream, receivers] = edges
        return self._edges[stream, receivers]

    def node_index(self, node_type: str) -> Tensor:
        """Flattened places of the nodes of one type, in PyG's batching order: ``[N_type]``."""
        return (self.node_type.reshape(-1) == NODE_TYPES.index(node_type)).nonzero().squeeze(1)

    def edge_index_dict(self) -> dict[Relation, Tensor]:
        """Edges per relation, in PyG's numbering of each node type: ``{relation: [2, E]}``."""
        flat_type = self.node_type.reshape(-1)
        number = torch.zeros_like(flat_type)
        for node_type in NODE_TYPES:
            index = self.node_index(node_type)
            number[index] = torch.arange(len(index), device=index.device)
        found = {}
        for source, stream, target in relations():
            edges = self.edge_index(stream)
            wanted = (flat_type[edges[0]] == NODE_TYPES.index(source)) & (
                flat_type[edges[1]] == NODE_TYPES.index(target)
            )
            found[source, stream, target] = number[edges[:, wanted]]
        return found

    def to(self, device: torch.device | str) -> GraphBatch:
        """The same batch on another device."""

        def move(value: Any) -> Any:
            if isinstance(value, Tensor):
                return value.to(device, non_blocking=True)
            return {k: move(v) for k, v in value.items()} if isinstance(value, Mapping) else value

        return GraphBatch(**{f.name: move(getattr(self, f.name)) for f in fields(self)})


def collate(
    utterances: Sequence[Utterance], config: GraphConfig, strides: Mapping[str, int] | None = None
) -> GraphBatch:
    """Builds the batch of ``utterances``, which must agree in modalities and feature dimensions."""
    modalities = [m for m in TOKEN_TYPES if m in utterances[0].features]
    strides = {m: (strides or {}).get(m, 1) for m in modalities}
    lengths = {m: torch.tensor([len(u.features[m]) for u in utterances]) for m in modalities}
    features = {}
    for modality in modalities:
        padded = pad_sequence([u.features[modality] for u in utterances], batch_first=True)
        # A modality that the whole batch lacks keeps one step of padding, so that shapes stay regular.
        features[modality] = padded if padded.shape[1] else padded.new_zeros(len(utterances), 1, padded.shape[2])

    counts = {r: torch.ones(len(utterances), dtype=torch.long) for r in READOUTS}
    counts |= {m: token_count(lengths[m], strides[m]) for m in modalities}
    widths = dict.fromkeys(READOUTS, 1) | {m: token_count(features[m].shape[1], strides[m]) for m in modalities}
    node_type, position, slot = _pack(counts, widths)
    adjacency = _adjacency(node_type, counts, config)
    return GraphBatch(
        ids=tuple(u.id for u in utterances),
        features=features,
        lengths=lengths,
        labels=torch.tensor([float("nan") if u.label is None else u.label for u in utterances]),
        node_type=node_type,
        position=position,
        slot=slot,
        adjacency=adjacency,
        density={stream: joined.float().mean().item() for stream, joined in adjacency.items()},
    )


def _pack(counts: Mapping[str, Tensor], widths: Mapping[str, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Type, position and slot of every node, the real nodes of each utterance in front: three ``[B, T]``."""
    columns = [torch.arange(width) for width in widths.values()]
    position = torch.cat(columns)
    node_type = torch.cat([torch.full_like(c, NODE_TYPES.index(t)) for c, t in zip(columns, widths, strict=True)])
    real = torch.cat([c < counts[t][:, None] for c, t in zip(columns, widths, strict=True)], dim=1)
    # A stable sort brings the real nodes to the front and keeps their order.
    slot = torch.argsort(~real, dim=1, stable=True)[:, : int(real.sum(1).max())]
    real = real.gather(1, slot)
    return (
        torch.where(real, node_type[slot], -1),
        torch.where(real, position[slot], 0),
        torch.where(real, slot, 0),
    )


def _adjacency(node_type: Tensor, counts: Mapping[str, Tensor], config: GraphConfig) -> dict[str, Tensor]:
    """Adjacency per stream. Complete relations come from comparing types, the others from their edges."""
    batch, size = node_type.shape
    adjacency = {s: torch.zeros(batch, size, size, dtype=torch.bool) for s in ("intra", "inter")}
    first = {t: (node_type == NODE_TYPES.index(t)).int().argmax(1) for t in counts}
    is_type = {t: node_type == NODE_TYPES.index(t) for t in counts}
    for relation in relations():
        source, stream, target = relation
        if source not in counts or target not in counts:
            continue
        name = builder_of(relation, config)
        if name == "complete":
            adjacency[stream] |= is_type[target][:, :, None] & is_type[source][:, None, :]
            continue
        pairs = zip(counts[source].tolist(), counts[target].tolist(), strict=True)
        edges = [build_edges(name, s, t, config) for s, t in pairs]
        utterance = torch.repeat_interleave(torch.arange(batch), torch.tensor([e.shape[1] for e in edges]))
        joined = torch.cat(edges, dim=1)
        adjacency[stream][utterance, first[target][utterance] + joined[1], first[source][utterance] + joined[0]] = True
    return adjacency | {"global": adjacency["intra"] | adjacency["inter"]}
