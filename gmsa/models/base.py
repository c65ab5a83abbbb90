"""What every model shares: its output, and the embedding of tokens."""

# N utterances, V nodes and M_m tokens of modality m of all of them, C channels, K classes
from __future__ import annotations

import typing
from collections.abc import Mapping
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from gmsa.config import Config, ModelConfig
from gmsa.graph import NODE_TYPES, DenseEdges, GraphBatch, token_count
from gmsa.nn import ConvEncoder, Dense, Reconstruction, Sparse
from gmsa.nn.segments import segment_sum


class Output(NamedTuple):
    """What a model says of N utterances."""

    value: Tensor
    """Sentiment intensity ``[N]``."""
    logits: Tensor
    """Class scores before the softmax ``[N, K]``."""
    gate: Tensor | None
    """Share of the inter view at val and cls ``[N, 2, C]``; None where the model has no gate."""
    features: Tensor
    """What the intensity is read from ``[N, C]``."""
    states: Mapping[str, Tensor] | None = None
    """State of each modality's node ``[N, C]``, that of a missing one too, where the model has them."""


class Model(nn.Module):
    """What every model has: an embedding of nodes, their states, two heads, maybe a reconstruction of what is missing.

    Shapes:
        - batch of N utterances with V nodes; output: :class:`Output`
    """

    readout_nodes: ClassVar[bool] = True
    """Whether the model's graphs have the nodes ``val`` and ``cls``."""
    route: ClassVar[Literal["dense", "edge"] | None] = None
    """The only form of edges that the model takes; None where it takes both."""

    embedding: Embedding
    reconstruction: Reconstruction | None
    """Set by :func:`~gmsa.models.build_model` where ``reconstruction.weight`` asks for it."""

    def __init__(self) -> None:
        super().__init__()
        self.reconstruction = None

    @classmethod
    def seen_streams(cls, config: ModelConfig) -> tuple[str, ...]:
        """Streams whose edges the model reads: ``intra``, ``inter``, or ``global`` for both in one."""
        return ("intra", "inter") if config.streams == "both" else (config.streams,)

    @classmethod
    def check(cls, config: Config) -> None:
        """Refuses settings that this model does not take.

        Raises:
            ConfigError: names the setting.
        """

    def nodes(self, z0: Tensor, batch: GraphBatch) -> Tensor:
        """States of all nodes ``[V, C]`` from their embeddings ``[V, C]``: what pre-training decodes."""
        raise NotImplementedError

    def reconstruct(self, output: Output, modality: str, rows: Tensor) -> Tensor:
        """Standardized features of a modality of the utterances ``rows`` ``[K]``: ``[K, D_m]``."""
        assert self.reconstruction is not None
        state = None if output.states is None else output.states[modality].index_select(0, rows)
        return typing.cast(Tensor, self.reconstruction(output.features.index_select(0, rows), modality, state))


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

    def mean(self, tokens: Tensor, batch: GraphBatch, modality: str, missing: Tensor) -> Tensor:
        """The mean over each utterance's tokens ``[M_m, C]``, or ``missing`` ``[C]`` where it has none: ``[N, C]``."""
        count = token_count(batch.lengths[modality], self.strides[modality])
        utterance = torch.repeat_interleave(count, output_size=len(tokens))
        total = segment_sum(tokens, utterance, len(count))
        mean = total / count.clamp(min=1)[:, None].to(total.dtype)
        return torch.where((count > 0)[:, None], mean, missing.to(mean.dtype))

    def means(self, batch: GraphBatch, missing: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """:meth:`mean` of each modality's encoded tokens: ``[N, C]`` each, in the order of the graphs."""
        return {m: self.mean(tokens, batch, m, missing[m]) for m, tokens in self.tokens(batch).items()}

    def forward(self, batch: GraphBatch, masked: Mapping[str, tuple[Tensor, Tensor]] | None = None) -> Tensor:
        """Embeds the nodes; where ``masked`` has, per modality, a flag for each row of tokens ``[M_m]`` and a vector
        ``[C]``, that stands in the place of the flagged ones."""
        rows = self.tokens(batch) if self.missing is None else self.means(batch, dict(self.missing.items()))
        for modality, (flags, token) in (masked or {}).items():
            rows[modality] = torch.where(flags[:, None], token.to(rows[modality].dtype), rows[modality])
        table = torch.cat([self.node_type.new_zeros(1, self.node_type.shape[1]), *rows.values()])
        x = table.index_select(0, batch.slot)
        return x + self.node_type[batch.node_type] + self.position[batch.position]


def edges_of(batch: GraphBatch, stream: str) -> Dense | Sparse:
    """What a stream attends over among all nodes."""
    edges = batch.edges[stream]
    if isinstance(edges, DenseEdges):
        return Dense(edges.adjacency, batch.place, batch.place)
    return Sparse(edges.index, edges.kind)
