"""SSLMM: messages that alternate between intra-modal and inter-modal edges, for modalities that may be missing.

After the abstract of SSLMM, Information Fusion 120, 2025, 103058. Known from it: a graph, intra and inter messages that
alternate and are iterated, self-supervised pre-training, semi-supervised fine-tuning with reconstruction. Everything
else here is our own design.
"""

# N utterances, M modalities, V nodes of all utterances, C channels, K classes
from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gmsa.config import Config
from gmsa.data.targets import NUM_CLASSES
from gmsa.errors import ConfigError
from gmsa.graph import KINDS, GraphBatch
from gmsa.models.base import Embedding, Model, Output, edges_of
from gmsa.nn import AlternatingBlock, Edges, Heads, ModalityReadout, without_sources


class SSLMM(Model):
    r"""Alternating blocks over the tokens' graph, read by attention over the modalities that are there.

    .. math::
        h^0 &= \mathrm{Embedding}(X) \\
        h^l &= \mathrm{Block}(h^{l-1}), \quad l = 1 \dots L \\
        F_r &= \sum_{m\ present} \alpha^r_m h_m, \quad r \in \{val, cls\} \\
        v &= \mathrm{FC}_v(\mathrm{MLP}(F_{val})), \quad e = \mathrm{FC}_e(\mathrm{MLP}(F_{cls}))

    :math:`h_m` is the mean over the tokens of modality m, or, in a video graph, its node. There a missing modality has
    a node too, a learned token: it receives from the first block on and sends from the second on, counting
    :math:`s = \sigma(w^\top h + b)` times in the softmax (``missing_node: gated``); ``silent`` never sends. Both are
    read for the reconstruction, and for the intensity only of an utterance that has nothing else. ``dropped`` never
    sends and is never read: as if it were not there.

    The graph has no readout nodes: through them a message would cross modalities within an intra step. ``streams``
    ``intra`` or ``inter`` leaves out the other half of each block, ``order`` swaps or joins them.

    Shapes:
        - batch of N utterances; output: intensity :math:`(N)`, logits :math:`(N, K)`, no gate
    """

    readout_nodes = False

    @classmethod
    def check(cls, config: Config) -> None:
        if config.model.streams == "global":
            raise ConfigError("'model.streams' of sslmm must be both, intra or inter (got global)")

    def __init__(self, dims: Mapping[str, int], config: Config) -> None:
        super().__init__()
        model = config.model
        self.embedding = Embedding(dims, config)
        kinds = KINDS if config.graph.typed else 0
        self.missing_node, self.repeats = model.missing_node, model.layers if model.shared_layers else 1
        self.blocks = nn.ModuleList(
            AlternatingBlock(model.channels, model.heads, model.dropout, kinds, model.order, self.seen_streams(model))
            for _ in range(1 if model.shared_layers else model.layers)
        )
        self.sends = None
        if config.graph.scope == "video" and self.missing_node == "gated":
            self.sends = nn.Linear(model.channels, 1)
        self.readouts = nn.ModuleList(ModalityReadout(model.channels) for _ in ("val", "cls"))
        self.heads = Heads(model.channels, NUM_CLASSES, model.dropout)

    def nodes(self, z0: Tensor, batch: GraphBatch) -> Tensor:
        """States after all blocks ``[V, C]``."""
        h = z0
        edges = {stream: edges_of(batch, stream) for stream in batch.edges if stream in ("intra", "inter")}
        missing = self._missing(batch)
        heard: Mapping[str, Edges] = edges
        if missing is not None:
            heard = {stream: without_sources(e, missing) for stream, e in edges.items()}
        for number, block in enumerate(block for block in self.blocks for _ in range(self.repeats)):
            source_log_weight = None
            if self.sends is not None and missing is not None and number:
                heard = edges
                source_log_weight = F.logsigmoid(self.sends(h)).squeeze(-1) * missing
            h = block(h, heard.get("intra"), heard.get("inter"), source_log_weight)
        return h

    def forward(self, batch: GraphBatch) -> Output:
        h = self.nodes(self.embedding(batch), batch)
        table = h.new_zeros(len(h) + 1, h.shape[1]).index_copy(0, batch.slot, h)[1:]
        video = self.embedding.missing is not None
        parts = table.split([_rows(batch, m, video) for m in self.embedding.encoders])
        states = {}
        for modality, part in zip(self.embedding.encoders, parts, strict=True):
            mean = part if video else self.embedding.mean(part, batch, modality, h.new_zeros(h.shape[1]))
            states[modality] = mean.index_select(0, batch.rows)
        present = torch.stack([batch.lengths[m].index_select(0, batch.rows) > 0 for m in states], dim=1)  # [N, M]
        if video and self.missing_node != "dropped":
            # Of an utterance without any modality the nodes are read all the same: they have heard its neighbours.
            present = present | ~present.any(1, keepdim=True)
        stacked = torch.stack(list(states.values()), dim=1)  # [N, M, C]
        val, cls = (read(stacked, present) for read in self.readouts)
        value, logits = self.heads(val, cls)
        return Output(value, logits, None, val, states if video and self.missing_node != "dropped" else None)

    def _missing(self, batch: GraphBatch) -> Tensor | None:
        """Which nodes stand for a missing modality ``[V]``; None in utterance graphs, which have none."""
        if self.embedding.missing is None:
            return None
        gone = torch.cat([batch.lengths[m] == 0 for m in self.embedding.encoders])
        return gone.index_select(0, batch.slot - 1)


def _rows(batch: GraphBatch, modality: str, video: bool) -> int:
    """Nodes of a modality in the batch."""
    return len(batch.lengths[modality]) if video else len(batch.taps[modality][-1])
