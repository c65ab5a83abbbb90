"""What every model shares: its output, and the embedding of tokens."""

# B utterances, T nodes each, S_m steps and S'_m tokens of modality m, C channels, K classes
from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gmsa.config import ModelConfig
from gmsa.errors import DataError
from gmsa.graph import NODE_TYPES, READOUTS, GraphBatch
from gmsa.nn import ConvEncoder


class Output(NamedTuple):
    """What a model says of B utterances."""

    value: Tensor
    """Sentiment intensity ``[B]``."""
    logits: Tensor
    """Class scores before the softmax ``[B, K]``."""
    gate: Tensor | None
    """Share of the inter view at val and cls ``[B, 2, C]``; None where the model has no gate."""


class Embedding(nn.Module):
    r"""Embeds the nodes of a batch: :math:`H_m = \mathrm{Conv1D}(X_m) + type_m`, plus a position embedding.

    Semi-IIN, Eqs. 1-5. A readout node starts as its type's embedding. Positions count within a
    modality (the paper's count along the joined sequence, where a missing modality would shift them).

    Shapes:
        - batch of B utterances; output :math:`(B, T, C)`, zero at padding

    Raises:
        DataError: a sequence has more tokens than ``model.positions``.
    """

    def __init__(self, dims: Mapping[str, int], config: ModelConfig) -> None:
        super().__init__()
        self.strides = config.strides
        self.encoders = nn.ModuleDict(
            {
                modality: ConvEncoder(dims[modality], config.channels, config.convs(modality), config.input_dropout)
                for modality in NODE_TYPES
                if modality in dims
            }
        )
        self.node_type = nn.Parameter(torch.randn(len(NODE_TYPES), config.channels) * 0.02)
        self.position = nn.Parameter(torch.randn(config.positions, config.channels) * 0.02)

    def tokens(self, batch: GraphBatch) -> dict[str, Tensor]:
        """Encodes each modality to ``[B, S'_m, C]``, zero past each sequence's last token."""
        return {m: encode(batch.features[m], batch.lengths[m]) for m, encode in self.encoders.items()}

    def forward(self, batch: GraphBatch) -> Tensor:
        encoded = self.tokens(batch)
        for modality, tokens in encoded.items():
            if tokens.shape[1] > len(self.position):
                raise DataError(
                    f"{modality} has sequences of {tokens.shape[1]} tokens, 'model.positions' allows "
                    f"{len(self.position)}; raise it, or stride more in 'model.{modality}_convs'"
                )
        readouts = self.node_type.new_zeros(len(batch), len(READOUTS), self.node_type.shape[1])
        x = torch.cat([readouts, *encoded.values()], dim=1)
        x = x.gather(1, batch.slot[..., None].expand(-1, -1, x.shape[2]))
        x = x + self.node_type[batch.node_type.clamp(min=0)] + self.position[batch.position]
        return x * batch.mask[..., None]
