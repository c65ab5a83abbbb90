"""PyG's heterogeneous graph transformer."""

# N utterances, V nodes of all of them, G graphs of up to T nodes, C channels, K classes
from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate

import torch
from torch import Tensor, nn
from torch_geometric.nn import HGTConv
from torch_geometric.nn.module_dict import ModuleDict

from gmsa.config import Config, ModelConfig
from gmsa.data.targets import INTENSITY_CLASSES
from gmsa.graph import DIALOGUE, GraphBatch, Schema
from gmsa.graph.schema import Relation
from gmsa.models.base import Convs, Embedding, Model, Output, Scope
from gmsa.models.context import Context, ContextEmbedding
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
from gmsa.nn import Dropout, Heads


class Convolution(HGTConv):
    """PyG's convolution for many relations of which a batch gives few: its values and gradients, in less time.

    PyG multiplies by the matrix of every relation and head in turn, and each of these steps copies all gradients.
    """

    def forward(self, x_dict: dict[str, Tensor], edge_index_dict: dict[Relation, Tensor]) -> dict[str, Tensor]:
        found: dict[str, Tensor] = super().forward(x_dict, edge_index_dict)
        absent = [self.p_rel["__".join(relation)] for relation in self.edge_types if relation not in edge_index_dict]
        if not absent:
            return found
        nothing = 0 * torch.cat(absent).sum()  # so that they have a gradient, of zero, as with all relations
        return {node_type: y + nothing for node_type, y in found.items()}

    def _construct_src_node_feat(
        self, k_dict: dict[str, Tensor], v_dict: dict[str, Tensor], edge_index_dict: dict[Relation, Tensor]
    ) -> tuple[Tensor, Tensor, dict[Relation, int]]:
        H, D, relations = self.heads, self.out_channels // self.heads, [*edge_index_dict]
        sizes = [len(k_dict[source]) for source, _, _ in relations]
        offset = dict(zip(relations, accumulate(sizes, initial=0), strict=False))
        numbers = [h * len(self.edge_types) + self.edge_types_map[r] for h in range(H) for r in relations]

        def multiplied(x: dict[str, Tensor], weight: Tensor) -> Tensor:
            rows = torch.cat([x[source] for source, _, _ in relations]).transpose(0, 1).reshape(-1, D)
            matrices = weight.index_select(0, torch.tensor(numbers, device=weight.device)).unbind()
            parts = [part @ matrix for part, matrix in zip(rows.split(sizes * H), matrices, strict=True)]
            return torch.cat(parts).view(H, -1, D).transpose(0, 1)

        return multiplied(k_dict, self.k_rel.weight), multiplied(v_dict, self.v_rel.weight), offset


class HGT(Model):
    r"""PyG's heterogeneous graph transformer on the same graph, read at the same readout nodes.

    .. math::
        Z^0 &= [\,val; cls; H_a; H_t; H_v\,] + position \\
        Z^l &= \mathrm{LN}(Z^{l-1} + \mathrm{HGTConv}(Z^{l-1})), \quad l = 1 \dots L \\
        v &= \mathrm{FC}_v(\mathrm{MLP}(Z^L_{val})), \quad e = \mathrm{FC}_e(\mathrm{MLP}(Z^L_{cls}))

    In graphs of dialogues whose edges are of more than one kind (by distance, by speakers), each kind is a relation. In
    scope ``hierarchical`` further convolutions are over the graph of the dialogue, whose nodes start as the first ones'
    readout nodes and the means of each modality's states.

    Hu et al.: Heterogeneous Graph Transformer, WWW 2020; the residual around each convolution and the norm are ours.

    Args:
        dims (Mapping[str, int]): Feature dimension of each modality.
        channels (int, default 128): Width C of every token.
        heads (int, default 8): Attention heads; must divide ``channels``.
        layers (int, default 2): Convolutions.
        encoder (str, default "conv"): Encoder of each modality, by its name in ``ENCODERS``.
        dropout (float, default 0.2): Dropout after each convolution.
        input_dropout (float, default 0.5): Dropout on the features.
        convs (Mapping, optional): Convolutions of the graphs' modalities, as (kernel, stride); by default Semi-IIN's.
        positions (int, default 512): Most tokens of a modality (in scope ``dialogue``, utterances).
        scope (str, default "utterance"): Graphs of an ``utterance``, of a ``dialogue``, or ``hierarchical``.
        context (Context, optional): What the graphs of dialogues look like.
        context_layers (int, default 1): In scope ``hierarchical``, layers over the graph of a dialogue.
        num_classes (int, default 7): Number of classes K.
        intensity (bool, default True): Predicts an intensity and its class; else one of K classes alone.

    Shapes:
        - batch of N utterances; output: intensity :math:`(N)`, logits :math:`(N, K)`, no gate

    Example:
        >>> import torch
        >>> from gmsa.data import Utterance
        >>> from gmsa.graph import GraphSpec, collate
        >>> convs = {"text": [(3, 1)], "audio": [(4, 2)]}
        >>> model = HGT({"text": 6, "audio": 4}, channels=16, heads=2, convs=convs)
        >>> clip = Utterance("video$_$1", {"text": torch.randn(5, 6), "audio": torch.randn(9, 4)})
        >>> output = model(collate([clip], GraphSpec(convs=convs, route="edge")))
        >>> output.value.shape, output.logits.shape
        (torch.Size([1]), torch.Size([1, 7]))
    """

    route = outside_route = "edge"
    says_alone = True

    @classmethod
    def hops(cls, config: Config) -> int:
        if config.graph.scope == "hierarchical":
            return config.model.context_layers
        return config.model.layers - 1  # readout nodes, which the last layer ends at, hear their own utterance alone

    def __init__(
        self,
        dims: Mapping[str, int],
        *,
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
        types = self.embedding.schema
        # HGTConv keeps its weights by node type in a ModuleDict, which refuses names that it has for itself.
        self.keys = {t: ModuleDict.to_internal_key(t) for t in (*types.node_types, DIALOGUE)}
        self.kinds = context.kinds if context is not None and scope != "utterance" else 1

        def make_convs(layers: int, types: Schema, kinds: int) -> nn.ModuleList:
            metadata = ([self.keys[t] for t in types.node_types], self._relations(types, kinds))
            conv = Convolution if kinds > 1 else HGTConv
            return nn.ModuleList(conv(channels, channels, metadata, heads) for _ in range(layers))

        self.convs = make_convs(layers, types, self.kinds if scope == "dialogue" else 1)
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(layers))
        self.dropout = Dropout(dropout)
        self.heads = Heads(channels, num_classes, dropout, intensity)
        if scope == "hierarchical":
            types = self.embedding.outer_schema
            self.outside = ContextEmbedding(types, self.embedding.modalities, channels)
            self.outside_convs = make_convs(context_layers, types, self.kinds)
            self.outside_norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(context_layers))

    @classmethod
    def seen_streams(cls, config: ModelConfig) -> tuple[str, ...]:
        return ("intra", "inter")

    def describe_stages(self, config: Config) -> list[Row]:
        def convolution(level: Level, convs: nn.ModuleList, norms: nn.ModuleList) -> Row:
            grid = stream_grid(self, config, level, "intra", "inter")
            note = f"{counted(len(convs), 'layer')} with residuals and norms, {counted(grid.relations, 'relation')}"
            return (Stage("intra and inter: HGTConv", note, (convs, norms), level, "HGTConv", grid),)

        level = level_of(config)
        rows = [*embedding_rows(self.embedding, config), convolution(level, self.convs, self.norms)]
        rows.append(heads_row(self.heads, level, config))
        if self.outside is not None:
            rows += context_rows(self.outside, config)
            rows.append(convolution("dialogue", self.outside_convs, self.outside_norms))
            rows.append(heads_row(self.heads, "dialogue", config))
        return rows

    def nodes(self, z0: Tensor, batch: GraphBatch) -> Tensor:
        """The convolutions' states."""
        return self._convolve(self.convs, self.norms, z0, batch, self.embedding.missing is not None)

    def outside_nodes(
        self, z0: Tensor, batch: GraphBatch, masked: Mapping[str, tuple[Tensor, Tensor]] | None = None
    ) -> Tensor:
        """The outer convolutions' states."""
        assert batch.dialogues is not None
        x0 = self.start_outside(self.nodes(z0, batch), batch, masked)
        return self._convolve(self.outside_convs, self.outside_norms, x0, batch.dialogues, True)

    def _relations(self, types: Schema, kinds: int) -> list[tuple[str, str, str]]:
        """The relations, those between utterances once per kind of edge: by distance and speakers."""
        found = []
        for source, stream, target in types.relations:
            names = [f"{stream}{k}" for k in range(kinds)] if kinds > 1 and source == target else [stream]
            found += [(self.keys[source], name, self.keys[target]) for name in names]
        return found

    def _convolve(
        self, convs: nn.ModuleList, norms: nn.ModuleList, z0: Tensor, batch: GraphBatch, of_dialogues: bool
    ) -> Tensor:
        index = {self.keys[t]: batch.node_index(t) for t in batch.schema.node_types}
        x = {t: z0[rows] for t, rows in index.items()}
        edges = {}
        for (source, stream, target), (found, kind) in batch.typed_edge_index_dict().items():
            keys = self.keys[source], self.keys[target]
            if of_dialogues and self.kinds > 1 and source == target:
                kind = kind % self.kinds
                for k in kind.unique().tolist():  # relations without edges take as long as those that have some
                    edges[keys[0], f"{stream}{k}", keys[1]] = found[:, kind == k]
            else:
                edges[keys[0], stream, keys[1]] = found
        for conv, norm in zip(convs, norms, strict=True):
            mixed = conv(x, edges)
            x = {t: norm(x[t] + self.dropout(mixed[t])) for t in x}
        return torch.zeros_like(z0).index_copy(0, torch.cat(list(index.values())), torch.cat(list(x.values())))

    def forward(self, batch: GraphBatch) -> Output:
        z0 = self.embedding(batch)
        z, unimodal, alone = self.nodes(z0, batch), self.predict_unimodal(z0, batch), None
        val, cls = batch.readout(z)
        value, logits = self.heads(val, cls)
        if batch.dialogues is not None:
            alone = value, logits
            x0 = self.start_outside(z, batch)
            z = self._convolve(self.outside_convs, self.outside_norms, x0, batch.dialogues, True)
            val, cls = batch.dialogues.readout(z)
            value, logits = self.propagate(self.heads(val, cls), batch.dialogues)
        return Output(value, logits, None, cls if val is None else val, unimodal=unimodal, alone=alone)
