"""Node types, relations and edge types of a graph, and the edge builder of each relation."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from gmsa.config import GraphConfig
from gmsa.config.presets import MOST_MODALITIES, in_sequence, placed
from gmsa.errors import ConfigError
from gmsa.graph.edges import looks_at_relation, looks_at_times

READOUTS = ("val", "cls")
"""Readout nodes: ``val`` reads the intensity, ``cls`` the K classes."""
STREAMS = ("intra", "inter")
"""The streams, each named after the edges that it sees."""

DIALOGUE = "dialogue"
"""Node that joins the utterances of a dialogue."""

UTTERANCE = "utterance"
"""Stream of the edges between utterances as such, for models with one node for each."""

Relation = tuple[str, str, str]


@dataclass(frozen=True)
class Schema:
    """The types of nodes and edges in graphs of M modalities; made by :func:`schema`."""

    modalities: tuple[str, ...]
    """The modalities that have a place in the graphs, whether or not the data has them."""
    dialogue_node: bool = False
    """Whether the graphs, of dialogues, have nodes that join their utterances."""
    joined_readouts: bool = False
    """Whether readout nodes join those of other utterances, as in scope ``hierarchical``, where they have
    read their own already."""

    @cached_property
    def node_types(self) -> tuple[str, ...]:
        """Node types in the order of a graph's nodes; a type's number is its index here."""
        return (*READOUTS, *in_sequence(self.modalities), *([DIALOGUE] if self.dialogue_node else []))

    @cached_property
    def numbers(self) -> dict[str, int]:
        """The number of each node type."""
        return {node_type: number for number, node_type in enumerate(self.node_types)}

    @cached_property
    def relations(self) -> tuple[Relation, ...]:
        """All relations (source type, ``intra`` or ``inter``, target type).

        ``intra`` edges connect tokens of one modality, ``inter`` edges tokens of different ones; both streams connect
        readout nodes and tokens in both directions, and never readout nodes with each other (Semi-IIN, Figure 3). Both
        join the node of a dialogue with all others, and where readout nodes are joined, those of one kind.
        """
        found: list[Relation] = []
        for stream in STREAMS:
            for source in self.modalities:
                for target in self.modalities:
                    if (source == target) == (stream == "intra"):
                        found.append((source, stream, target))
            for modality in self.modalities:
                for readout in READOUTS:
                    found += [(modality, stream, readout), (readout, stream, modality)]
            found += self._readout_relations(stream)
            for other in (*self.modalities, *READOUTS) if self.dialogue_node else ():
                found += [(other, stream, DIALOGUE), (DIALOGUE, stream, other)]
        return tuple(found)

    def _readout_relations(self, stream: str) -> list[Relation]:
        return [(readout, stream, readout) for readout in READOUTS] if self.joined_readouts else []

    @cached_property
    def typed_relations(self) -> tuple[Relation, ...]:
        """The relations whose edges have types of their own in graphs of dialogues."""
        within = [r for r in self.token_relations if r[1] == "intra"]
        readouts = [r for stream in STREAMS for r in self._readout_relations(stream)]
        return (*within, *readouts, *(r for r in self.token_relations if r[1] == "inter"))

    @property
    def context_relations(self) -> tuple[Relation, ...]:
        """The first of these: those that join the nodes of different utterances."""
        return tuple(r for r in self.typed_relations if r[0] == r[2])

    @cached_property
    def token_relations(self) -> tuple[Relation, ...]:
        """The M x M relations among tokens."""
        return tuple(relation for relation in self.relations if is_among_tokens(relation))

    @property
    def edge_types(self) -> int:
        """Types of typed edges: past, present and future of each relation among tokens (MTAG's 27 for M = 3).

        The type of this number is an edge of a readout node.
        """
        return 3 * len(self.token_relations)

    @cached_property
    def first_edge_type(self) -> dict[Relation, int]:
        """The first of the three edge types of each relation; :attr:`edge_types` for one of readout nodes."""
        first = {relation: 3 * i for i, relation in enumerate(self.token_relations)}
        return {relation: first.get(relation, self.edge_types) for relation in self.relations}


def schema(modalities: Iterable[str], dialogue_node: bool = False, joined_readouts: bool = False) -> Schema:
    """The schema of graphs with a place for these modalities.

    >>> schema(["text", "eeg"]).node_types
    ('val', 'cls', 'text', 'eeg')
    >>> schema(["text"]).node_types  # this field's modalities keep their places
    ('val', 'cls', 'audio', 'text', 'vision')
    >>> schema(["text", "eeg"]).edge_types
    12
    >>> schema(["text"], dialogue_node=True).node_types[-1]
    'dialogue'

    Args:
        dialogue_node: whether the graphs, of dialogues, have nodes that join their utterances.
        joined_readouts: whether readout nodes join those of other utterances.

    Raises:
        ConfigError: there are more than 8, whose edge types an adjacency cannot hold.
    """
    found = placed(modalities)
    if len(found) > MOST_MODALITIES:
        raise ConfigError(f"graphs have at most {MOST_MODALITIES} modalities (got {len(found)}); leave some out")
    return _schema(found, dialogue_node, joined_readouts)


_schema = lru_cache(Schema)


def is_among_tokens(relation: Relation) -> bool:
    """Whether a relation has neither a readout node nor that of a dialogue."""
    return not {relation[0], relation[2]} & {*READOUTS, DIALOGUE}


@lru_cache
def builder_of(relation: Relation, config: GraphConfig) -> tuple[str, dict[str, Any]]:
    """Edge builder of a relation in graphs of utterances, and what it is given: its parameters, and the relation where
    it asks for that.

    Edges connect readout nodes with every token.
    """
    source, stream, target = relation
    if not is_among_tokens(relation):
        return "complete", {}
    key = source if stream == "intra" else f"{source}_to_{target}"
    name, parameters = config.builder(getattr(config, stream).of(key), f"graph.{stream}.{key}")
    return name, parameters | ({"relation": relation} if looks_at_relation(name) else {})


@lru_cache
def timed_modalities(types: Schema, config: GraphConfig) -> tuple[str, ...]:
    """The modalities by the times of whose steps some builder connects them."""
    if config.scope == "dialogue":
        return ()
    ends = [r[::2] for r in types.token_relations if looks_at_times(builder_of(r, config)[0])]
    return tuple(m for m in types.modalities if any(m in pair for pair in ends))
