"""Convolutional encoder of one modality."""

# B utterances, S steps, D features, C channels
from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gmsa.nn.dropout import Dropout


class ConvEncoder(nn.Module):
    r"""Encodes a feature sequence by strided convolutions: :math:`H_m = \mathrm{Conv1D}(X_m)`.

    Semi-IIN, section "Feature extraction". Each convolution (kernel k, stride s) turns a sequence of
    L steps into :math:`\lceil L / s \rceil`, with zeros around the sequence's own ends: a sequence gives
    the same tokens whatever it is batched with, and a single step gives a token. Between two
    convolutions stands a ReLU (our choice: the paper does not say).

    Shapes:
        - steps :math:`(B, S, D)`, lengths :math:`(B)`; output :math:`(B, \lceil S / \prod s \rceil, C)`,
          zero past each sequence's last token
    """

    def __init__(self, dim: int, channels: int, convs: Sequence[tuple[int, int]], dropout: float = 0.0) -> None:
        super().__init__()
        sizes = [dim] + [channels] * len(convs)
        self.shapes = tuple(convs)
        self.convs = nn.ModuleList(
            nn.Conv1d(sizes[i], sizes[i + 1], kernel, stride) for i, (kernel, stride) in enumerate(convs)
        )
        self.dropout = Dropout(dropout)

    def forward(self, steps: Tensor, lengths: Tensor) -> Tensor:
        x = self.dropout(steps).transpose(1, 2)
        x = x * _valid(lengths, x.shape[2])
        for i, (conv, (kernel, stride)) in enumerate(zip(self.convs, self.shapes, strict=True)):
            count = -(-x.shape[2] // stride)
            before = (kernel - stride) // 2
            x = conv(F.pad(x, (before, (count - 1) * stride + kernel - before - x.shape[2])))
            lengths = -(-lengths // stride)
            x = (x if i == len(self.shapes) - 1 else x.relu()) * _valid(lengths, count)
        return x.transpose(1, 2)


def _valid(lengths: Tensor, size: int) -> Tensor:
    """Which steps are real, ``[B, 1, size]``."""
    return (torch.arange(size, device=lengths.device) < lengths[:, None])[:, None, :]
