"""Semi-IIN: separate intra-modal and inter-modal masked attention, joined by a gate.

Lin, Wang, Xu and Liu: Semi-IIN: Semi-supervised Intra-inter modal Interaction Learning Network for
Multimodal Sentiment Analysis. AAAI 2025, arXiv 2412.09784.
"""

# N utterances, V nodes of all of them, C channels, K classes
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, cast

import torch
from torch import Tensor, nn

from gmsa.config import Config
from gmsa.data.targets import INTENSITY_CLASSES
from gmsa.graph import GraphBatch
from gmsa.models.base import Convs, Embedding, Model, Output, Scope
from gmsa.models.context import Context, ContextEmbedding, StreamRelations
from gmsa.models.parts import Layers
from gmsa.models.views.stages import (
    Level,
    Row,
    Stage,
    context_rows,
    embedding_rows,
    heads_row,
    level_of,
    stream_stage,
)
from gmsa.nn import DenseEdges, Heads, Relations, Stream, build_fusion
from gmsa.nn.streams.stacked import can_stack, stacked_streams


class SemiIIN(Model):
    r"""Two streams of masked attention over one graph, gated at the readout nodes.

    .. math::
        Z^0 &= [\,val; cls; H_a; H_t; H_v\,] + position \\
        Z_s &= \mathrm{Stream}_s(Z^0), \quad s \in \{intra, inter\} \\
        F_r &= \mathrm{Gate}_r(Z_{intra}[r], Z_{inter}[r]), \quad r \in \{val, cls\} \\
        v &= \mathrm{FC}_v(\mathrm{MLP}(F_{val})), \quad e = \mathrm{FC}_e(\mathrm{MLP}(F_{cls}))

    The embedding is Eqs. 1-5 (:class:`~gmsa.models.Embedding`), a stream the section "Masked attention"
    (:class:`~gmsa.nn.Stream`), the gate Eq. 16 (:class:`~gmsa.nn.Gate`), the last line the section "Prediction"
    (:class:`~gmsa.nn.Heads`). ``streams`` other than ``both`` and ``fusion`` other than ``gate`` are the paper's
    ablations; ``global`` is one stream over the edges of both.

    In scope ``hierarchical`` each stream has a second one over the graph of the dialogue (our extension). Its nodes
    start as what the first stream gives: the readout nodes, and of each modality the mean of its tokens' states before
    the last layer, which thus computes the readout nodes alone. The second streams have gates of their own; the heads
    read both levels.

    Args:
        dims (Mapping[str, int]): Feature dimension of each modality.
        channels (int, default 128): Width C of every token.
        heads (int, default 8): Attention heads; must divide ``channels``.
        layers (int, default 2): Interaction layers of each stream.
        shared_layers (bool, default True): One set of weights for all layers of a stream.
        streams (str, default "both"): ``both``, ``intra``, ``inter``, or ``global``.
        fusion (str, default "gate"): ``gate``, ``add``, ``dot``, or ``concat``.
        layer (str | Mapping, default "attention"): Layer of message passing, by its name in ``LAYERS``; one for all
            streams, or one each.
        encoder (str, default "conv"): Encoder of each modality, by its name in ``ENCODERS``.
        dropout (float, default 0.2): Dropout after attention and feed-forward.
        input_dropout (float, default 0.5): Dropout on the features.
        convs (Mapping, optional): Convolutions of the graphs' modalities, as (kernel, stride); by default the paper's.
        positions (int, default 512): Most tokens of a modality (in scope ``dialogue``, utterances).
        scope (str, default "utterance"): Graphs of an ``utterance``, of a ``dialogue``, or ``hierarchical``.
        context (Context, optional): What the graphs of dialogues look like.
        context_layers (int, default 1): In scope ``hierarchical``, layers of each stream over the graph of a dialogue.
        num_classes (int, default 7): Number of classes K.
        intensity (bool, default True): Predicts an intensity and its class; else one of K classes alone.
        typed_edges (bool, default False): Learns a bias for each edge type.
        relations (StreamRelations, optional): The relations of the streams, for layers that have weights for each.

    Shapes:
        - batch of N utterances; output: intensity :math:`(N)`, logits :math:`(N, K)`, gate :math:`(N, 2, C)`

    Example:
        >>> import torch
        >>> from gmsa.data import Utterance
        >>> from gmsa.graph import GraphSpec, collate
        >>> convs = {"text": [(3, 1)], "audio": [(4, 2)]}
        >>> model = SemiIIN({"text": 6, "audio": 4}, channels=16, heads=2, convs=convs)
        >>> clip = Utterance("video$_$1", {"text": torch.randn(5, 6), "audio": torch.randn(9, 4)})
        >>> output = model(collate([clip], GraphSpec(convs=convs)))
        >>> output.value.shape, output.logits.shape, output.gate.shape
        (torch.Size([1]), torch.Size([1, 7]), torch.Size([1, 2, 16]))
    """

    takes_weights = True
    says_alone = True
    recordable = True

    @classmethod
    def hops(cls, config: Config) -> int:
        if config.graph.scope == "hierarchical":
            return config.model.context_layers
        # The last layer's messages go to readout nodes, from nodes of their own utterance.
        return 0 if config.model.streams == "inter" else config.model.layers - 1

    def __init__(
        self,
        dims: Mapping[str, int],
        *,
        channels: int = 128,
        heads: int = 8,
        layers: int = 2,
        shared_layers: bool = True,
        streams: Literal["both", "intra", "inter", "global"] = "both",
        fusion: Literal["gate", "add", "dot", "concat"] = "gate",
        layer: str | Mapping[str, str] = "attention",
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
        typed_edges: bool = False,
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
        names = ("intra", "inter") if streams == "both" else (streams,)
        types, build, around = self.embedding.schema, Layers(layer), context or Context()
        edge_types = types.edge_types if typed_edges else 0

        known = relations or StreamRelations({}, {})

        def make_streams(layers: int, edge_types: int, relations: Mapping[str, Relations]) -> nn.ModuleDict:
            sizes = channels, heads, layers, shared_layers, dropout, edge_types
            return nn.ModuleDict({name: Stream(*sizes, build[name], relations.get(name)) for name in names})

        def make_fusions() -> nn.ModuleList:
            return nn.ModuleList(build_fusion(fusion, channels) for _ in range(1 + intensity if len(names) == 2 else 0))

        self.streams = make_streams(
            layers, around.edge_types(types) if scope == "dialogue" else edge_types, known.streams
        )
        self.fusions = make_fusions()
        self.heads = Heads(channels, num_classes, dropout, intensity)
        if scope == "hierarchical":
            types = self.embedding.outer_schema
            self.outside = ContextEmbedding(types, self.embedding.modalities, channels)
            self.outside_streams = make_streams(context_layers, around.edge_types(types), known.outside_streams)
            self.outside_fusions = make_fusions()

    def describe_stages(self, config: Config) -> list[Row]:
        def stream_rows(level: Level, layers: int, streams: nn.ModuleDict, fusions: nn.ModuleList) -> list[Row]:
            shared, settings = config.model.shared_layers, (self, config, level)
            rows: list[Row] = [
                tuple(stream_stage(*settings, name, layers, part, shared=shared) for name, part in streams.items())
            ]
            if len(streams) == 2:
                note = f"{config.model.fusion} of both streams at {' and '.join(self.seen_readouts(config))}"
                rows.append((Stage("Fusion", note, (fusions,), level),))
            return rows

        level = level_of(config)
        rows = embedding_rows(self.embedding, config)
        rows += [
            *stream_rows(level, config.model.layers, self.streams, self.fusions),
            heads_row(self.heads, level, config),
        ]
        if self.outside is not None:
            rows += context_rows(self.outside, config)
            rows += stream_rows("dialogue", config.model.context_layers, self.outside_streams, self.outside_fusions)
            rows.append(heads_row(self.heads, "dialogue", config))
        return rows

    def nodes(self, z0: Tensor, batch: GraphBatch) -> Tensor:
        """The mean of the streams' states, of all nodes instead of the readout nodes alone."""
        return torch.stack([stream(z0, self.edges(z0, batch, name)) for name, stream in self.streams.items()]).mean(0)

    def outside_nodes(
        self, z0: Tensor, batch: GraphBatch, masked: Mapping[str, tuple[Tensor, Tensor]] | None = None
    ) -> Tensor:
        """The mean of the outer streams' states."""
        graph = batch.dialogues
        assert graph is not None
        starts = {name: self._outside(name, z0, batch, masked)[0] for name in self.outside_streams}
        found = [s(starts[n], self.edges(starts[n], graph, n)) for n, s in self.outside_streams.items()]
        return torch.stack(found).mean(0)

    def _outside(
        self, name: str, z0: Tensor, batch: GraphBatch, masked: Mapping[str, tuple[Tensor, Tensor]] | None = None
    ) -> tuple[Tensor, Tensor]:
        """The nodes of the dialogues' graphs ``[V', C]`` as the stream of that name sees the utterances, and the states
        of each utterance's readout nodes ``[N, Q, C]``."""
        assert self.outside is not None
        assert batch.dialogues is not None
        stream = cast(Stream, self.streams[name])
        z, read = stream.both(z0, batch.edges[name], batch.readout_edges[name], batch.readout_index)
        read = read[batch.readout_rows]
        return self.outside(self.embedding.pool(z, batch), read, batch.dialogues, masked), read

    def forward(self, batch: GraphBatch) -> Output:
        z0 = self.embedding(batch)
        unimodal = self.predict_unimodal(z0, batch)
        if self.outside is None:
            read, gate = self._read(self.streams, dict.fromkeys(self.streams, z0), batch, self.fusions)
            value, logits = self.heads(*_ends(read))
            return Output(value, logits, gate, read[0], unimodal=unimodal)
        assert batch.dialogues is not None
        states = {name: self._outside(name, z0, batch) for name in self.streams}
        alone = self.heads(*_ends(_fused([read for _, read in states.values()], self.fusions)[0]))
        starts = {name: x for name, (x, _) in states.items()}
        read, gate = self._read(self.outside_streams, starts, batch.dialogues, self.outside_fusions)
        value, logits = self.propagate(self.heads(*_ends(read)), batch.dialogues)
        return Output(value, logits, gate, read[0], unimodal=unimodal, alone=alone)

    def _read(
        self, streams: nn.ModuleDict, starts: Mapping[str, Tensor], graph: GraphBatch, fusions: nn.ModuleList
    ) -> tuple[Sequence[Tensor], Tensor | None]:
        """What the streams make of their starts, fused at the readout nodes."""
        views, start = [], next(iter(starts.values()))
        chosen = {name: self.edges(starts[name], graph, name) for name in streams}
        same = all(x is start for x in starts.values()) and all(e is graph.edges[name] for name, e in chosen.items())
        parts = cast(list[Stream], [*streams.values()])
        if same and len(parts) > 1 and can_stack(parts, [*chosen.values()], start):
            dense, to_readouts = (
                cast(list[DenseEdges], [edges[name] for name in streams]) for edges in (chosen, graph.readout_edges)
            )
            read = stacked_streams(parts, start, dense, to_readouts, graph.readout_index)
            rows = graph.readout_rows
            return _fused(read.index_select(1, rows.flatten()).unflatten(1, rows.shape).unbind(0), fusions)
        for name, stream in streams.items():
            edges = chosen[name]
            if edges is graph.edges[name]:
                read = stream(starts[name], edges, graph.readout_edges[name], graph.readout_index)
            else:  # edges that are chosen or weighed end at all nodes
                read = stream(starts[name], edges).index_select(0, graph.readout_index)
            views.append(read[graph.readout_rows])
        return _fused(views, fusions)


def _fused(views: Sequence[Tensor], fusions: nn.ModuleList) -> tuple[Sequence[Tensor], Tensor | None]:
    """The streams' views of the readout nodes ``[N, Q, C]`` as one each ``[N, C]``, and the gates ``[N, Q, C]``."""
    if len(views) == 1:
        return views[0].unbind(1), None
    intra, inter = (view.unbind(1) for view in views)
    fused = [fuse(*ends) for fuse, *ends in zip(fusions, intra, inter, strict=True)]
    gates = [g for _, g in fused if g is not None]
    return [view for view, _ in fused], torch.stack(gates, dim=1) if gates else None


def _ends(read: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """val and cls, which are one where the target is one of K classes."""
    return read[0], read[-1]
