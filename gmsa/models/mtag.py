"""MTAG: attention over all tokens of an utterance, typed by modality and time, with fewer edges after each layer.

Yang, Wang, Yi, Zhu, Rehman, Zadeh, Poria and Morency: MTAG: Modal-Temporal Attention Graph for Unaligned Human
Multimodal Language Sequences. NAACL 2021, arXiv 2010.11985.
"""

# N utterances, V nodes of all of them, E edges, R relations, C channels, K classes
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn
from torch_geometric.utils import scatter

from gmsa.config import Config, GraphConfig, ModelConfig
from gmsa.data.targets import INTENSITY_CLASSES
from gmsa.errors import ConfigError
from gmsa.graph import READOUTS, GraphBatch, relations_of
from gmsa.models.base import Convs, Embedding, Model, Output, Scope
from gmsa.models.context import Context, ContextEmbedding, StreamRelations
from gmsa.models.parts import find_part
from gmsa.models.views.stages import (
    Level,
    Row,
    Stage,
    context_rows,
    counted,
    embedding_rows,
    heads_row,
    level_of,
    stream_grid,
)
from gmsa.nn import AttentionWeights, Edges, Heads, MTAGLayer, Relations, SparseEdges
from gmsa.nn.layers.mtag import check_shares, strongest
from gmsa.registry import MODELS


class MTAG(Model):
    r"""Layers of typed attention over the tokens of an utterance, from which the weakest edges are taken in turn.

    .. math::
        X^0 &= [\,H_a; H_t; H_v\,] + type + position, \qquad
        (X^l, \alpha^l) = \mathrm{MTAGLayer}_l(X^{l-1}, E^{l-1}), \quad l = 1 \dots L \\
        E^l &= \text{of the edges } E^{l-1}_g \text{ of each graph g, the } \lceil keep\, |E^{l-1}_g| \rceil
            \text{ with the largest } \tfrac{1}{H} \textstyle\sum_k \alpha^{l}_k \\
        F_i &= \text{mean of } X^L \text{ over the nodes of utterance i}, \qquad
        v_i = \mathrm{FC}_v(\mathrm{MLP}(F_i)), \quad e_i = \mathrm{FC}_e(\mathrm{MLP}(F_i))

    The layer is :class:`~gmsa.nn.MTAGLayer`. The paper's edges are those of the builder ``mtag``
    (``graph.intra: mtag``, ``graph.inter: mtag``): all pairs of tokens of two modalities and, within one, a token, the
    next and the one before, 27 relations for three modalities; with ``graph.intra: temporal(radius=100000)`` all pairs
    there, too. With any other builder the model has the relations of that. Graphs have no readout nodes.

    What differs from the paper: gmsa's encoders and learned positions (``model.encoders: [[1, 1]]`` is the paper's
    linear map of each step), its heads, and its losses, where the released code divides the loss by its own value.
    What differs from that code: relations say the modalities, not which is longer; edges are taken from each graph by
    itself, where the code takes them from the batch as a whole, so that a prediction depends on those beside it; at
    least one edge is kept; steps of zeros stay. A token whose edges are all gone has a layer's bias for its state.

    In scope ``dialogue`` the same layers join the modalities of a dialogue's utterances, and in scope ``hierarchical``,
    our extension, ``context_layers`` further ones those whose nodes are the means of each modality's tokens; F is the
    mean over an utterance's modalities there. Graphs of dialogues keep all edges: which of them are the weakest would
    depend on what is said later.

    Args:
        dims (Mapping[str, int]): Feature dimension of each modality.
        keep (float, default 0.8): Share of a graph's edges that a layer passes on.
        attention_dropout (float, default 0.1): Dropout on the attention.
        channels (int, default 128): Width C of every token (the paper: 64).
        heads (int, default 8): Attention heads (the paper: 4); must divide ``channels``.
        layers (int, default 2): Layers L, each with weights of its own (the paper: 6).
        encoder (str, default "conv"): Encoder of each modality, by its name in ``ENCODERS``.
        dropout (float, default 0.2): Dropout in the heads.
        input_dropout (float, default 0.5): Dropout on the features.
        convs (Mapping, optional): Convolutions of the graphs' modalities, as (kernel, stride); by default Semi-IIN's.
        positions (int, default 512): Most tokens of a modality (in scope ``dialogue``, utterances).
        scope (str, default "utterance"): Graphs of an ``utterance``, of a ``dialogue``, or ``hierarchical``.
        context (Context, optional): What the graphs of dialogues look like.
        context_layers (int, default 1): In scope ``hierarchical``, layers over the graph of a dialogue.
        num_classes (int, default 7): Number of classes K.
        intensity (bool, default True): Predicts an intensity and its class; else one of K classes alone.
        relations (StreamRelations, optional): The relations of the graphs; by default those of complete ones.

    Shapes:
        - batch of N utterances; output: intensity :math:`(N)`, logits :math:`(N, K)`, no gate

    Example:
        >>> from gmsa.config import from_dict
        >>> from gmsa.data import Utterance
        >>> from gmsa.graph import collate
        >>> from gmsa.models import build_model, graph_spec
        >>> config = from_dict({"model": {"name": "mtag"}, "graph": {"intra": "mtag", "inter": "mtag"}})
        >>> model = build_model({"text": 6, "audio": 4}, config)
        >>> clip = Utterance("video$_$1", {"text": torch.randn(5, 6), "audio": torch.randn(9, 4)})
        >>> output = model(collate([clip], graph_spec(config)))
        >>> output.value.shape, output.logits.shape
        (torch.Size([1]), torch.Size([1, 7]))
    """

    readout_nodes = False
    route = outside_route = "edge"
    takes_relations = True
    takes_weights = True
    says_alone = True

    @classmethod
    def seen_streams(cls, config: ModelConfig) -> tuple[str, ...]:
        return ("global",)

    @classmethod
    def hops(cls, config: Config) -> int:
        return config.model.context_layers if config.graph.scope == "hierarchical" else config.model.layers

    @classmethod
    def check(cls, config: Config) -> None:
        channels, heads = config.model.channels, config.model.heads
        if channels % heads:
            raise ConfigError(f"'model.channels' must be divisible by 'model.heads' (got {channels} and {heads})")
        given = find_part(config.model.name, MODELS, "model.name")[1]
        check_shares(given.get("attention_dropout", 0.0), given.get("keep", 1.0))

    def __init__(
        self,
        dims: Mapping[str, int],
        *,
        keep: float = 0.8,
        attention_dropout: float = 0.1,
        channels: int = 128,
        heads: int = 8,
        layers: int = 2,
        encoder: str = "conv",
        dropout: float = 0.2,
        input_dropout: float = 0.5,
        convs: Convs | None = None,
        positions: int = 512,
        scope: Scope = "utterance",
        context: Context | None = None,
        context_layers: int = 1,
        num_classes: int = INTENSITY_CLASSES,
        intensity: bool = True,
        relations: StreamRelations | None = None,
    ) -> None:
        super().__init__()
        self.embedding = Embedding(
            dims,
            channels,
            encoder=encoder,
            convs=convs,
            input_dropout=input_dropout,
            positions=positions,
            scope=scope,
            dialogue_node=context is not None and context.dialogue_node,
        )
        check_shares(attention_dropout, keep)
        self.scope = scope
        sizes = channels, heads, attention_dropout
        known = relations or StreamRelations(
            {"global": relations_of("global", self.embedding.schema, GraphConfig(), ())}, {}
        )
        kept = 1.0 if scope == "dialogue" else keep
        self.layers = PrunedLayers(*sizes, layers, known.streams["global"], kept)
        self.heads = Heads(channels, num_classes, dropout, intensity)
        if scope == "hierarchical":
            self.outside = ContextEmbedding(self.embedding.outer_schema, self.embedding.modalities, channels)
            self.outside_layers = PrunedLayers(*sizes, context_layers, known.outside_streams["global"], 1.0)

    def describe_stages(self, config: Config) -> list[Row]:
        def layer_row(level: Level, layers: PrunedLayers) -> Row:
            grid, count = stream_grid(self, config, level, "global"), len(layers.layers)
            kept = f", each passes on {layers.keep:.0%} of the edges" if layers.keep < 1 and count > 1 else ""
            note = f"{counted(count, 'layer')}, {counted(grid.relations, 'relation')}{kept}"
            return (Stage("global: mtag", note, (layers,), level, "mtag", grid),)

        level = level_of(config)
        mean = "over an utterance's modalities" if level == "dialogue" else "over all nodes"
        rows = [
            *embedding_rows(self.embedding, config),
            layer_row(level, self.layers),
            (Stage("Mean", mean, (), level),),
        ]
        rows.append(heads_row(self.heads, level, config))
        if self.outside is not None:
            rows += context_rows(self.outside, config, with_readouts=False)
            rows += [
                layer_row("dialogue", self.outside_layers),
                (Stage("Mean", "over an utterance's modalities", (), "dialogue"),),
                heads_row(self.heads, "dialogue", config),
            ]
        return rows

    def nodes(self, z0: Tensor, batch: GraphBatch) -> Tensor:
        """The layers' states."""
        found: Tensor = self.layers(z0, self.edges(z0, batch, "global"))
        return found

    def outside_nodes(
        self, z0: Tensor, batch: GraphBatch, masked: Mapping[str, tuple[Tensor, Tensor]] | None = None
    ) -> Tensor:
        """The outer layers' states."""
        return self._outside(self.nodes(z0, batch), batch, masked)

    def _outside(
        self, z: Tensor, batch: GraphBatch, masked: Mapping[str, tuple[Tensor, Tensor]] | None = None
    ) -> Tensor:
        assert self.outside is not None
        assert batch.dialogues is not None
        x0 = self.outside(self.embedding.pool(z, batch), None, batch.dialogues, masked)
        found: Tensor = self.outside_layers(x0, self.edges(x0, batch.dialogues, "global"))
        return found

    def forward(self, batch: GraphBatch) -> Output:
        z0 = self.embedding(batch)
        z, unimodal, alone = self.nodes(z0, batch), self.predict_unimodal(z0, batch), None
        features = _mean(self.embedding.pool(z, batch)) if self.scope == "dialogue" else mean_of_graphs(z, batch)
        value, logits = self.heads(features, features)
        if self.outside is not None:
            assert batch.dialogues is not None
            alone = value, logits
            features = _mean(self.outside.pool(self._outside(z, batch), batch.dialogues))
            value, logits = self.propagate(self.heads(features, features), batch.dialogues)
        return Output(value, logits, None, features, unimodal=unimodal, alone=alone)


class PrunedLayers(nn.Module):
    """MTAG's layers, each over the edges that the one before it has kept.

    Only nodes of modalities, and that of a dialogue, are known to it: a relation of readout nodes has no weights.

    Args:
        channels (int): Width C.
        heads (int): Attention heads.
        dropout (float): Dropout on the attention.
        layers (int): Layers.
        relations (Relations): The relations of the edges.
        keep (float): Share of a graph's edges that a layer passes on.

    Shapes:
        - x :math:`(V, C)`, :class:`~gmsa.nn.SparseEdges` with relations; output :math:`(V, C)`
    """

    number: Tensor
    """Number of each of the given relations among those that have weights."""

    def __init__(
        self, channels: int, heads: int, dropout: float, layers: int, relations: Relations, keep: float
    ) -> None:
        super().__init__()
        types = tuple(t for t in relations.node_types if t not in READOUTS)
        known = [triple[0] in types and triple[2] in types for triple in relations.triples]
        triples = tuple(triple for triple, is_known in zip(relations.triples, known, strict=True) if is_known)
        self.relations, self.keep = Relations(types, triples), keep
        self.first_type = len(relations.node_types) - len(types)  # readout nodes come first
        self.register_buffer("number", torch.tensor(known).long().cumsum(0) - 1, persistent=False)
        self.layers = nn.ModuleList(MTAGLayer(channels, heads, self.relations, dropout) for _ in range(layers))

    def forward(self, x: Tensor, edges: Edges) -> Tensor:
        found: Tensor = self.layers[-1](*self._before_last(x, edges))
        return found

    def attention_weights(self, x: Tensor, edges: Edges) -> AttentionWeights:
        """Those of the last layer, along the edges that the layers before it have kept."""
        x, left = self._before_last(x, edges)
        found = cast(MTAGLayer, self.layers[-1]).attention_weights(x, left)
        pruned = self.keep < 1 and len(self.layers) > 1
        return found._replace(meaning=f"{found.meaning}, of those that earlier layers kept") if pruned else found

    def _before_last(self, x: Tensor, edges: Edges) -> tuple[Tensor, SparseEdges]:
        """The states and the edges that the last layer is given."""
        assert isinstance(edges, SparseEdges)
        assert edges.relation is not None
        assert edges.node_type is not None
        graph = edges.graph
        assert graph is not None
        counts = edges.type_counts and edges.type_counts[self.first_type :]
        edges = replace(edges, relation=self.number[edges.relation], node_type=edges.node_type - self.first_type)
        edges = replace(edges, type_counts=counts)
        *before, _ = self.layers
        for layer in before:
            x, alpha = cast(MTAGLayer, layer).attend(x, edges)
            if self.keep < 1:
                edges = edges.where(strongest(alpha, graph[edges.index[0]], self.keep))
        return x, edges


def mean_of_graphs(z: Tensor, batch: GraphBatch) -> Tensor:
    """The mean over the nodes of each graph ``[G, C]``, zero where it has none."""
    graph = torch.div(batch.padded_index, batch.shape[1], rounding_mode="floor")
    found: Tensor = scatter(z, graph, dim_size=batch.shape[0], reduce="mean")
    return found


def _mean(states: Mapping[str, Tensor]) -> Tensor:
    return torch.stack([*states.values()]).mean(0)
