"""Reads attention weights out of a model: its layers tell theirs, and what else attends is named here."""

# V nodes, E edges of a stream, H heads
from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from gmsa.graph import UTTERANCE, GraphBatch
from gmsa.models import COGMEN, HGT, MMGCN, DialogueGCN, GCNet, GlobalTransformer
from gmsa.nn import AttentionWeights, DenseEdges
from gmsa.nn.attention_weights import SOFTMAX
from gmsa.nn.layers.hgt import hgt_weights
from gmsa.nn.layers.pyg import message_weights

Arguments = Mapping[str, Any]
Found = dict[str, AttentionWeights]
"""By stream."""


@dataclass(frozen=True)
class Part:
    """A part of a model that attends."""

    module: nn.Module
    name: str
    """The same for the parts of which the last that is called counts: the layers of a stream."""
    read: Callable[[Arguments, GraphBatch], Found]
    """The weights, from what the module is called with and from the graphs whose nodes it sees."""
    outside: bool = False
    """Whether it is over the graphs of dialogues in scope ``hierarchical``."""
    of_utterances: bool = False
    """Whether its nodes are the utterances, in the order of the graphs."""


@dataclass
class Recorder:
    """Keeps what the parts of a model that attend were called with last."""

    calls: dict[tuple[bool, str], tuple[Part, Arguments]] = field(default_factory=dict)

    def read(self, batch: GraphBatch) -> Iterator[tuple[Part, Found]]:
        """The weights of each part in the last call of the model, which was with ``batch``."""
        for part, arguments in [*self.calls.values()]:  # reading calls some again
            graph = batch.dialogues if part.outside else batch
            assert graph is not None
            yield part, part.read(arguments, graph)


@contextmanager
def recorded(model: nn.Module) -> Iterator[Recorder]:
    """Records what the parts of a model that attend are called with."""
    recorder, hooks = Recorder(), []

    def hook(part: Part, signature: inspect.Signature, _: nn.Module, args: Any, kwargs: Any) -> None:
        arguments = dict(signature.bind(*args, **kwargs).arguments)
        recorder.calls[part.outside, part.name] = part, arguments

    for part in parts_of(model):
        called = partial(hook, part, inspect.signature(part.module.forward))
        hooks.append(part.module.register_forward_pre_hook(called, with_kwargs=True))
    try:
        yield recorder
    finally:
        for handle in hooks:
            handle.remove()


def parts_of(model: nn.Module) -> Iterator[Part]:
    """The parts of a model that attend: its layers, and those that some models have beside or instead of these."""
    known = [*_own_parts(model)]
    yield from known
    own = {id(part.module) for part in known}
    for path, layer in _layers(model):
        if id(layer) not in own:
            name = _stream(path)
            yield Part(layer, name, partial(_read_layer, layer, name), path[0].startswith("outside"))


def _layers(module: nn.Module, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The layers that tell their attention weights, by the path of their names.

    A layer tells those of its parts as well, but for a ``local`` layer inside.
    """
    tells = bool(path) and hasattr(module, "attention_weights")
    if tells:
        yield path, module
    for name, child in module.named_children():
        if not tells or name == "local":
            yield from _layers(child, (*path, name))


def _stream(path: tuple[str, ...]) -> str:
    """The stream of a layer by the path of its names."""
    found = "global"
    for name, then in zip(path, (*path[1:], ""), strict=True):
        if name.endswith("streams"):
            found = then
    found = {"within": "intra", "across": "inter"}.get(next((p for p in path if p in ("within", "across")), ""), found)
    return f"{found}.local" if path[-1] == "local" else found


def _read_layer(layer: Any, stream: str, arguments: Arguments, graph: GraphBatch) -> Found:
    found = layer.attention_weights(**arguments)
    return {} if found is None else {stream: found}


def _own_parts(model: nn.Module) -> Iterator[Part]:
    """The parts of models that are no layers with ``attention_weights``, or are of other nodes."""
    outside = getattr(model, "outside", None) is not None
    if isinstance(model, HGT):
        for convs, is_outside in ((model.convs, False), *(((model.outside_convs, True),) if outside else ())):
            yield Part(convs[-1], "global", partial(_read_hgt, model, convs[-1]), is_outside)
    if isinstance(model, GlobalTransformer):
        for encoder, is_outside in ((model.encoder, False), *(((model.outside_encoder, True),) if outside else ())):
            layer = encoder.layers[-1]
            by_edges = is_outside or model.scope == "dialogue"
            yield Part(layer, "global", partial(_read_transformer, layer, by_edges), is_outside)
    if isinstance(model, DialogueGCN):
        yield Part(model.first, UTTERANCE, _read_dialogue_gcn, outside, True)
        yield Part(model.nodal, "nodal", partial(_read_layer, model.nodal, "nodal"), outside, True)
    if isinstance(model, COGMEN):
        yield Part(model.attention, UTTERANCE, partial(_read_conv, model.attention), outside, True)
    if isinstance(model, GCNet):
        for name, branch in (("temporal", model.temporal), ("speaker", model.speaker)):
            if branch.attention is not None:
                yield Part(branch.attention, name, partial(_read_layer, branch.attention, name), outside, True)
    if isinstance(model, MMGCN):
        yield Part(model.convs[-1], "global", _read_mmgcn, outside)


def _read_hgt(model: HGT, conv: Any, arguments: Arguments, graph: GraphBatch) -> Found:
    """Both streams, over which the softmax is one."""
    edges = arguments["edge_index_dict"]
    weights = hgt_weights(conv, arguments["x_dict"], edges).split([index.shape[1] for index in edges.values()])
    nodes = {model.keys[t]: graph.node_index(t) for t in graph.schema.node_types}
    parts: dict[str, list[tuple[Tensor, Tensor, Tensor]]] = {}
    for ((source, kind, target), index), weight in zip(edges.items(), weights, strict=True):
        stream = kind.rstrip("0123456789")
        parts.setdefault(stream, []).append((nodes[source][index[0]], nodes[target][index[1]], weight))
    meaning = "softmax over the edges of both streams to each node"
    joined: Found = {}
    for stream, found in parts.items():
        begin, end, weight = (torch.cat(column) for column in zip(*found, strict=True))
        joined[stream] = AttentionWeights(begin, end, weight, meaning)
    return joined


def _read_conv(conv: Any, arguments: Arguments, graph: GraphBatch) -> Found:
    """Those of a convolution of PyG's."""
    weight = message_weights(conv, lambda: conv(**arguments))
    assert weight is not None
    source, target = arguments["edge_index"]
    return {UTTERANCE: AttentionWeights(source, target, weight)}


def _read_dialogue_gcn(arguments: Arguments, graph: GraphBatch) -> Found:
    """The weights of the edges between utterances, and of each to itself."""
    (source, target), weight = arguments["index"], arguments["weight"]
    return {UTTERANCE: AttentionWeights(source, target, weight[:, None])}


def _read_mmgcn(arguments: Arguments, graph: GraphBatch) -> Found:
    meaning = "angular weights, divided by the root of the degrees of both ends; no softmax"
    source, target = arguments["edge_index"]
    return {"global": AttentionWeights(source, target, arguments["edge_weight"][:, None], meaning)}


def _read_transformer(layer: Any, by_edges: bool, arguments: Arguments, graph: GraphBatch) -> Found:
    """The weights by which the readout nodes attend to the nodes of their graphs, or those that an edge joins."""
    src = arguments["src"]
    x = layer.norm1(src) if layer.norm_first else src
    _, weight = layer.self_attn(
        x,
        x,
        x,
        attn_mask=arguments.get("src_mask"),
        key_padding_mask=arguments.get("src_key_padding_mask"),
        need_weights=True,
        average_attn_weights=False,
    )  # [G, H, T, T]
    graphs, size, _ = graph.shape
    there = torch.zeros(graphs * size, dtype=torch.bool, device=src.device).index_fill(0, graph.padded_index, True)
    seen = there.view(graphs, 1, size).expand(-1, size, -1)
    meaning = SOFTMAX if by_edges else "softmax over all nodes of the graph"
    if by_edges:
        edges = graph.edges["global"]
        assert isinstance(edges, DenseEdges)
        seen = seen & (edges.adjacency.bool() | torch.eye(size, dtype=torch.bool, device=src.device))
        meaning += ", and each itself"
    at = graph.padded_index.index_select(0, graph.readout_index)
    of_graph, row = at // size, at % size
    edge, column = seen[of_graph, row].nonzero(as_tuple=True)
    source = torch.searchsorted(graph.padded_index, of_graph[edge] * size + column)
    found = weight[of_graph[edge], :, row[edge], column]
    return {"global": AttentionWeights(source, graph.readout_index[edge], found, meaning)}
