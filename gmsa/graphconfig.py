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
    radius: int = _number(2, ge=0)
    """Largest step distance that ``window`` and ``temporal`` join."""
    stride: int = _number(2, ge=1)
    """Steps between the ones that ``dilated`` joins."""
    hops: int = _number(2, ge=0)
    """How many strides away ``dilated`` joins."""
    neighbors: int = _number(4, ge=0)
    """How many of the most similar steps ``knn`` joins."""
    context: int | Literal["all"] = _number(2, ge=0)
    """For ``scope: video``: how many utterances apart two of them are still joined."""
    edge_dropout: float = _number(0.0, ge=0, lt=1)
    """Probability that an edge between two tokens is left out in a training step."""

    def __post_init__(self) -> None:
        for name, cls in (("intra", IntraEdges), ("inter", InterEdges)):
            value = getattr(self, name)
            if isinstance(value, str):
                value = cls(**dict.fromkeys((f.name for f in dataclasses.fields(cls)), value))
                object.__setattr__(self, name, value)
            for relation in dataclasses.fields(cls):
                self.builder(getattr(value, relation.name), f"graph.{name}.{relation.name}")
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
        for part in (found.group(2) or "").split(",") if (found.group(2) or "").strip() else ():
            parameter, _, number = (x.strip() for x in part.partition("="))
            if parameter not in parameters:
                known = ", ".join(parameters) or "none"
                raise ConfigError(f"'{key}': '{name}' has no parameter '{parameter}' (it has: {known})")
            least = int({f.name: f.metadata for f in dataclasses.fields(self)}[parameter]["ge"])
            if not re.fullmatch(r"\d+", number) or int(number) < least:
                raise ConfigError(f"'{key}': '{parameter}' must be a whole number of at least {least} (got '{number}')")
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
