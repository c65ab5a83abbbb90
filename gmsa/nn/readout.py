"""From the modalities of an utterance to one vector."""

# N utterances, M modalities, C channels
from __future__ import annotations

import torch
from torch import Tensor, nn


class ModalityReadout(nn.Module):
    r"""Attention over the modalities that are there.

    .. math::
        \alpha_m = \operatorname{softmax}_{m\ present}(w^\top \tanh(W h_m + b)), \qquad F = \sum_m \alpha_m h_m

    Our design for SSLMM; the form is that of Bahdanau et al. 2015. Of an utterance without any modality it is zero.

    Args:
        channels (int): Width C.

    Shapes:
        - states :math:`(N, M, C)`, present :math:`(N, M)` bool; output :math:`(N, C)`

    Example:
        >>> import torch
        >>> present = torch.tensor([[True, False, True]])
        >>> ModalityReadout(channels=8)(torch.randn(1, 3, 8), present).shape
        torch.Size([1, 8])
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.score = nn.Sequential(nn.Linear(channels, channels), nn.Tanh(), nn.Linear(channels, 1, bias=False))

    def forward(self, states: Tensor, present: Tensor) -> Tensor:
        score = self.score(states).squeeze(-1)
        # A finite floor, not -inf: the softmax over nothing must not be NaN, nor its gradient.
        share = torch.softmax(score.masked_fill(~present, torch.finfo(score.dtype).min), dim=1)
        return ((share * present)[:, :, None] * states).sum(1)
