"""The attention weights of a run's model, over the nodes of all utterances."""

# N utterances, V nodes of all of them, E edges of a stream, H heads
from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gmsa.errors import RunError, cut, shown
from gmsa.graph import UTTERANCE, GraphBatch, check_positions
from gmsa.models import Conversation, Model, graph_spec
from gmsa.models.base import arguments_of
from gmsa.nn import AttentionWeights
from gmsa.runs.folder import Run
from gmsa.runs.inputs import Input
from gmsa.runs.states.common import batches, read, save_arrays
from gmsa.runs.states.reading import Part, recorded
from gmsa.system.device import set_up

DIALOGUE_LEVEL = "dialogue."
"""Begins the names of the streams over the graphs of dialogues in scope ``hierarchical``."""
UTTERANCE_TYPE = f"{UTTERANCE}."
"""Begins the names of their types of nodes, as in :func:`gmsa.graph.as_hetero`."""


class StreamAttention(NamedTuple):
    """Attention weights of a stream's last layer: what they are, :attr:`Attention.meanings` says."""

    source: np.ndarray
    """Node that each edge starts at ``[E]``."""
    target: np.ndarray
    """Node that each edge ends at ``[E]``."""
    weight: np.ndarray
    """float32 ``[E, H]``."""


@dataclass(frozen=True, eq=False, repr=False)
class Attention:
    """Attention weights of the last layer of each stream, over the nodes of N utterances, numbered throughout.

    In scope ``hierarchical`` both levels have streams: ``intra`` joins the tokens of an utterance, and
    ``dialogue.intra`` the utterances of a dialogue, whose nodes are of the types ``utterance.text``,
    ``utterance.val`` and so on. Models with one node for each utterance have nodes of the type ``utterance``.
    """

    ids: list[str]
    seed: int
    """Seed of the model."""
    node_types: tuple[str, ...]
    """Names of the types of nodes."""
    steps: np.ndarray
    """Steps of the features that a node of each type stands for, one after the other; 0 of nodes that are no tokens."""
    node_type: np.ndarray
    """Index of each node's type in ``node_types`` ``[V]``."""
    node_position: np.ndarray
    """Index of each node among those of its type in its graph ``[V]``: the token, or the dialogue's utterance."""
    node_utterance: np.ndarray
    """Index of each node's utterance in ``ids`` ``[V]``; of a node of a whole dialogue, of its first."""
    streams: Mapping[str, StreamAttention]
    """By stream, such as ``intra`` and ``inter``."""
    gate: np.ndarray | None = None
    """Share of the inter view at val (if any) and cls, the mean over the channels, float32 ``[N, Q]``; None where the
    model has no gate. In scope ``hierarchical`` that of the streams over the dialogue."""
    meanings: Mapping[str, str] = field(default_factory=dict)
    """What the weights of each stream are, such as ``softmax over the edges to each node``: then they sum to 1 there.
    """

    def __repr__(self) -> str:
        edges = ", ".join(f"{name} {len(found.weight)} edges" for name, found in self.streams.items())
        return f"Attention({len(self.ids)} utterances, seed {self.seed}: {edges})"

    def of(self, identity: str, stream: str, target: str) -> dict[str, np.ndarray]:
        """How much the nodes of one type of an utterance attend to each source: the mean over heads and targets.

        Args:
            identity: id of the utterance.
            stream: a stream.
            target: type of the nodes that attend, such as ``val``; in the streams ``dialogue.…``, such as
                ``utterance.val``.

        Returns:
            By type of the sources, a weight per position ``[L]``: of tokens, or of the dialogue's utterances.

        Raises:
            RunError: there is no such utterance, stream, or type of nodes in the stream.
        """
        if identity not in self.ids or stream not in self.streams:
            known = f"the streams are {', '.join(self.streams)}" if identity in self.ids else "name one of its ids"
            raise RunError(f"no attention of {shown(identity)} in the stream {shown(stream)}; {known}")
        found = self.streams[stream]
        if target not in self.node_types:
            receiving = [self.node_types[k] for k in np.unique(self.node_type[found.target])]
            raise RunError(
                f"no nodes of type {shown(target)}; those of {stream} that attend are {', '.join(receiving)}"
            )
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
            arrays[f"{stream}_meaning"] = np.array(self.meanings.get(stream, ""))
        if self.gate is not None:
            arrays["gate"] = self.gate
        about = {"ids": np.array(self.ids), "seed": np.array(self.seed), "node_types": np.array(self.node_types)}
        save_arrays(Path(path), **about, **arrays)


def attention(run: Run, x: Input, seed: int | None = None, device: str | None = None) -> Attention:
    """The attention weights of a run's model; see :meth:`Run.attention`."""
    where = set_up(run.config.run, device)
    (chosen,) = run.chosen_seeds(run.seeds[0] if seed is None else seed)
    model, spec = run.load_model(chosen, where), graph_spec(run.config)
    inputs = read(run, x)
    utterances = [run.normalizer.apply(u) for u in inputs.utterances]
    check_positions(utterances, spec)
    found: list[_Batch] = []
    with recorded(model) as recorder:
        for places, batch in batches(utterances, run.config, where):
            with torch.inference_mode():
                gate = model(batch).gate
                streams: dict[str, _Stream] = {}
                for part, weights in recorder.read(batch):
                    prefix, nodes = _level(part, batch, spec.graph.scope == "hierarchical")
                    streams |= {prefix + name: _Stream(nodes, read) for name, read in weights.items()}
            if not streams:
                named = f"the model '{cut(run.config.model.name)}'"
                unused = isinstance(model, Conversation) and spec.graph.scope == "dialogue"
                if isinstance(model, Model) and "layer" in arguments_of(type(model)) and not unused:
                    named += f" with the layer '{cut(run.config.model.layer.plain)}'"
                raise RunError(f"'{run.folder}': {named} has no attention weights that gmsa can read")
            found.append(_Batch(batch, places, streams, None if gate is None else gate.float().mean(2)))
    strides = {} if spec.graph.scope == "dialogue" else spec.strides
    return _joined([u.id for u in utterances], chosen, found, strides)


TOKENS, STATES, UTTERANCES = "", UTTERANCE_TYPE, UTTERANCE
"""Sets of nodes: those of the batch, of the dialogues' graphs over it, and one for each utterance. The first two begin
the names of their types."""


class _Stream(NamedTuple):
    """The attention of a stream in one batch."""

    nodes: str
    """The set of nodes that it numbers."""
    found: AttentionWeights


class _Batch(NamedTuple):
    """The attention of one batch."""

    batch: GraphBatch
    places: list[int]
    streams: dict[str, _Stream]
    gate: Tensor | None


def _level(part: Part, batch: GraphBatch, hierarchical: bool) -> tuple[str, str]:
    """What begins the name of a part's streams, and its set of nodes."""
    prefix = DIALOGUE_LEVEL if part.outside and hierarchical else ""
    return prefix, UTTERANCES if part.of_utterances else STATES if part.outside else TOKENS


class _Nodes(NamedTuple):
    """A set of nodes of one batch, by their types, places, and utterances."""

    types: tuple[str, ...]
    type: np.ndarray
    position: np.ndarray
    utterance: np.ndarray


def _nodes(name: str, part: _Batch) -> _Nodes:
    graph = part.batch if name == TOKENS or part.batch.dialogues is None else part.batch.dialogues
    sizes = np.array(graph.sizes)
    first = np.cumsum(sizes) - sizes
    in_order = np.array(part.places)[np.argsort(graph.utterance_order.cpu().numpy())]
    if name == UTTERANCES:
        position = np.arange(len(in_order)) - np.repeat(first, sizes)
        return _Nodes((UTTERANCE,), np.zeros_like(position), position, in_order)
    position, number = graph.position.cpu().numpy(), (graph.padded_index // graph.shape[1]).cpu().numpy()
    # In graphs of dialogues the position of a node is that of its utterance in the dialogue.
    utterance = in_order[first[number] + (0 if graph.speakers is None else position)]
    return _Nodes(tuple(name + t for t in graph.schema.node_types), graph.node_type.cpu().numpy(), position, utterance)


def _joined(ids: list[str], seed: int, parts: Sequence[_Batch], strides: Mapping[str, int]) -> Attention:
    """Numbers the nodes of all batches throughout, utterance by utterance in the order of ``ids``."""
    used = {TOKENS, *(stream.nodes for part in parts for stream in part.streams.values())}
    sets = [name for name in (TOKENS, STATES, UTTERANCES) if name in used]
    nodes = [[_nodes(name, part) for name in sets] for part in parts]
    types = tuple(t for found in nodes[0] for t in found.types)
    each = [found for of_part in nodes for found in of_part]
    utterance = np.concatenate([found.utterance for found in each])
    order = np.argsort(utterance, kind="stable")
    number = np.empty_like(order)
    number[order] = np.arange(len(order))
    starts = np.cumsum([0, *(len(found.type) for found in each)])[:-1].reshape(len(parts), len(sets))
    streams, meanings = {}, {}
    for name in dict.fromkeys(name for part in parts for name in part.streams):
        rows = []
        for part, start in zip(parts, starts, strict=True):
            if name in part.streams:
                of, (*ends, weight, meanings[name]) = part.streams[name]
                source, target = (number[end.cpu().numpy() + start[sets.index(of)]] for end in ends)
                rows.append((source, target, weight.float().cpu().numpy()))
        found = StreamAttention(*map(np.concatenate, zip(*rows, strict=True)))
        by_target = np.lexsort((found.source, found.target))
        streams[name] = StreamAttention(*(column[by_target] for column in found))
    gate = None
    if parts[0].gate is not None:
        places = np.concatenate([part.places for part in parts])
        gate = np.concatenate([part.gate.cpu().numpy() for part in parts if part.gate is not None])[np.argsort(places)]
    return Attention(
        ids,
        seed,
        types,
        np.array([strides.get(t, 0) for t in types]),
        np.concatenate([found.type + types.index(found.types[0]) for found in each])[order],
        np.concatenate([found.position for found in each])[order],
        utterance[order],
        streams,
        gate,
        meanings,
    )
