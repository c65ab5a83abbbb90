"""Views of a graph: as NetworkX, and the relation that a name means."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import networkx as nx
from torch_geometric.data import HeteroData

from gmsa.config import MODALITIES
from gmsa.errors import ConfigError, nearest
from gmsa.graph.edges import FUTURE, PAST, PRESENT
from gmsa.graph.schema import Relation, schema

TIMES = {PAST: "past", PRESENT: "present", FUTURE: "future"}
"""Where the source of an edge is, seen from its target, by temporal type."""


def to_networkx(data: HeteroData) -> nx.MultiDiGraph:
    """The graph as NetworkX: nodes ``(type, index)`` with attribute ``type``, edges with attribute ``stream``.

    In the graph of a dialogue the nodes of an utterance also have its id, ``utterance``, and its ``speaker``, and those
    of a modality whether it is ``present``; edges between utterances have ``time`` (where the source is, seen from the
    target: ``past``, ``present`` or ``future``), ``distance`` and ``same_speaker``.
    """
    graph = nx.MultiDiGraph(id=data.id)
    for node_type in data.node_types:
        columns = _node_columns(data, node_type)
        for i in range(data[node_type].num_nodes):
            graph.add_node((node_type, i), type=node_type, **{name: values[i] for name, values in columns.items()})
    for source, stream, target in data.edge_types:
        columns = _edge_columns(data, (source, stream, target))
        for i, (first, second) in enumerate(data[source, stream, target].edge_index.T.tolist()):
            more = {name: values[i] for name, values in columns.items()}
            graph.add_edge((source, first), (target, second), stream=stream, **more)
    return graph


def by_utterance(data: HeteroData, node_type: str) -> bool:
    """Whether there is a node of this type for each utterance of a dialogue."""
    return "ids" in data and data[node_type].num_nodes == len(data.ids)


def _node_columns(data: HeteroData, node_type: str) -> dict[str, list[Any]]:
    if not by_utterance(data, node_type):
        return {}
    columns = {"utterance": data.ids, "speaker": data.speakers}
    return columns | ({"present": data[node_type].present.tolist()} if "present" in data[node_type] else {})


def _edge_columns(data: HeteroData, relation: Relation) -> dict[str, list[Any]]:
    if not (by_utterance(data, relation[0]) and by_utterance(data, relation[2])):
        return {}
    columns = {name: data[relation][name].tolist() for name in ("distance", "same_speaker") if name in data[relation]}
    return {"time": [TIMES[kind] for kind in data[relation].temporal_type.tolist()]} | columns


def find_relation(
    name: str, modalities: Iterable[str] = MODALITIES, dialogue_node: bool = False, joined_readouts: bool = False
) -> Relation:
    """The relation that ``source-stream-target`` names, such as ``text-intra-text``.

    Args:
        dialogue_node: whether the graph has the nodes of a dialogue.
        joined_readouts: whether its readout nodes join those of other utterances.

    Raises:
        ConfigError: there is none; names the nearest.
    """
    types = schema(modalities, dialogue_node, joined_readouts)
    known = {"-".join(relation): relation for relation in types.relations}
    if name not in known:
        first, *others = types.modalities
        example = f"{first}-intra-{first}" + (f" or {others[0]}-inter-{first}" if others else "")
        raise ConfigError(
            f"no relation '{name}'{nearest(name, known)}; name it source-stream-target, such as {example}"
        )
    return known[name]
