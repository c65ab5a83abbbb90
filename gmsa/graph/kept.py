"""Runs the edge builders, and keeps the edges that they find: of relations, and of whole graphs."""

# E edges
from __future__ import annotations

import hashlib
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from cachetools import LRUCache, cached
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from gmsa.config import GraphConfig
from gmsa.errors import ConfigError
from gmsa.graph.context import DialogueEdges, Turns, edge_kinds
from gmsa.graph.edges import PRESENT, complete, looks_at_features, looks_at_times, temporal_type
from gmsa.graph.nodes import node_features, node_times, token_count
from gmsa.graph.schema import Relation, Schema, builder_of, is_among_tokens
from gmsa.registry import EDGE_BUILDERS

MEMORY = 2**28
"""Size in bytes of a cache of edges, which keeps those used last."""
_ROWS = torch.empty(1_000_000, 0)


def build_edges(
    name: str, source: Tensor, target: Tensor, parameters: Mapping[str, Any], strides: tuple[int, int] = (1, 1)
) -> tuple[Tensor, Tensor]:
    """Runs the builder ``name`` on the nodes of two sequences, each ``strides`` steps of them.

    The sequences are features ``[L, D]``, or for a builder that looks at times these ``[L, 2]``. Returns edge_index
    [2, E], sorted by target, and the temporal type of each edge [E]: by :func:`temporal_type` or the builder's own
    function, and ``PRESENT`` for all where the builder has no attribute ``temporal``. Both are cached: by length, or,
    for a builder that looks at features or times, by these.

    Raises:
        ConfigError: a builder that is not gmsa's own fails, or returns what is no edge_index.
    """
    arguments = tuple(parameters.items())
    if not looks_at_content(name):
        return _by_length(name, token_count(len(source), strides[0]), token_count(len(target), strides[1]), arguments)
    return _by_content(name, source, target, arguments, strides)


def looks_at_content(name: str) -> bool:
    """Whether a builder looks at more than lengths: at features or at times."""
    return looks_at_features(name) or looks_at_times(name)


def _content(sequence: Tensor) -> tuple[int, bytes]:
    """Steps and digest of a sequence ``[L, D]``: equal for the same features, whichever tensor holds them.

    Found once for a tensor: features are not changed in place.
    """
    found = _CONTENTS.get(sequence)
    if found is None:
        digest = hashlib.sha256(np.ascontiguousarray(sequence.detach().numpy()).data)
        found = _CONTENTS[sequence] = (sequence.shape[0], digest.digest())
    return found


_CONTENTS = WeakIdKeyDictionary()
_Found = tuple[Tensor, Tensor]
_Arguments = tuple[tuple[str, Any], ...]


def _size(found: _Found) -> int:
    return found[0].nbytes + found[1].nbytes


@cached(LRUCache(MEMORY, getsizeof=_size))
def _by_length(name: str, source_length: int, target_length: int, arguments: _Arguments) -> _Found:
    return _run(name, source_length, target_length, dict(arguments))


def _key(name: str, source: Tensor, target: Tensor, arguments: _Arguments, strides: tuple[int, int]) -> Hashable:
    return name, _content(source), None if source is target else _content(target), arguments, strides


@cached(LRUCache(MEMORY, getsizeof=_size), key=_key)
def _by_content(name: str, source: Tensor, target: Tensor, arguments: _Arguments, strides: tuple[int, int]) -> _Found:
    nodes_of = node_times if looks_at_times(name) else node_features
    nodes = nodes_of(source, strides[0])
    return _run(name, nodes, nodes if source is target else nodes_of(target, strides[1]), dict(arguments))


def _run(name: str, source: Any, target: Any, parameters: Mapping[str, Any]) -> _Found:
    builder = EDGE_BUILDERS[name]
    lengths = [x if isinstance(x, int) else len(x) for x in (source, target)]
    if EDGE_BUILDERS.module_of(name) == complete.__module__:
        edge_index = builder(source, target, **parameters)
    else:
        try:
            edge_index = builder(source, target, **parameters)
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise ConfigError(
                f"edge builder '{name}' fails from {lengths[0]} to {lengths[1]} steps ({reason}); repair it"
            ) from error
        edge_index = _checked(edge_index, name, *lengths)
    temporal = getattr(builder, "temporal", False)
    if callable(temporal):
        return edge_index, temporal(edge_index, *lengths, **{k: v for k, v in parameters.items() if k == "relation"})
    if temporal:
        return edge_index, temporal_type(edge_index, *lengths)
    return edge_index, torch.full_like(edge_index[0], PRESENT)


def _checked(edge_index: Any, name: str, source_length: int, target_length: int) -> Tensor:
    """What a builder returned, sorted by target, if it is an edge_index without duplicates."""

    def wrong(found: str) -> ConfigError:
        return ConfigError(
            f"edge builder '{name}' must return an edge_index, int64 [2, E] without duplicates, sources below "
            f"{source_length} and targets below {target_length} (got {found})"
        )

    if not isinstance(edge_index, Tensor):
        raise wrong(type(edge_index).__name__)
    if edge_index.dim() != 2 or len(edge_index) != 2 or edge_index.dtype != torch.long:
        raise wrong(f"{str(edge_index.dtype).removeprefix('torch.')} {list(edge_index.shape)}")
    source, target = edge_index
    for which, index, length in (("source", source, source_length), ("target", target, target_length)):
        if outside := index[(index < 0) | (index >= length)].tolist():
            raise wrong(f"{which} {outside[0]}")
    order = torch.argsort(target * source_length + source)
    found: Tensor = edge_index[:, order]
    if twice := found[:, 1:][:, (found[:, 1:] == found[:, :-1]).all(0)].T.tolist():
        raise wrong(f"the edge from {twice[0][0]} to {twice[0][1]} twice")
    return found


def numbered(relation: Relation, temporal_type: Tensor, types: Schema) -> Tensor:
    """The types of the edges of a relation among those of all, in graphs of utterances ``[E]``."""
    first = types.first_edge_type[relation]
    return first + temporal_type if is_among_tokens(relation) else torch.full_like(temporal_type, first)


def numbered_in_dialogues(relation: Relation, kind: Tensor, types: Schema, config: GraphConfig) -> Tensor:
    """The same in graphs of dialogues, of kinds among those of the relation ``[E]``."""
    typed, kinds = types.typed_relations, edge_kinds(config)
    if relation not in typed:
        return torch.full_like(kind, kinds * len(typed))
    return kind + kinds * typed.index(relation)


@dataclass(frozen=True, eq=False)
class Wanted:
    """Relations whose edges are wanted in graphs of utterances; the same are one object, whose hash costs nothing."""

    by_length: tuple[Relation, ...]
    by_content: tuple[Relation, ...]
    """Those whose builders look at features or times."""
    types: Schema
    config: GraphConfig


@lru_cache
def wanted_edges(chosen: tuple[Relation, ...], types: Schema, config: GraphConfig) -> Wanted:
    """The edges of these relations."""
    by_content = [relation for relation in chosen if looks_at_content(builder_of(relation, config)[0])]
    return Wanted(tuple(r for r in chosen if r not in by_content), tuple(by_content), types, config)


@cached(LRUCache(MEMORY, getsizeof=lambda edges: edges.nbytes))
def kept_edges(counts: tuple[int, ...], wanted: Wanted) -> Tensor:
    """Source, target and type of the edges by length in one graph ``[3, E]``, sorted by target."""
    types = wanted.types
    numbers, first = types.numbers, np.cumsum(counts) - counts
    # NumPy: on arrays this small, a step of it costs a fifth of what one of torch does.
    parts = [np.empty((3, 0), dtype=np.int64)]
    for relation in wanted.by_length:
        source, target = numbers[relation[0]], numbers[relation[2]]
        name, parameters = builder_of(relation, wanted.config)
        edge_index, temporal_type = build_edges(name, _ROWS[: counts[source]], _ROWS[: counts[target]], parameters)
        begin, end = edge_index.numpy()
        edge_type = numbered(relation, temporal_type, types).numpy()
        parts.append(np.stack([begin + first[source], end + first[target], edge_type]))
    found = np.concatenate(parts, axis=1)
    return torch.from_numpy(found[:, np.argsort(found[1] * sum(counts) + found[0])])


@cached(LRUCache(MEMORY, getsizeof=lambda edges: edges.nbytes))
def kept_dialogue_edges(
    counts: tuple[int, ...], turns: Turns, chosen: tuple[Relation, ...], types: Schema, config: GraphConfig
) -> Tensor:
    """The same in the graph of a dialogue, of relations that no builder chooses by features."""
    return edges_of_dialogue(counts, DialogueEdges(turns, config), chosen, types)


def edges_of_dialogue(
    counts: tuple[int, ...], between: DialogueEdges, chosen: Sequence[Relation], types: Schema
) -> Tensor:
    """The same of the edges that are found in a dialogue."""
    first = {t: sum(counts[:i]) for i, t in enumerate(types.node_types)}
    size = dict(zip(types.node_types, counts, strict=True))
    parts = [torch.empty(3, 0, dtype=torch.long)]
    for relation in chosen:
        source, _, target = relation
        if size[source] and size[target]:
            index, kind = between.of(relation)
            edge_type = numbered_in_dialogues(relation, kind, types, between.config)
            parts.append(torch.stack([index[0] + first[source], index[1] + first[target], edge_type]))
    found = torch.cat(parts, dim=1)
    return found[:, torch.argsort(found[1] * sum(counts) + found[0])]
