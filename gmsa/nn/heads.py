"""From the fused readout nodes to the two predictions."""

# B utterances, C channels
from __future__ import annotations

from torch import Tensor, nn

from gmsa.nn.dropout import Dropout


class Heads(nn.Module):
    r"""Intensity and classes, with one MLP for both.

    .. math::
        v = \mathrm{FC}_v(\mathrm{MLP}(F_{val})), \qquad e = \mathrm{FC}_e(\mathrm{MLP}(F_{cls})), \qquad
        \mathrm{MLP}(F) = \mathrm{ReLU}(F W + b)

    Semi-IIN, section "Prediction"; the MLP of one linear map and a ReLU is our choice.

    Args:
        channels (int): Width C.
        classes (int): Number of classes K.
        dropout (float, default 0.0): Dropout after the MLP.

    Shapes:
        - val, cls :math:`(B, C)`; output: intensity :math:`(B)`, logits :math:`(B, K)` for K ``classes``

    Example:
        >>> import torch
        >>> value, logits = Heads(channels=8, classes=7)(torch.randn(2, 8), torch.randn(2, 8))
        >>> value.shape, logits.shape
        (torch.Size([2]), torch.Size([2, 7]))
    """

    def __init__(self, channels: int, classes: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(channels, channels), nn.ReLU(), Dropout(dropout))
        self.value = nn.Linear(channels, 1)
        self.classes = nn.Linear(channels, classes)

    def forward(self, val: Tensor, cls: Tensor) -> tuple[Tensor, Tensor]:
        return self.value(self.mlp(val)).squeeze(-1), self.classes(self.mlp(cls))
