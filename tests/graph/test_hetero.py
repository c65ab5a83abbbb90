"""Graphs as PyG has them: what a model reads from HeteroData equals what collation builds, and follows every change."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import networkx as nx
import pytest
import torch
from helpers.graphs import clip, clips
from torch import Tensor
from torch_geometric.data import Batch, Data, HeteroData
from torch_geometric.loader import DataLoader, DynamicBatchSampler, ImbalancedSampler
from torch_geometric.transforms import AddRandomWalkPE, AddSelfLoops

from gmsa.config import Config, from_dict
from gmsa.data import Utterance
from gmsa.errors import ConfigError, DataError
from gmsa.graph import (
    GraphSpec,
    as_dataset,
    as_hetero,
    build_dialogue_graph,
    build_graph,
    collate,
    dialogues_of,
    from_hetero,
    from_networkx,
    to_networkx,
)
from gmsa.models import graph_spec
from gmsa.nn import DenseEdges, SparseEdges

DIMS = {"text": 6, "audio": 4, "vision": 5}
SCOPES = ("utterance", "dialogue", "hierarchical")
SPEAKERS = ("Ann", "Bo", "Ann", "", "Bo", "Eve")
GRAPHS: dict[str, dict[str, Any]] = {
    "plain": {},
    "causal": {"future": 0, "dialogue_node": True, "between": "speaker", "distances": 2},
    "chosen": {"dialogue_node": True, "speakers": ("Ann", "Bo"), "between": "knn(neighbors=1)", "past": 3},
}
TOKENS = {"intra": "temporal", "inter": "window(radius=1)"}


def config_of(scope: str, graph: dict[str, Any] | None = None, target: Any = None, **model: Any) -> Config:
    settings = {"channels": 8, "heads": 2, "encoders": {"audio": [[4, 2], [3, 2]], "others": [[3, 1]]}} | model
    return from_dict({"model": settings, "graph": {"scope": scope} | (graph or {}), "target": target or {}})


def corpus(dims: dict[str, int] | None = None, count: int = 6) -> list[Utterance]:
    """Two dialogues with speakers, whose clips are mixed; some lack modalities, one all, and some have no label."""
    names = [f"v{i % 2}$_${count - i}" for i in range(count)]
    found = clips(dims or DIMS, count, 1)
    rows = zip(names, found, SPEAKERS, strict=False)
    return [
        dataclasses.replace(u, id=name, speaker=speaker, label=None if i == 2 else u.label)
        for i, (name, u, speaker) in enumerate(rows)
    ]


def graphs_of(utterances: list[Utterance], spec: GraphSpec) -> list[HeteroData]:
    groups = dialogues_of(utterances) if spec.graph.has_dialogues else [[i] for i in range(len(utterances))]
    return [as_hetero([utterances[i] for i in group], spec) for group in groups]


def in_order(utterances: list[Utterance], spec: GraphSpec) -> list[Utterance]:
    """The utterances in the order of their graphs."""
    order = dialogues_of(utterances) if spec.graph.has_dialogues else [range(len(utterances))]
    return [utterances[i] for group in order for i in group]


def check_same(ours: Any, theirs: Any, where: str = "batch") -> None:
    """Every tensor of two batches has the same dtype and values."""
    if isinstance(ours, Tensor):
        assert ours.dtype == theirs.dtype, where
        assert torch.equal(ours.nan_to_num(), theirs.nan_to_num()), where
        assert torch.equal(ours.isnan(), theirs.isnan()), where
    elif isinstance(ours, DenseEdges):  # one by the types of nodes, the other by a list
        for name in ("adjacency", "source_index", "target_index", "groups"):
            check_same(getattr(ours, name), getattr(theirs, name), f"{where}.{name}")
    elif dataclasses.is_dataclass(ours):
        for field in dataclasses.fields(ours):
            if field.init:
                check_same(getattr(ours, field.name), getattr(theirs, field.name), f"{where}.{field.name}")
    elif isinstance(ours, dict):
        assert list(ours) == list(theirs), where
        for key, value in ours.items():
            check_same(value, theirs[key], f"{where}.{key}")
    elif isinstance(ours, tuple):
        assert len(ours) == len(theirs), where
        for one, other in zip(ours, theirs, strict=True):
            check_same(one, other, where)
    else:
        assert ours == theirs, where


# --- the same as collation --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("graph", "route"), [("plain", "auto"), ("causal", "dense"), ("chosen", "edge")])
@pytest.mark.parametrize("name", ["semi_iin", "sslmm", "global"])
@pytest.mark.parametrize("scope", SCOPES)
def test_a_batch_equals_collation(scope: str, name: str, graph: str, route: str) -> None:
    more = {} if scope == "dialogue" else TOKENS
    target = {"kind": "classes", "classes": ["a", "b", "c"]} if graph == "causal" else None
    spec = graph_spec(config_of(scope, GRAPHS[graph] | more, target, name=name, route=route))
    utterances = corpus()
    data = Batch.from_data_list(graphs_of(utterances, spec))
    check_same(collate(in_order(utterances, spec), spec), from_hetero(data, spec))
    first = data.to_data_list()[-1]  # taken apart again, and alone
    members = [u for u in in_order(utterances, spec) if u.id in ([first.id] if "ids" not in first else first.ids)]
    check_same(collate(members, spec), from_hetero(first, spec))


@pytest.mark.parametrize("scope", SCOPES)
def test_data_may_lack_modalities_or_have_others(scope: str) -> None:
    for dims in ({"text": 6}, {"eeg": 3, "text": 2}, {"audio": 1, "x_1": 2, "keys": 3}):
        utterances, config = corpus(dims), config_of(scope)
        data = dataclasses.replace(config.data, modalities=tuple(dims))
        spec = graph_spec(dataclasses.replace(config, data=data))
        found = from_hetero(Batch.from_data_list(graphs_of(utterances, spec)), spec)
        check_same(collate(in_order(utterances, spec), spec), found)


def test_what_build_graph_gives_is_taken() -> None:
    config, utterances = config_of("utterance"), corpus()
    spec = graph_spec(config)
    data = Batch.from_data_list([build_graph(u, config.graph, spec.strides) for u in utterances])
    check_same(collate(utterances, spec), from_hetero(data, spec))


def test_a_graph_of_a_dialogue_has_tokens_and_utterances() -> None:
    spec = graph_spec(config_of("hierarchical", GRAPHS["causal"]))
    one, other = graphs_of(corpus(), spec)
    assert one.validate()
    assert one.ids == ["v0$_$2", "v0$_$4", "v0$_$6"]
    assert one.y.shape == (3,)
    assert int(one.y.isnan().sum()) == 1
    assert one.steps.shape == (3, 3)
    assert one["utterance"].num_nodes == one["utterance.text"].num_nodes == one["utterance.dialogue"].num_nodes == 3
    assert "x" not in one["utterance.text"]
    assert one["text"].x.shape == (int(one.steps[:, spec.schema.modalities.index("text")].sum()), 6)
    assert set(one["cls"].utterance.tolist()) == {0, 1, 2}
    assert one.node_types == other.node_types
    assert one.edge_types == other.edge_types
    source, target = one["utterance", "context", "utterance"].edge_index
    assert (source <= target).all()  # a causal one


# --- what transforms do reaches the model -----------------------------------------------------------------------------


def spec_and_data(scope: str = "utterance", **graph: Any) -> tuple[GraphSpec, HeteroData]:
    spec = graph_spec(config_of(scope, graph, route="edge"))
    utterances = [clip(f"v$_${i}", DIMS, (3, 6, 2), label=0.5) for i in range(2)]
    return spec, Batch.from_data_list(graphs_of(utterances, spec))


def edges(data: HeteroData, spec: GraphSpec, relation: tuple[str, str, str], outside: bool = False) -> list[Any]:
    batch = from_hetero(data, spec)
    found = (batch.dialogues if outside and batch.dialogues is not None else batch).edge_index_dict()
    return found[relation].T.tolist()


@pytest.mark.parametrize("scope", SCOPES)
def test_dropped_edges_are_dropped_and_added_ones_added(scope: str) -> None:
    outside = scope != "utterance"
    spec, data = spec_and_data(scope, **({"context": 0} if outside else {"intra": "window(radius=0)"}))
    prefix = "utterance." if outside else ""
    relation, key = ("text", "intra", "text"), (f"{prefix}text", "intra", f"{prefix}text")
    before = edges(data, spec, relation, outside)
    kept = [before[0], *before[2:]]
    store = data[key]
    for name, value in list(store.items()):
        if torch.is_tensor(value):
            store[name] = torch.cat([value[..., :1], value[..., 2:]], dim=-1)
    assert edges(data, spec, relation, outside) == kept
    store.edge_index = torch.cat([store.edge_index, torch.tensor([[1, 1], [0, 0]])], dim=1)  # the same one twice
    for name in ("temporal_type", "kind"):
        if name in store:
            store[name] = torch.cat([store[name], torch.tensor([0, 0])])
    assert edges(data, spec, relation, outside) == sorted([*kept, [1, 0]], key=lambda e: e[::-1])
    del data[key]
    assert edges(data, spec, relation, outside) == []


def test_transforms_of_pyg_apply() -> None:
    spec, data = spec_and_data(intra="window(radius=0)")
    looped = AddSelfLoops()(data.clone())  # adds loops that are there already
    assert looped["text", "intra", "text"].num_edges == 2 * data["text", "intra", "text"].num_edges
    check_same(from_hetero(data, spec), from_hetero(looped, spec))


def test_nodes_may_come_in_any_order() -> None:
    for scope in SCOPES:
        spec, data = spec_and_data(scope)
        mixed = data.clone()
        for node_type, store in mixed.node_items():
            order = torch.randperm(store.num_nodes, generator=torch.Generator().manual_seed(1))
            for name, value in list(store.items()):
                if torch.is_tensor(value) and name != "ptr":
                    store[name] = value[order]
            for relation in mixed.edge_types:
                for row, end in enumerate((relation[0], relation[2])):
                    if end == node_type:
                        mixed[relation].edge_index[row] = torch.argsort(order)[mixed[relation].edge_index[row]]
        check_same(from_hetero(data, spec), from_hetero(mixed, spec))


def test_predictions_propagate_along_edges_that_are_there() -> None:
    spec, data = spec_and_data("hierarchical")
    store = data["utterance", "context", "utterance"]
    assert store.edge_index.tolist() == [[0, 1, 0, 1], [0, 0, 1, 1]]
    store.edge_index, store.kind = store.edge_index[:, 1:2], store.kind[1:2]
    found = from_hetero(data, spec).dialogues.utterance_edges
    assert found.index.tolist() == [[1], [0]]
    assert found.edge_type.tolist() == store.kind.tolist()
    store.kind = store.kind + 1000
    with pytest.raises(DataError, match=r"'kind' of 'utterance-context-utterance' must hold a number from 0 to \d+"):
        from_hetero(data, spec)
    del store.kind
    with pytest.raises(DataError, match="edges 'utterance-context-utterance' have no 'kind'"):
        from_hetero(data, spec)


def test_weights_of_edges_are_read_with_their_edges() -> None:
    spec, data = spec_and_data(intra="window(radius=0)")
    key = ("audio", "intra", "audio")
    count = data[key].num_edges
    weight = torch.rand(count, generator=torch.Generator().manual_seed(0), requires_grad=True)
    data[key].edge_weight = weight
    mixed = data.clone()
    order = torch.arange(count).flip(0)
    for name in ("edge_index", "temporal_type", "edge_weight"):
        mixed[key][name] = data[key][name][..., order]
    for batch in (from_hetero(data, spec), from_hetero(mixed, spec)):
        found = batch.edges["intra"]
        assert isinstance(found, SparseEdges)
        audio = batch.schema.numbers["audio"]
        among = (batch.node_type[found.index] == audio).all(0)
        assert torch.equal(found.log_weight[among], weight.log())
        assert not found.log_weight[~among].any()
        assert not batch.readout_edges["intra"].log_weight.any()
        assert len(batch.readout_edges["intra"].log_weight) == batch.readout_edges["intra"].index.shape[1]
    with pytest.raises(DataError, match="'edge_weight', and the model, or its layer, takes no weights"):
        from_hetero(data, dataclasses.replace(spec, takes_weights=False))


def random_walk(data: HeteroData) -> HeteroData:
    """A random-walk encoding of every node over all edges: PyG's transform takes graphs of one type."""
    whole = data.to_homogeneous(node_attrs=[], edge_attrs=[])
    encoded = AddRandomWalkPE(walk_length=3)(Data(edge_index=whole.edge_index, num_nodes=whole.num_nodes))
    for number, node_type in enumerate(data.node_types):
        data[node_type].random_walk_pe = encoded.random_walk_pe[whole.node_type == number]
    return data


@pytest.mark.parametrize("scope", SCOPES)
def test_a_random_walk_encoding_is_carried_and_changes_nothing(scope: str) -> None:
    config, utterances = config_of(scope), corpus()
    spec, dataset = graph_spec(config), as_dataset(utterances, config, transform=random_walk)
    data = next(iter(DataLoader(dataset, batch_size=len(dataset))))
    for node_type in data.node_types:
        assert data[node_type].random_walk_pe.shape == (data[node_type].num_nodes, 3)
    assert data["text"].random_walk_pe.any() or scope == "dialogue"
    check_same(collate(in_order(utterances, spec), spec), from_hetero(data, spec))


# --- what is wrong is said --------------------------------------------------------------------------------------------


def wrong(key: str, name: str, value: Any) -> Callable[[HeteroData], Any]:
    def change(data: HeteroData) -> None:
        store = data if not key else data[tuple(key.split("-")) if "-" in key else key]
        if value is None:
            del store[name]
        else:
            store[name] = value

    return change


WRONG: list[tuple[str, Callable[[HeteroData], Any], str]] = [
    ("utterance", wrong("", "steps", None), "no 'steps', the lengths before nodes of audio took 4 each"),
    ("utterance", wrong("", "steps", torch.ones(2, 2).long()), "'steps' must hold the lengths of 3 modalities"),
    ("utterance", wrong("", "steps", torch.ones(2, 3).long()), "audio of 'v.* has 2 nodes, not the 1 of its 1 steps"),
    ("utterance", wrong("", "y", torch.ones(3)), "'y' must hold a label per utterance, 2 in all"),
    ("utterance", wrong("text", "x", None), "nodes 'text' have no features 'x'"),
    ("utterance", wrong("audio", "x", torch.ones(4, 3)), r"'x' of audio must be \[nodes, 4 x features\]"),
    ("utterance", wrong("text", "pos", torch.zeros(6).long()), "nodes 'text' must be numbered 0, 1, 2"),
    ("utterance", wrong("cls", "num_nodes", 1), "has 0 nodes 'cls', the model's graphs have 1"),
    ("utterance", wrong("extra", "x", torch.ones(1, 1)), "nodes 'extra', which the model's graphs have not"),
    ("utterance", wrong("text-other-text", "edge_index", torch.zeros(2, 0).long()), "edges 'text-other-text', which"),
    ("utterance", wrong("text-intra-text", "edge_index", torch.tensor([[9], [0]])), "name nodes that are not there"),
    ("utterance", wrong("text-intra-text", "edge_index", torch.tensor([[5], [0]])), "joins nodes of different graphs"),
    ("utterance", wrong("text-intra-text", "temporal_type", None), "need a 'temporal_type' each"),
    ("utterance", wrong("text-intra-text", "edge_weight", torch.ones(2)), "must be a number above 0 for each"),
    ("dialogue", wrong("utterance.text-intra-utterance.text", "kind", None), "need a 'kind' each"),
    ("dialogue", wrong("utterance.text-intra-utterance.text", "kind", torch.full((4,), 3)), "must be from 0 to 2"),
    ("dialogue", wrong("text", "utterance", None), "nodes 'text' have no 'utterance'; build the graph with"),
    ("hierarchical", wrong("cls", "utterance", torch.tensor([0, 2])), "'cls' is of utterance 2, its dialogue has 2"),
    ("hierarchical", lambda data: data.__delitem__("utterance"), "no nodes 'utterance', which 'graph.scope: hier"),
]


@pytest.mark.parametrize(("scope", "change", "message"), WRONG, ids=[message for *_, message in WRONG])
def test_what_the_data_lacks_is_named(scope: str, change: Callable[[HeteroData], Any], message: str) -> None:
    spec, data = spec_and_data(scope, **({"intra": "temporal"} if scope == "utterance" else {}))
    if message.startswith("has 0 nodes"):  # a batch says of each node which graph's it is
        data["cls"].batch = torch.ones(1, dtype=torch.long)
        data["cls"].pos = torch.zeros(1, dtype=torch.long)
    change(data)
    with pytest.raises(DataError, match=message) as caught:
        from_hetero(data, spec)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) <= 400


def test_graphs_of_another_kind_are_refused() -> None:
    utterances = [clip("v$_$1", DIMS, (3, 6, 2))]
    specs = {scope: graph_spec(config_of(scope)) for scope in SCOPES}
    for scope, message in (("dialogue", "no nodes 'utterance'"), ("hierarchical", "no nodes 'utterance'")):
        with pytest.raises(DataError, match=message):
            from_hetero(as_hetero(utterances, specs["utterance"]), specs[scope])
    with pytest.raises(DataError, match="nodes 'utterance', which the model's graphs have not"):
        from_hetero(as_hetero(utterances, specs["dialogue"]), specs["utterance"])
    with pytest.raises(DataError, match="no nodes 'utterance'"):
        from_hetero(build_dialogue_graph(utterances, specs["dialogue"].graph), specs["dialogue"])
    with pytest.raises(DataError, match="nodes 'val', the model's graphs have 0"):
        from_hetero(as_hetero(utterances, specs["utterance"]), graph_spec(config_of("utterance", name="sslmm")))
    with pytest.raises(DataError, match="expected PyG's HeteroData"):
        from_hetero(Data(), specs["utterance"])  # type: ignore[arg-type]
    with pytest.raises(DataError, match="expected the utterances of one graph"):
        as_hetero(corpus(), specs["dialogue"])
    members = [clip(f"v$_${i}", DIMS, (3, 6, 2)) for i in range(3)]
    for spec in specs.values():
        few = dataclasses.replace(spec, positions=2)
        with pytest.raises(DataError, match=r"'model\.positions' allows 2"):
            as_dataset(members, few)
        with pytest.raises(DataError, match=r"'model\.positions' allows 2"):
            from_hetero(as_hetero(members if spec.graph.has_dialogues else members[0], spec), few)


def test_a_graph_made_by_hand_is_taken() -> None:
    """Nodes, features and edges suffice where nothing strides and nothing is typed."""
    spec = graph_spec(config_of("utterance", encoders={"others": [[3, 1]]}))
    spec = dataclasses.replace(spec, convs={"text": ((3, 1),)})
    data = HeteroData()
    data["text"].x = torch.randn(3, 6)
    for readout in ("val", "cls"):
        data[readout].num_nodes = 1
        for stream in ("intra", "inter"):
            data["text", stream, readout].edge_index = torch.tensor([[0, 1, 2], [0, 0, 0]])
    batch = from_hetero(data, spec)
    assert batch.ids == ("0",)
    assert batch.labels.isnan().all()
    assert torch.equal(batch.features["text"], data["text"].x)
    assert batch.edge_index_dict()["text", "intra", "val"].tolist() == [[0, 1, 2], [0, 0, 0]]
    del data["text", "inter", "val"]
    del data["text", "inter", "cls"]
    with pytest.raises(DataError, match="no edges of stream 'inter', such as"):
        from_hetero(data, spec)


# --- data sets of graphs ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", SCOPES)
def test_a_data_set_of_graphs(scope: str) -> None:
    config, utterances = config_of(scope), corpus()
    spec, seen = graph_spec(config), []

    def mark(data: HeteroData) -> HeteroData:
        seen.append(data.id)
        data.marked = True
        return data

    dataset = as_dataset(utterances, config, transform=mark)
    assert len(dataset) == (6 if scope == "utterance" else 2)
    whole = next(iter(DataLoader(dataset, batch_size=8)))
    check_same(collate(in_order(utterances, spec), spec), from_hetero(whole, spec))
    assert len(seen) == len(dataset)
    assert dataset[-1].marked
    assert [data.id for data in dataset[:1]] == [dataset[0].id]
    by_spec = as_dataset(utterances, spec, pre_transform=mark)
    before = len(seen)
    for _ in range(2):
        assert by_spec[0].marked
    by_spec[0].y = None  # changes no one else's
    assert by_spec[0].y is not None
    assert len(seen) == before + 1
    with pytest.raises(DataError, match="needs utterances"):
        as_dataset([], config)
    with pytest.raises(ConfigError, match=r"list them, as in 'graph\.speakers"):
        as_dataset(utterances, config_of("dialogue", {"speakers": "pairs"}))


def test_workers_and_samplers_of_pyg() -> None:
    config = config_of("utterance", target={"kind": "classes", "classes": ["a", "b", "c"]})
    utterances = [dataclasses.replace(u, label=float(i % 3 > 1)) for i, u in enumerate(corpus(count=6))]
    dataset, spec = as_dataset(utterances, config), graph_spec(config)
    found = list(DataLoader(dataset, batch_size=3, num_workers=1))
    for start, data in zip((0, 3), found, strict=True):
        check_same(collate(utterances[start : start + 3], spec), from_hetero(data, spec))
    balanced = ImbalancedSampler(torch.tensor([u.label for u in utterances]).long())
    assert sum(data.num_graphs for data in DataLoader(dataset, batch_size=4, sampler=balanced)) == 6
    most = max(data.num_nodes for data in dataset)
    for data in DataLoader(dataset, batch_sampler=DynamicBatchSampler(dataset, max_num=most, mode="node")):
        assert data.num_nodes <= most


# --- NetworkX ---------------------------------------------------------------------------------------------------------


def check_same_data(ours: HeteroData, theirs: HeteroData) -> None:
    assert ours.node_types == theirs.node_types
    assert ours.edge_types == theirs.edge_types
    for one, other in zip(ours.stores, theirs.stores, strict=True):
        assert set(one.keys()) == set(other.keys())
        for key, value in one.items():
            check_same(value, other[key], f"{one._key}.{key}")


@pytest.mark.parametrize("scope", SCOPES)
def test_networkx_and_back(scope: str) -> None:
    spec = graph_spec(config_of(scope, {"dialogue_node": True} | ({} if scope == "dialogue" else TOKENS)))
    for data in graphs_of(corpus(), spec):
        back = from_networkx(to_networkx(data, features=True))
        check_same_data(data, back)
        check_same(from_hetero(data, spec), from_hetero(back, spec))
    bare = from_networkx(to_networkx(data))  # without what is not seen: nodes, edges, and what is known of edges
    for node_type in bare.node_types:
        assert bare[node_type].num_nodes == data[node_type].num_nodes
        assert "x" not in bare[node_type]
    for relation in bare.edge_types:
        assert torch.equal(bare[relation].edge_index, data[relation].edge_index)
        if "temporal_type" in bare[relation]:
            assert torch.equal(bare[relation].temporal_type, data[relation].temporal_type)
    assert sum(bare[r].num_edges for r in bare.edge_types) == sum(data[r].num_edges for r in data.edge_types)


def test_what_networkx_changes_is_read() -> None:
    spec = graph_spec(config_of("utterance"))
    data = as_hetero(clip("v$_$1", DIMS, (3, 6, 2)), spec)
    graph = to_networkx(data, features=True)
    lost = [edge for edge in graph.edges(keys=True) if edge[0] == ("text", 0) and edge[1] == ("text", 1)]
    assert len(lost) == 1
    graph.remove_edges_from(lost)
    back = from_networkx(graph)
    kept = [[s, t] for s, t in data["text", "intra", "text"].edge_index.T.tolist() if (s, t) != (0, 1)]
    assert edges(back, spec, ("text", "intra", "text")) == kept
    assert back["text", "intra", "text"].temporal_type.shape == (len(kept),)


ODD = ['läugh \'n "cry"', "a\nb", "x_dict", "__", "名", "a__b"]


@pytest.mark.filterwarnings("ignore:There exist type names")
def test_networkx_of_odd_names_and_of_ones_own() -> None:
    graph = nx.MultiDiGraph()
    for i, name in enumerate(ODD):
        graph.add_node(f"{name} one", type=name, x=[float(i), 1.0])
        graph.add_node((name, "two"), type=name, x=[0.0, float(i)], other=object())
        graph.add_edge((name, "two"), f"{name} one", stream=f"to {name}", weight=3)
        graph.add_edge(f"{name} one", f"{ODD[0]} one", stream="ends")
    data = from_networkx(graph)
    assert data.node_types == ODD
    for i, name in enumerate(ODD):
        assert data[name].x.tolist() == [[i, 1], [0, i]]
        assert data[name, f"to {name}", name].edge_index.tolist() == [[1], [0]]
        assert data[name, "ends", ODD[0]].edge_index.tolist() == [[0], [0]]
    view = to_networkx(data)
    assert nx.utils.graphs_equal(view, to_networkx(from_networkx(view)))
    utterance = clip("v\n'\"$_$ä名", DIMS, (2, 1, 1), speaker="O'Hara \\")
    spec = graph_spec(config_of("dialogue"))
    check_same_data(
        as_hetero([utterance], spec), from_networkx(to_networkx(as_hetero([utterance], spec), features=True))
    )


def test_networkx_that_lacks_types_is_refused() -> None:
    graph = nx.MultiDiGraph()
    graph.add_node("a")
    with pytest.raises(DataError, match="node 'a' has no 'type', such as text"):
        from_networkx(graph)
    graph.add_node("a", type="text", x=[1.0])
    graph.add_node("b", type="text", x=[1.0, 2.0])
    with pytest.raises(DataError, match="nodes 'text' differ in what they hold"):
        from_networkx(graph)
    graph.nodes["b"]["x"] = [2.0]
    graph.add_edge("a", "b")
    with pytest.raises(DataError, match="the edge from 'a' to 'b' has no 'stream'"):
        from_networkx(graph)
