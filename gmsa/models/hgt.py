"""PyG's heterogeneous graph transformer."""

# N utterances, V nodes of all of them, G graphs of up to T nodes, C channels, K classes
from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch_geometric.nn import HGTConv

from gmsa.config import Config, ModelConfig
from gmsa.data.targets import NUM_CLASSES
from gmsa.graph import NODE_TYPES, GraphBatch, relations
from gmsa.models.base import Embedding, Model, Output
from gmsa.nn import Dropout, Heads


class HGT(Model):
    """PyG's heterogeneous graph transformer on the same graph, read at the same readout nodes.

    Hu et al.: Heterogeneous Graph Transformer, WWW 2020.

    Shapes:
        - batch of N utterances; output: intensity :math:`(N)`, logits :math:`(N, K)`, no gate
    """

    route = "edge"

    def __init__(self, dims: Mapping[str, int], config: Config) -> None:
        super().__init__()
        self.embedding = Embedding(dims, config)
        model = config.model
        metadata = (list(NODE_TYPES), relations())
        self.convs = nn.ModuleList(
            HGTConv(model.channels, model.channels, metadata, model.heads) for _ in range(model.layers)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(model.channels) for _ in range(model.layers))
        self.dropout = Dropout(model.dropout)
        self.heads = Heads(model.channels, NUM_CLASSES, model.dropout)

    @classmethod
    def seen_streams(cls, config: ModelConfig) -> tuple[str, ...]:
        return ("intra", "inter")

    def nodes(self, z0: Tensor, batch: GraphBatch) -> Tensor:
        """The convolutions' states."""
        index = {t: batch.node_index(t) for t in NODE_TYPES}
        x = {t: z0[index[t]] for t in NODE_TYPES}
        edges = batch.edge_index_dict()
        for conv, norm in zip(self.convs, self.norms, strict=True):
            mixed = conv(x, edges)
            x = {t: norm(x[t] + self.dropout(mixed[t])) for t in NODE_TYPES}
        return torch.zeros_like(z0).index_copy(0, torch.cat(list(index.values())), torch.cat(list(x.values())))

    def forward(self, batch: GraphBatch) -> Output:
        val, cls = batch.read(self.nodes(self.embedding(batch), batch))
        value, logits = self.heads(val, cls)
        return Output(value, logits, None, val)
