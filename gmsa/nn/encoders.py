"""Convolutional encoder of one modality."""

# N utterances, S steps and M tokens of all of them, D features, C channels
from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gmsa.nn.dropout import Dropout


class ConvEncoder(nn.Module):
    r"""Encodes feature sequences by strided convolutions: :math:`H_m = \mathrm{Conv1D}(X_m)`.

    Semi-IIN, section "Feature extraction". Each convolution (kernel k, stride s) turns a sequence of
    L steps into :math:`\lceil L / s \rceil`, with zeros around the sequence's own ends: a sequence gives
    the same tokens whatever it is batched with, and a single step gives a token. A ReLU comes between
    two convolutions (our choice: the paper does not say). (0, s) is no convolution but the maximum over s steps, or
    those of them that there are, feature by feature: it finds what a convolution marks at any place.

    The sequences lie end to end without padding: each convolution gives what ``torch.nn.Conv1d`` gives on each
    sequence by itself. With a stride it gathers the k steps that each output reads; without one it multiplies every
    step with the weights at all k offsets and adds the products shifted, which needs k times less memory.

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

    ONNX cannot roll a sequence without steps, so an exported program gathers.
    """
    return x.device.type == "cpu" and not torch.compiler.is_exporting()


def _largest(x: Tensor, rows: Tensor) -> Tensor:
    """Maximum of x ``[S, C]`` over the steps of each window: ``[M, C]``."""
    x = torch.cat([x, x.new_full((1, x.shape[1]), float("-inf"))])
    return x.index_select(0, rows.reshape(-1)).view(*rows.shape, x.shape[1]).amax(1)


def _gathered(x: Tensor, rows: Tensor, conv: nn.Module) -> Tensor:
    """Strided convolution of x ``[S, D]``: ``[M, C]``."""
    weight = conv.get_parameter("weight")  # [C, D, k]
    x = torch.cat([x, x.new_zeros(1, x.shape[1])])
    x = x.index_select(0, rows.reshape(-1)).view(len(rows), rows.shape[1] * x.shape[1])  # [M, k D]
    return torch.addmm(conv.get_parameter("bias"), x, weight.permute(2, 1, 0).reshape(x.shape[1], -1))


def _shifted(x: Tensor, rows: Tensor, conv: nn.Module) -> Tensor:
    """Convolution of stride 1 of x ``[S, D]``: ``[S, C]``."""
    weight = conv.get_parameter("weight")
    channels, dim, kernel = weight.shape
    products = (x @ weight.permute(1, 2, 0).reshape(dim, -1)).view(len(x), kernel, channels).unbind(1)
    inside = (rows < len(x)).to(x.dtype)  # [S, k]
    y: Tensor = conv.get_parameter("bias")
    for offset, product in enumerate(products):
        ahead = offset - (kernel - 1) // 2
        y = y + product.roll(-ahead, 0) * inside[:, offset, None]  # what comes round from the other end is not inside
    return y
