"""Semi-IIN: separate intra-modal and inter-modal masked attention, joined by a gate.

Lin, Wang, Xu and Liu: Semi-IIN: Semi-supervised Intra-inter modal Interaction Learning Network for
Multimodal Sentiment Analysis. AAAI 2025, arXiv 2412.09784.
"""

# B utterances, T nodes each, C channels, K classes
from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from gmsa.config import ModelConfig
from gmsa.data.labels import NUM_CLASSES
from gmsa.graph import READOUTS, GraphBatch
from gmsa.models.base import Embedding, Output
from gmsa.nn import Heads, Stream, build_fusion

DENSE_FROM = 0.02
"""Density of the adjacency from which the dense route is taken: about where the two cross (``benchmarks/route.py``)."""


class SemiIIN(nn.Module):
    r"""Two streams of masked attention over one graph, gated at the readout nodes.

    .. math::
        Z^0 &= [\,val; cls; H_a; H_t; H_v\,] + position \\
        Z_s &= \mathrm{Stream}_s(Z^0), \quad s \in \{intra, inter\} \\
        F_r &= \mathrm{Gate}_r(Z_{intra}[r], Z_{inter}[r]), \quad r \in \{val, cls\} \\
        v &= \mathrm{FC}_v(\mathrm{MLP}(F_{val})), \quad e = \mathrm{FC}_e(\mathrm{MLP}(F_{cls}))

    ``streams`` other than ``both`` and ``fusion`` other than ``gate`` are the paper's ablations;
    ``global`` is one stream over the edges of both.

    Shapes:
        - batch of B utterances; output: intensity :math:`(B)`, logits :math:`(B, K)`, gate :math:`(B, 2, C)`
    """

    def __init__(self, dims: Mapping[str, int], config: ModelConfig) -> None:
        super().__init__()
        self.route = config.route
        self.embedding = Embedding(dims, config)
        names = ("intra", "inter") if config.streams == "both" else (config.streams,)
        self.streams = nn.ModuleDict(
            {
                name: Stream(config.channels, config.heads, config.layers, config.shared_layers, config.dropout)
                for name in names
            }
        )
        self.fusions = nn.ModuleList(
            build_fusion(config.fusion, config.channels) for _ in (READOUTS if len(names) == 2 else ())
        )
        self.heads = Heads(config.channels, NUM_CLASSES, config.dropout)

    def forward(self, batch: GraphBatch) -> Output:
        z0 = self.embedding(batch)
        views = [stream(z0, *self.edges(batch, name), len(READOUTS)) for name, stream in self.streams.items()]
        if len(views) == 1:
            (val, cls), gate = views[0].unbind(1), None
        else:
            fused = [fuse(views[0][:, r], views[1][:, r]) for r, fuse in enumerate(self.fusions)]
            val, cls = fused[0][0], fused[1][0]
            gates = [g for _, g in fused if g is not None]
            gate = torch.stack(gates, dim=1) if gates else None
        value, logits = self.heads(val, cls)
        return Output(value, logits, gate)

    def edges(self, batch: GraphBatch, stream: str) -> tuple[Tensor, Tensor]:
        """What a stream attends over, among all nodes and to the readout nodes.

        An adjacency for the dense route, an edge_index for the edge route.
        """
        dense = self.route == "dense" or (self.route == "auto" and batch.density[stream] >= DENSE_FROM)
        if dense:
            return batch.adjacency[stream], batch.adjacency[stream][:, : len(READOUTS)]
        return batch.edge_index(stream), batch.edge_index(stream, len(READOUTS))
