"""From the fused readout nodes to the two predictions."""

# B utterances, C channels
from __future__ import annotations

from torch import Tensor, nn

from gmsa.nn.dropout import Dropout


class Heads(nn.Module):
    r"""Intensity and classes, or classes alone, with one MLP for both.

    .. math::
        v = \mathrm{FC}_v(\mathrm{MLP}(F_{val})), \qquad e = \mathrm{FC}_e(\mathrm{MLP}(F_{cls})), \qquad
        \mathrm{MLP}(F) = \mathrm{ReLU}(F W + b)

    Semi-IIN, section "Prediction"; the MLP of one linear map and a ReLU is our choice.

    Args:
        channels (int): Width C.
        classes (int): Number of classes K.
        dropout (float, default 0.0): Dropout after the MLP.
        intensity (bool, default True): Predicts the intensity too; else ``val`` and the intensity are None.

    Shapes:
        - val, cls :math:`(B, C)`; output: intensity :math:`(B)`, logits :math:`(B, K)` for K ``classes``

    Example:
        >>> import torch
        >>> value, logits = Heads(channels=8, classes=7)(torch.randn(2, 8), torch.randn(2, 8))
        >>> value.shape, logits.shape
        (torch.Size([2]), torch.Size([2, 7]))
    """

    def __init__(self, channels: int, classes: int, dropout: float = 0.0, intensity: bool = True) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(channels, channels), nn.ReLU(), Dropout(dropout))
        self.value = nn.Linear(channels, 1) if intensity else None
        self.classes = nn.Linear(channels, classes)

    def forward(self, val: Tensor | None, cls: Tensor) -> tuple[Tensor | None, Tensor]:
        value = None if self.value is None else self.value(self.mlp(val)).squeeze(-1)
        return value, self.classes(self.mlp(cls))
