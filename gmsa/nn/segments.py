"""Sums and softmaxes over segments: the one place that knows torch_scatter.

torch_scatter is used where it is installed; plain PyTorch gives the same values without it.
"""

# E values, N segments, ... any further axes
from __future__ import annotations

import torch
from torch import Tensor

try:
    import torch_scatter
except ImportError:
    torch_scatter = None


def segment_sum(values: Tensor, index: Tensor, size: int) -> Tensor:
    r"""Sums the values of each segment: :math:`y_n = \sum_{e : i_e = n} x_e`; 0 for an empty segment.

    Shapes:
        - values :math:`(E, ...)`, index :math:`(E)` in ``[0, size)``; output :math:`(N, ...)` with N = ``size``
    """
    if torch_scatter is not None:
        return torch_scatter.scatter_sum(values, index, dim=0, dim_size=size)
    return values.new_zeros(size, *values.shape[1:]).index_add(0, index, values)


def segment_max(values: Tensor, index: Tensor, size: int) -> Tensor:
    """Largest value of each segment, without gradient; 0 for an empty segment.

    Shapes:
        - values :math:`(E, ...)`, index :math:`(E)`; output :math:`(N, ...)` with N = ``size``
    """
    values = values.detach()
    if torch_scatter is not None:
        return torch_scatter.scatter_max(values, index, dim=0, dim_size=size)[0]
    index = index.view(-1, *[1] * (values.dim() - 1)).expand_as(values)
    empty = values.new_zeros(size, *values.shape[1:])
    return empty.scatter_reduce(0, index, values, "amax", include_self=False)


def segment_softmax(score: Tensor, index: Tensor, size: int) -> Tensor:
    r"""Softmax within each segment: :math:`a_e = \exp(s_e) / \sum_{e' : i_{e'} = i_e} \exp(s_{e'})`.

    Shapes:
        - score :math:`(E, ...)`, index :math:`(E)` in ``[0, size)``; output :math:`(E, ...)`
    """
    weight = torch.exp(score - segment_max(score, index, size)[index])
    return weight / segment_sum(weight, index, size)[index]
