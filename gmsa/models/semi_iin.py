"""Semi-IIN: separate intra-modal and inter-modal masked attention, joined by a gate.

Lin, Wang, Xu and Liu: Semi-IIN: Semi-supervised Intra-inter modal Interaction Learning Network for
Multimodal Sentiment Analysis. AAAI 2025, arXiv 2412.09784.
"""

# N utterances, V nodes of all of them, C channels, K classes
from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from gmsa.config import Config
from gmsa.data.targets import NUM_CLASSES
from gmsa.graph import KINDS, READOUTS, DenseEdges, GraphBatch
from gmsa.models.base import Embedding, Model, Output, edges_of
from gmsa.nn import Dense, Heads, Sparse, Stream, build_fusion


class SemiIIN(Model):
    r"""Two streams of masked attention over one graph, gated at the readout nodes.

    .. math::
        Z^0 &= [\,val; cls; H_a; H_t; H_v\,] + position \\
        Z_s &= \mathrm{Stream}_s(Z^0), \quad s \in \{intra, inter\} \\
        F_r &= \mathrm{Gate}_r(Z_{intra}[r], Z_{inter}[r]), \quad r \in \{val, cls\} \\
        v &= \mathrm{FC}_v(\mathrm{MLP}(F_{val})), \quad e = \mathrm{FC}_e(\mathrm{MLP}(F_{cls}))

    ``streams`` other than ``both`` and ``fusion`` other than ``gate`` are the paper's ablations;
    ``global`` is one stream over the edges of both.

    Shapes:
        - batch of N utterances; output: intensity :math:`(N)`, logits :math:`(N, K)`, gate :math:`(N, 2, C)`
    """

    def __init__(self, dims: Mapping[str, int], config: Config) -> None:
        super().__init__()
        model = config.model
        self.embedding = Embedding(dims, config)
        names = ("intra", "inter") if model.streams == "both" else (model.streams,)
        kinds = KINDS if config.graph.typed else 0
        self.streams = nn.ModuleDict(
            {
                name: Stream(model.channels, model.heads, model.layers, model.shared_layers, model.dropout, kinds)
                for name in names
            }
        )
        self.fusions = nn.ModuleList(
            build_fusion(model.fusion, model.channels) for _ in (READOUTS if len(names) == 2 else ())
        )
        self.heads = Heads(model.channels, NUM_CLASSES, model.dropout)

    def nodes(self, z0: Tensor, batch: GraphBatch) -> Tensor:
        """The mean of the streams' states, of all nodes instead of the readout nodes alone."""
        return torch.stack([stream(z0, edges_of(batch, name)) for name, stream in self.streams.items()]).mean(0)

    def forward(self, batch: GraphBatch) -> Output:
        z0 = self.embedding(batch)
        views = [
            stream(z0, edges_of(batch, name), readout_edges(batch, name), batch.receivers)[batch.readouts]
            for name, stream in self.streams.items()
        ]  # [N, 2, C] each
        if len(views) == 1:
            (val, cls), gate = views[0].unbind(1), None
        else:
            fused = [fuse(views[0][:, r], views[1][:, r]) for r, fuse in enumerate(self.fusions)]
            val, cls = fused[0][0], fused[1][0]
            gates = [g for _, g in fused if g is not None]
            gate = torch.stack(gates, dim=1) if gates else None
        value, logits = self.heads(val, cls)
        return Output(value, logits, gate, val)


def readout_edges(batch: GraphBatch, stream: str) -> Dense | Sparse:
    """Those edges of a stream that end at readout nodes."""
    edges = batch.edges[stream]
    if isinstance(edges, DenseEdges):
        return Dense(edges.adjacency[:, : batch.shape[2]], batch.place, batch.receiver_place)
    return Sparse(edges.readout_index, edges.readout_kind)
