"""The relations of a stream."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Relations:
    """The R relations of a stream, by number: kinds of edges from nodes of one type to nodes of another.

    >>> relations = Relations(("cls", "text"), (("text", "intra", "text"), ("text", "intra", "cls")))
    >>> len(relations), relations.triples[1]
    (2, ('text', 'intra', 'cls'))
    """

    node_types: tuple[str, ...]
    """Types of nodes, by number."""
    triples: tuple[tuple[str, str, str], ...]
    """Source type, kind, and target type of each relation. A kind is a stream, with time, distance and speakers where
    edges differ by them: ``intra``, ``intra past``, ``intra -2 other``."""

    def __len__(self) -> int:
        return len(self.triples)
