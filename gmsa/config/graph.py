"""Settings of graph construction: which edge builder joins which relation, with which parameters."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Literal

from gmsa.errors import ConfigError, nearest

EDGE_PARAMETERS: dict[str, tuple[str, ...]] = {
    "complete": (),
    "window": ("radius",),
    "dilated": ("stride", "hops"),
    "knn": ("neighbors",),
    "aligned": (),
    "temporal": ("radius",),
}
"""Edge builders by name, with their parameters: fields of :class:`GraphConfig`."""


MOST = 100_000
"""Largest parameter of a builder: more steps than a sequence has."""


@dataclass(frozen=True)
class IntraEdges:
    """Edge builder within each modality; one name stands for all three."""

    one_for_all: ClassVar[bool] = True
    text: str = "complete"
    audio: str = "complete"
    vision: str = "complete"


@dataclass(frozen=True)
class InterEdges:
    """Edge builder from each modality to each other one; one name stands for all six."""

    one_for_all: ClassVar[bool] = True
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

    A builder is a name (``complete``, ``window``, ``dilated``, ``knn``, ``aligned``, ``temporal``), which takes
    its parameters from the fields below, or a name with parameters of its own: ``window(radius=3)``.
    """

    scope: Literal["utterance", "video"] = "utterance"
    """A graph per utterance, a node per token; or per video, a node per (utterance, modality)."""
    intra: IntraEdges = field(default_factory=IntraEdges)
    """Edge builder within a modality: one for all, or ``{text: ..., audio: ..., vision: ...}``."""
    inter: InterEdges = field(default_factory=InterEdges)
    """Edge builder between two modalities: one for all, or ``{text_to_audio: ..., ...}``."""
    radius: int = _number(2, ge=0, le=MOST)
    """Largest step distance that ``window`` and ``temporal`` join."""
    stride: int = _number(2, ge=1, le=MOST)
    """Steps between the ones that ``dilated`` joins."""
    hops: int = _number(2, ge=0, le=MOST)
    """How many strides away ``dilated`` joins."""
    neighbors: int = _number(4, ge=0, le=MOST)
    """How many of the most similar steps ``knn`` joins."""
    context: int | Literal["all"] = _number(2, ge=0, le=MOST)
    """For ``scope: video``: how many utterances apart two of them are still joined."""
    edge_dropout: float = _number(0.0, ge=0, lt=1)
    """Probability that an edge between two tokens is left out in a training step."""

    def __post_init__(self) -> None:
        for name, cls in ONE_FOR_ALL.items():
            value = getattr(self, name)
            if isinstance(value, str):
                value = cls(**dict.fromkeys((f.name for f in dataclasses.fields(cls)), value))
                object.__setattr__(self, name, value)
            specs = dataclasses.asdict(value)
            if len(set(specs.values())) == 1:  # named as the user did
                self.builder(next(iter(specs.values())), f"graph.{name}")
            for relation, spec in specs.items():
                self.builder(spec, f"graph.{name}.{relation}")
            if self.scope == "video" and value != cls():
                raise ConfigError(
                    f"'graph.{name}' joins tokens, which 'graph.scope: video' does not have; leave it out, "
                    "or set 'graph.scope: utterance'"
                )

    def builder(self, spec: str, key: str = "graph") -> tuple[str, dict[str, int]]:
        """Name and parameters of a builder such as ``window`` or ``dilated(stride=2, hops=3)``.

        Raises:
            ConfigError: an unknown builder or parameter (with the nearest known one), or a wrong value.
        """
        found = re.fullmatch(r"\s*(\w+)\s*(?:\((.*)\))?\s*", spec)
        name = found.group(1) if found else spec
        if not found or name not in EDGE_PARAMETERS:
            raise ConfigError(
                f"'{key}' must be one of {', '.join(EDGE_PARAMETERS)} (got {spec!r}){nearest(name, EDGE_PARAMETERS)}"
            )
        parameters = {p: getattr(self, p) for p in EDGE_PARAMETERS[name]}
        least: dict[str, int] = {f.name: f.metadata.get("ge", 0) for f in dataclasses.fields(self)}
        inside = (found.group(2) or "").strip()
        given: set[str] = set()
        for part in inside.split(",") if inside else ():
            parameter, _, number = (x.strip() for x in part.partition("="))
            if parameter not in parameters:
                known = ", ".join(parameters) or "none"
                raise ConfigError(f"'{key}': '{name}' has no parameter '{parameter}' (it has: {known})")
            if parameter in given:
                raise ConfigError(f"'{key}': '{parameter}' is given twice")
            if not re.fullmatch(r"\d+", number) or not least[parameter] <= int(number) <= MOST:
                raise ConfigError(
                    f"'{key}': '{parameter}' must be a whole number from {least[parameter]} to {MOST} (got '{number}')"
                )
            given.add(parameter)
            parameters[parameter] = int(number)
        return name, parameters

    @cached_property
    def builders(self) -> frozenset[str]:
        """Names of the builders that some relation uses."""
        specs = [*dataclasses.astuple(self.intra), *dataclasses.astuple(self.inter)]
        return frozenset(self.builder(spec)[0] for spec in specs)

    @property
    def typed(self) -> bool:
        """Whether edges are told apart as past, now and future, with a learned bias for each."""
        return self.scope == "video" or "temporal" in self.builders
