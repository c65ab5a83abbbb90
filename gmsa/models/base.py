"""What every model shares: its output, and the embedding of tokens."""

# N utterances, V nodes and M_m tokens of modality m of all of them, C channels, K classes
from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gmsa.config import Config
from gmsa.graph import NODE_TYPES, GraphBatch, token_count
from gmsa.nn import ConvEncoder
from gmsa.ops import segment_sum


class Output(NamedTuple):
    """What a model says of N utterances."""

    value: Tensor
    """Sentiment intensity ``[N]``."""
    logits: Tensor
    """Class scores before the softmax ``[N, K]``."""
    gate: Tensor | None
    """Share of the inter view at val and cls ``[N, 2, C]``; None where the model has no gate."""


class Embedding(nn.Module):
    r"""Embeds the nodes of a batch: :math:`H_m = \mathrm{Conv1D}(X_m) + type_m`, plus a position embedding.

    Semi-IIN, Eqs. 1-5. A readout node starts as its type's embedding. Positions count within a
    modality (the paper's count along the joined sequence, where a missing modality would shift them).

    In a video graph (``graph.scope: video``) a node is the mean over its utterance's tokens, or a learned
    token where the modality is missing, and positions count the utterances.

    Shapes:
        - batch with V nodes; output :math:`(V, C)`
    """

    def __init__(self, dims: Mapping[str, int], config: Config) -> None:
        super().__init__()
        model = config.model
        self.strides = model.strides
        self.encoders = nn.ModuleDict(
            {
                modality: ConvEncoder(dims[modality], model.channels, model.convs(modality), model.input_dropout)
                for modality in NODE_TYPES
                if modality in dims
            }
        )
        self.node_type = nn.Parameter(torch.randn(len(NODE_TYPES), model.channels) * 0.02)
        self.position = nn.Parameter(torch.randn(model.positions, model.channels) * 0.02)
        self.missing = None
        if config.graph.scope == "video":
            self.missing = nn.ParameterDict(
                {m: nn.Parameter(torch.randn(model.channels) * 0.02) for m in self.encoders}
            )

    def tokens(self, batch: GraphBatch) -> dict[str, Tensor]:
        """Encodes each modality to the tokens of all utterances, end to end: ``[M_m, C]``."""
        return {m: encode(batch.features[m], batch.taps[m]) for m, encode in self.encoders.items()}

    def means(self, batch: GraphBatch, missing: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The mean token of each utterance's modality, or ``missing[modality]`` ``[C]``: ``[N, C]`` each."""
        found = {}
        for modality, tokens in self.tokens(batch).items():
            count = token_count(batch.lengths[modality], self.strides[modality])
            utterance = torch.repeat_interleave(count, output_size=len(tokens))
            total = segment_sum(tokens, utterance, len(count))
            mean = total / count.clamp(min=1)[:, None].to(total.dtype)
            found[modality] = torch.where((count > 0)[:, None], mean, missing[modality].to(mean.dtype))
        return found

    def forward(self, batch: GraphBatch) -> Tensor:
        rows = self.tokens(batch) if self.missing is None else self.means(batch, dict(self.missing.items()))
        table = torch.cat([self.node_type.new_zeros(1, self.node_type.shape[1]), *rows.values()])
        x = table.index_select(0, batch.slot)
        return x + self.node_type[batch.node_type] + self.position[batch.position]
