"""A stream's layer on a CPU in fewer operations, with its gradients written out.

What autograd keeps and calls for each operation of a small graph takes as long as the operation itself. Values and
gradients are those of :class:`~gmsa.nn.StreamLayer` up to rounding, with the same draws.
"""

# V nodes, W of them receivers, P of padded graphs; G graphs of up to T nodes, R of them receivers;
# C channels, H heads, D = C // H
from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gmsa.nn.dropout import Dropout, draw_bytes, kept_mask, masked
from gmsa.nn.edges import DenseEdges, Edges, Masks
from gmsa.nn.layers.attention import Interaction
from gmsa.nn.layers.size_groups import Padding

ATEN: Any = torch.ops.aten
ATTENTION = ATEN._scaled_dot_product_flash_attention_for_cpu
ATTENTION_BACK = ATEN._scaled_dot_product_flash_attention_for_cpu_backward
EPSILON = 1e-5
"""What ``torch.nn.LayerNorm`` adds to a variance."""
PARTS = (nn.LayerNorm, nn.LayerNorm, Dropout, Interaction, nn.Linear, nn.ReLU, nn.Linear)
"""What a layer is built with: norms, dropout, attention, and the feed-forward network."""
ALL = 256
"""Of 256 bytes those that keep an element, where there is no dropout."""


def can_fuse(
    layer: nn.Module, z: Tensor, edges: Edges, receivers: Tensor | None, source_log_weight: Tensor | None
) -> bool:
    """Whether :func:`fused_layer` can compute a layer.

    It can on a CPU, of untyped dense attention by sources without weights, to all nodes or to few of each graph. Not
    where a part is of another kind than a :class:`~gmsa.nn.StreamLayer` is built with, or is watched by a hook, which
    would not be called; nor inside the transforms of ``torch.func``.
    """
    attention = layer.get_submodule("attention")
    return (
        z.device.type == "cpu"
        and isinstance(edges, DenseEdges)
        and edges.groups is not None
        and not edges.is_typed
        and source_log_weight is None
        and _is_as_built(layer)
        and isinstance(attention, Interaction)
        and (receivers is None or absorbs(attention, edges))
        and z.dtype == attention.out.weight.dtype
        and z.dtype in (torch.float32, torch.float64)
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and not torch._C._are_functorch_transforms_active()
    )


def _is_as_built(layer: Any) -> bool:
    """Whether the parts of a layer are those that it is built with, and none is watched by a hook."""
    attention, ffn = layer.attention, layer.ffn
    parts = (layer.norm_in, layer.norm_mid, layer.dropout, attention, *ffn)
    if (*map(type, parts),) != PARTS:
        return False
    maps = (attention.query, attention.key_value, attention.out)
    every = (layer, ffn, *parts, *maps)
    return (
        all(type(part) is nn.Linear for part in maps)
        and all(norm.eps == EPSILON and norm.bias is not None for norm in parts[:2])
        and attention.bias is None
        and not torch.nn.modules.module._has_any_global_hook()
        and not any(
            part._forward_hooks
            or part._forward_pre_hooks
            or part._backward_hooks
            or part._backward_pre_hooks
            or "forward" in part.__dict__
            for part in every
        )
    )


def absorbs(attention: Interaction, edges: DenseEdges) -> bool:
    """Whether so few nodes of each graph receive that :class:`_Read` computes less than keys and values of all."""
    groups, channels = edges.groups, attention.query.out_features
    return groups is not None and all(2 * group.receivers * attention.heads <= channels for group in groups.groups)


def fused_layer(layer: Any, z: Tensor, edges: DenseEdges, receivers: Tensor | None = None) -> Tensor:
    """What a :class:`~gmsa.nn.StreamLayer` makes of z ``[V, C]`` along edges: ``[W, C]``."""
    attention, ffn = layer.attention, layer.ffn
    kept = layer.dropout.kept if layer.dropout.training else ALL
    inside = _weights(layer.norm_in, attention.query, attention.key_value, attention.out)
    if receivers is None:
        y: Tensor = _Attend.apply(z, edges, attention.heads, kept, *inside)
    else:
        y = _Read.apply(z, receivers, edges, attention.heads, kept, *inside)
    found: Tensor = _FeedForward.apply(y, kept, *_weights(layer.norm_mid, ffn[0], ffn[2]))
    return found


def _weights(*parts: Any) -> list[Tensor]:
    return [value for part in parts for value in (part.weight, part.bias)]


class _Attend(torch.autograd.Function):
    r"""Attention among all nodes: z ``[V, C]`` gives y ``[V, C]``.

    .. math::
        X = \mathrm{LN}(Z), \qquad [Q; K; V] = X W^\top + b, \qquad
        Y = X + \mathrm{Dropout}\big(\mathrm{softmax}(Q K^\top / \sqrt D + M)\, V\, W_o^\top + b_o\big)
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, edges: DenseEdges, heads: int, kept: int, *weights: Tensor) -> Tensor:
        gain, shift, w_query, b_query, w_key_value, b_key_value, w_out, b_out = weights
        masks, (sources, targets) = edges.masks(z.dtype), _paddings(edges)
        x, mean, rstd = torch.native_layer_norm(z, gain.shape, gain, shift, EPSILON)
        weight = torch.cat([w_query, w_key_value])
        projected = torch.addmm(torch.cat([b_query, b_key_value]), x, weight.T)  # [V, 3 C]
        laid_out = sources.lay_out(projected)
        found = [
            ATTENTION(query[:, :, : mask.shape[1]], key, value, attn_mask=mask[:, None])
            for (query, key, value), mask in zip(_by_group(laid_out, masks, 2, 3, heads), masks.groups, strict=True)
        ]
        states = _end_to_end([_rows(state) for state, _ in found])  # [P, C]
        mixed = _silence(targets.choose(states), masks)
        y, draws = _add(x, mixed, w_out, b_out, kept)
        ctx.save_for_backward(
            z, mean, rstd, gain, shift, x, weight, laid_out, mixed, w_out, draws, *itertools.chain(*found)
        )
        ctx.rest = edges, heads, kept
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        _refuse_second_derivatives()
        saved = ctx.saved_tensors
        *norm, x, weight, laid_out, mixed, w_out, draws = saved[:11]
        found = saved[11:]
        edges, heads, kept = ctx.rest
        masks, (sources, targets) = edges.masks(x.dtype), _paddings(edges)
        of_received = _drop(grad, draws, kept)
        of_mixed = targets.lay_out_among_zeros(_silence(of_received @ w_out, masks))
        groups = zip(
            _by_group(of_mixed, masks, 1, 1, heads),
            _by_group(laid_out, masks, 2, 3, heads),
            zip(found[::2], found[1::2], strict=True),
            masks.groups,
            strict=True,
        )
        gradients = [
            ATTENTION_BACK(
                of_state, query[:, :, : mask.shape[1]], key, value, *kept_here, 0.0, False, attn_mask=mask[:, None]
            )
            for (of_state,), (query, key, value), kept_here, mask in groups
        ]
        of_projected = x.new_empty(len(x), len(weight))
        places = zip((targets, sources, sources), zip(*gradients, strict=True), of_projected.chunk(3, 1), strict=True)
        for padding, parts, place in places:
            padding.choose(_end_to_end([_rows(part) for part in parts]), out=place)
        of_weight, of_bias, channels = of_projected.T @ x, of_projected.sum(0), x.shape[1]
        of_z, *of_norm = _norm_back(torch.addmm(grad, of_projected, weight), norm, ctx.needs_input_grad[0])
        of_maps = of_weight[:channels], of_bias[:channels], of_weight[channels:], of_bias[channels:]
        return of_z, None, None, None, *of_norm, *of_maps, of_received.T @ mixed, of_received.sum(0)


class _Read(torch.autograd.Function):
    r"""Attention of few receivers i among the nodes j of their graphs: z ``[V, C]`` gives y ``[W, C]``.

    .. math::
        (W_k^h x_j)^\top q_i^h = x_j^\top (W_k^{h \top} q_i^h), \qquad
        \sum_j \alpha^h_{ij} W_v^h x_j = W_v^h \sum_j \alpha^h_{ij} x_j

    so that keys and values of all nodes need not be computed: a receiver asks with :math:`W_k^{h \top} q_i^h` among the
    states themselves. The bias of the keys adds the same to all scores of a receiver, of which the softmax tells
    nothing. (DeepSeek-AI 2024, "DeepSeek-V2", absorbs the same maps where it predicts.)
    """

    @staticmethod
    def forward(
        ctx: Any, z: Tensor, receivers: Tensor, edges: DenseEdges, heads: int, kept: int, *weights: Tensor
    ) -> Tensor:
        gain, shift, w_query, b_query, w_key_value, b_key_value, w_out, b_out = weights
        masks, (sources, targets) = edges.masks(z.dtype), _paddings(edges)
        x, mean, rstd = torch.native_layer_norm(z, gain.shape, gain, shift, EPSILON)
        own, channels = x.index_select(0, receivers), z.shape[1]
        w_key, w_value = w_key_value.view(2, heads, -1, channels).unbind(0)  # [H, D, C]
        query = torch.addmm(b_query, own, w_query.T).view(len(own), heads, -1).transpose(0, 1)  # [H, W, D]
        asks = torch.bmm(query, w_key).transpose(0, 1).reshape(len(own), -1)  # [W, H C]
        asks, states = targets.lay_out_among_zeros(asks), sources.lay_out(x)
        scale, alphas, found = query.shape[2] ** -0.5, [], []
        for ask, state, mask in _asking(asks, states, masks, heads):
            alphas.append(torch.baddbmm(mask, ask, state.transpose(1, 2), alpha=scale).softmax(-1))  # [G, R H, T]
            found.append(torch.bmm(alphas[-1], state).view(-1, heads * channels))
        seen = targets.choose(_end_to_end(found)).view(len(own), heads, channels).transpose(0, 1)  # [H, W, C]
        read = torch.bmm(seen, w_value.transpose(1, 2)).transpose(0, 1).reshape(own.shape)
        mixed = _silence(read.add_(b_key_value[channels:]), masks)
        y, draws = _add(own, mixed, w_out, b_out, kept)
        saved = (z, mean, rstd, gain, shift, receivers, own, query, seen, mixed, asks, states)
        ctx.save_for_backward(*saved, w_query, w_key_value, w_out, draws, *alphas)
        ctx.rest = edges, heads, kept
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        _refuse_second_derivatives()
        saved = ctx.saved_tensors
        *norm, receivers, own, query, seen, mixed, asks, states = saved[:12]
        w_query, w_key_value, w_out, draws, *alphas = saved[12:]
        edges, heads, kept = ctx.rest
        masks, (sources, targets) = edges.masks(own.dtype), _paddings(edges)
        count, channels = own.shape
        w_key, w_value = w_key_value.view(2, heads, -1, channels).unbind(0)
        of_received = _drop(grad, draws, kept)
        of_read = _silence(of_received @ w_out, masks)
        of_key_value = torch.empty_like(w_key_value)
        of_key, of_value = of_key_value.view(2, heads, -1, channels).unbind(0)
        by_head = of_read.view(count, heads, -1).transpose(0, 1)  # [H, W, D]
        torch.bmm(by_head.transpose(1, 2), seen, out=of_value)
        of_seen = targets.lay_out_among_zeros(torch.bmm(by_head, w_value).transpose(0, 1).reshape(count, -1))
        of_asks, of_states = torch.empty_like(asks), torch.empty_like(states)
        groups = zip(
            _asking(asks, states, masks, heads),
            _asking(of_asks, of_states, masks, heads),
            (ask for ask, _, _ in _asking(of_seen, states, masks, heads)),
            alphas,
            strict=True,
        )
        for (ask, state, _), (of_ask, of_state, _), of_mixed, alpha in groups:
            of_alpha = torch.bmm(of_mixed, state.transpose(1, 2))
            of_score = ATEN._softmax_backward_data(of_alpha, alpha, -1, alpha.dtype).mul_(query.shape[2] ** -0.5)
            torch.bmm(of_score, state, out=of_ask)
            torch.bmm(alpha.transpose(1, 2), of_mixed, out=of_state)
            of_state.baddbmm_(of_score.transpose(1, 2), ask)
        of_asks = targets.choose(of_asks).view(count, heads, channels).transpose(0, 1)  # [H, W, C]
        torch.bmm(query.transpose(1, 2), of_asks, out=of_key)
        of_query = torch.bmm(of_asks, w_key.transpose(1, 2)).transpose(0, 1).reshape(count, -1)
        of_x = sources.choose(of_states).index_add_(0, receivers, torch.addmm(grad, of_query, w_query))
        of_z, *of_norm = _norm_back(of_x, norm, ctx.needs_input_grad[0])
        of_maps = of_query.T @ own, of_query.sum(0), of_key_value, F.pad(of_read.sum(0), (channels, 0))
        return of_z, None, None, None, None, *of_norm, *of_maps, of_received.T @ mixed, of_received.sum(0)


class _FeedForward(torch.autograd.Function):
    r"""What follows attention: y ``[W, C]`` gives z ``[W, C]``.

    .. math::
        X = \mathrm{LN}(Y), \qquad Z = X + \mathrm{Dropout}\big(\mathrm{ReLU}(X W_1^\top + b_1)\, W_2^\top + b_2\big)
    """

    @staticmethod
    def forward(ctx: Any, y: Tensor, kept: int, *weights: Tensor) -> Tensor:
        gain, shift, w_in, b_in, w_out, b_out = weights
        x, mean, rstd = torch.native_layer_norm(y, gain.shape, gain, shift, EPSILON)
        hidden = torch.addmm(b_in, x, w_in.T).relu_()
        z, draws = _add(x, hidden, w_out, b_out, kept)
        ctx.save_for_backward(y, mean, rstd, gain, shift, x, hidden, w_in, w_out, draws)
        ctx.kept = kept
        return z

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        _refuse_second_derivatives()
        *norm, x, hidden, w_in, w_out, draws = ctx.saved_tensors
        of_found = _drop(grad, draws, ctx.kept)
        of_hidden = of_found @ w_out
        of_hidden = ATEN.threshold_backward(of_hidden, hidden, 0, grad_input=of_hidden)
        of_y, *of_norm = _norm_back(torch.addmm(grad, of_hidden, w_in), norm, ctx.needs_input_grad[0])
        of_maps = of_hidden.T @ x, of_hidden.sum(0), of_found.T @ hidden, of_found.sum(0)
        return of_y, None, *of_norm, *of_maps


def _refuse_second_derivatives() -> None:
    """torch's attention has none on a CPU; here gradients would come without them, and nothing would say so."""
    if torch.is_grad_enabled():
        raise RuntimeError("masked attention on a CPU has no second derivative; leave out create_graph=True")


def _norm_back(grad: Tensor, norm: Sequence[Tensor], wanted: bool) -> tuple[Tensor | None, Tensor, Tensor]:
    """The gradients of a norm's input, where it is wanted, of its gain and of its shift.

    Args:
        norm: the input, its means and reciprocal deviations, the gain and the shift.
    """
    x, mean, rstd, gain, shift = norm
    found: tuple[Tensor | None, Tensor, Tensor] = ATEN.native_layer_norm_backward(
        grad, x, gain.shape, mean, rstd, gain, shift, [wanted, True, True]
    )
    return found


def _add(x: Tensor, read: Tensor, weight: Tensor, bias: Tensor, kept: int) -> tuple[Tensor, Tensor | None]:
    """x and what dropout leaves of a linear map of what was read, and the draws."""
    if kept == ALL:
        return (x + bias).addmm_(read, weight.T), None
    added = torch.addmm(bias, read, weight.T)
    draws = draw_bytes(added)
    return torch.addcmul(x, added, kept_mask(draws, kept, added.dtype), value=ALL / kept), draws


def _drop(grad: Tensor, draws: Tensor | None, kept: int) -> Tensor:
    """The gradient of what was added."""
    return grad if draws is None else masked(grad, draws, kept)


def _paddings(edges: DenseEdges) -> tuple[Padding, Padding]:
    """How nodes and receivers are padded."""
    assert edges.groups is not None
    return edges.groups.sources, edges.groups.targets


def _rows(x: Tensor) -> Tensor:
    """States of each head ``[G, H, T, D]`` as rows ``[G T, H D]``, as torch's attention has them in memory."""
    return x.transpose(1, 2).reshape(-1, x.shape[1] * x.shape[3])


def _end_to_end(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat([*parts])


def _silence(x: Tensor, masks: Masks) -> Tensor:
    """x with zeros in the rows of receivers without edges."""
    return x if masks.receives is None else x * masks.receives


def _by_group(x: Tensor, masks: Masks, axis: int, count: int, heads: int) -> Iterator[Sequence[Tensor]]:
    """Rows ``[P, count H D]`` as so many states of each node and head ``[G_k, H, T_k, D]``, group by group.

    Args:
        axis: 2 for rows of nodes, 1 for rows of receivers.
    """
    for part, mask in zip(x.split([_rows_of(mask, axis) for mask in masks.groups]), masks.groups, strict=True):
        yield part.view(mask.shape[0], mask.shape[axis], count, heads, -1).permute(2, 0, 3, 1, 4).unbind(0)


def _asking(asks: Tensor, states: Tensor, masks: Masks, heads: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Rows of receivers ``[P, H C]`` as a row for each head ``[G_k, R_k H, C]``, of nodes ``[G_k, T_k, C]``, and the
    mask of these rows ``[G_k, R_k H, T_k]``, group by group."""
    of_receivers, of_nodes = (
        x.split([_rows_of(m, axis) for m in masks.groups]) for axis, x in ((1, asks), (2, states))
    )
    for ask, state, mask in zip(of_receivers, of_nodes, masks.groups, strict=True):
        graphs, receivers, nodes = mask.shape
        of_heads = mask[:, :, None].expand(-1, -1, heads, -1).flatten(1, 2)
        yield ask.view(graphs, receivers * heads, -1), state.view(graphs, nodes, -1), of_heads


def _rows_of(mask: Tensor, axis: int) -> int:
    return mask.shape[0] * mask.shape[axis]
