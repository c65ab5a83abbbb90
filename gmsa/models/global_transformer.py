"""A transformer over all nodes."""

# N utterances, V nodes of all of them, G graphs of up to T nodes, C channels, K classes
from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from gmsa.config import Config, ModelConfig
from gmsa.data.targets import NUM_CLASSES
from gmsa.graph import GraphBatch
from gmsa.models.base import Embedding, Model, Output
from gmsa.nn import Heads


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

    @classmethod
    def seen_streams(cls, config: ModelConfig) -> tuple[str, ...]:
        return ()

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
