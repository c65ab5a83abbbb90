"""SSLMM: messages that alternate between intra-modal and inter-modal edges, for modalities that may be missing.

After the abstract of SSLMM, Information Fusion 120, 2025, 103058. Known from it: a graph, intra and inter messages that
alternate and are iterated, self-supervised pre-training, semi-supervised fine-tuning with reconstruction. Everything
else here is our own design.
"""

# N utterances, M modalities, V nodes of all utterances, C channels, K classes
from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gmsa.config import Config
from gmsa.data.targets import INTENSITY_CLASSES
from gmsa.errors import ConfigError
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
from gmsa.nn import AlternatingBlock, Edges, Heads, ModalityReadout, Relations, without_sources


class SSLMM(Model):
    r"""Alternating blocks over the tokens' graph, read by attention over the modalities that are there.

    .. math::
        h^0 &= \mathrm{Embedding}(X) \\
        h^l &= \mathrm{Block}(h^{l-1}), \quad l = 1 \dots L \\
        F_r &= \sum_{m\ present} \alpha^r_m h_m, \quad r \in \{val, cls\} \\
        v &= \mathrm{FC}_v(\mathrm{MLP}(F_{val})), \quad e = \mathrm{FC}_e(\mathrm{MLP}(F_{cls}))

    :math:`h_m` is the mean over the tokens of modality m, or, in the graph of a dialogue, its node. There a missing
    modality has a node too, a learned token: it receives from the first block on and sends from the second on, counting
    :math:`s = \sigma(w^\top h + b)` times in the softmax (``missing_node: gated``); ``silent`` never sends. Both are
    read for the reconstruction, and for the intensity only of an utterance that has nothing else. ``dropped`` never
    sends and is never read: as if it were not there.

    In scope ``hierarchical`` the means are the nodes of the dialogue's graph, over which further blocks alternate.

    The graph has no readout nodes: through them a message would cross modalities within an intra step. ``streams``
    ``intra`` or ``inter`` leaves out the other half of each block, ``order`` swaps or joins them.

    Args:
        dims (Mapping[str, int]): Feature dimension of each modality.
        channels (int, default 128): Width C of every token.
        heads (int, default 8): Attention heads; must divide ``channels``.
        layers (int, default 2): Alternating blocks.
        shared_layers (bool, default True): One set of weights for all blocks.
        streams (str, default "both"): ``both``, ``intra``, or ``inter``.
        order (str, default "intra_first"): ``intra_first``, ``inter_first``, or ``simultaneous``.
        missing_node (str, default "gated"): In graphs of dialogues, a missing modality's node is ``gated``,
            ``silent``, or ``dropped``.
        layer (str | Mapping, default "attention"): Layer of message passing, by its name in ``LAYERS``; one for all
            streams, or one each.
        encoder (str, default "conv"): Encoder of each modality, by its name in ``ENCODERS``.
        dropout (float, default 0.2): Dropout after attention and feed-forward.
        input_dropout (float, default 0.5): Dropout on the features.
        convs (Mapping, optional): Convolutions of the graphs' modalities, as (kernel, stride); by default Semi-IIN's.
        positions (int, default 512): Most tokens of a modality (in scope ``dialogue``, utterances).
        scope (str, default "utterance"): Graphs of an ``utterance``, of a ``dialogue``, or ``hierarchical``.
        context (Context, optional): What the graphs of dialogues look like.
        context_layers (int, default 1): In scope ``hierarchical``, blocks over the graph of a dialogue.
        num_classes (int, default 7): Number of classes K.
        intensity (bool, default True): Predicts an intensity and its class; else one of K classes alone.
        typed_edges (bool, default False): Learns a bias for each edge type.
        relations (StreamRelations, optional): The relations of the streams, for layers that have weights for each.

    Shapes:
        - batch of N utterances; output: intensity :math:`(N)`, logits :math:`(N, K)`, no gate

    Example:
        >>> import torch
        >>> from gmsa.data import Utterance
        >>> from gmsa.graph import GraphSpec, collate
        >>> convs = {"text": [(3, 1)], "audio": [(4, 2)]}
        >>> model = SSLMM({"text": 6, "audio": 4}, channels=16, heads=2, convs=convs)
        >>> clip = Utterance("video$_$1", {"text": torch.randn(5, 6), "audio": torch.randn(9, 4)})
        >>> output = model(collate([clip], GraphSpec(convs=convs, readouts=())))
        >>> output.value.shape, output.logits.shape
        (torch.Size([1]), torch.Size([1, 7]))
    """

    readout_nodes = False
    takes_weights = True
    says_alone = True

    @classmethod
    def check(cls, config: Config) -> None:
        if config.model.streams == "global":
            raise ConfigError("'model.streams' of sslmm must be both, intra or inter (got global)")

    @classmethod
    def hops(cls, config: Config) -> int:
        layers = config.model.context_layers if config.graph.scope == "hierarchical" else config.model.layers
        return 0 if config.model.streams == "inter" else layers

    def __init__(
        self,
        dims: Mapping[str, int],
        *,
        channels: int = 128,
        heads: int = 8,
        layers: int = 2,
        shared_layers: bool = True,
        streams: Literal["both", "intra", "inter"] = "both",
        order: Literal["intra_first", "inter_first", "simultaneous"] = "intra_first",
        missing_node: Literal["gated", "silent", "dropped"] = "gated",
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
        self.missing_node, self.repeats = missing_node, layers if shared_layers else 1
        self.outside_repeats = context_layers if shared_layers else 1
        types, build, around = self.embedding.schema, Layers(layer), context or Context()
        known = relations or StreamRelations({}, {})
        halves = ("intra", "inter") if streams == "both" else (streams,)

        def make_blocks(layers: int, edge_types: int, relations: Mapping[str, Relations]) -> nn.ModuleList:
            return nn.ModuleList(
                AlternatingBlock(channels, heads, dropout, edge_types, order, halves, build, relations, number + 1)
                for number in range(1 if shared_layers else layers)
            )

        edge_types = types.edge_types if typed_edges else 0
        self.blocks = make_blocks(
            layers, around.edge_types(types) if scope == "dialogue" else edge_types, known.streams
        )
        self.sends = None
        if scope != "utterance" and missing_node == "gated":
            self.sends = nn.Linear(channels, 1)
        self.readouts = nn.ModuleList(ModalityReadout(channels) for _ in range(1 + intensity))
        self.heads = Heads(channels, num_classes, dropout, intensity)
        if scope == "hierarchical":
            types = self.embedding.outer_schema
            self.outside = ContextEmbedding(types, self.embedding.modalities, channels)
            self.outside_blocks = make_blocks(context_layers, around.edge_types(types), known.outside_streams)

    def describe_stages(self, config: Config) -> list[Row]:
        def block_rows(level: Level, blocks: nn.ModuleList, repeats: int) -> list[Row]:
            halves, layers = [], repeats * len(blocks)
            order = cast(AlternatingBlock, blocks[0]).order
            for stream, names in (("intra", ("within",)), ("inter", ("across", "gate", "norm"))):
                parts = [getattr(block, name, None) for block in blocks for name in names]
                if parts[0] is not None:
                    turn = ", in turn with the other stream" if order != "simultaneous" and layers > 1 else ""
                    halves.append(
                        stream_stage(self, config, level, stream, layers, *parts, shared=repeats > 1, note=turn)
                    )
            halves = halves[::-1] if order == "inter_first" else halves
            return [tuple(halves)] if order == "simultaneous" else [(half,) for half in halves]

        says = {"gated": "a learned share", "silent": "nothing", "dropped": "nothing, and are not read"}
        missing = (Stage("Missing modalities", f"send {says[self.missing_node]}", (self.sends,), "dialogue"),)
        level = level_of(config)
        read = Stage("Readout", "weighted mean over the modalities of an utterance", (self.readouts,), level)
        rows = [*embedding_rows(self.embedding, config), *([missing] if level == "dialogue" else [])]
        rows += [*block_rows(level, self.blocks, self.repeats), (read,), heads_row(self.heads, level, config)]
        if self.outside is not None:
            rows += [*context_rows(self.outside, config, with_readouts=False), missing]
            rows += block_rows("dialogue", self.outside_blocks, self.outside_repeats)
            rows += [(read._replace(level="dialogue"),), heads_row(self.heads, "dialogue", config)]
        return rows

    def nodes(self, z0: Tensor, batch: GraphBatch) -> Tensor:
        """States after all blocks ``[V, C]``."""
        missing = None if self.embedding.missing is None else self._missing(batch)
        return self._alternate(self.blocks, self.repeats, z0, batch, missing)

    def outside_nodes(
        self, z0: Tensor, batch: GraphBatch, masked: Mapping[str, tuple[Tensor, Tensor]] | None = None
    ) -> Tensor:
        """States after all outer blocks ``[V', C]``."""
        return self._outside(self.embedding.pool(self.nodes(z0, batch), batch), batch, masked)

    def summarize(self, states: Tensor, batch: GraphBatch) -> Tensor:
        """What the intensity, or the class, is read from ``[N, C]``."""
        graph, inside = (batch, self.embedding) if self.outside is None else (batch.dialogues, self.outside)
        assert graph is not None
        return self._read(inside.pool(states, graph), graph, self._reads_missing)[0]

    def _outside(
        self,
        states: Mapping[str, Tensor],
        batch: GraphBatch,
        masked: Mapping[str, tuple[Tensor, Tensor]] | None = None,
    ) -> Tensor:
        assert self.outside is not None
        assert batch.dialogues is not None
        x0 = self.outside(states, None, batch.dialogues, masked)
        missing = self._missing(batch.dialogues)
        return self._alternate(self.outside_blocks, self.outside_repeats, x0, batch.dialogues, missing)

    def _alternate(
        self, blocks: nn.ModuleList, repeats: int, h: Tensor, batch: GraphBatch, missing: Tensor | None
    ) -> Tensor:
        silent, initial = missing if self.sends is None else None, h
        edges = {s: self.edges(h, batch, s, silent) for s in batch.edges if s in ("intra", "inter")}
        seen: Mapping[str, Edges] = edges
        if missing is not None:
            seen = {stream: without_sources(e, missing) for stream, e in edges.items()}
        for number, block in enumerate(block for block in blocks for _ in range(repeats)):
            source_log_weight = None
            if self.sends is not None and missing is not None and number:
                seen = edges
                source_log_weight = F.logsigmoid(self.sends(h)).squeeze(-1) * missing
            h = block(h, seen.get("intra"), seen.get("inter"), source_log_weight, initial)
        return h

    def forward(self, batch: GraphBatch) -> Output:
        z0 = self.embedding(batch)
        states, unimodal = self.embedding.pool(self.nodes(z0, batch), batch), self.predict_unimodal(z0, batch)
        if self.outside is None:
            features, predicted = self._read_out(states, batch, self._reads_missing)
            known = states if self._reads_missing else None
            return Output(*predicted, None, features, known, unimodal)
        assert batch.dialogues is not None
        _, alone = self._read_out(states, batch, False)
        states = self.outside.pool(self._outside(states, batch), batch.dialogues)
        features, predicted = self._read_out(states, batch.dialogues, self._reads_missing)
        known = states if self._reads_missing else None
        return Output(*self.propagate(predicted, batch.dialogues), None, features, known, unimodal, alone)

    @property
    def _reads_missing(self) -> bool:
        """Whether the nodes of missing modalities, which graphs of dialogues have, are read."""
        return self.missing_node != "dropped" and (self.outside is not None or self.embedding.missing is not None)

    def _read_out(
        self, states: Mapping[str, Tensor], graph: GraphBatch, with_missing: bool
    ) -> tuple[Tensor, tuple[Tensor | None, Tensor]]:
        """What the intensity, or the class, is read from ``[N, C]``, and the predictions."""
        found = self._read(states, graph, with_missing)
        return found[0], self.heads(found[0], found[-1])

    def _read(self, states: Mapping[str, Tensor], graph: GraphBatch, with_missing: bool) -> list[Tensor]:
        """What each readout reads of the modalities ``[N, C]``."""
        present = self.present(graph)
        if with_missing:
            # The nodes of an utterance without any modality are read all the same: its neighbours have sent to them.
            present = present | ~present.any(1, keepdim=True)
        stacked = torch.stack(list(states.values()), dim=1)  # [N, M, C]
        return [read(stacked, present) for read in self.readouts]

    def _missing(self, graph: GraphBatch) -> Tensor:
        """Which nodes of graphs of dialogues represent a missing modality ``[V]``."""
        gone = torch.cat([graph.lengths[m] == 0 for m in self.embedding.modalities])
        none = gone.new_zeros(1)  # the node of a dialogue
        return torch.cat([none, gone]).index_select(0, graph.embedding_row)
