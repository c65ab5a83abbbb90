"""Settings of graph construction: the edge builder of each relation, and its parameters."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from gmsa.config.components import component_name, parse_component, split_commas, split_component
from gmsa.config.fields import ByModality, by_modality, number
from gmsa.config.presets import OTHERS
from gmsa.errors import ConfigError, cut, listed, shown
from gmsa.registry import EDGE_BUILDERS

SHARED_PARAMETERS = ("radius", "stride", "hops", "neighbors")
"""Parameters of edge builders that are also fields of :class:`GraphConfig`, which have their defaults and limits."""
MOST = 100_000
"""Largest parameter of a builder: more steps than a sequence has."""


@dataclass(frozen=True)
class GraphConfig:
    """How utterances become graphs.

    An edge builder is a name of the registry (``complete``, ``window``, ``dilated``, ``knn``, ``aligned``,
    ``temporal``, or your own), which takes its parameters from the fields below, or a name with parameters:
    ``window(radius=3)``.
    """

    scope: Literal["utterance", "video"] = "utterance"
    """A graph per utterance, a node per token; or per video, a node per (utterance, modality)."""
    intra: ByModality[str] = by_modality({OTHERS: "complete"}, EDGE_BUILDERS)
    """Edge builder within a modality: one for all, or by modality, as ``{text: window, others: complete}``."""
    inter: ByModality[str] = by_modality({OTHERS: "complete"}, EDGE_BUILDERS)
    """Edge builder from one modality to another: one for all, or by pair, as ``{text_to_audio: aligned}``."""
    radius: int = number(2, ge=0, le=MOST)
    """Largest step distance that ``window`` and ``temporal`` connect."""
    stride: int = number(2, ge=1, le=MOST)
    """Distance of the steps that ``dilated`` connects."""
    hops: int = number(2, ge=0, le=MOST)
    """Most strides between two steps that ``dilated`` connects."""
    neighbors: int = number(4, ge=0, le=MOST)
    """Number of the most similar steps that ``knn`` connects with each."""
    context: int | Literal["all"] = number(2, ge=0, le=MOST)
    """For ``scope: video``: most utterances between two that an edge connects."""
    edge_dropout: float = number(0.0, ge=0, lt=1)
    """Probability that an edge between two tokens is dropped in a training step."""

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
            if self.scope == "video" and value != ByModality.for_all("complete"):
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
                parameters[parameter] = _wholenumber(value, parameter, key)
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
        return frozenset(map(component_name, (*self.intra.values(), *self.inter.values())))

    @property
    def typed(self) -> bool:
        """Whether edges are typed: past, present and future of each relation, with a learned bias for each."""
        return self.scope == "video" or any(getattr(EDGE_BUILDERS[name], "temporal", False) for name in self.builders)


def _wholenumber(text: str, parameter: str, key: str) -> int:
    least = next(f.metadata["ge"] for f in dataclasses.fields(GraphConfig) if f.name == parameter)
    if not re.fullmatch(r"\d{1,9}", text) or not least <= int(text) <= MOST:
        raise ConfigError(f"'{key}': '{parameter}' must be a whole number from {least} to {MOST} (got {shown(text)})")
    return int(text)
