"""What the graphs of a model look like: all that collation needs to know of a config."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

from gmsa.config import GraphConfig
from gmsa.config.groups.graph import WHOLE
from gmsa.graph.schema import READOUTS, Schema, schema

Convs = tuple[tuple[int, int], ...]
"""Convolutions of an encoder, as (kernel, stride)."""


@dataclass(frozen=True)
class GraphSpec:
    """How utterances become the graphs of one model; made by :func:`gmsa.models.graph_spec`.

    >>> GraphSpec(convs={"audio": ((4, 2), (4, 4))}).strides
    {'audio': 8}
    """

    graph: GraphConfig = field(default_factory=GraphConfig)
    """Scope and edges."""
    convs: Mapping[str, Convs] = field(default_factory=dict)
    """Convolutions of each modality's encoder, as (kernel, stride); all modalities that have a place in the graphs."""
    positions: int = 512
    """Most nodes of a modality in a graph: as many as have a position embedding. In scope ``hierarchical`` this holds
    for the graphs of utterances."""
    streams: tuple[str, ...] = ("intra", "inter")
    """Streams whose edges are built: ``intra``, ``inter``, or ``global`` for both in one."""
    readouts: tuple[str, ...] = READOUTS
    """Readout nodes of an utterance: ``val`` and ``cls``; for one of K classes ``cls`` alone; or none."""
    route: Literal["auto", "dense", "edge"] = "auto"
    """Form of the edges: an adjacency (``dense``), a list (``edge``), or the one that is faster."""
    outside_streams: tuple[str, ...] = ("intra", "inter")
    """Streams whose edges are built between utterances in scope ``hierarchical``."""
    outside_route: Literal["auto", "dense", "edge"] = "auto"
    """Form of the edges there."""
    relations: bool = False
    """Whether lists of edges say each one's relation, and the type and the graph of each node."""
    joined_readouts: bool = False
    """Whether readout nodes join those of other utterances."""
    takes_weights: bool = False
    """Whether the model and its layer take weights of edges."""

    @cached_property
    def schema(self) -> Schema:
        """The types of nodes and edges; in scope ``hierarchical`` those of the graphs of utterances."""
        return schema(self.convs, self.graph.scope == "dialogue" and self.graph.dialogue_node, self.joined_readouts)

    @cached_property
    def inside(self) -> GraphSpec:
        """The graphs of single utterances."""
        return replace(self, graph=self.graph.inside)

    @cached_property
    def outside(self) -> GraphSpec:
        """The graphs of dialogues in scope ``hierarchical``, whose nodes are states and have no positions."""
        return replace(
            self,
            graph=self.graph.outside,
            positions=WHOLE,
            streams=self.outside_streams,
            route=self.outside_route,
            joined_readouts=True,
        )

    @cached_property
    def strides(self) -> dict[str, int]:
        """Steps of each modality that become one token."""
        return {m: math.prod(stride for _, stride in convs) for m, convs in self.convs.items()}
