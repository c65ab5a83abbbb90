"""Attention over a sorted list of edges, without a message per edge."""

# V sources, W targets, E edges, H heads, D channels of each head
from __future__ import annotations

import math
import warnings
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch_geometric.utils import segment

from gmsa.system.late import not_compiled

# Said once per process for what CSR tensors are used for here: two products that are tested against loops.
warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta", category=UserWarning)


class HeadCsr:
    """A list of edges, sorted by target, as compressed rows of H heads, one after the other.

    Head h of target w is row ``h W + w`` and head h of source v is column ``h V + v``: the heads are the blocks of
    one block-diagonal matrix, so that one sparse product serves all of them.
    """

    def __init__(self, index: Tensor, sources: int, targets: int, heads: int) -> None:
        self.sources, self.targets, self.heads = sources, targets, heads
        self._source, self._target = index
        self.shape = (heads * targets, heads * sources)
        self.rows = self._pointers(self._target, targets)  # [H W + 1]
        self.columns = self._numbers(self._source, sources)  # [H E]
        self.row = self._numbers(self._target, targets)  # [H E]

    @cached_property
    def transposed(self) -> tuple[Tensor, Tensor, Tensor]:
        """Row pointers and columns of the transposed matrix, and the index of its entries in this one."""
        order = torch.argsort(self._source, stable=True)
        pointers = self._pointers(self._source, self.sources)
        return pointers, self._numbers(self._target[order], self.targets), self._numbers(order, len(order))

    def _pointers(self, sorted_by: Tensor, size: int) -> Tensor:
        ends = torch.bincount(sorted_by, minlength=size).cumsum(0)
        return torch.cat([ends.new_zeros(1), self._numbers(ends, len(sorted_by))])

    def _numbers(self, numbers: Tensor, size: int) -> Tensor:
        """``numbers`` within a head, counted on over all heads."""
        return (numbers + size * torch.arange(self.heads, device=numbers.device)[:, None]).reshape(-1)

    def matrix(self, values: Tensor) -> Tensor:
        """The matrix with these values ``[H E]``."""
        return torch.sparse_csr_tensor(self.rows, self.columns, values, self.shape, check_invariants=False)

    def matrix_transposed(self, values: Tensor) -> Tensor:
        """Its transpose."""
        pointers, columns, order = self.transposed
        values = values.index_select(0, order)
        return torch.sparse_csr_tensor(pointers, columns, values, self.shape[::-1], check_invariants=False)

    def products(self, left: Tensor, right: Tensor) -> Tensor:
        """Products of a row of ``left`` ``[H W, D]`` and a row of ``right`` ``[H V, D]`` for every edge ``[H E]``."""
        zeros = self.matrix(left.new_zeros(len(self.columns)))
        return torch.sparse.sampled_addmm(zeros, left, right.T, beta=0).values()


def by_products(x: Tensor, index: Tensor) -> bool:
    """Whether sparse products serve a list of edges ``[2, E]`` over states x: on a CPU, of one edge at least.

    An exported program knows no sparse matrices.
    """
    return x.device.type == "cpu" and not torch.compiler.is_exporting() and index.shape[1] > 0


@not_compiled  # a compiler knows no CSR tensors of changing sizes
def edge_attention(query: Tensor, key: Tensor, value: Tensor, csr: HeadCsr, bias: Tensor | None = None) -> Tensor:
    r"""Softmax attention of every target over the sources of its edges; zeros where it has none.

    .. math::
        y_i = \sum_{j \to i} \alpha_{ij} v_j, \qquad
        \alpha_{ij} = \operatorname{softmax}_{j \to i} \Big( \frac{q_i^\top k_j}{\sqrt{D}} + b_{ij} \Big)

    Of the size of E times C nothing is ever held: the scores are a sampled dense-dense product, the sums are
    sparse-dense products, forward and backward. CPU only; a second derivative does not exist.

    Shapes:
        - query :math:`(W, H, D)`, key and value :math:`(V, H, D)`, bias :math:`(E, H)`; output :math:`(W, H, D)`
    """
    flat = None if bias is None else bias.T.reshape(-1)
    mixed = _EdgeAttention.apply(_by_head(query), _by_head(key), _by_head(value), flat, csr)
    return mixed.view(csr.heads, csr.targets, -1).transpose(0, 1)


@not_compiled
def edge_sums(weight: Tensor, value: Tensor, csr: HeadCsr) -> Tensor:
    r"""For every target :math:`y_i = \sum_{j \to i} w_{ij} v_j`, computed as :func:`edge_attention` does its sums.

    Shapes:
        - weight :math:`(E, H)`, value :math:`(V, H, D)`; output :math:`(W, H, D)`
    """
    summed: Tensor = _EdgeSums.apply(weight.T.reshape(-1), _by_head(value), csr)
    return summed.view(csr.heads, csr.targets, -1).transpose(0, 1)


def _by_head(x: Tensor) -> Tensor:
    """``[N, H, D]`` to ``[H N, D]``."""
    return x.transpose(0, 1).reshape(-1, x.shape[2])


class _EdgeAttention(torch.autograd.Function):
    # Sparse products know no half precision, so mixed precision stops here.
    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu", cast_inputs=torch.float32)
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, csr: HeadCsr) -> Tensor:
        query = query / math.sqrt(query.shape[1])
        score = csr.products(query, key)
        if bias is not None:
            score = score + bias
        # The largest score of each row is taken off it, so that no exponential overflows.
        weight = (score - segment(score, csr.rows, "max").index_select(0, csr.row)).exp_()
        weight /= segment(weight, csr.rows, "sum").index_select(0, csr.row)
        mixed = csr.matrix(weight) @ value
        ctx.save_for_backward(query, key, value, weight, mixed)
        ctx.csr, ctx.biased = csr, bias is not None
        return mixed

    @staticmethod
    @torch.amp.custom_bwd(device_type="cpu")
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, weight, mixed = ctx.saved_tensors
        csr: HeadCsr = ctx.csr
        grad = grad.contiguous()
        # Derivative of a softmax: weight (g - sum of weight g over its row), and that sum is grad . mixed.
        along = (grad * mixed).sum(1).index_select(0, csr.row)
        grad_score = (csr.products(grad, value) - along).mul_(weight)
        grad_query = (csr.matrix(grad_score) @ key) / math.sqrt(query.shape[1])
        grad_key = csr.matrix_transposed(grad_score) @ query
        grad_value = csr.matrix_transposed(weight) @ grad
        return grad_query, grad_key, grad_value, grad_score if ctx.biased else None, None


class _EdgeSums(torch.autograd.Function):
    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu", cast_inputs=torch.float32)
    def forward(ctx: Any, weight: Tensor, value: Tensor, csr: HeadCsr) -> Tensor:
        ctx.save_for_backward(weight, value)
        ctx.csr = csr
        return csr.matrix(weight) @ value

    @staticmethod
    @torch.amp.custom_bwd(device_type="cpu")
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weight, value = ctx.saved_tensors
        csr: HeadCsr = ctx.csr
        grad = grad.contiguous()
        return csr.products(grad, value), csr.matrix_transposed(weight) @ grad, None
