"""Settings of graph construction: the edge builder of each relation, and its parameters."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Literal

from gmsa.config.components import component_name, parse_component, split_commas, split_component
from gmsa.errors import ConfigError, cut, listed, shown
from gmsa.registry import EDGE_BUILDERS, Registry

SHARED_PARAMETERS = ("radius", "stride", "hops", "neighbors")
"""Parameters of edge builders that are also fields of :class:`GraphConfig`, which have their defaults and limits."""
MOST = 100_000
"""Largest parameter of a builder: more steps than a sequence has."""


@dataclass(frozen=True)
class IntraEdges:
    """Edge builder within each modality; one name stands for all three."""

    one_for_all: ClassVar[bool] = True
    registry: ClassVar[Registry[Any]] = EDGE_BUILDERS
    text: str = "complete"
    audio: str = "complete"
    vision: str = "complete"


@dataclass(frozen=True)
class InterEdges:
    """Edge builder from each modality to each other one; one name stands for all six."""

    one_for_all: ClassVar[bool] = True
    registry: ClassVar[Registry[Any]] = EDGE_BUILDERS
    text_to_audio: str = "complete"
    text_to_vision: str = "complete"
    audio_to_text: str = "complete"
    audio_to_vision: str = "complete"
    vision_to_text: str = "complete"
    vision_to_audio: str = "complete"


ONE_FOR_ALL = {"intra": IntraEdges, "inter": InterEdges}
"""Groups of settings in which one value may stand for all."""


def _number(default: Any, **limits: float) -> Any:
    return field(default=default, metadata=limits)


@dataclass(frozen=True)
class GraphConfig:
    """How utterances become graphs.

    An edge builder is a name of the registry (``complete``, ``window``, ``dilated``, ``knn``, ``aligned``,
    ``temporal``, or your own), which takes its parameters from the fields below, or a name with parameters:
    ``window(radius=3)``.
    """

    scope: Literal["utterance", "video"] = "utterance"
    """A graph per utterance, a node per token; or per video, a node per (utterance, modality)."""
    intra: IntraEdges = field(default_factory=IntraEdges)
    """Edge builder within a modality: one for all, or ``{text: ..., audio: ..., vision: ...}``."""
    inter: InterEdges = field(default_factory=InterEdges)
    """Edge builder between two modalities: one for all, or ``{text_to_audio: ..., ...}``."""
    radius: int = _number(2, ge=0, le=MOST)
    """Largest step distance that ``window`` and ``temporal`` connect."""
    stride: int = _number(2, ge=1, le=MOST)
    """Distance of the steps that ``dilated`` connects."""
    hops: int = _number(2, ge=0, le=MOST)
    """Most strides between two steps that ``dilated`` connects."""
    neighbors: int = _number(4, ge=0, le=MOST)
    """Number of the most similar steps that ``knn`` connects with each."""
    context: int | Literal["all"] = _number(2, ge=0, le=MOST)
    """For ``scope: video``: most utterances between two that an edge connects."""
    edge_dropout: float = _number(0.0, ge=0, lt=1)
    """Probability that an edge between two tokens is dropped in a training step."""

    def __post_init__(self) -> None:
        for name, cls in ONE_FOR_ALL.items():
            value = getattr(self, name)
            if isinstance(value, str):
                value = cls(**dict.fromkeys((f.name for f in dataclasses.fields(cls)), value))
                object.__setattr__(self, name, value)
            specs = dataclasses.asdict(value)
            if len(set(specs.values())) == 1:  # named as the user did
                self._check(next(iter(specs.values())), f"graph.{name}")
            for relation, spec in specs.items():
                self._check(spec, f"graph.{name}.{relation}")
            if self.scope == "video" and value != cls():
                raise ConfigError(
                    f"'graph.{name}' joins tokens, which 'graph.scope: video' does not have; leave it out, "
                    "or set 'graph.scope: utterance'"
                )

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
                parameters[parameter] = _whole_number(value, parameter, key)
            else:
                parameters |= parse_component(f"{name}({part})", EDGE_BUILDERS, key)[1]
        shared = {p: getattr(self, p) for p in SHARED_PARAMETERS if p in known}
        EDGE_BUILDERS.check_given(name, shared | parameters, key)
        # Edges are kept by the parameters of their builder, so these must be hashable.
        own = {p: tuple(v) if isinstance(v, list) else v for p, v in parameters.items()}
        return name, {p: (shared | own)[p] for p in known if p in shared or p in own}

    @cached_property
    def builders(self) -> frozenset[str]:
        """Names of the builders that some relation uses."""
        specs = [*dataclasses.astuple(self.intra), *dataclasses.astuple(self.inter)]
        return frozenset(component_name(spec) for spec in specs)

    @property
    def typed(self) -> bool:
        """Whether edges are typed: past, present and future of each relation, with a learned bias for each."""
        return self.scope == "video" or any(getattr(EDGE_BUILDERS[name], "temporal", False) for name in self.builders)


def _whole_number(text: str, parameter: str, key: str) -> int:
    least = next(f.metadata["ge"] for f in dataclasses.fields(GraphConfig) if f.name == parameter)
    if not re.fullmatch(r"\d{1,9}", text) or not least <= int(text) <= MOST:
        raise ConfigError(f"'{key}': '{parameter}' must be a whole number from {least} to {MOST} (got {shown(text)})")
    return int(text)
