"""What the models of a run compute inside: the representations of utterances, and attention weights."""

# N utterances, V nodes of all of them, E edges of a stream, H heads, C channels
from __future__ import annotations

import inspect
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing

from gmsa.config import Config
from gmsa.data import Utterance
from gmsa.errors import RunError, cut, shown
from gmsa.graph import GraphBatch, check_positions
from gmsa.models import GlobalTransformer, Model, graph_spec
from gmsa.models.base import arguments_of
from gmsa.nn import Interaction, PygLayer, SparseEdges
from gmsa.runs.folder import Run
from gmsa.runs.inputs import Input, Inputs, read_inputs
from gmsa.runs.predict import tell
from gmsa.runs.scoring.windows import Arrays, in_windows
from gmsa.system.device import set_up
from gmsa.system.files import check_out_file, write_bytes
from gmsa.training.batches import scoring_batches


@dataclass(frozen=True, eq=False, repr=False)
class Embeddings:
    """Representations of N utterances, from which the models predict."""

    ids: list[str]
    splits: list[str]
    """Split of each utterance."""
    labels: np.ndarray
    """``[N]``; NaN where there is none."""
    values: Mapping[int, np.ndarray]
    """By seed, float32 ``[N, C]``."""

    def __repr__(self) -> str:
        first = next(iter(self.values.values()))
        return f"Embeddings({len(self.ids)} utterances of {first.shape[1]} features, seeds {[*self.values]})"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes arrays ``ids``, ``splits``, ``labels`` and ``seed_1`` and so on, as NumPy's ``.npz``.

        Raises:
            RunError: the file cannot be written.
        """
        named = {f"seed_{seed}": values for seed, values in self.values.items()}
        _save(Path(path), ids=np.array(self.ids), splits=np.array(self.splits), labels=self.labels, **named)


class StreamAttention(NamedTuple):
    """Attention weights of a stream's last layer; the weights of all edges to a node sum to 1."""

    source: np.ndarray
    """Node that each edge starts at ``[E]``."""
    target: np.ndarray
    """Node that each edge ends at ``[E]``."""
    weight: np.ndarray
    """float32 ``[E, H]``."""


@dataclass(frozen=True, eq=False, repr=False)
class Attention:
    """Attention weights of the last layer of each stream, over the nodes of N utterances, numbered throughout."""

    ids: list[str]
    seed: int
    """Seed of the model."""
    node_types: tuple[str, ...]
    """Names of the types of nodes."""
    steps: np.ndarray
    """Steps of the features that a node of each type stands for, one after the other; 0 of readout nodes."""
    node_type: np.ndarray
    """Index of each node's type in ``node_types`` ``[V]``."""
    node_position: np.ndarray
    """Index of each node among those of its type in its graph ``[V]``: the token, or the dialogue's utterance."""
    node_utterance: np.ndarray
    """Index of each node's utterance in ``ids`` ``[V]``."""
    streams: Mapping[str, StreamAttention]
    """By stream, such as ``intra`` and ``inter``."""
    gate: np.ndarray | None = None
    """Share of the inter view at val (if any) and cls, the mean over the channels, float32 ``[N, Q]``; None where the
    model has no gate."""

    def __repr__(self) -> str:
        edges = ", ".join(f"{name} {len(found.weight)} edges" for name, found in self.streams.items())
        return f"Attention({len(self.ids)} utterances, seed {self.seed}: {edges})"

    def of(self, identity: str, stream: str, target: str) -> dict[str, np.ndarray]:
        """How much the nodes of one type of an utterance attend to each token: the mean over heads and targets.

        Args:
            identity: id of the utterance.
            stream: a stream.
            target: type of the nodes that attend, such as ``val``.

        Returns:
            By type of the sources, a weight per position ``[L]``.

        Raises:
            RunError: there is no such utterance or stream.
        """
        if identity not in self.ids or stream not in self.streams:
            known = f"the streams are {', '.join(self.streams)}" if identity in self.ids else "name one of its ids"
            raise RunError(f"no attention of {shown(identity)} in the stream {shown(stream)}; {known}")
        found = self.streams[stream]
        kind = self.node_types.index(target)
        mine = (self.node_utterance == self.ids.index(identity)) & (self.node_type == kind)
        chosen = mine[found.target]
        source, weight = found.source[chosen], found.weight[chosen].mean(1) / max(1, int(mine.sum()))
        weights = {}
        for number, name in enumerate(self.node_types):
            those = self.node_type[source] == number
            if those.any():
                weights[name] = np.bincount(self.node_position[source[those]], weight[those]).astype(np.float32)
        return weights

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the arrays, of each stream as ``intra_source`` and so on, as NumPy's ``.npz``.

        Raises:
            RunError: the file cannot be written.
        """
        names = ("steps", "node_type", "node_position", "node_utterance")
        arrays = {name: getattr(self, name) for name in names}
        for stream, found in self.streams.items():
            arrays |= {f"{stream}_{part}": x for part, x in zip(found._fields, found, strict=True)}
        if self.gate is not None:
            arrays["gate"] = self.gate
        about = {"ids": np.array(self.ids), "seed": np.array(self.seed), "node_types": np.array(self.node_types)}
        _save(Path(path), **about, **arrays)


def _save(path: Path, **arrays: np.ndarray) -> None:
    check_out_file(path, (".npz",))
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]  # its stubs know files alone
    write_bytes(path, buffer.getvalue())


def embeddings(run: Run, x: Input, seeds: int | Sequence[int] | None = None, device: str | None = None) -> Embeddings:
    """The representations of utterances; see :meth:`Run.features`."""
    where = set_up(run.config.run, device)
    models = {seed: run.load_model(seed, where) for seed in run.chosen_seeds(seeds)}
    inputs = _read(run, x)
    utterances = [run.normalizer.apply(u) for u in inputs.utterances]
    values = {}
    for seed, model in models.items():

        def work(some: Sequence[Utterance], settings: Config, model: nn.Module = model) -> Arrays:
            found: list[np.ndarray] = [np.zeros(0)] * len(some)
            for places, output in _outputs(model, some, settings, where):
                for place, row in zip(places, output.features.float().cpu().numpy(), strict=True):
                    found[place] = row
            return [np.stack(found)]

        (table,) = in_windows(utterances, run.config, work)
        assert table is not None
        values[seed] = table.astype(np.float32)
    labels = np.array([np.nan if u.label is None else u.label for u in utterances], dtype=np.float32)
    return Embeddings([u.id for u in utterances], inputs.splits, labels, values)


def attention(run: Run, x: Input, seed: int | None = None, device: str | None = None) -> Attention:
    """The attention weights of a run's model; see :meth:`Run.attention`."""
    where = set_up(run.config.run, device)
    (chosen,) = run.chosen_seeds(run.seeds[0] if seed is None else seed)
    model, spec = run.load_model(chosen, where), graph_spec(run.config)
    inputs = _read(run, x)
    utterances = [run.normalizer.apply(u) for u in inputs.utterances]
    check_positions(utterances, spec)
    found: list[_Part] = []
    with _recorded(model) as calls:
        for places, batch in _batches(utterances, run.config, where):
            calls.clear()
            with torch.inference_mode():
                gate = model(batch).gate
                read = {name: call.weights(batch) for name, call in _last_calls(calls).items()}
                streams = {name: weights for name, weights in read.items() if weights is not None}
            if not streams:
                named = f"the model '{cut(run.config.model.name)}'"
                if isinstance(model, Model) and "layer" in arguments_of(type(model)):
                    named += f" with the layer '{cut(run.config.model.layer.plain)}'"
                raise RunError(f"'{run.folder}': {named} has no attention weights that gmsa can read")
            found.append(_Part(batch, places, streams, None if gate is None else gate.float().mean(2)))
    types = spec.schema.node_types
    strides = [spec.strides.get(t, 0) if spec.graph.scope == "utterance" else 0 for t in types]
    return _joined([u.id for u in utterances], chosen, found, types, np.array(strides))


def _read(run: Run, x: Input) -> Inputs:
    inputs = read_inputs(x, run.dims, run.config)
    tell({refused.id: refused.reason for refused in inputs.refused})
    return inputs


def _batches(
    utterances: Sequence[Utterance], config: Config, device: torch.device
) -> Iterator[tuple[list[int], GraphBatch]]:
    for _, places, batch in scoring_batches(utterances, config):
        yield places, batch.to(device)


def _outputs(
    model: nn.Module, utterances: Sequence[Utterance], config: Config, device: torch.device
) -> Iterator[tuple[list[int], Any]]:
    with torch.inference_mode():
        for places, batch in _batches(utterances, config, device):
            yield places, model(batch)


class _Part(NamedTuple):
    """The attention of one batch."""

    batch: GraphBatch
    places: list[int]
    streams: dict[str, tuple[Tensor, Tensor, Tensor]]
    gate: Tensor | None


class _Call(NamedTuple):
    """One call of a layer that has attention."""

    stream: str
    layer: nn.Module
    arguments: dict[str, Any]

    def weights(self, batch: GraphBatch) -> tuple[Tensor, Tensor, Tensor] | None:
        """Source and target node of every edge ``[E]``, and its weights ``[E, H]``; None where they cannot be read."""
        if isinstance(self.layer, Interaction):
            return interaction_weights(self.layer, **self.arguments)
        if isinstance(self.layer, PygLayer):
            return pyg_weights(self.layer, **self.arguments)
        return transformer_weights(self.layer, self.arguments["src"], batch)


@contextmanager
def _recorded(model: nn.Module) -> Iterator[list[_Call]]:
    """Records what the layers with attention are called with."""
    calls: list[_Call] = []

    def record(stream: str, layer: nn.Module) -> Any:
        signature = inspect.signature(layer.forward)

        def hook(_: nn.Module, args: Any, kwargs: Any) -> None:
            calls.append(_Call(stream, layer, dict(signature.bind(*args, **kwargs).arguments)))

        return hook

    # The encoders of dialogues in models of conversations are transformers too, of nodes that no graph has.
    of_graphs = (Interaction, nn.TransformerEncoderLayer) if isinstance(model, GlobalTransformer) else (Interaction,)
    hooks = [
        module.register_forward_pre_hook(record(_stream(name), module), with_kwargs=True)
        for name, module in model.named_modules()
        if (isinstance(module, of_graphs) or _pays_attention(module)) and _is_of_graphs(name)
    ]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


def _stream(name: str) -> str:
    """The stream of a layer by the name of its module."""
    parts = name.split(".")
    if "streams" in parts:
        return parts[parts.index("streams") + 1]
    return "intra" if "within" in parts else "inter" if "across" in parts else "global"


def _is_of_graphs(name: str) -> bool:
    """Whether a module, by its name, is of the graphs whose nodes are counted: not of those outside, nor an encoder of
    utterances before the graph."""
    parts = name.split(".")
    return not any(part.startswith("outside") or part == "sequence" for part in parts)


def _pays_attention(module: nn.Module) -> bool:
    """Whether a layer of PyG's computes a weight for each edge, which :func:`pyg_weights` reads."""
    convs = [part for part in module.modules() if isinstance(part, MessagePassing)]
    return isinstance(module, PygLayer) and any(
        hasattr(conv, "_alpha") or "alpha" in conv.inspector.get_param_dict("message") for conv in convs
    )


def pyg_weights(
    layer: PygLayer, x: Tensor, edges: SparseEdges, receivers: Tensor | None = None, **others: Any
) -> tuple[Tensor, Tensor, Tensor] | None:
    """The weights of a layer of PyG's that pays attention, edge by edge, for the arguments of its ``forward``.

    Returns:
        Source and target node of every edge ``[E]``, and the weights ``[E, H]``; None where the layer passes its
        messages in another way.
    """
    found: list[Tensor] = []

    def keep(conv: Any, inputs: Any, _: Tensor) -> None:
        weights = inputs[0].get("alpha", getattr(conv, "_alpha", None))
        if weights is not None:
            found.append(weights)

    convs = [part for part in layer.modules() if isinstance(part, MessagePassing)]
    hooks = [conv.register_message_forward_hook(keep) for conv in convs]
    try:
        layer(x, edges, receivers, **others)
    finally:
        for hook in hooks:
            hook.remove()
    if not found:
        return None
    source, target = edges.index
    return source, target if receivers is None else receivers[target], found[-1].reshape(len(source), -1)


def _last_calls(calls: Sequence[_Call]) -> dict[str, _Call]:
    return {call.stream: call for call in calls}


def interaction_weights(
    layer: Any, x: Tensor, edges: Any, receivers: Tensor | None = None, source_log_weight: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """The weights of :class:`~gmsa.nn.Interaction`, edge by edge, for the arguments of its ``forward``.

    Returns:
        Source and target node of every edge ``[E]``, and the weights ``[E, H]``.
    """
    if isinstance(edges, SparseEdges):
        (source, target), kind = edges.index, edges.edge_type
    else:
        graph, row, column = edges.adjacency.nonzero(as_tuple=True)
        _, rows, columns = edges.adjacency.shape
        source = _number(edges.source_index, graph * columns + column)
        target = _number(edges.target_index, graph * rows + row)
        typed = edges.adjacency.dtype != torch.bool
        kind = edges.adjacency[graph, row, column].long() - 1 if typed else None
    heads, width = layer.heads, layer.query.out_features // layer.heads
    query = layer.query(x if receivers is None else x.index_select(0, receivers)).unflatten(1, (heads, width))
    key = layer.key_value(x)[:, : heads * width].unflatten(1, (heads, width))
    score = (query[target] * key[source]).sum(-1) / width**0.5
    if layer.bias is not None and kind is not None:
        score = score + nn.functional.pad(layer.bias, (0, 0, 0, 1))[kind]
    if source_log_weight is not None:
        score = score + source_log_weight[source][:, None]
    if isinstance(edges, SparseEdges) and edges.log_weight is not None:
        score = score + edges.log_weight[:, None]
    return source, target if receivers is None else receivers[target], softmax_by(score, target, len(query))


def softmax_by(score: Tensor, target: Tensor, targets: int) -> Tensor:
    """Softmax of scores ``[E, H]`` over the edges of each target, in float64."""
    score = score.double()
    index = target[:, None].expand_as(score)
    most = score.new_full((targets, score.shape[1]), -torch.inf).scatter_reduce(0, index, score, "amax")
    weight = (score - most[target]).exp()
    total = weight.new_zeros(targets, score.shape[1]).index_add(0, target, weight)
    return (weight / total[target]).float()


def transformer_weights(layer: Any, src: Tensor, batch: GraphBatch) -> tuple[Tensor, Tensor, Tensor]:
    """The weights of a transformer's layer by which the readout nodes attend to the nodes of their graphs."""
    graphs, size, _ = batch.shape
    there = torch.zeros(graphs * size, dtype=torch.bool, device=src.device).index_fill(0, batch.padded_index, True)
    x = layer.norm1(src) if layer.norm_first else src
    _, weight = layer.self_attn(
        x, x, x, key_padding_mask=~there.view(graphs, size), need_weights=True, average_attn_weights=False
    )  # [G, H, T, T]
    at = batch.padded_index.index_select(0, batch.readout_index)
    graph, row = at // size, at % size
    edge, column = there.view(graphs, size)[graph].nonzero(as_tuple=True)
    source = _number(batch.padded_index, graph[edge] * size + column)
    return source, batch.readout_index[edge], weight[graph[edge], :, row[edge], column]


def _number(index: Tensor, values: Tensor) -> Tensor:
    """The place of each value in an ascending index."""
    return torch.searchsorted(index, values)


def _joined(ids: list[str], seed: int, parts: Sequence[_Part], types: tuple[str, ...], steps: np.ndarray) -> Attention:
    """Numbers the nodes of all batches throughout, utterance by utterance in the order of ``ids``."""
    utterance = np.concatenate([np.array(part.places)[_rows(part.batch)] for part in parts])
    order = np.argsort(utterance, kind="stable")
    number = np.empty_like(order)
    number[order] = np.arange(len(order))
    starts = np.cumsum([0, *(len(part.batch.node_type) for part in parts)])
    streams = {}
    for name in parts[0].streams:
        source, target, weight = (
            np.concatenate(
                [
                    part.streams[name][k].cpu().numpy() + (start if k < 2 else 0)
                    for part, start in zip(parts, starts[:-1], strict=True)
                ]
            )
            for k in range(3)
        )
        source, target = number[source], number[target]
        by_target = np.lexsort((source, target))
        streams[name] = StreamAttention(source[by_target], target[by_target], weight[by_target])
    node_type, position = (
        np.concatenate([getattr(part.batch, name).cpu().numpy() for part in parts])[order]
        for name in ("node_type", "position")
    )
    gate = None
    if parts[0].gate is not None:
        rows = np.concatenate([part.places for part in parts])
        gate = np.concatenate([part.gate.cpu().numpy() for part in parts if part.gate is not None])[np.argsort(rows)]
    return Attention(ids, seed, types, steps, node_type, position, utterance[order], streams, gate)


def _rows(batch: GraphBatch) -> np.ndarray:
    """The row of each node's utterance in the batch ``[V]``."""
    graph = (batch.padded_index // batch.shape[1]).cpu().numpy()
    in_order = np.argsort(batch.utterance_order.cpu().numpy())
    if batch.shape[0] == len(batch):
        return in_order[graph]
    # In graphs of dialogues the position of a node is that of its utterance in the dialogue.
    position = batch.position.cpu().numpy()
    members = np.zeros(batch.shape[0], dtype=np.int64)
    np.maximum.at(members, graph, position + 1)
    return in_order[(np.cumsum(members) - members)[graph] + position]
