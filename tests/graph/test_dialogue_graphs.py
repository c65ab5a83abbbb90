"""Graphs of dialogues against NetworkX and PyG's batching, what may reach what in them, and their batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import networkx as nx
import numpy as np
import pytest
import torch
import yaml
from helpers.graphs import check_positions, collate
from helpers.small_runs import small
from torch import Tensor
from torch_geometric.data import Batch

import gmsa
from gmsa.config import MODALITIES, Config, from_dict
from gmsa.config.trained import trained_settings
from gmsa.data import INTENSITY_CLASSES, Target, Utterance
from gmsa.errors import DataError, RunError
from gmsa.graph import READOUTS, GraphBatch, build_dialogue_graph, schema
from gmsa.graph.edges import FUTURE, PAST, PRESENT
from gmsa.graph.view import to_networkx
from gmsa.models import MODELS, Output, build_model
from gmsa.runs import Run, report
from gmsa.training.batches import SampleGroups, scoring_batches, training_batches
from gmsa.training.checkpoint import save_weights
from gmsa.training.examples import Example, Targets, labeled_examples
from gmsa.training.losses import loss

DIMS = {"text": 6, "audio": 4, "vision": 5}
CLIPS = {"a": 5, "b": 1, "c": 12, "d": 3}
"""Utterances of each dialogue; 12 of them tell the order of numbers from that of names."""
STREAMS = ("intra", "inter")
TYPES = schema(MODALITIES)
NODE_TYPES, TOKEN_RELATIONS, EDGE_TYPES = TYPES.node_types, TYPES.token_relations, TYPES.edge_types


def config_of(graph: dict[str, Any] | None = None, **groups: dict[str, Any]) -> Config:
    model = {"channels": 16, "heads": 4} | groups.pop("model", {})
    return from_dict({"graph": {"scope": "dialogue"} | (graph or {}), "model": model, **groups})


@pytest.fixture
def utterances(make_utterance) -> list[Utterance]:
    """Clips of four dialogues in an order that is neither theirs nor the dialogues'; some lack modalities."""
    sizes = [(5, 9, 3), (1, 0, 4), (7, 17, 0), (0, 0, 2), (0, 0, 0), (0, 1, 0), (3, 30, 1)]
    names = [f"{dialogue}$_${clip}" for dialogue, count in CLIPS.items() for clip in range(1, count + 1)]
    found = [make_utterance(n, sizes[i % 7], None if i % 5 == 1 else i / 9) for i, n in enumerate(names)]
    order = torch.randperm(len(found), generator=torch.Generator().manual_seed(4)).tolist()
    assert order != sorted(order)
    return [found[i] for i in order]


def dialogues(utterances: Sequence[Utterance]) -> list[list[Utterance]]:
    """The oracle of grouping: dialogues as they first appear, clips by number."""
    names = list(dict.fromkeys(u.id.split("$_$")[0] for u in utterances))
    return [
        sorted((u for u in utterances if u.id.split("$_$")[0] == name), key=lambda u: int(u.id.split("$_$")[1]))
        for name in names
    ]


def tokens_by_loop(count: int, context: int | str) -> nx.MultiDiGraph:
    """A dialogue's graph by its description: nodes (type, utterance), edges with stream and temporal_type."""
    graph = nx.MultiDiGraph()
    graph.add_nodes_from((t, u) for t in NODE_TYPES for u in range(count))
    for m in MODALITIES:
        for u in range(count):
            for v in range(count):
                if context == "all" or abs(u - v) <= context:
                    temporal_type = PAST if u < v else FUTURE if u > v else PRESENT
                    graph.add_edge((m, u), (m, v), stream="intra", temporal_type=temporal_type)
            for other in MODALITIES:
                if other != m:
                    graph.add_edge((m, u), (other, u), stream="inter", temporal_type=PRESENT)
            for readout in READOUTS:
                for stream in STREAMS:
                    graph.add_edge((m, u), (readout, u), stream=stream, temporal_type=PRESENT)
                    graph.add_edge((readout, u), (m, u), stream=stream, temporal_type=PRESENT)
    return graph


def edges_of(graph: nx.MultiDiGraph) -> Counter:
    return Counter((s, t, data["stream"], data["temporal_type"]) for s, t, data in graph.edges(data=True))


# --- graphs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("context", [0, 1, 2, 50, "all"])
@pytest.mark.parametrize("count", [1, 2, 7])
def test_a_dialogue_is_the_graph_that_is_described(make_utterance, context: int | str, count: int) -> None:
    clips = [make_utterance(f"a$_${i}", (3, 2, 0)) for i in range(count)]
    data = build_dialogue_graph(clips, config_of({"context": context}).graph)
    assert data.edge_types == list(TYPES.relations)
    assert data.validate()
    found = Counter()
    for source, stream, target in data.edge_types:
        store = data[source, stream, target]
        for (u, v), temporal_type in zip(store.edge_index.T.tolist(), store.temporal_type.tolist(), strict=True):
            found[(source, u), (target, v), stream, temporal_type] += 1
    expected = tokens_by_loop(count, context)
    assert found == edges_of(expected)
    seen = to_networkx(data)
    assert set(seen) == set(expected)
    assert Counter(seen.edges(data="stream")) == Counter(expected.edges(data="stream"))


def test_nodes_are_means_and_missing_ones_stay(make_utterance) -> None:
    clips = [make_utterance("a$_$1", (3, 2, 0)), make_utterance("a$_$2", (0, 9, 1))]
    data = build_dialogue_graph(clips, config_of().graph)
    for m in MODALITIES:
        assert data[m].present.tolist() == [len(u.features[m]) > 0 for u in clips]
        for x, u in zip(data[m].x, clips, strict=True):
            expected = u.features[m].mean(0) if len(u.features[m]) else torch.zeros(DIMS[m])
            torch.testing.assert_close(x, expected)
    assert (data.id, data.ids) == ("a", ["a$_$1", "a$_$2"])


@pytest.mark.parametrize("route", ["dense", "edge"])
@pytest.mark.parametrize("context", [0, 2, "all"])
def test_batch_equals_pyg_batching(utterances: list[Utterance], route: str, context: int | str) -> None:
    config = config_of({"context": context}, model={"route": route})
    ours, groups = collate(utterances, config), dialogues(utterances)
    theirs = Batch.from_data_list([build_dialogue_graph(group, config.graph) for group in groups])
    edges = ours.edge_index_dict()
    assert list(edges) == theirs.edge_types
    for relation in theirs.edge_types:
        assert edges[relation].tolist() == theirs[relation].edge_index.tolist(), relation
        assert edges[relation].shape[1] > 0
    for node_type in NODE_TYPES:
        index = ours.node_index(node_type)
        assert torch.equal(ours.position[index], theirs[node_type].pos)
        assert torch.equal(ours.padded_index[index] // ours.shape[1], theirs[node_type].batch)
    assert [u.id for group in groups for u in group] == [name for names in theirs.ids for name in names]
    assert ours.ids == tuple(u.id for u in utterances)
    torch.testing.assert_close(ours.labels, theirs.label[ours.utterance_order], equal_nan=True, rtol=0, atol=0)
    assert ours.shape == (4, 5 * 12, 2 * 12)
    # Each edge's kind: the relation's place among the nine, and its temporal_type.
    for stream in STREAMS:
        expected = {}
        for relation in (r for r in theirs.edge_types if r[1] == stream):
            first = 3 * TOKEN_RELATIONS.index(relation) if relation in TOKEN_RELATIONS else None
            source, target = (ours.node_index(t) for t in relation[::2])
            store = theirs[relation]
            for (s, t), temporal_type in zip(store.edge_index.T.tolist(), store.temporal_type.tolist(), strict=True):
                expected[int(source[s]), int(target[t])] = EDGE_TYPES if first is None else first + temporal_type
        if route == "edge":
            kinds = ours.edges[stream].edge_type.tolist()
        else:
            adjacency = ours.edges[stream].adjacency
            kinds = [int(k) - 1 for k in adjacency[adjacency > 0]]
        found = zip(ours.edge_index(stream).T.tolist(), kinds, strict=True)
        assert {tuple(e): k for e, k in found} == expected


def test_numbers_of_the_nodes_mean_what_they_say(utterances: list[Utterance]) -> None:
    batch, groups = collate(utterances, config_of()), dialogues(utterances)
    ordered = [u for group in groups for u in group]
    count = len(ordered)
    assert [ordered[row].id for row in batch.utterance_order] == [u.id for u in utterances]
    for m in MODALITIES:
        assert batch.lengths[m].tolist() == [len(u.features[m]) for u in ordered]
        assert torch.equal(batch.features[m], torch.cat([u.features[m] for u in ordered]))
    table = [None] + [(m, u.id) for m in ("audio", "text", "vision") for u in ordered]
    nodes = [
        (g, t, u.id, position) for g, group in enumerate(groups) for t in NODE_TYPES for position, u in enumerate(group)
    ]
    assert len(batch.node_type) == len(nodes) == 5 * count
    for v, (g, node_type, name, position) in enumerate(nodes):
        assert NODE_TYPES[batch.node_type[v]] == node_type
        assert batch.position[v] == position
        assert batch.padded_index[v] // batch.shape[1] == g
        assert table[batch.embedding_row[v]] == (None if node_type in READOUTS else (node_type, name))
    z = torch.arange(float(len(nodes)))[:, None]
    for readout, read in zip(READOUTS, batch.readout(z), strict=True):
        assert [nodes[int(v)][1:3] for v in read] == [(readout, u.id) for u in utterances]
    places = batch.readout_padded_index.tolist()
    assert len(set(places)) == 2 * count
    padded = torch.full((batch.shape[0] * batch.shape[2],), -1, dtype=torch.long)
    padded[batch.readout_padded_index] = batch.readout_index
    for g, row in enumerate(padded.view(batch.shape[0], -1).tolist()):
        assert [nodes[v][0] for v in row if v >= 0] == [g] * 2 * len(groups[g])
        assert row[2 * len(groups[g]) :] == [-1] * (batch.shape[2] - 2 * len(groups[g]))
        # Receivers are the first nodes of their graph: the dense route takes the first rows of its adjacency.
        assert [int(batch.padded_index[v]) - g * batch.shape[1] for v in row if v >= 0] == list(
            range(2 * len(groups[g]))
        )


def test_clips_without_a_number_come_last_by_name(make_utterance) -> None:
    given = [make_utterance(f"a$_${clip}", (1, 1, 1)) for clip in ("z", "10", "b", "2", "007")]
    batch = collate(given, config_of())
    assert [given[i].clip[1] for i in batch.utterance_order.argsort()] == ["2", "007", "10", "b", "z"]


def test_too_many_utterances_name_the_dialogue_and_the_setting(utterances: list[Utterance]) -> None:
    config = config_of(model={"positions": 11})
    for check in (check_positions, collate):
        with pytest.raises(DataError, match=r"dialogue 'c' has 12 utterances, 'model.positions' allows 11; raise it"):
            check(utterances, config)
    check_positions(utterances, config_of(model={"positions": 12}))
    assert len(collate(utterances, config_of(model={"positions": 12}))) == len(utterances)
    # Their tokens are not counted: the nodes are utterances.
    assert collate(dialogues(utterances)[0][:1], config_of(model={"positions": 1})).position.max() == 0


@pytest.mark.parametrize("rate", [0.2, 0.6])
def test_both_routes_lose_the_same_edges_among_utterances(utterances: list[Utterance], rate: float) -> None:
    seeds = {u.id: i for i, u in enumerate(utterances)}
    found = {}
    for route in ("dense", "edge"):
        config = config_of({"context": "all", "edge_dropout": rate}, model={"route": route})
        whole, batch = collate(utterances, config), collate(utterances, config, seeds)
        for stream in STREAMS:
            every, left = ({tuple(e) for e in b.edge_index(stream).T.tolist()} for b in (whole, batch))
            among = {e for e in every if all(whole.node_type[list(e)] >= len(READOUTS))}
            assert left <= every
            assert every - left <= among
            share = len(every - left) / len(among)
            assert share == pytest.approx(rate, abs=4 * (rate * (1 - rate) / len(among)) ** 0.5)
            found.setdefault(stream, []).append(batch.edge_index(stream).tolist())
    assert all(dense == edge for dense, edge in found.values())


# --- what may reach what ----------------------------------------------------------------------------------------------


def model_of(config: Config, seed: int = 0) -> torch.nn.Module:
    """A model whose every parameter matters: biases of kinds start at zero."""
    torch.manual_seed(seed)
    model = build_model(DIMS, config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def say(model: torch.nn.Module, config: Config, utterances: Sequence[Utterance]) -> Tensor:
    """Intensity and logits of each utterance in float64."""
    batch = collate(utterances, config)
    batch = replace(batch, features={m: x.double() for m, x in batch.features.items()})
    with torch.no_grad():
        output = model.double()(batch)
    return torch.cat([output.value[:, None], output.logits], dim=1)


@pytest.mark.parametrize("name", sorted(MODELS))
def test_outputs_stand_in_the_order_given(utterances: list[Utterance], name: str) -> None:
    config = config_of(model={"name": name})
    model = model_of(config)
    straight = say(model, config, utterances)
    assert straight.shape == (len(utterances), 1 + INTENSITY_CLASSES)
    for seed in range(2):
        order = torch.randperm(len(utterances), generator=torch.Generator().manual_seed(seed))
        torch.testing.assert_close(say(model, config, [utterances[i] for i in order]), straight[order])
    # Dialogues do not know each other.
    for dialogue in {u.video for u in utterances}:
        own = [i for i, u in enumerate(utterances) if u.video == dialogue]
        torch.testing.assert_close(say(model, config, [utterances[i] for i in own]), straight[own])
    assert len(torch.unique(straight[:, 0])) > 15  # else an order could not be told


def louder(utterance: Utterance) -> Utterance:
    return replace(utterance, features={m: x + 1 for m, x in utterance.features.items()})


REACH = [
    ("semi_iin", {"layers": 1}, lambda c: 0),
    ("semi_iin", {"layers": 2}, lambda c: c),
    ("semi_iin", {"layers": 3}, lambda c: 2 * c),
    ("semi_iin", {"layers": 2, "streams": "intra"}, lambda c: c),
    ("semi_iin", {"layers": 3, "streams": "inter"}, lambda c: 0),
    ("semi_iin", {"layers": 3, "streams": "global"}, lambda c: 2 * c),
    ("hgt", {"layers": 2}, lambda c: c),
    ("late_fusion", {}, lambda c: 0),
    ("global", {"layers": 1}, lambda c: 0),
    ("global", {"layers": 2}, lambda c: c),
    ("global", {"layers": 3}, lambda c: 2 * c),
]
"""How many utterances away a change is felt, where each layer passes it on by ``context``: the last one to the
readout nodes alone, which join only their own utterance."""


@pytest.mark.parametrize(
    ("name", "settings", "reach", "route"),
    [(*case, route) for case in REACH for route in ("dense", "edge") if case[0] == "semi_iin" or route == "edge"],
    ids=lambda value: "" if callable(value) else str(value),
)
@pytest.mark.parametrize("context", [0, 1, 2, "all"])
def test_a_change_is_felt_as_far_as_its_edges_reach(
    make_utterance, name: str, settings: dict[str, Any], reach: Any, route: str, context: int | str
) -> None:
    config = config_of({"context": context}, model={"name": name, "route": route} | settings)
    model = model_of(config)
    count, changed = 9, 4
    clips = [make_utterance(f"a$_${i}", (2, 9, 2)) for i in range(count)]
    clips += [make_utterance(f"b$_${i}", (2, 9, 2)) for i in range(count)]
    before = say(model, config, clips)
    after = say(model, config, [louder(u) if i == changed else u for i, u in enumerate(clips)])
    moved = (before - after).abs().amax(1) > 1e-9
    steps = reach(count if context == "all" else context)
    assert moved.tolist() == [i < count and abs(i - changed) <= steps for i in range(2 * count)]


@pytest.mark.parametrize("name", ["semi_iin", "hgt", "late_fusion"])
def test_without_context_an_utterance_is_alone_but_for_its_position(utterances: list[Utterance], name: str) -> None:
    config = config_of({"context": 0}, model={"name": name})
    model = model_of(config)
    firsts = [group[0] for group in dialogues(utterances)[:2]]
    together = say(model, config, utterances)
    for utterance in firsts:
        alone = say(model, config, [utterance])
        torch.testing.assert_close(alone[0], together[utterances.index(utterance)])
    with torch.no_grad():
        model.embedding.position.zero_()
    together = say(model, config, utterances)
    for i, utterance in list(enumerate(utterances))[::3]:
        torch.testing.assert_close(say(model, config, [utterance])[0], together[i])


def test_past_and_future_are_told_apart(make_utterance) -> None:
    """Two neighbours that change places change what is said, by nothing but the temporal_type of their edges."""
    config = config_of({"context": 1}, model={"streams": "intra"})
    model = model_of(config)
    with torch.no_grad():
        model.embedding.position.zero_()
        for layer in model.streams["intra"].layers:
            layer.attention.bias.normal_(std=3.0)
    first, middle, last = (make_utterance(f"a$_${i}", (3, 9, 2)) for i in (1, 2, 3))
    one = say(model, config, [first, middle, last])[1]
    other = say(model, config, [replace(last, id="a$_$1"), middle, replace(first, id="a$_$3")])[1]
    assert (one - other).abs().max() > 1e-4
    with torch.no_grad():
        for layer in model.streams["intra"].layers:
            layer.attention.bias.zero_()
    one = say(model, config, [first, middle, last])[1]
    other = say(model, config, [replace(last, id="a$_$1"), middle, replace(first, id="a$_$3")])[1]
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize("name", sorted(MODELS))
def test_a_missing_modality_is_a_learned_token(make_utterance, name: str) -> None:
    config = config_of(model={"name": name})
    model = model_of(config)
    clips = [make_utterance("a$_$1", (3, 9, 2)), make_utterance("a$_$2", (3, 0, 2)), make_utterance("a$_$3", (0, 0, 0))]
    batch = collate(clips, config)
    assert (batch.node_type == NODE_TYPES.index("audio")).sum() == 3
    before = say(model, config, clips)
    missing = model.missing if name == "late_fusion" else model.embedding.missing
    with torch.no_grad():
        missing["audio"].add_(torch.randn(16))
    moved = (say(model, config, clips) - before).abs().amax(1) > 1e-9
    assert moved[1:].all()
    assert moved[0] == (name != "late_fusion")  # its neighbours tell it
    # Of a present modality the token is not used.
    alone = say(model, config, clips[:1])
    with torch.no_grad():
        missing["audio"].add_(torch.randn(16))
    torch.testing.assert_close(say(model, config, clips[:1]), alone)


@pytest.mark.parametrize("name", sorted(MODELS))
def test_a_modality_that_the_data_lacks_needs_no_parameters(make_utterance, name: str) -> None:
    config = config_of(model={"name": name})
    clips = [make_utterance(f"a$_${i}", (3, 1, 1)) for i in range(3)]
    clips = [replace(u, features={"text": u.features["text"]}) for u in clips]
    model = build_model({"text": 6}, config)
    output = model(collate(clips, config))
    (output.value.sum() + output.logits.square().sum()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    assert set(model.embedding.encoders) == set(model.embedding.missing) == {"text"}
    assert model.embedding.encoders["text"].convs[0].weight.grad.any()


def test_node_features_are_the_mean_token(make_utterance) -> None:
    config = config_of()
    model = model_of(config)
    clips = [make_utterance(f"a$_${i}", lengths) for i, lengths in enumerate([(3, 9, 2), (5, 0, 1), (0, 33, 7)])]
    batch = collate(clips, config)
    z = model.embedding(batch)
    for m, encode in model.embedding.encoders.items():
        for i, (v, utterance) in enumerate(zip(batch.node_index(m), clips, strict=True)):
            if len(utterance.features[m]):
                alone = collate([utterance], config)
                expected = encode(utterance.features[m], alone.conv_windows[m]).mean(0)
            else:
                expected = model.embedding.missing[m]
            expected = expected + model.embedding.node_type[NODE_TYPES.index(m)] + model.embedding.position[i]
            torch.testing.assert_close(z[v], expected)


# --- batches of dialogues ---------------------------------------------------------------------------------------------


def two_parts(utterances: list[Utterance]) -> tuple[list[Utterance], list[Utterance]]:
    """Utterances to learn from, and context: of their dialogues, of another dialogue, and some of both."""
    labeled = [replace(u, label=1.0) for u in utterances if u.video != "d" and u.clip[0] % 2]
    context = [replace(u, label=None) for u in utterances]
    return labeled, context


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_an_epoch_has_every_example_once_and_context_without_weight(
    utterances: list[Utterance], batch_size: int
) -> None:
    labeled, context = two_parts(utterances)
    config = config_of(optim={"batch_size": batch_size})
    examples = labeled_examples(labeled, Target())
    known = {u.id for u in labeled}
    seen: Counter = Counter()
    count = 0
    for batch, targets in training_batches(examples, config, 1, "stage", 2, context=context):
        count += 1
        seen.update(batch.ids)
        weighs = [name in known for name in batch.ids]
        assert (~targets.value.isnan()).tolist() == weighs
        assert (targets.classes.sum(1) == 1).tolist() == weighs
        assert targets.classes.shape == (len(batch), INTENSITY_CLASSES)
        # Dialogues are never parted.
        assert {u.id for u in utterances if u.video in {n.split("$_$")[0] for n in batch.ids}} == set(batch.ids)
    assert count == SampleGroups(examples, config, context).per_epoch
    assert seen == Counter(u.id for u in utterances if u.video != "d")
    assert {u.video for u in labeled} == {"a", "b", "c"}


def test_without_context_only_examples_are_in_the_graphs(utterances: list[Utterance]) -> None:
    labeled, _ = two_parts(utterances)
    examples, config = labeled_examples(labeled, Target()), config_of(optim={"batch_size": 4})
    batches = list(training_batches(examples, config, 1))
    assert Counter(name for batch, _ in batches for name in batch.ids) == Counter(u.id for u in labeled)
    assert len(batches) == SampleGroups(examples, config).per_epoch


def test_a_batch_is_about_as_large_as_asked(make_utterance) -> None:
    clips = [make_utterance(f"v{v}$_${i}", (1, 1, 1), 0.5) for v in range(40) for i in range(3)]
    examples, config = labeled_examples(clips, Target()), config_of(optim={"batch_size": 12})
    assert [len(batch) for batch, _ in training_batches(examples, config, 1)] == [12] * 10
    assert SampleGroups(examples, config).per_epoch == 10


def test_utterance_graphs_have_no_context(utterances: list[Utterance]) -> None:
    labeled, context = two_parts(utterances)
    config = from_dict({"optim": {"batch_size": 4}})
    examples = labeled_examples(labeled, Target())
    batches = list(training_batches(examples, config, 1, context=context))
    assert Counter(name for batch, _ in batches for name in batch.ids) == Counter(u.id for u in labeled)
    assert len(batches) == SampleGroups(examples, config, context).per_epoch == -(-len(labeled) // 4)
    for rows, places, batch in scoring_batches(labeled, config, context):
        assert rows == list(range(len(batch)))
        assert [labeled[i].id for i in places] == list(batch.ids)


def test_epochs_are_functions_of_the_seed_alone(utterances: list[Utterance]) -> None:
    labeled, context = two_parts(utterances)
    config = config_of({"edge_dropout": 0.5}, optim={"batch_size": 6}, model={"modality_dropout": {"text": 0.5}})
    examples = labeled_examples(labeled, Target())

    def epoch(number: int, examples: Sequence[Example] = examples) -> dict[str, Any]:
        found = {}
        for batch, _ in training_batches(examples, config, 1, "stage", number, context=context):
            ordered = [batch.ids[i] for i in batch.utterance_order.argsort()]
            for row, name in enumerate(ordered):
                found[name] = [int(batch.lengths[m][row]) for m in MODALITIES]
            lost = [e.tolist() for e in (batch.edge_index("intra"), batch.edge_index("inter"))]
            found[frozenset(batch.ids)] = [len(part[0]) for part in lost]
        return found

    assert epoch(1) == epoch(1)
    assert epoch(1) != epoch(2)


def test_modalities_of_context_are_hidden_too(make_utterance) -> None:
    clips = [make_utterance(f"v{v}$_${i}", (2, 2, 2), 0.5) for v in range(10) for i in range(20)]
    config = config_of(model={"modality_dropout": {"text": 0.5, "audio": 0, "vision": 0}}, optim={"batch_size": 50})
    examples = labeled_examples([u for u in clips if u.clip[0] == 0], Target())
    epoch = training_batches(examples, config, 1, context=clips)
    hidden = sum(int((batch.lengths["text"] == 0).sum()) for batch, _ in epoch)
    assert hidden == pytest.approx(100, abs=30)


def test_context_weighs_nothing_in_the_loss() -> None:
    g = torch.Generator().manual_seed(0)
    value = torch.randn(6, generator=g, requires_grad=True)
    logits = torch.randn(6, INTENSITY_CLASSES, generator=g, requires_grad=True)
    context = torch.tensor([False, True, False, True, False, True])
    targets = Targets(torch.randn(6, generator=g), torch.randn(6, INTENSITY_CLASSES, generator=g).softmax(1))
    targets.value[4] = torch.nan  # a pseudo-label
    targets.value[context], targets.classes[context] = torch.nan, 0.0
    total = loss(Output(value, logits, None, logits), targets, 0.6, 0.2)
    total.backward()
    assert not value.grad[context].any()
    assert not logits.grad[context].any()
    assert logits.grad[~context].any(1).all()
    kept = Targets(targets.value[~context], targets.classes[~context])
    torch.testing.assert_close(loss(Output(value[~context], logits[~context], None, logits), kept, 0.6, 0.2), total)


@pytest.mark.parametrize("batch_size", [1, 5, 100])
def test_scoring_says_every_utterance_once_and_context_never(utterances: list[Utterance], batch_size: int) -> None:
    scored, context = two_parts(utterances)
    config = config_of(optim={"batch_size": batch_size})
    places, seen = [], Counter()
    for rows, where, batch in scoring_batches(scored, config, context):
        assert [scored[i].id for i in where] == [batch.ids[row] for row in rows]
        places += where
        seen.update(batch.ids)
        named = {u.video for u in scored}
        assert {name.split("$_$")[0] for name in batch.ids} <= named
    assert sorted(places) == list(range(len(scored)))
    assert seen == Counter(u.id for u in utterances if u.video != "d")


def test_scores_do_not_depend_on_the_batch(utterances: list[Utterance]) -> None:
    scored, context = two_parts(utterances)
    found = []
    for batch_size in (1, 100):
        config = config_of(optim={"batch_size": batch_size})
        model, said = model_of(config), torch.zeros(len(scored))
        with torch.no_grad():
            for rows, where, batch in scoring_batches(scored, config, context):
                said[where] = model(batch).value[rows]
        found.append(said)
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-5)
    # Context is heard: without it the dialogues are shorter.
    model, config = model_of(config), config_of(optim={"batch_size": 100})
    said = torch.zeros(len(scored))
    with torch.no_grad():
        for rows, where, batch in scoring_batches(scored, config):
            said[where] = model(batch).value[rows]
    assert ((said - found[0]).abs() > 1e-6).any()


def test_a_batch_is_what_collate_makes(utterances: list[Utterance]) -> None:
    _, _, batch = next(iter(scoring_batches(utterances, config_of(optim={"batch_size": 100}))))
    assert isinstance(batch, GraphBatch)
    assert sorted(batch.ids) == sorted(u.id for u in utterances)
    assert len(batch) == sum(CLIPS.values())


# --- the former name --------------------------------------------------------------------------------------------------


def test_runs_of_the_former_scope_video_are_still_read(write_mmsa, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(report, "draw_run", lambda *_: None)
    groups = {"graph": {"scope": "dialogue", "context": 1}, "protocol": {"name": "supervised"}, "run": {"seeds": [1]}}
    config = small(write_mmsa, **groups)
    run = gmsa.fit(config, out=tmp_path / "run")
    expected = run.predict(config.data.path).values
    file, weights = run.weights_file(1), run.weights(1)
    settings = yaml.safe_load((run.folder / "config.yaml").read_text())
    settings["graph"]["scope"] = "video"
    for name in ("past", "future", "between", "distances", "speakers", "dialogue_node", "weights"):
        del settings["graph"][name]
    (run.folder / "config.yaml").write_text(yaml.safe_dump(settings))
    trained = {k: v for k, v in trained_settings(run.config, 1).items() if not k.startswith("graph.")}
    save_weights(file, weights, trained | {"graph.scope": "video", "graph.context": 1})
    former = Run(run.folder)
    assert former.config.graph == run.config.graph
    np.testing.assert_array_equal(former.predict(config.data.path).values, expected)
    save_weights(file, weights, trained | {"graph.scope": "utterance"})
    with pytest.raises(RunError, match=r"graph.scope was 'utterance', is 'dialogue'"):
        Run(run.folder).predict(config.data.path)
