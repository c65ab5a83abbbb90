"""Settings of graph construction: the edge builder of each relation, and its parameters."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from gmsa.config.components import component_name, parse_component, split_commas, split_component
from gmsa.config.fields import ByModality, by_modality, component, number
from gmsa.config.presets import OTHERS
from gmsa.errors import ConfigError, cut, listed, shown
from gmsa.registry import CONTEXT_BUILDERS, EDGE_BUILDERS

SHARED_PARAMETERS = ("radius", "seconds", "stride", "hops", "neighbors")
"""Parameters of edge builders that are also fields of :class:`GraphConfig`, which have their defaults and limits."""
MOST = 100_000
"""Largest parameter of a builder: more steps, or seconds, than a sequence has."""
WHOLE = 1_000_000
"""More utterances than a dialogue has."""
MOST_SPEAKERS = 8
"""Speakers whose pairs have edge types of their own, at most."""
DISTANCES = 8
"""Distances with an edge type of their own where utterances have no positions: ``graph.distances: auto``."""


@dataclass(frozen=True)
class GraphConfig:
    """How utterances become graphs.

    An edge builder is a name of the registry (``complete``, ``window``, ``time_window``, ``dilated``, ``knn``,
    ``aligned``, ``temporal``, ``mtag``, or your own), which takes its parameters from the fields below, or a name with
    parameters: ``window(radius=3)``.
    """

    scope: Literal["utterance", "dialogue", "hierarchical"] = "utterance"
    """A graph per ``utterance``, a node per token; or per ``dialogue``, a node per (utterance, modality); or both,
    ``hierarchical``: the states that the graph of each utterance gives are the nodes of its dialogue's graph."""
    intra: ByModality[str] = by_modality({OTHERS: "complete"}, EDGE_BUILDERS)
    """Edge builder within a modality: one for all, or by modality, as ``{text: window, others: complete}``."""
    inter: ByModality[str] = by_modality({OTHERS: "complete"}, EDGE_BUILDERS)
    """Edge builder from one modality to another: one for all, or by pair, as ``{text_to_audio: aligned}``."""
    radius: int = number(2, ge=0, le=MOST)
    """Largest step distance that ``window`` and ``temporal`` connect."""
    seconds: float = number(0.5, ge=0, le=MOST)
    """Largest distance in seconds that ``time_window`` connects."""
    stride: int = number(2, ge=1, le=MOST)
    """Distance of the steps that ``dilated`` connects."""
    hops: int = number(2, ge=0, le=MOST)
    """Most strides between two steps that ``dilated`` connects."""
    neighbors: int = number(4, ge=0, le=MOST)
    """Number of the most similar steps that ``knn`` connects with each."""
    context: int | Literal["all"] = number(2, ge=0, le=MOST)
    """In dialogues: how many utterances before and after an intra edge reaches, where ``past`` and ``future`` do not
    say otherwise."""
    past: int | Literal["all"] | None = number(None, ge=0, le=MOST)
    """How many utterances before; by default ``context``."""
    future: int | Literal["all"] | None = number(None, ge=0, le=MOST)
    """How many utterances after; by default ``context``. With 0 an answer depends on what was said before alone."""
    between: str = component("window", CONTEXT_BUILDERS)
    """Which of these utterances an intra edge connects: all (``window``), those of the same ``speaker``, the most
    similar ones (``knn``), or those of the highest ``learned`` score."""
    distances: int | Literal["auto"] = number("auto", ge=1, le=32)
    """How many distances between utterances have an edge type each; larger ones share the last. With 1 the types are
    past, present and future. ``auto`` is 1 in scope ``dialogue``, whose nodes know their place, else 8."""
    speakers: Literal["none", "same_other", "pairs"] | tuple[str, ...] = "none"
    """Edge types by speaker: ``none``; same or other; or one for each ordered pair of the speakers that are listed,
    which for ``pairs`` are those of the training split."""
    dialogue_node: bool = False
    """Whether each dialogue has a node that joins all its utterances; where ``future`` is 0, each utterance has one
    that joins it with those before."""
    weights: Literal["none", "angular"] = "none"
    """Weights of the edges between utterances: none, or MMGCN's angular similarity of their states."""
    edge_dropout: float = number(0.0, ge=0, lt=1)
    """Probability that an edge between two tokens is dropped in a training step; in scope ``dialogue``, which has no
    tokens, an edge between two nodes of utterances."""
    context_dropout: float = number(0.0, ge=0, lt=1)
    """In dialogues: probability that no message passes from an utterance to another one, in any modality, in a training
    step. The propagation of predictions is not dropped."""

    def __post_init__(self) -> None:
        for name in ("intra", "inter"):
            value = getattr(self, name)
            if isinstance(value, str):
                value = ByModality.for_all(value)
            elif not isinstance(value, ByModality):
                value = ByModality({OTHERS: "complete", **value})
            object.__setattr__(self, name, value)
            for relation, spec in value.items():  # one for all is named as the user did
                self._check(spec, f"graph.{name}" if len(value) == 1 else f"graph.{name}.{relation}")
            if self.scope == "dialogue" and value != ByModality.for_all("complete"):
                raise ConfigError(
                    f"'graph.{name}' joins tokens, which 'graph.scope: dialogue' does not have; leave it out, "
                    "or set 'graph.scope' to utterance or hierarchical"
                )
        if isinstance(self.speakers, tuple):
            self._check_speakers(self.speakers)
        if self.between != "window":
            self._check_between()

    def _check(self, spec: str, key: str) -> None:
        name, inside = split_component(spec, EDGE_BUILDERS, key)
        # A built-in one takes all from the fields: to ask its signature would load torch.
        if inside or EDGE_BUILDERS.module_of(name) != "gmsa.graph.edges":
            self.builder(spec, key)

    def builder(self, spec: str, key: str = "graph") -> tuple[str, dict[str, Any]]:
        """Reads a builder such as ``window`` or ``dilated(stride=2, hops=3)``: its name and its parameters.

        Args:
            key: the setting that has the value, for errors.

        Raises:
            ConfigError: an unknown builder or parameter (with the known ones), or a wrong value.
        """
        name, inside = split_component(spec, EDGE_BUILDERS, key)
        known = EDGE_BUILDERS.parameters(name)
        parameters: dict[str, Any] = {}
        for part in split_commas(inside) if inside else ():
            parameter, _, value = (x.strip() for x in part.partition("="))
            if parameter not in known:
                names = listed(known)
                raise ConfigError(f"'{key}': '{name}' has no parameter '{cut(parameter)}' (it has: {names})")
            if parameter in parameters:
                raise ConfigError(f"'{key}': '{parameter}' is given twice")
            if parameter in SHARED_PARAMETERS:
                parameters[parameter] = _shared(value, parameter, key)
            else:
                parameters |= parse_component(f"{name}({part})", EDGE_BUILDERS, key)[1]
        shared = {p: getattr(self, p) for p in SHARED_PARAMETERS if p in known}
        EDGE_BUILDERS.check_given(name, shared | parameters, key)
        # Edges are kept by the parameters of their builder, so these must be hashable.
        own = {p: tuple(v) if isinstance(v, list) else v for p, v in parameters.items()}
        return name, {p: (shared | own)[p] for p in known if p in shared or p in own}

    def _check_between(self) -> None:
        name, inside = split_component(self.between, CONTEXT_BUILDERS, "graph.between")
        is_own = CONTEXT_BUILDERS.module_of(name) == "gmsa.graph.context"
        if is_own and not inside:  # to ask its signature would load torch
            return
        given = self.between_builder[1]
        CONTEXT_BUILDERS.check_given(name, given, "graph.between")
        if is_own and not 0 <= given.get("neighbors", 0) <= MOST:
            raise ConfigError(
                f"'graph.between': 'neighbors' must be a whole number from 0 to {MOST} (got {given['neighbors']})"
            )

    @cached_property
    def between_builder(self) -> tuple[str, dict[str, Any]]:
        """The builder of the edges between utterances, and the parameters that it is given."""
        return parse_component(self.between, CONTEXT_BUILDERS, "graph.between")

    @cached_property
    def builders(self) -> frozenset[str]:
        """Names of the builders that some relation uses."""
        return frozenset(map(component_name, (*self.intra.values(), *self.inter.values())))

    def _check_speakers(self, names: tuple[str, ...]) -> None:
        if not 1 <= len(names) <= MOST_SPEAKERS or len(set(names)) < len(names):
            raise ConfigError(
                f"'graph.speakers' must list 1 to {MOST_SPEAKERS} names, each once (got {len(names)}); with more, set "
                "it to same_other"
            )

    @property
    def reach(self) -> tuple[int, int]:
        """How many utterances before and after an intra edge reaches."""
        past, future = (self.context if x is None else x for x in (self.past, self.future))
        return (WHOLE if past == "all" else past), (WHOLE if future == "all" else future)

    @property
    def has_dialogues(self) -> bool:
        """Whether graphs join the utterances of a dialogue."""
        return self.scope != "utterance"

    @property
    def typed(self) -> bool:
        """Whether edges are typed: past, present and future of each relation, with a learned bias for each."""
        return self.scope == "dialogue" or any(
            getattr(EDGE_BUILDERS[name], "temporal", False) for name in self.builders
        )

    @cached_property
    def inside(self) -> GraphConfig:
        """The settings of the graphs of single utterances."""
        return dataclasses.replace(self, scope="utterance", context_dropout=0.0)

    @cached_property
    def outside(self) -> GraphConfig:
        """The settings of the graphs of dialogues."""
        if self.scope == "dialogue" and self.distances != "auto":
            return self
        distances = (1 if self.scope == "dialogue" else DISTANCES) if self.distances == "auto" else self.distances
        complete, edge_dropout = ByModality.for_all("complete"), self.edge_dropout if self.scope == "dialogue" else 0.0
        return dataclasses.replace(
            self, scope="dialogue", intra=complete, inter=complete, distances=distances, edge_dropout=edge_dropout
        )

    @property
    def speaker_types(self) -> int:
        """Into how many types the speakers of its ends part the edges of a relation."""
        if isinstance(self.speakers, tuple):
            return (len(self.speakers) + 1) ** 2  # all that are not listed count as one more
        return 2 if self.speakers == "same_other" else 1


def _shared(text: str, parameter: str, key: str) -> int | float:
    field = next(f for f in dataclasses.fields(GraphConfig) if f.name == parameter)
    is_whole, least = isinstance(field.default, int), field.metadata["ge"]
    if not re.fullmatch(r"\d{1,9}" if is_whole else r"\d{1,9}(\.\d{1,9})?", text) or not least <= float(text) <= MOST:
        kind = "whole number" if is_whole else "number"
        raise ConfigError(f"'{key}': '{parameter}' must be a {kind} from {least} to {MOST} (got {shown(text)})")
    return int(text) if is_whole else float(text)
