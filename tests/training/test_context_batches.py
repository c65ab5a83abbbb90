"""Batches of dialogues: whole ones, the same ones everywhere, and what context dropout drops of their graphs."""

from __future__ import annotations

import itertools
import pickle
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

import pytest
import torch
from helpers.graphs import collate
from helpers.sslmm import DIMS, config_of
from torch import Tensor

from gmsa.config import MODALITIES, Config, from_dict
from gmsa.data import Target, Utterance
from gmsa.graph import READOUTS, GraphBatch
from gmsa.models import build_model
from gmsa.nn.layers.size_groups import SizeGroups
from gmsa.rng import hashed_uniform, seeds_for
from gmsa.training import prefetch as prefetching
from gmsa.training.batches import SampleGroups, Shard, scoring_batches, training_batches
from gmsa.training.examples import Targets, labeled_examples
from gmsa.training.loader import load_batches
from gmsa.training.pretraining_batches import pretraining_batches
from gmsa.training.scoring import predict_utterances
from gmsa.training.tasks import FineTuning

SCOPES = ("dialogue", "hierarchical")
SIZES = {"a": 5, "b": 1, "c": 12, "d": 3, "e": 7, "f": 2}
LENGTHS = [(5, 9, 3), (1, 0, 4), (7, 17, 2), (3, 5, 2), (0, 1, 3), (3, 30, 1)]


@pytest.fixture
def clips(make_utterance) -> list[Utterance]:
    """Clips of six dialogues in no order; some lack modalities."""
    names = [f"{video}$_${clip}" for video, count in SIZES.items() for clip in range(count)]
    found = [make_utterance(name, LENGTHS[i % 6], i / 10 - 1) for i, name in enumerate(names)]
    order = torch.randperm(len(found), generator=torch.Generator().manual_seed(4)).tolist()
    return [found[i] for i in order]


def graph_of(batch: GraphBatch) -> GraphBatch:
    """The graphs of the batch's dialogues."""
    return batch if batch.dialogues is None else batch.dialogues


def named_edges(batch: GraphBatch, stream: str) -> set[tuple[str, ...]]:
    """Edges of dialogues as (source type, source utterance, target type, target utterance)."""
    graph = graph_of(batch)
    types = graph.schema.node_types
    order = [batch.ids[i] for i in graph.utterance_order.argsort().tolist()]
    per_type: dict[int, Iterator[str]] = {number: iter(order) for number in range(len(types))}
    names: list[str] = []
    videos = list(dict.fromkeys(name.partition("$_$")[0] for name in order))
    per_type[types.index("dialogue")] = iter(videos if "dialogue" in types else [])
    for number in graph.node_type.tolist():
        names.append(next(per_type[number]))
    kinds = [types[number] for number in graph.node_type.tolist()]
    return {(kinds[s], names[s], kinds[t], names[t]) for s, t in graph.edge_index(stream).T.tolist()}


def dropping(scope: str, route: str, rate: float, **graph: Any) -> Config:
    settings = {"scope": scope, "context": "all", "dialogue_node": True, "context_dropout": rate} | graph
    return config_of("semi_iin", graph=settings, model={"route": route})


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("rate", [0.2, 0.6])
def test_both_routes_drop_the_same_neighbours(clips: list[Utterance], scope: str, rate: float) -> None:
    seeds = dict(zip((u.id for u in clips), seeds_for(1, "edges", each=(u.id for u in clips)), strict=True))
    expected = {
        (a.id, b.id)
        for a, b in itertools.permutations(clips, 2)
        if a.video == b.video
        and hashed_uniform(torch.tensor(seeds[b.id]), torch.tensor(seeds[a.id])) < rate  # b does not hear a
    }
    pairs = sum(n * (n - 1) for n in SIZES.values())
    assert len(expected) / pairs == pytest.approx(rate, abs=4 * (rate * (1 - rate) / pairs) ** 0.5)
    whole = collate(clips, dropping(scope, "edge", rate))
    for route in ("dense", "edge"):
        config = dropping(scope, route, rate)
        batch = collate(clips, config, seeds)
        for stream in ("intra", "inter"):
            every, left = named_edges(whole, stream), named_edges(batch, stream)
            joined = {*(MODALITIES if stream == "intra" else ()), *(READOUTS if scope == "hierarchical" else ())}
            assert left <= every
            # In every modality, and of every readout node, the same ones.
            assert every - left == {(kind, source, kind, target) for kind in joined for source, target in expected}
        if scope == "hierarchical":  # and of the propagation of predictions
            graph, hears = graph_of(batch), graph_of(whole)
            order = [batch.ids[i] for i in graph.utterance_order.argsort().tolist()]
            left, every = (
                {(order[s], order[t]) for s, t in found.utterance_edges.index.T.tolist() if s != t}
                for found in (graph, hears)
            )
            assert every - left == expected
            assert len(left) == pairs - len(expected)
        for video in SIZES:  # a function of the dialogue alone
            alone = [u for u in clips if u.video == video]
            some = {e for e in named_edges(batch, "intra") if video in (e[1][0], e[3][0])}
            assert named_edges(collate(alone[::-1], config, seeds), "intra") == some


@pytest.mark.parametrize("route", ["dense", "edge"])
def test_each_level_drops_by_its_own_setting(clips: list[Utterance], route: str) -> None:
    seeds = {u.id: i for i, u in enumerate(clips)}
    whole = collate(clips, dropping("hierarchical", route, 0.0))
    tokens = collate(clips, dropping("hierarchical", route, 0.0, edge_dropout=0.5), seeds)
    neighbours = collate(clips, dropping("hierarchical", route, 0.5), seeds)
    for batch, inside, outside in ((tokens, True, False), (neighbours, False, True)):
        assert (len(batch.edge_index("intra")[0]) < len(whole.edge_index("intra")[0])) == inside
        assert torch.equal(batch.edge_index("intra"), whole.edge_index("intra")) != inside
        assert (named_edges(batch, "intra") < named_edges(whole, "intra")) == outside
    assert named_edges(collate(clips, dropping("hierarchical", route, 0.5)), "intra") == named_edges(whole, "intra")
    # In utterance scope there is no neighbour to drop.
    one = [collate(clips, dropping("utterance", route, rate), seeds).edge_index("intra") for rate in (0.0, 0.9)]
    assert torch.equal(*one)


def test_neighbours_are_dropped_in_training_alone_and_anew_in_every_epoch(clips: list[Utterance]) -> None:
    config = config_of("sslmm", graph={"scope": "hierarchical", "context_dropout": 0.4})
    examples = labeled_examples(clips, Target())

    def epoch(number: int) -> list[Tensor]:
        return [graph_of(b).edge_index("intra") for b, _ in filter(None, training_batches(examples, config, 1, number))]

    whole = {len(b): graph_of(b).edge_index("intra").shape[1] for _, _, b in scoring_batches(clips, config)}
    one, again, other = epoch(1), epoch(1), epoch(2)
    assert all(map(torch.equal, one, again))
    assert sum(e.shape[1] for e in one) < 0.9 * sum(whole.values())
    assert {e.shape[1] for e in one} != {e.shape[1] for e in other}


# --- whole dialogues --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", SCOPES)
def test_a_dialogue_is_never_split(clips: list[Utterance], scope: str) -> None:
    config = config_of("sslmm", graph={"scope": scope}, optim={"batch_size": 8})
    examples, context = labeled_examples(clips[::3], Target()), clips
    seen: list[list[str]] = [
        list(b.ids) for b, _ in filter(None, training_batches(examples, config, 1, context=context))
    ]
    seen += [[str(name) for name in b.ids] for b in filter(None, pretraining_batches(clips, config, 1))]
    seen += [list(b.ids) for _, _, b in scoring_batches(clips, config)]
    for ids in seen:
        for video in {name[0] for name in ids}:
            assert sum(name[0] == video for name in ids) == SIZES[video]
    # Of about the asked number of utterances, and each once.
    groups = SampleGroups(examples, config, context)
    assert sum(len(ids) for ids in seen[: groups.per_epoch]) == sum(SIZES[v] for v in {u.video for u in clips[::3]})


def same(a: Any, b: Any) -> bool:
    """Whether two batches are equal in every tensor."""
    if isinstance(a, Tensor):
        return torch.equal(torch.nan_to_num(a, 7.5), torch.nan_to_num(b, 7.5)) and a.dtype == b.dtype
    if isinstance(a, Mapping):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(map(same, a, b))
    if hasattr(a, "__dataclass_fields__"):
        return all(same(getattr(a, f.name), getattr(b, f.name)) for f in fields(a) if f.init)
    return bool(a == b)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_the_same_with_workers_and_after_a_restart(clips: list[Utterance], workers: int) -> None:
    config = config_of(
        "sslmm",
        graph={"scope": "hierarchical", "edge_dropout": 0.2, "context_dropout": 0.3},
        model={"modality_dropout": {"text": 0.5}},
        optim={"batch_size": 8},
    )
    task = FineTuning(config, DIMS, labeled_examples(clips, Target()), clips, clips, torch.device("cpu"), True)
    whole = list(task.batches(1, "s", 1))
    assert len(whole) == task.per_epoch > 2
    assert all(pair is not None and pair[0].dialogues is not None for pair in whole)
    rest = list(load_batches(task, (1, "s", 1), Shard(1), workers, torch.device("cpu")))
    assert same(rest, whole[1:])


def test_processes_share_dialogues_not_utterances(clips: list[Utterance]) -> None:
    config = config_of("sslmm", graph={"scope": "hierarchical"}, optim={"batch_size": 12})
    examples = labeled_examples(clips, Target())
    whole = list(training_batches(examples, config, 1))
    shares = [list(training_batches(examples, config, 1, shard=Shard(rank=rank, world=2))) for rank in range(2)]
    for together, *parts in zip(whole, *shares, strict=True):
        assert together is not None
        ids = [list(part[0].ids) for part in parts if part is not None]
        assert sorted(itertools.chain(*ids)) == sorted(together[0].ids)
        assert not set.intersection(*({name[0] for name in part} for part in ids)) if len(ids) == 2 else True


def pair_of(clips: Sequence[Utterance]) -> tuple[GraphBatch, Targets]:
    config = config_of("sslmm", graph={"scope": "hierarchical", "dialogue_node": True}, optim={"batch_size": 99})
    (pair,) = training_batches(labeled_examples(clips, Target()), config, 1, full_view=True)
    assert pair is not None
    return pair


def tensors(value: Any) -> Iterator[Tensor]:
    """All tensors in a batch, but those of groups, which only a CPU reads."""
    if isinstance(value, SizeGroups):
        return
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from tensors(part)
    elif isinstance(value, tuple):
        for part in value:
            yield from tensors(part)
    elif hasattr(value, "__dataclass_fields__"):
        for f in fields(value):
            if f.init:
                yield from tensors(getattr(value, f.name))


def test_the_graphs_of_dialogues_travel_with_the_batch(clips: list[Utterance]) -> None:
    batch, targets = pair_of(clips)
    assert same(pickle.loads(pickle.dumps((batch, targets))), (batch, targets))
    for part in (batch, targets):
        assert {x.device.type for x in tensors(part.to("meta"))} == {"meta"}
        assert len([*tensors(part.to("meta"))]) == len([*tensors(part)])
    assert len([*tensors(batch)]) > 1.5 * len([*tensors(batch.dialogues)])
    # As for a GPU: all tensors are sent by one copy.
    flat = prefetching.Flat((batch, targets, "plain"))
    copy = flat.buffer.clone()
    moved = flat.on(copy)
    flat.buffer.zero_()
    assert same(moved, (batch, targets, "plain"))
    first, last = copy.data_ptr(), copy.data_ptr() + len(copy)
    assert all(first <= x.data_ptr() < last and not x.data_ptr() % 16 for x in tensors(moved) if x.numel())


# --- unlabeled utterances and splits ----------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", SCOPES)
def test_unlabeled_utterances_are_context_in_scoring(clips: list[Utterance], scope: str) -> None:
    """The answers are those of whole dialogues, of which some utterances are not asked for."""
    config = config_of("semi_iin", graph={"scope": scope}, optim={"batch_size": 8})
    torch.manual_seed(0)
    model, device = build_model(DIMS, config).eval(), torch.device("cpu")
    asked, others = clips[::2], clips[1::2]
    whole = predict_utterances(model, clips, config, device).value
    some = predict_utterances(model, asked, config, device, context=others).value
    assert whole is not None
    assert some is not None
    torch.testing.assert_close(torch.tensor(some), torch.tensor(whole[::2]), rtol=1e-4, atol=1e-5)
    alone = predict_utterances(model, asked, config, device).value
    assert alone is not None
    assert abs(alone - some).max() > 1e-4


@pytest.mark.parametrize("scope", SCOPES)
def test_edges_never_cross_a_split(clips: list[Utterance], scope: str) -> None:
    """Validation and test are batched by themselves, though their utterances are of the same dialogues."""
    config = config_of("sslmm", graph={"scope": scope, "context": "all"}, optim={"batch_size": 99})
    splits = {"train": clips[::3], "valid": clips[1::3], "test": clips[2::3]}
    of_split = {u.id: name for name, utterances in splits.items() for u in utterances}
    torch.manual_seed(0)
    model, met = build_model(DIMS, config), defaultdict(list)
    model.register_forward_pre_hook(lambda module, args: met[here].append(set(args[0].ids)))
    task = FineTuning(
        config, DIMS, labeled_examples(splits["train"], Target()), splits["train"], splits["valid"], torch.device("cpu")
    )
    here = "train"
    for batch in task.batches(1):
        task.loss(model, batch, None, 0.0)
    here = "valid"
    task.score(model)
    here = "test"
    predict_utterances(model, splits["test"], config, torch.device("cpu"))
    assert met.keys() == splits.keys()
    for name, batches in met.items():
        assert {of_split[i] for ids in batches for i in ids} == {name}


@pytest.mark.parametrize("setting", ["edge_dropout", "context_dropout"])
def test_edges_of_models_of_conversations_are_dropped_in_a_training_step(setting: str) -> None:
    settings = {"model": {"name": "cogmen"}, "graph": {"scope": "dialogue", "context": "all", setting: 0.5}}
    config = from_dict(settings)
    clips = [Utterance(f"v$_${i}", {m: torch.randn(3, 2) for m in MODALITIES}) for i in range(8)]
    seeds = {u.id: 7 + i for i, u in enumerate(clips)}
    whole, some, again = (collate(clips, config, given).utterance_edges for given in (None, seeds, seeds))
    pairs, kept = (set(map(tuple, found.index.T.tolist())) for found in (whole, some))
    assert len(pairs) == 64
    assert {(i, i) for i in range(8)} <= kept < pairs
    assert 10 < len(kept) < 60
    assert torch.equal(some.index, again.index)
    types = dict(zip(map(tuple, whole.index.T.tolist()), whole.edge_type.tolist(), strict=True))
    assert [types[pair] for pair in map(tuple, some.index.T.tolist())] == some.edge_type.tolist()
