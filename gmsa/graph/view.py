"""Views of a graph: as NetworkX, and the relation that a name means."""

from __future__ import annotations

from collections.abc import Iterable

import networkx as nx
from torch_geometric.data import HeteroData
from torch_geometric.utils import to_networkx as pyg_to_networkx

from gmsa.config import MODALITIES
from gmsa.errors import ConfigError, nearest
from gmsa.graph.schema import Relation, schema


def to_networkx(data: HeteroData) -> nx.MultiDiGraph:
    """The graph as NetworkX: nodes ``(type, index)`` with attribute ``type``, edges with attribute ``stream``."""
    plain = pyg_to_networkx(data, to_multi=True)
    # PyG numbers the nodes type by type; here a node is named by its type and its index in it.
    first: dict[str, int] = {}
    for node, attributes in plain.nodes(data=True):
        first.setdefault(attributes["type"], node)
    names = {n: (a["type"], n - first[a["type"]]) for n, a in plain.nodes(data=True)}
    graph = nx.MultiDiGraph(id=data.id)
    graph.add_nodes_from((names[n], {"type": a["type"]}) for n, a in plain.nodes(data=True))
    graph.add_edges_from((names[s], names[t], {"stream": a["type"][1]}) for s, t, a in plain.edges(data=True))
    return graph


def find_relation(name: str, modalities: Iterable[str] = MODALITIES) -> Relation:
    """The relation that ``source-stream-target`` names, such as ``text-intra-text``.

    Raises:
        ConfigError: there is none; names the nearest.
    """
    types = schema(modalities)
    known = {"-".join(relation): relation for relation in types.relations}
    if name not in known:
        first, *others = types.modalities
        example = f"{first}-intra-{first}" + (f" or {others[0]}-inter-{first}" if others else "")
        raise ConfigError(
            f"no relation '{name}'{nearest(name, known)}; name it source-stream-target, such as {example}"
        )
    return known[name]
