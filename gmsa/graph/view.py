"""Views of a graph: as NetworkX, in words, and the relation that a name means."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from gmsa.config import MODALITIES
from gmsa.errors import ConfigError, DataError, cut, nearest, shown
from gmsa.graph.edges import FUTURE, PAST, PRESENT
from gmsa.graph.schema import DIALOGUE, READOUTS, STREAMS, Relation, is_among_tokens, schema

if TYPE_CHECKING:
    import networkx as nx

TIMES = {PAST: "past", PRESENT: "present", FUTURE: "future"}
"""Where the source of an edge is, seen from its target, by temporal type."""
_NUMBERS = {name: number for number, name in TIMES.items()}


def to_networkx(data: HeteroData, features: bool = False) -> nx.MultiDiGraph:
    """The graph as NetworkX: nodes ``(type, index)`` with attribute ``type``, edges with attribute ``stream``.

    In the graph of a dialogue the nodes of an utterance also have its id, ``utterance``, and its ``speaker``, and those
    of a modality whether it is ``present``; edges between utterances have ``time`` (where the source is, seen from the
    target: ``past``, ``present`` or ``future``), ``distance`` and ``same_speaker``.

    Args:
        data: of :func:`build_graph`, :func:`build_dialogue_graph` or :func:`as_hetero`; not a ``Batch``.
        features: whether nodes also have their features ``x``, and nodes, edges and the graph all else that the data
            says of them, each under ``data``, so that :func:`from_networkx` gives the data back.
    """
    import networkx as nx  # which takes a while to load

    graph = nx.MultiDiGraph(**({"id": data.id} if "id" in data else {}))
    for node_type in data.node_types:
        columns = _node_columns(data, node_type) | (_rows(data, node_type) if features else {})
        for i in range(data[node_type].num_nodes):
            graph.add_node((node_type, i), type=node_type, **{name: values[i] for name, values in columns.items()})
    for source, stream, target in data.edge_types:
        relation = (source, stream, target)
        columns = _edge_columns(data, relation) | (_rows(data, relation) if features else {})
        for i, (first, second) in enumerate(data[relation].edge_index.T.tolist()):
            more = {name: values[i] for name, values in columns.items()}
            graph.add_edge((source, first), (target, second), stream=stream, **more)
    if features:
        stores = {key: _kept(data, key) for key in (*data.node_types, *data.edge_types)}
        graph.graph["data"] = {"graph": dict(data._global_store), "stores": stores}
    return graph


_OWN = ("num_nodes", "edge_index", "x")


def _rows(data: HeteroData, key: str | Relation) -> dict[str, list[Any]]:
    """What each node, or edge, has of the attributes that are not those of the view."""
    store, count = data[key], data[key].num_edges if isinstance(key, tuple) else data[key].num_nodes
    found: dict[str, list[Any]] = {"x": list(store.x)} if "x" in store else {}
    names = [name for name, value in store.items() if name not in _OWN and _is_by_row(value, count)]
    return found | {"data": [{name: store[name][i] for name in names} for i in range(count)]}


def _kept(data: HeteroData, key: str | Relation) -> dict[str, Any]:
    """What the rows do not say of a type's nodes or edges: dtypes and widths, of none too, and what is not by row."""
    store, count = data[key], data[key].num_edges if isinstance(key, tuple) else data[key].num_nodes
    found = {}
    for name, value in store.items():
        if name == "edge_index":
            found[name] = value[:, :0]
        elif name != "num_nodes":
            found[name] = value[:0] if _is_by_row(value, count) else value
    return found


def _is_by_row(value: Any, count: int) -> bool:
    return isinstance(value, Tensor) and value.dim() > 0 and len(value) == count


def from_networkx(graph: nx.MultiDiGraph) -> HeteroData:
    """The graph of a NetworkX graph, whose nodes have a ``type`` and whose edges have a ``stream``.

    Each type's nodes are numbered in their order, and edges are sorted by target. Of a graph that
    ``to_networkx(data, features=True)`` gave, or a part of it, everything that its nodes and edges hold is there again;
    of any other one, features ``x`` where all nodes of a type have them, and ``temporal_type``, ``distance`` and
    ``same_speaker`` where all edges of a relation have them (``temporal_type`` as ``time``). Other attributes are not
    looked at.

    Raises:
        DataError: a node has no ``type``, an edge no ``stream``, or the nodes of a type differ in what they hold.
    """
    kept = graph.graph.get("data", {"graph": {}, "stores": {}})
    data, place = HeteroData(), dict[Any, int]()
    nodes: dict[str, list[Mapping[str, Any]]] = {}
    edges: dict[Relation, list[tuple[int, int, Mapping[str, Any]]]] = {}
    for key in kept["stores"]:
        if isinstance(key, tuple):
            edges[key] = []
        else:
            nodes[key] = []
    for node, found in graph.nodes(data=True):
        if not isinstance(found.get("type"), str):
            raise DataError(f"node {shown(node)} has no 'type', such as text; give each node one")
        rows = nodes.setdefault(found["type"], [])
        place[node] = len(rows)
        rows.append(found)
    for source, target, found in graph.edges(data=True):
        if not isinstance(found.get("stream"), str):
            raise DataError(f"the edge from {shown(source)} to {shown(target)} has no 'stream', such as intra")
        relation = (graph.nodes[source]["type"], found["stream"], graph.nodes[target]["type"])
        edges.setdefault(relation, []).append((place[target], place[source], found))
    for node_type, rows in nodes.items():
        data[node_type].update(_stacked(rows, kept["stores"].get(node_type, {}), f"nodes '{node_type}'"))
        data[node_type].num_nodes = len(rows)
    for relation, ends in edges.items():
        ends.sort(key=itemgetter(0, 1))
        index = [[source for _, source, _ in ends], [target for target, _, _ in ends]]
        data[relation].edge_index = torch.tensor(index, dtype=torch.long)
        rows = [found for *_, found in ends]
        kind = f"edges '{'-'.join(relation)}'"
        data[relation].update(_stacked(rows, kept["stores"].get(relation, {}), kind))
    for name, value in (kept["graph"] or {k: v for k, v in graph.graph.items() if k == "id"}).items():
        data[name] = value
    return data


_SEEN = {"distance": torch.long, "same_speaker": torch.bool, "present": torch.bool}


def _stacked(rows: Sequence[Mapping[str, Any]], like: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """The attributes of nodes or edges, from those of each and, where they are known, tensors like them."""
    found: dict[str, Any] = {}
    try:
        if rows and all("x" in row for row in rows):
            found["x"] = torch.stack([torch.as_tensor(row["x"]) for row in rows])
        if like and all("data" in row for row in rows):
            for name, value in like.items():
                if name in ("edge_index", *found):
                    continue
                by_row = [row["data"][name] for row in rows if name in row["data"]]
                found[name] = torch.stack(by_row) if by_row and len(by_row) == len(rows) else value
            return found
        for name, dtype in _SEEN.items():
            if rows and all(name in row for row in rows):
                found[name] = torch.tensor([row[name] for row in rows], dtype=dtype)
        if rows and all(row.get("time") in _NUMBERS for row in rows):
            found["temporal_type"] = torch.tensor([_NUMBERS[row["time"]] for row in rows])
    except (RuntimeError, TypeError, ValueError) as error:
        raise DataError(f"{kind} differ in what they hold ({cut(error)}); give all of them the same") from None
    return found


def by_utterance(data: HeteroData, node_type: str) -> bool:
    """Whether there is a node of this type for each utterance of a dialogue."""
    return "ids" in data and "utterance" not in data[node_type] and data[node_type].num_nodes == len(data.ids)


def _node_columns(data: HeteroData, node_type: str) -> dict[str, list[Any]]:
    if "ids" in data and "utterance" in data[node_type]:  # tokens
        place = data[node_type].utterance.tolist()
        return {"utterance": [data.ids[i] for i in place], "speaker": [data.speakers[i] for i in place]}
    if not by_utterance(data, node_type):
        return {}
    columns = {"utterance": data.ids, "speaker": data.speakers}
    return columns | ({"present": data[node_type].present.tolist()} if "present" in data[node_type] else {})


def _edge_columns(data: HeteroData, relation: Relation) -> dict[str, list[Any]]:
    if not (by_utterance(data, relation[0]) and by_utterance(data, relation[2])):
        return {}
    if "temporal_type" not in data[relation]:
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


def describe_dialogue(data: HeteroData, by_speaker: bool) -> list[str]:
    """The nodes and edges of a dialogue's graph: each modality, each relation by time and speaker, each stream."""
    lines = []
    for node_type in data.node_types:
        count = data[node_type].num_nodes
        if count and node_type not in (*READOUTS, DIALOGUE):
            missing = int((~data[node_type].present).sum())
            lines.append(f"{node_type}: {count} nodes" + (f", {missing} missing" if missing else ""))
    for relation in data.edge_types:
        store = data[relation]
        if not is_among_tokens(relation) or not store.num_edges:
            continue
        times = store.temporal_type.bincount(minlength=len(TIMES)).tolist()
        parts = [", ".join(f"{count} {TIMES[time]}" for time, count in enumerate(times) if count)]
        if by_speaker and relation[0] == relation[2]:
            same = int(store.same_speaker.sum())
            parts.append(f"{same} same speaker, {store.num_edges - same} other")
        lines.append(f"{'-'.join(relation)}: {store.num_edges} edges ({'; '.join(parts)})")
    for name, types in (("readouts", READOUTS), ("dialogue's node", (DIALOGUE,))):
        ends = [r for r in data.edge_types if r[1] == "intra" and {r[0], r[2]} & {*types}]
        ends = [r for r in ends if name != "readouts" or DIALOGUE not in r]
        if count := sum(data[r].num_edges for r in ends):
            lines.append(f"{name}: {count} edges in each stream")
    return [*lines, *describe_streams(data)]


def describe_streams(data: HeteroData) -> list[str]:
    """The edges of each stream."""
    counts = {stream: sum(data[r].num_edges for r in data.edge_types if r[1] == stream) for stream in STREAMS}
    return [f"{stream}: {count} edges" for stream, count in counts.items()]
