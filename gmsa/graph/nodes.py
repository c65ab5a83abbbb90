"""The nodes of a modality: its time steps, or as many side by side as an encoder strides."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor


def token_count(length: Any, stride: int) -> Any:
    """Tokens that an encoder with this total stride leaves of sequences: ``ceil(length / stride)``.

    Takes and returns a whole number or a tensor of them.
    """
    return -(-length // stride)


def node_features(sequence: Tensor, stride: int) -> Tensor:
    """Features of a modality's nodes: ``stride`` consecutive steps side by side, zeros after the end.

    Shapes:
        - sequence :math:`(L, D)`; output :math:`(\\lceil L / s \\rceil, s D)`; the sequence itself for stride 1
    """
    if stride == 1:
        return sequence
    count = token_count(len(sequence), stride)
    padded = F.pad(sequence, (0, 0, 0, count * stride - len(sequence)))
    return padded.reshape(count, stride * sequence.shape[1])
