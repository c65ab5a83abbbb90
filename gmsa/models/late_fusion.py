"""Means over modalities, joined by one MLP."""

# N utterances, V nodes of all of them, G graphs of up to T nodes, C channels, K classes
from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from gmsa.config import Config, ModelConfig
from gmsa.data.targets import NUM_CLASSES
from gmsa.graph import GraphBatch
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

    @classmethod
    def seen_streams(cls, config: ModelConfig) -> tuple[str, ...]:
        return ()

    def nodes(self, z0: Tensor, batch: GraphBatch) -> Tensor:
        """The embeddings: no message is passed."""
        return z0

    def forward(self, batch: GraphBatch) -> Output:
        # Rows stand in the graphs' order of utterances, which `rows` turns into the batch's.
        pooled = torch.cat(list(self.embedding.means(batch, dict(self.missing.items())).values()), dim=1)
        joined = self.join(pooled).index_select(0, batch.rows)
        value, logits = self.heads(joined, joined)
        return Output(value, logits, None, joined)
