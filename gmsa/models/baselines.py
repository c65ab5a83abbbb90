"""Baselines on the same data, trainer and embedding as Semi-IIN."""

# B utterances, T nodes each, M modalities, C channels, K classes
from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch_geometric.nn import HGTConv

from gmsa.config import ModelConfig
from gmsa.data.labels import NUM_CLASSES
from gmsa.graph import NODE_TYPES, READOUTS, GraphBatch, relations, token_count
from gmsa.models.base import Embedding, Output
from gmsa.nn import Dropout, Heads


class LateFusion(nn.Module):
    """Means over each modality's tokens, joined by one MLP; a missing modality is a learned vector.

    Shapes:
        - batch of B utterances; output: intensity :math:`(B)`, logits :math:`(B, K)`, no gate
    """

    def __init__(self, dims: Mapping[str, int], config: ModelConfig) -> None:
        super().__init__()
        self.embedding = Embedding(dims, config)
        modalities = list(self.embedding.encoders)
        self.missing = nn.ParameterDict({m: nn.Parameter(torch.randn(config.channels) * 0.02) for m in modalities})
        self.join = nn.Sequential(
            nn.Linear(len(modalities) * config.channels, config.channels), nn.ReLU(), Dropout(config.dropout)
        )
        self.heads = Heads(config.channels, NUM_CLASSES, config.dropout)

    def forward(self, batch: GraphBatch) -> Output:
        pooled = [self._pool(m, tokens, batch.lengths[m]) for m, tokens in self.embedding.tokens(batch).items()]
        joined = self.join(torch.cat(pooled, dim=1))
        value, logits = self.heads(joined, joined)
        return Output(value, logits, None)

    def _pool(self, modality: str, tokens: Tensor, lengths: Tensor) -> Tensor:
        count = token_count(lengths, self.embedding.strides[modality])[:, None]
        mean = tokens.sum(1) / count.clamp(min=1)
        return torch.where(count > 0, mean, self.missing[modality])


class GlobalTransformer(nn.Module):
    """PyTorch's transformer encoder over all nodes, without any mask but padding's.

    Shapes:
        - batch of B utterances; output: intensity :math:`(B)`, logits :math:`(B, K)`, no gate
    """

    def __init__(self, dims: Mapping[str, int], config: ModelConfig) -> None:
        super().__init__()
        self.embedding = Embedding(dims, config)
        layer = nn.TransformerEncoderLayer(
            config.channels, config.heads, 4 * config.channels, config.dropout, batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(
            layer, config.layers, norm=nn.LayerNorm(config.channels), enable_nested_tensor=False
        )
        self.heads = Heads(config.channels, NUM_CLASSES, config.dropout)

    def forward(self, batch: GraphBatch) -> Output:
        z = self.encoder(self.embedding(batch), src_key_padding_mask=~batch.mask)
        value, logits = self.heads(z[:, 0], z[:, 1])
        return Output(value, logits, None)


class HGT(nn.Module):
    """PyG's heterogeneous graph transformer on the same graph, read at the same readout nodes.

    Hu et al.: Heterogeneous Graph Transformer, WWW 2020.

    Shapes:
        - batch of B utterances; output: intensity :math:`(B)`, logits :math:`(B, K)`, no gate
    """

    def __init__(self, dims: Mapping[str, int], config: ModelConfig) -> None:
        super().__init__()
        self.embedding = Embedding(dims, config)
        metadata = (list(NODE_TYPES), relations())
        self.convs = nn.ModuleList(
            HGTConv(config.channels, config.channels, metadata, config.heads) for _ in range(config.layers)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(config.channels) for _ in range(config.layers))
        self.dropout = Dropout(config.dropout)
        self.heads = Heads(config.channels, NUM_CLASSES, config.dropout)

    def forward(self, batch: GraphBatch) -> Output:
        flat = self.embedding(batch).flatten(0, 1)
        x = {t: flat[batch.node_index(t)] for t in NODE_TYPES}
        edges = batch.edge_index_dict()
        for conv, norm in zip(self.convs, self.norms, strict=True):
            mixed = conv(x, edges)
            x = {t: norm(x[t] + self.dropout(mixed[t])) for t in NODE_TYPES}
        value, logits = self.heads(*(x[r] for r in READOUTS))
        return Output(value, logits, None)
