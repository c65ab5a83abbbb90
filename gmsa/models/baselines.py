"""Baselines on the same data, trainer and embedding as Semi-IIN."""

# N utterances, V nodes of all of them, G graphs of up to T nodes, C channels, K classes
from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch_geometric.nn import HGTConv

from gmsa.config import Config
from gmsa.data.labels import NUM_CLASSES
from gmsa.graph import NODE_TYPES, GraphBatch, relations
from gmsa.models.base import Embedding, Model, Output
from gmsa.nn import Dropout, Heads


class LateFusion(Model):
    """Means over each modality's tokens, joined by one MLP; a missing modality is a learned vector.

    Shapes:
        - batch of N utterances; output: intensity :math:`(N)`, logits :math:`(N, K)`, no gate
    """

    def __init__(self, dims: Mapping[str, int], config: Config) -> None:
        super().__init__()
        self.embedding = Embedding(dims, config)
        modalities, channels = list(self.embedding.encoders), config.model.channels
        self.missing = nn.ParameterDict({m: nn.Parameter(torch.randn(channels) * 0.02) for m in modalities})
        self.join = nn.Sequential(
            nn.Linear(len(modalities) * channels, channels), nn.ReLU(), Dropout(config.model.dropout)
        )
        self.heads = Heads(channels, NUM_CLASSES, config.model.dropout)

    def nodes(self, z0: Tensor, batch: GraphBatch) -> Tensor:
        """The embeddings: no message is passed."""
        return z0

    def forward(self, batch: GraphBatch) -> Output:
        # Rows stand in the graphs' order of utterances, which `rows` turns into the batch's.
        pooled = torch.cat(list(self.embedding.means(batch, dict(self.missing.items())).values()), dim=1)
        joined = self.join(pooled).index_select(0, batch.rows)
        value, logits = self.heads(joined, joined)
        return Output(value, logits, None, joined)


class GlobalTransformer(Model):
    """PyTorch's transformer encoder over all nodes, without any mask but padding's.

    Shapes:
        - batch of N utterances; output: intensity :math:`(N)`, logits :math:`(N, K)`, no gate
    """

    def __init__(self, dims: Mapping[str, int], config: Config) -> None:
        super().__init__()
        self.embedding = Embedding(dims, config)
        model = config.model
        layer = nn.TransformerEncoderLayer(
            model.channels, model.heads, 4 * model.channels, model.dropout, batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(
            layer, model.layers, norm=nn.LayerNorm(model.channels), enable_nested_tensor=False
        )
        self.heads = Heads(model.channels, NUM_CLASSES, model.dropout)

    def nodes(self, z0: Tensor, batch: GraphBatch) -> Tensor:
        """The encoder's states."""
        graphs, size, _ = batch.shape
        padded = z0.new_zeros(graphs * size, z0.shape[1]).index_copy(0, batch.place, z0)
        padding = torch.ones(graphs * size, dtype=torch.bool, device=z0.device).index_fill(0, batch.place, False)
        z: Tensor = self.encoder(padded.view(graphs, size, -1), src_key_padding_mask=padding.view(graphs, size))
        return z.flatten(0, 1).index_select(0, batch.place)

    def forward(self, batch: GraphBatch) -> Output:
        val, cls = batch.read(self.nodes(self.embedding(batch), batch))
        value, logits = self.heads(val, cls)
        return Output(value, logits, None, val)


class HGT(Model):
    """PyG's heterogeneous graph transformer on the same graph, read at the same readout nodes.

    Hu et al.: Heterogeneous Graph Transformer, WWW 2020.

    Shapes:
        - batch of N utterances; output: intensity :math:`(N)`, logits :math:`(N, K)`, no gate
    """

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
