"""Means over modalities, joined by one MLP."""

# N utterances, V nodes of all of them, G graphs of up to T nodes, C channels, K classes
from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch_geometric.nn.parameter_dict import ParameterDict

from gmsa.config import ModelConfig
from gmsa.data.targets import INTENSITY_CLASSES
from gmsa.graph import GraphBatch
from gmsa.models.base import Convs, Embedding, Model, Output
from gmsa.nn import Dropout, Heads


class LateFusion(Model):
    r"""Means over each modality's tokens, joined by one MLP; a missing modality is a learned vector.

    .. math::
        \bar h_m &= \mathrm{mean}(\mathrm{Conv1D}(X_m)) \\
        F &= \mathrm{MLP}([\,\bar h_a; \bar h_t; \bar h_v\,]) \\
        v &= \mathrm{FC}_v(\mathrm{MLP}(F)), \quad e = \mathrm{FC}_e(\mathrm{MLP}(F))

    Args:
        dims (Mapping[str, int]): Feature dimension of each modality.
        channels (int, default 128): Width C of every token.
        encoder (str, default "conv"): Encoder of each modality, by its name in ``ENCODERS``.
        dropout (float, default 0.2): Dropout after the MLP.
        input_dropout (float, default 0.5): Dropout on the features.
        convs (Mapping, optional): Convolutions of the graphs' modalities, as (kernel, stride); by default Semi-IIN's.
        positions (int, default 512): Most tokens of a modality (in video graphs, utterances).
        scope (str, default "utterance"): Graphs of an ``utterance`` or of a ``video``.
        num_classes (int, default 7): Number of classes K.
        intensity (bool, default True): Predicts an intensity and its class; else one of K classes alone.

    Shapes:
        - batch of N utterances; output: intensity :math:`(N)`, logits :math:`(N, K)`, no gate

    Example:
        >>> import torch
        >>> from gmsa.data import Utterance
        >>> from gmsa.graph import GraphSpec, collate
        >>> convs = {"text": [(3, 1)], "audio": [(4, 2)]}
        >>> model = LateFusion({"text": 6, "audio": 4}, channels=16, convs=convs)
        >>> clip = Utterance("video$_$1", {"text": torch.randn(5, 6), "audio": torch.randn(9, 4)})
        >>> output = model(collate([clip], GraphSpec(convs=convs, streams=())))
        >>> output.value.shape, output.logits.shape
        (torch.Size([1]), torch.Size([1, 7]))
    """

    def __init__(
        self,
        dims: Mapping[str, int],
        *,
        channels: int = 128,
        encoder: str = "conv",
        dropout: float = 0.2,
        input_dropout: float = 0.5,
        convs: Convs | None = None,
        positions: int = 512,
        scope: Literal["utterance", "video"] = "utterance",
        num_classes: int = INTENSITY_CLASSES,
        intensity: bool = True,
    ) -> None:
        super().__init__()
        self.embedding = Embedding(
            dims,
            channels,
            encoder=encoder,
            convs=convs,
            input_dropout=input_dropout,
            positions=positions,
            scope=scope,
        )
        modalities = self.embedding.modalities
        self.missing = ParameterDict({m: nn.Parameter(torch.randn(channels) * 0.02) for m in modalities})
        self.join = nn.Sequential(nn.Linear(len(modalities) * channels, channels), nn.ReLU(), Dropout(dropout))
        self.heads = Heads(channels, num_classes, dropout, intensity)

    @classmethod
    def seen_streams(cls, config: ModelConfig) -> tuple[str, ...]:
        return ()

    def nodes(self, z0: Tensor, batch: GraphBatch) -> Tensor:
        """The embeddings: no message is passed."""
        return z0

    def forward(self, batch: GraphBatch) -> Output:
        # Rows are in the graphs' order of utterances, which `utterance_order` turns into the batch's.
        means = self.embedding.means(batch, dict(self.missing.items()))
        joined = self.join(torch.cat(list(means.values()), dim=1)).index_select(0, batch.utterance_order)
        value, logits = self.heads(joined, joined)
        unimodal = None
        if self.unimodal is not None:
            unimodal = self.unimodal({m: x.index_select(0, batch.utterance_order) for m, x in means.items()})
        return Output(value, logits, None, joined, unimodal=unimodal)
