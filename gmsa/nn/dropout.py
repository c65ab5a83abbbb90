"""Dropout that draws one byte per element."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class _Masked(torch.autograd.Function):
    """Product with a scale where a byte of ``draws`` is below ``kept``, else zero; it keeps a byte per element for its
    gradient, where autograd keeps a number."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, draws: Tensor, kept: int) -> Tensor:
        ctx.save_for_backward(draws)
        ctx.kept = kept
        return masked(x, draws, kept)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (draws,) = ctx.saved_tensors
        return masked(grad, draws, ctx.kept), None, None


def draw_bytes(x: Tensor) -> Tensor:
    """A random byte for each element of x, in its shape, on a CPU."""
    return (
        torch.empty(-(-x.numel() // 8), dtype=torch.int64)
        .random_(-(2**63), None)
        .view(torch.uint8)[: x.numel()]
        .view(x.shape)
    )


def kept_mask(draws: Tensor, kept: int, dtype: torch.dtype) -> Tensor:
    """1 where a byte is below ``kept``, else 0."""
    return torch.lt(draws, kept, out=torch.empty(draws.shape, dtype=dtype))  # as numbers at once: half the time


def masked(x: Tensor, draws: Tensor, kept: int) -> Tensor:
    """x where a byte is below ``kept``, scaled by the share of these, else 0."""
    return kept_mask(draws, kept, x.dtype).mul_(256 / kept).mul_(x)


class Dropout(nn.Module):
    r"""Zeroes elements with probability p and scales the others by :math:`1 / (1 - p)`, in training only.

    What ``torch.nn.Dropout`` does, which on a CPU draws 32 bits per element one after the other (a
    quarter of a training step here). This takes eight elements' bytes from one 64-bit draw, so p is rounded
    to the next 1/256, and the scale is that of the rounded p. On CUDA it is ``torch.nn.Dropout``.

    Args:
        p (float, default 0.0): Probability that an element is zeroed.

    Shapes:
        - x of any shape; output the same

    Example:
        >>> import torch
        >>> Dropout(0.5).eval()(torch.ones(2))
        tensor([1., 1.])
    """

    def __init__(self, p: float = 0.0) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0 or x.device.type != "cpu":
            return F.dropout(x, self.p, self.training)
        found: Tensor = _Masked.apply(x, draw_bytes(x), self.kept)
        return found

    @property
    def kept(self) -> int:
        """How many of 256 bytes keep an element, in training on a CPU."""
        return 256 - min(255, max(1, round(self.p * 256))) if self.p else 256

    def extra_repr(self) -> str:
        return f"p={self.p}"
