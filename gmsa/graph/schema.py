"""Node types and relations of an utterance graph."""

from __future__ import annotations

from gmsa.config import MODALITIES

READOUTS = ("val", "cls")
"""Readout nodes: ``val`` reads the sentiment intensity, ``cls`` the 7 classes."""
NODE_TYPES = ("val", "cls", "audio", "text", "vision")
"""Node types in the order of Semi-IIN's sequence; a type's number is its place here."""
STREAMS = ("intra", "inter")
"""Kinds of edges, each seen by the stream of that name."""

Relation = tuple[str, str, str]


def relations() -> list[Relation]:
    """All relations (source type, ``intra`` or ``inter``, target type) in a fixed order.

    Tokens join their own modality in ``intra`` and the others in ``inter``; in both, readout nodes
    and tokens join in both directions, and readout nodes never join each other (Semi-IIN, Figure 3).
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
