"""Convolutional encoder of one modality."""

# N utterances, S steps and M tokens of all of them, D features, C channels
from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from gmsa.nn.dropout import Dropout

BLOCK = 2**19
"""Numbers of what is gathered at once."""


class ConvEncoder(nn.Module):
    r"""Encodes feature sequences by strided convolutions: :math:`H_m = \mathrm{Conv1D}(X_m)`.

    Semi-IIN, section "Feature extraction". Each convolution (kernel k, stride s) turns a sequence of
    L steps into :math:`\lceil L / s \rceil`, with zeros around the sequence's own ends: a sequence gives
    the same tokens whatever it is batched with, and a single step gives a token. A ReLU comes between
    two convolutions (our choice: the paper does not say). (0, s) is no convolution but the maximum over s steps, or
    those of them that there are, feature by feature: it finds what a convolution marks at any place.

    The sequences lie end to end without padding: each convolution gives what ``torch.nn.Conv1d`` gives on each
    sequence by itself. With a stride it gathers the k steps that each output reads, of many wide features block by
    block; without one it multiplies every step with the weights at all k offsets and adds the products shifted, which
    needs k times less memory.

    Args:
        dim (int): Features D of a step.
        channels (int): Width C.
        convs (Sequence[tuple[int, int]]): Convolutions, as (kernel, stride), or (0, stride); the first has a kernel.
        dropout (float, default 0.0): Dropout on the features.

    Shapes:
        - steps :math:`(S, D)`; conv_windows: for each convolution the rows :math:`(M, k)` that its outputs read, where
          the row after the last one stands for zeros; output :math:`(M, C)`

    Example:
        >>> import torch
        >>> windows = torch.tensor([[3, 0, 1], [0, 1, 2], [1, 2, 3]])  # one sequence of 3 steps; row 3 is zeros
        >>> ConvEncoder(dim=5, channels=8, convs=[(3, 1)])(torch.randn(3, 5), [windows]).shape
        torch.Size([3, 8])
    """

    def __init__(self, dim: int, channels: int, convs: Sequence[tuple[int, int]], dropout: float = 0.0) -> None:
        super().__init__()
        sizes = [dim] + [channels] * len(convs)
        self.convs = nn.ModuleList(
            nn.Conv1d(sizes[i], sizes[i + 1], kernel, stride) if kernel else nn.MaxPool1d(stride)
            for i, (kernel, stride) in enumerate(convs)
        )
        self.dropout = Dropout(dropout)

    def forward(self, steps: Tensor, conv_windows: Sequence[Tensor]) -> Tensor:
        x = self.dropout(steps)
        for i, (conv, rows) in enumerate(zip(self.convs, conv_windows, strict=True)):
            if isinstance(conv, nn.MaxPool1d):
                x = _largest(x, rows)
            else:
                how = _shifted if conv.stride == (1,) and _is_shifted(x) else _gathered
                x = how(x.relu() if i else x, rows, conv)
        return x


def _is_shifted(x: Tensor) -> bool:
    """Whether to add shifted products, which is quicker on a CPU; on a GPU it is three times as many kernels.

    A program that is exported or compiled for any number of steps gathers.
    """
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def _largest(x: Tensor, rows: Tensor) -> Tensor:
    """Maximum of x ``[S, C]`` over the steps of each window: ``[M, C]``."""
    x = torch.cat([x, x.new_full((1, x.shape[1]), float("-inf"))])
    return x.index_select(0, rows.reshape(-1)).view(*rows.shape, x.shape[1]).amax(1)


def _gathered(x: Tensor, rows: Tensor, conv: nn.Module) -> Tensor:
    """Strided convolution of x ``[S, D]``: ``[M, C]``."""
    weight = conv.get_parameter("weight")  # [C, D, k]
    if _is_shifted(x) and _in_blocks(x, rows, weight):
        found: Tensor = _BlockwiseConv.apply(x, rows, weight, conv.get_parameter("bias"))
        return found
    if _is_shifted(x):  # sets the few rows outside to zeros afterwards, and spares x a copy with a row of zeros
        flat, steps = rows.reshape(-1), len(x)
        x = x.index_select(0, flat.clamp(max=steps - 1)).index_fill_(0, (flat == steps).nonzero().squeeze(1), 0)
    else:
        x = torch.cat([x, x.new_zeros(1, x.shape[1])]).index_select(0, rows.reshape(-1))
    x = x.view(len(rows), rows.shape[1] * x.shape[1])  # [M, k D]
    return torch.addmm(conv.get_parameter("bias"), x, weight.permute(2, 1, 0).reshape(x.shape[1], -1))


def _in_blocks(x: Tensor, rows: Tensor, weight: Tensor) -> bool:
    """Whether to gather block by block: much at once, of features, which need no gradient."""
    return (
        rows.numel() * x.shape[1] > BLOCK
        and not x.requires_grad
        and not x.is_inference()
        and x.dtype == weight.dtype
        and x.dtype in (torch.float32, torch.float64)
        and not torch.is_autocast_enabled("cpu")
        and not torch._C._are_functorch_transforms_active()
    )


class _BlockwiseConv(torch.autograd.Function):
    """A strided convolution in blocks of windows that stay in a processor's cache: what all windows read, side by side,
    is several times the features. The gradient of the weights gathers them again.

    From steps ``[S, D]``, the rows ``[M, k]`` that each window reads (S stands for zeros), a weight ``[C, D, k]`` and a
    bias ``[C]``: ``[M, C]``.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, rows)
        by_step = weight.permute(2, 1, 0).flatten(0, 1)  # [k D, C]
        y = torch.empty(len(rows), len(weight), dtype=bias.dtype)
        for read, out in _windows(x, rows, y):
            torch.addmm(bias, read, by_step, out=out)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, None, Tensor, Tensor]:
        x, rows = ctx.saved_tensors
        kernel, dim = rows.shape[1], x.shape[1]
        found = grad.new_zeros(kernel * dim, grad.shape[1])  # [k D, C]
        for read, of_read in _windows(x, rows, grad):
            found.addmm_(read.T, of_read)
        # Rows are swapped before the matrix is turned over: that is quick, to do both at once is not.
        turned = found.view(kernel, dim, -1).transpose(0, 1).reshape(dim * kernel, -1).T.contiguous()
        return None, None, turned.view(-1, dim, kernel), grad.sum(0)


def _block(x: Tensor, rows: Tensor) -> int:
    """Windows of a block."""
    return max(1, BLOCK // (rows.shape[1] * x.shape[1]))


def _windows(x: Tensor, rows: Tensor, beside: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """What the windows of each block read ``[B, k D]``, and their rows of ``beside`` ``[M, ...]``."""
    size, (steps, dim), kernel = _block(x, rows), x.shape, rows.shape[1]
    space = x.new_empty(min(size, len(rows)) * kernel, dim)  # one for all: a new one takes as long as to fill it
    for block, part in zip(rows.split(size), beside.split(size), strict=True):
        flat = block.reshape(-1)
        read = torch.index_select(x, 0, flat.clamp(max=steps - 1), out=space[: len(flat)])
        read.index_fill_(0, (flat == steps).nonzero().squeeze(1), 0)
        yield read.view(-1, kernel * dim), part


def _shifted(x: Tensor, rows: Tensor, conv: nn.Module) -> Tensor:
    """Convolution of stride 1 of x ``[S, D]``: ``[S, C]``."""
    weight = conv.get_parameter("weight")
    products = x @ weight.permute(1, 2, 0).reshape(weight.shape[1], -1)
    found: Tensor = _ShiftedSum.apply(products, conv.get_parameter("bias"), rows)
    return found


class _ShiftedSum(torch.autograd.Function):
    """From products ``[S, k C]`` of every step with the weights at all k offsets, the sums of those that each window
    ``[S, k]`` reads, and a bias ``[C]``: ``[S, C]``."""

    @staticmethod
    def forward(ctx: Any, products: Tensor, bias: Tensor, rows: Tensor) -> Tensor:
        ctx.steps, ctx.kernel = rows.shape
        ctx.outside = _outside(rows)
        parts = products.view(*rows.shape, products.shape[1] // rows.shape[1]).unbind(1)
        y = bias.to(torch.promote_types(bias.dtype, products.dtype)).repeat(len(rows), 1)
        for offset, (own, read) in enumerate(_overlaps(*rows.shape)):
            own_rows = y[own]
            lost = ctx.outside[offset]
            kept = own_rows.index_select(0, lost)
            own_rows += parts[offset][read]
            own_rows.index_copy_(0, lost, kept)  # those windows end before
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        found = grad.new_empty(ctx.steps, ctx.kernel, grad.shape[1])
        for offset, (own, read) in enumerate(_overlaps(ctx.steps, ctx.kernel)):
            part = found[:, offset]
            part[: read.start] = 0
            part[read.stop :] = 0
            part[read] = grad[own]
            part[read].index_fill_(0, ctx.outside[offset], 0)
        return found.flatten(1), grad.sum(0), None


def _overlaps(steps: int, kernel: int) -> list[tuple[slice, slice]]:
    """For each offset of a window, the windows that read a step there, and these steps."""
    ahead = [offset - (kernel - 1) // 2 for offset in range(kernel)]
    return [
        (slice(max(0, -a), max(0, min(steps, steps - a))), slice(max(0, a), max(0, min(steps, steps + a))))
        for a in ahead
    ]


def _outside(rows: Tensor) -> list[Tensor]:
    """For each offset, which of the windows of :func:`_overlaps` read no step of their own sequence."""
    steps, kernel = rows.shape
    lost = rows == steps
    return [lost[own, o].nonzero().squeeze(1) for o, (own, _) in enumerate(_overlaps(steps, kernel))]
