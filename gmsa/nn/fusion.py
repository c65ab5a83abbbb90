"""Fusions of the intra and the inter view of a readout node."""

# B utterances, C channels
from __future__ import annotations

import torch
from torch import Tensor, nn


class Gate(nn.Module):
    r"""Blends the two views of a readout node.

    .. math::
        G = \sigma(a W_1 + b W_2 + c), \qquad F = G \odot b + (1 - G) \odot a

    Semi-IIN, Eq. 16, with a the intra view and b the inter view: G is the share of the inter view.

    Args:
        channels (int): Width C.

    Shapes:
        - intra, inter :math:`(B, C)`; output :math:`(B, C)` and the gate :math:`(B, C)` in (0, 1)

    Example:
        >>> import torch
        >>> fused, gate = Gate(8)(torch.randn(2, 8), torch.randn(2, 8))
        >>> fused.shape, gate.shape
        (torch.Size([2, 8]), torch.Size([2, 8]))
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.intra = nn.Linear(channels, channels, bias=False)
        self.inter = nn.Linear(channels, channels)

    def forward(self, intra: Tensor, inter: Tensor) -> tuple[Tensor, Tensor | None]:
        gate = torch.sigmoid(self.intra(intra) + self.inter(inter))
        return gate * inter + (1 - gate) * intra, gate


class Add(nn.Module):
    """Adds the two views: :math:`F = a + b` (Semi-IIN, Table 3).

    Shapes:
        - intra, inter :math:`(B, C)`; output :math:`(B, C)` and None

    Example:
        >>> import torch
        >>> fused, gate = Add()(torch.randn(2, 8), torch.randn(2, 8))
        >>> fused.shape, gate is None
        (torch.Size([2, 8]), True)
    """

    def forward(self, intra: Tensor, inter: Tensor) -> tuple[Tensor, Tensor | None]:
        return intra + inter, None


class Dot(nn.Module):
    r"""Multiplies the two views element by element: :math:`F = a \odot b` (Semi-IIN, Table 3).

    Shapes:
        - intra, inter :math:`(B, C)`; output :math:`(B, C)` and None

    Example:
        >>> import torch
        >>> fused, gate = Dot()(torch.randn(2, 8), torch.randn(2, 8))
        >>> fused.shape, gate is None
        (torch.Size([2, 8]), True)
    """

    def forward(self, intra: Tensor, inter: Tensor) -> tuple[Tensor, Tensor | None]:
        return intra * inter, None


class Concat(nn.Module):
    """Maps the two views side by side back to C channels: :math:`F = [a; b] W + c` (Semi-IIN, Table 3).

    Args:
        channels (int): Width C.

    Shapes:
        - intra, inter :math:`(B, C)`; output :math:`(B, C)` and None

    Example:
        >>> import torch
        >>> fused, gate = Concat(8)(torch.randn(2, 8), torch.randn(2, 8))
        >>> fused.shape, gate is None
        (torch.Size([2, 8]), True)
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.join = nn.Linear(2 * channels, channels)

    def forward(self, intra: Tensor, inter: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.join(torch.cat([intra, inter], dim=-1)), None


def build_fusion(name: str, channels: int) -> nn.Module:
    """The fusion called ``name``: ``gate``, ``add``, ``dot`` or ``concat``."""
    if name in ("add", "dot"):
        return Add() if name == "add" else Dot()
    return Gate(channels) if name == "gate" else Concat(channels)
