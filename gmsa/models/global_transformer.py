"""A transformer over all nodes."""

# N utterances, V nodes of all of them, G graphs of up to T nodes, C channels, K classes
from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from gmsa.config import Config, ModelConfig
from gmsa.data.targets import INTENSITY_CLASSES
from gmsa.graph import GraphBatch
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
from gmsa.nn import DenseEdges, Heads


class GlobalTransformer(Model):
    r"""PyTorch's transformer encoder over all nodes, without any mask but padding's in the graphs of utterances.

    .. math::
        Z^0 &= [\,val; cls; H_a; H_t; H_v\,] + position \\
        Z &= \mathrm{Transformer}(Z^0) \\
        v &= \mathrm{FC}_v(\mathrm{MLP}(Z_{val})), \quad e = \mathrm{FC}_e(\mathrm{MLP}(Z_{cls}))

    In graphs of dialogues a node sees those that an edge of either stream joins with it, and itself. In scope
    ``hierarchical`` a second encoder is over these, whose nodes start as the first one's readout nodes and the means of
    each modality's states.

    Vaswani et al.: Attention Is All You Need, NeurIPS 2017, with the norm before each sublayer.

    Args:
        dims (Mapping[str, int]): Feature dimension of each modality.
        channels (int, default 128): Width C of every token.
        heads (int, default 8): Attention heads; must divide ``channels``.
        layers (int, default 2): Layers of the encoder.
        encoder (str, default "conv"): Encoder of each modality, by its name in ``ENCODERS``.
        dropout (float, default 0.2): Dropout of the encoder.
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
        >>> model = GlobalTransformer({"text": 6, "audio": 4}, channels=16, heads=2, convs=convs)
        >>> clip = Utterance("video$_$1", {"text": torch.randn(5, 6), "audio": torch.randn(9, 4)})
        >>> output = model(collate([clip], GraphSpec(convs=convs, streams=())))
        >>> output.value.shape, output.logits.shape
        (torch.Size([1]), torch.Size([1, 7]))
    """

    outside_route = "dense"
    says_alone = True
    recordable = True

    @classmethod
    def seen_streams(cls, config: ModelConfig) -> tuple[str, ...]:
        return ()

    @classmethod
    def seen_outside(cls, config: ModelConfig) -> tuple[str, ...]:
        return ("global",)

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
        self.num_heads, self.scope = heads, scope

        def make_encoder(layers: int) -> nn.TransformerEncoder:
            layer = nn.TransformerEncoderLayer(
                channels, heads, 4 * channels, dropout, batch_first=True, norm_first=True
            )
            return nn.TransformerEncoder(layer, layers, norm=nn.LayerNorm(channels), enable_nested_tensor=False)

        self.encoder = make_encoder(layers)
        self.heads = Heads(channels, num_classes, dropout, intensity)
        if scope == "hierarchical":
            self.outside = ContextEmbedding(self.embedding.outer_schema, self.embedding.modalities, channels)
            self.outside_encoder = make_encoder(context_layers)

    def describe_stages(self, config: Config) -> list[Row]:
        def encoder(level: Level, part: nn.TransformerEncoder) -> Row:
            layers, heads = counted(part.num_layers, "layer"), counted(self.num_heads, "head")
            if level == "utterance":
                return (Stage("Transformer", f"{layers}, {heads}, all nodes see all", (part,), level),)
            grid = stream_grid(self, config, level, "global", typed=False)
            note = f"{layers}, {heads}, along edges of one kind"
            return (Stage("global: transformer", note, (part,), level, "transformer", grid),)

        level = level_of(config)
        rows = [
            *embedding_rows(self.embedding, config),
            encoder(level, self.encoder),
            heads_row(self.heads, level, config),
        ]
        if self.outside is not None:
            rows += context_rows(self.outside, config)
            rows.append(encoder("dialogue", self.outside_encoder))
            rows.append(heads_row(self.heads, "dialogue", config))
        return rows

    def nodes(self, z0: Tensor, batch: GraphBatch) -> Tensor:
        """The encoder's states."""
        return self._encode(self.encoder, z0, batch, self.scope == "dialogue")

    def outside_nodes(
        self, z0: Tensor, batch: GraphBatch, masked: Mapping[str, tuple[Tensor, Tensor]] | None = None
    ) -> Tensor:
        """The outer encoder's states."""
        assert batch.dialogues is not None
        x0 = self.start_outside(self.nodes(z0, batch), batch, masked)
        return self._encode(self.outside_encoder, x0, batch.dialogues, True)

    def _encode(self, encoder: nn.Module, z0: Tensor, batch: GraphBatch, by_edges: bool) -> Tensor:
        graphs, size, _ = batch.shape
        padded = z0.new_zeros(graphs * size, z0.shape[1]).index_copy(0, batch.padded_index, z0).view(graphs, size, -1)
        if by_edges:
            edges = batch.edges["global"]
            assert isinstance(edges, DenseEdges)
            hidden = ~(edges.adjacency.bool() | torch.eye(size, dtype=torch.bool, device=z0.device))
            z = encoder(padded, mask=hidden.repeat_interleave(self.num_heads, dim=0))
        else:
            padding = torch.ones(graphs * size, dtype=torch.bool, device=z0.device)
            padding = padding.index_fill(0, batch.padded_index, False).view(graphs, size)
            z = encoder(padded, src_key_padding_mask=padding)
        found: Tensor = z.flatten(0, 1).index_select(0, batch.padded_index)
        return found

    def forward(self, batch: GraphBatch) -> Output:
        z0 = self.embedding(batch)
        z, unimodal, alone = self.nodes(z0, batch), self.predict_unimodal(z0, batch), None
        val, cls = batch.readout(z)
        value, logits = self.heads(val, cls)
        if batch.dialogues is not None:
            alone = value, logits
            x0 = self.start_outside(z, batch)
            z = self._encode(self.outside_encoder, x0, batch.dialogues, True)
            val, cls = batch.dialogues.readout(z)
            value, logits = self.propagate(self.heads(val, cls), batch.dialogues)
        return Output(value, logits, None, cls if val is None else val, unimodal=unimodal, alone=alone)
