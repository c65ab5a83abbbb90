"""Node types and relations of a graph, and the edge builder of each relation."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from gmsa.config import MODALITIES, GraphConfig

READOUTS = ("val", "cls")
"""Readout nodes: ``val`` reads the sentiment intensity, ``cls`` the 7 classes."""
NODE_TYPES = ("val", "cls", "audio", "text", "vision")
"""Node types in the order of Semi-IIN's sequence; a type's number is its index here."""
STREAMS = ("intra", "inter")
"""The streams, each named after the edges that it sees."""

Relation = tuple[str, str, str]

WHOLE_VIDEO = 1_000_000
"""More utterances than a video has."""


def relations() -> list[Relation]:
    """All relations (source type, ``intra`` or ``inter``, target type) in a fixed order.

    ``intra`` edges connect tokens of one modality, ``inter`` edges tokens of different ones; both streams connect
    readout nodes and tokens in both directions, and never readout nodes with each other (Semi-IIN, Figure 3).
    """
    found: list[Relation] = []
    for stream in STREAMS:
        for source in MODALITIES:
            for target in MODALITIES:
                if (source == target) == (stream == "intra"):
                    found.append((source, stream, target))
        for modality in MODALITIES:
            for readout in READOUTS:
                found += [(modality, stream, readout), (readout, stream, modality)]
    return found


TOKEN_RELATIONS = tuple(r for r in relations() if r[0] in MODALITIES and r[2] in MODALITIES)
"""The nine relations among tokens."""
EDGE_TYPES = 3 * len(TOKEN_RELATIONS)
"""Types of typed edges: past, present and future of each relation among tokens (MTAG's 27).

Type ``EDGE_TYPES`` is an edge of a readout node.
"""


@lru_cache
def edge_type_of(relation: Relation) -> int:
    """The first of the relation's three edge types, or ``EDGE_TYPES``."""
    return 3 * TOKEN_RELATIONS.index(relation) if relation in TOKEN_RELATIONS else EDGE_TYPES


@lru_cache
def builder_of(relation: Relation, config: GraphConfig) -> tuple[str, dict[str, Any]]:
    """Edge builder of a relation, and its parameters.

    In an utterance graph edges connect readout nodes with every token. In a video graph, whose nodes of each type are
    the utterances in their order, only those of their own utterance; messages pass between utterances
    at most ``context`` apart, within a modality.
    """
    source, stream, target = relation
    if config.scope == "video":
        if source == target:
            return "temporal", {"radius": WHOLE_VIDEO if config.context == "all" else config.context}
        return "aligned", {}
    if relation not in TOKEN_RELATIONS:
        return "complete", {}
    key = source if stream == "intra" else f"{source}_to_{target}"
    return config.builder(getattr(config, stream).of(key), f"graph.{stream}.{key}")
