"""The edges between the utterances of a dialogue, and which of them a builder keeps."""

# n utterances, E edges, D features
from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gmsa.config import GraphConfig
from gmsa.config.components import component_name
from gmsa.errors import ConfigError
from gmsa.graph.schema import DIALOGUE, Relation, Schema
from gmsa.nn.edges import highest, within_reach
from gmsa.registry import CONTEXT_BUILDERS

context_builder = CONTEXT_BUILDERS.register
"""Decorator that registers a context builder."""
AT_A_TIME = 2**14
"""Edges whose cosines are computed at once."""


def window(index: Tensor) -> Tensor:
    """Keeps every edge within the reach of ``graph.past`` and ``graph.future`` (DialogueGCN, COGMEN, GCNet)."""
    return torch.ones(index.shape[1], dtype=torch.bool)


def speaker(index: Tensor, speakers: Tensor) -> Tensor:
    """Keeps the edges between utterances of the same speaker, which alone count in ``graph.distances``."""
    return speakers[index[0]] == speakers[index[1]]


def knn(index: Tensor, features: Tensor, neighbors: int = 4) -> Tensor:
    """Keeps an utterance itself and the ``neighbors`` others within reach whose features are most similar, by cosine.

    Of equally similar ones the nearest are kept, of equally near ones the earlier. Those without the modality, whose
    features are zero, come last.
    """
    norm = features.double().norm(dim=1, keepdim=True)
    unit = features.double() / norm.clamp(min=1e-12)
    parts = zip(*(ends.split(AT_A_TIME) for ends in index), strict=True)
    # Rounded, so that equal cosines are equal on every machine.
    similarity = torch.cat([(unit[source] * unit[target]).sum(1) for source, target in parts]).round(decimals=12)
    similarity = similarity.masked_fill(norm[index[0], 0] == 0, -2).masked_fill(index[0] == index[1], float("inf"))
    by_distance = torch.argsort((index[0] - index[1]).abs(), stable=True)
    kept = highest(similarity[by_distance], index[1][by_distance], neighbors + 1)
    return torch.zeros_like(kept).index_copy(0, by_distance, kept)


def learned(index: Tensor, neighbors: int = 4) -> Tensor:
    """Keeps every edge within reach; the model then chooses the ``neighbors`` with the highest learned score."""
    return window(index)


@dataclass(frozen=True)
class Turns:
    """What the edges of a dialogue depend on, apart from features."""

    count: int
    """Utterances n."""
    speakers: tuple[int, ...] = ()
    """Number of each utterance's speaker ``[n]``; none where no setting looks at speakers."""
    listed: tuple[int, ...] = ()
    """The same among those that ``graph.speakers`` lists ``[n]``; none where it lists none."""


class ContextEdges(NamedTuple):
    """The edges of a relation between the nodes of a dialogue."""

    pairs: Tensor
    """Source and target ``[2, E]``, sorted by target."""
    kind: Tensor
    """Number of the type among those of the relation ``[E]``: by distance, then by speakers."""


def edge_kinds(config: GraphConfig) -> int:
    """How many edge types a relation between modalities has in the graphs of dialogues."""
    return distance_types(config) * config.speaker_types


def distance_types(config: GraphConfig) -> int:
    """Edge types by distance, from the farthest past to the farthest future."""
    assert isinstance(config.distances, int)
    return 2 * config.distances + 1


def dialogue_edge_types(types: Schema, config: GraphConfig) -> int:
    """Edge types in the graphs of dialogues; that of this number is an edge of a readout or of the dialogue's node."""
    return edge_kinds(config) * len(types.typed_relations)


def context_edges(
    relation: Relation, turns: Turns, config: GraphConfig, features: Tensor | None = None
) -> ContextEdges:
    """The edges of a relation in the graph of a dialogue.

    Nodes of a modality, and joined readout nodes of one kind, are joined with those that ``graph.past``,
    ``graph.future`` and ``graph.between`` choose, seen from the target; all others with those of their own utterance.
    The node of a dialogue is joined with every node; where ``graph.future`` is 0 there is one per utterance, which
    hears that utterance and those before, and tells that utterance alone.

    Args:
        features: mean features of the source's modality ``[n, D]``, for a builder that looks at them.
    """
    source, _, target = relation
    n, (past, future) = turns.count, config.reach
    own = torch.arange(n).expand(2, -1)
    if DIALOGUE in (source, target):
        if future:
            everyone, first = torch.arange(n), torch.zeros(n, dtype=torch.long)
            index = torch.stack([first, everyone] if source == DIALOGUE else [everyone, first])
        else:
            index = own if source == DIALOGUE else within_reach(torch.tensor([n]), n, 0)
        return ContextEdges(index, torch.zeros(index.shape[1], dtype=torch.long))
    if source != target:
        return ContextEdges(own, _kinds(own, turns, config))
    index = _kept(within_reach(torch.tensor([n]), past, future), turns, features, config)
    return ContextEdges(index, _kinds(index, turns, config))


class DialogueEdges:
    """The edges of a dialogue by relation; relations whose ends lie alike share what is found once.

    Args:
        turns: what they depend on.
        config: settings of graphs of dialogues.
        means: mean features of each modality ``[n, D]``, for a builder that looks at them.
    """

    def __init__(self, turns: Turns, config: GraphConfig, means: Mapping[str, Tensor] | None = None) -> None:
        self.turns, self.config, self.means = turns, config, means
        self._found: dict[tuple[object, ...], ContextEdges] = {}

    def of(self, relation: Relation) -> ContextEdges:
        """The edges of a relation, as :func:`context_edges` finds them; readout nodes compare all modalities."""
        source, _, target = relation
        looked_at = source if source == target and source in (self.means or ()) else ""
        alike = (looked_at, source == target, source == DIALOGUE, target == DIALOGUE)
        if alike not in self._found:
            features = None
            if self.means is not None and source == target:
                features = self.means[source] if looked_at else side_by_side(self.means, self.turns.count)
            self._found[alike] = context_edges(relation, self.turns, self.config, features)
        return self._found[alike]


def side_by_side(means: Mapping[str, Tensor], count: int) -> Tensor:
    """The mean features of all modalities that the data has, by which a builder compares readout nodes ``[n, D]``."""
    return torch.cat([torch.zeros(count, 0), *(x for x in means.values() if len(x) == count)], dim=1)


def _kept(index: Tensor, turns: Turns, features: Tensor | None, config: GraphConfig) -> Tensor:
    name, parameters = config.between_builder
    if name == "window" or not index.shape[1]:
        return index
    arguments: dict[str, Any] = dict(parameters)
    if "speakers" in wanted(name):
        arguments["speakers"] = torch.tensor(turns.speakers or [0] * turns.count)
    if "features" in wanted(name):
        arguments["features"] = torch.zeros(turns.count, 1) if features is None else features
    if CONTEXT_BUILDERS.module_of(name) == __name__:
        return index[:, CONTEXT_BUILDERS[name](index, **arguments)]
    try:
        kept = CONTEXT_BUILDERS[name](index.clone(), **arguments)
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise ConfigError(
            f"context builder '{name}' fails on a dialogue of {turns.count} utterance{'s' * (turns.count != 1)} "
            f"({reason}); repair it"
        ) from error
    if not isinstance(kept, Tensor) or kept.dtype != torch.bool or kept.shape != index[0].shape:
        kind = str(getattr(kept, "dtype", type(kept).__name__)).removeprefix("torch.")
        raise ConfigError(
            f"context builder '{name}' must say of each of the {index.shape[1]} edges whether it stays, bool [E] (got "
            f"{kind} {list(getattr(kept, 'shape', ()))}); repair it"
        )
    return index[:, kept]


def check_context_builder(dims: Mapping[str, int], config: GraphConfig) -> None:
    """Refuses a context builder that does not work on dialogues of one utterance and of five.

    Raises:
        ConfigError: a builder that is not gmsa's own fails, or does not say of each edge whether it stays.
    """
    for dim in dims.values():
        for count in (1, 5):
            index = within_reach(torch.tensor([count]), *config.reach)
            _kept(index, Turns(count, tuple(i % 2 for i in range(count))), torch.ones(count, dim), config)


def _kinds(index: Tensor, turns: Turns, config: GraphConfig) -> Tensor:
    most = (distance_types(config) - 1) // 2
    kind = _distances(index, config).clamp(-most, most) + most
    if config.speakers == "none":
        return kind
    speakers = torch.tensor(turns.listed or turns.speakers)[index]
    if isinstance(config.speakers, tuple):
        pair = speakers[0] * (len(config.speakers) + 1) + speakers[1]
    else:
        pair = (speakers[0] != speakers[1]).long()
    return kind + pair * distance_types(config)


def _distances(index: Tensor, config: GraphConfig) -> Tensor:
    """How far before (negative) or after its target each source is ``[E]``, in utterances.

    ``speaker`` counts those of the speaker alone: -1 is the last turn, however long ago. From the target outward, so
    that it counts the same in a part of a dialogue that holds all within reach.
    """
    source, target = index
    if component_name(config.between) != "speaker":
        return source - target
    place = torch.arange(len(source))  # by target, then by source; each target hears itself
    return place - place[source == target][target]


def wanted(name: str) -> frozenset[str]:
    """What a context builder looks at: ``speakers``, ``features``."""
    return _wanted(CONTEXT_BUILDERS[name])


@lru_cache
def _wanted(builder: Callable[..., Any]) -> frozenset[str]:
    return frozenset({"speakers", "features"} & {*inspect.signature(builder).parameters})
