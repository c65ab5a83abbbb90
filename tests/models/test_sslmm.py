"""SSLMM: layers against formulas, what may reach what by perturbation, losses against loops, protocols."""

from __future__ import annotations

import csv
import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.graphs import collate
from torch import Tensor

from gmsa.config import MODALITIES, Config, ReconstructionConfig, from_dict
from gmsa.config.missing import Missing
from gmsa.data import Utterance, apply_missing, from_mmsa, withhold_labels
from gmsa.errors import ConfigError, RunError
from gmsa.graph import NODE_TYPES, build, build_video, token_count
from gmsa.graph.view import to_networkx
from gmsa.models import MODELS, Model, Output, build_model, check
from gmsa.models.pretraining import PretrainingModel
from gmsa.nn import (
    AlternatingBlock,
    DenseEdges,
    Interaction,
    ModalityReadout,
    SparseEdges,
    Standardize,
    without_sources,
)
from gmsa.runs import report as results
from gmsa.runs.evaluate import evaluate
from gmsa.runs.predict import predict_file
from gmsa.runs.train import train
from gmsa.training.batches import training_batches
from gmsa.training.checkpoint import load_weights
from gmsa.training.examples import Example, Targets, labeled_examples
from gmsa.training.losses import consistency, loss, reconstruction
from gmsa.training.pretraining_batches import pretraining_batches
from gmsa.training.protocols import check_protocol
from gmsa.training.tasks import FineTuning, Pretraining

DIMS = {"text": 6, "audio": 4, "vision": 5}
LENGTHS = [(5, 9, 3), (5, 0, 0), (0, 9, 0), (0, 0, 3), (5, 9, 0), (0, 17, 3), (1, 0, 1), (0, 0, 0), (3, 1, 1)]
ORDERS = ("intra_first", "inter_first", "simultaneous")


def config_of(name: str = "sslmm", **groups: dict[str, Any]) -> Config:
    model = {"name": name, "channels": 16, "heads": 4} | groups.pop("model", {})
    return from_dict({"model": model, **groups})


def model_of(config: Config) -> Model:
    torch.manual_seed(0)
    return build_model(DIMS, config).double().eval()


@pytest.fixture
def utterances(make_utterance) -> list[Utterance]:
    """Three videos; every modality is missing somewhere, and once all of them."""
    found = [make_utterance(f"v{i // 3}$_${i % 3}", lengths, i / 3 - 1) for i, lengths in enumerate(LENGTHS)]
    return [replace(u, features={m: x.double() for m, x in u.features.items()}) for u in found]


# --- layers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("typed", [False, True])
def test_loudness_by_both_routes_is_the_formula(typed: bool) -> None:
    g = torch.Generator().manual_seed(1)
    sizes, heads, width = [4, 1, 6], 2, 3
    count = sum(sizes)
    graph_of = [i for i, n in enumerate(sizes) for _ in range(n)]
    joined = torch.rand(count, count, generator=g) < 0.5
    joined &= torch.tensor([[a == b for b in graph_of] for a in graph_of])
    joined[1] = False  # a node that hears nothing
    kind = torch.randint(0, 3, (count, count), generator=g)
    torch.manual_seed(0)
    layer = Interaction(heads * width, heads, edge_types=3 if typed else 0).double()
    if typed:
        torch.nn.init.normal_(layer.bias)
    x = torch.randn(count, heads * width, generator=g, dtype=torch.float64)
    source_log_weight = torch.randn(count, generator=g, dtype=torch.float64)

    place = torch.tensor([6 * i + n for i, size in enumerate(sizes) for n in range(size)])
    adjacency = torch.zeros(18, 18, dtype=torch.uint8)
    adjacency[place[:, None], place] = torch.where(joined, kind + 1, 0).to(torch.uint8)
    blocks = torch.stack([adjacency[6 * i : 6 * i + 6, 6 * i : 6 * i + 6] for i in range(3)])
    target, source = joined.nonzero(as_tuple=True)
    routes = {
        "dense": DenseEdges(blocks if typed else blocks > 0, place, place),
        "edge": SparseEdges(torch.stack([source, target]), kind[target, source] if typed else None),
    }

    def expected(x: Tensor, source_log_weight: Tensor) -> Tensor:
        query, (key, value) = layer.query(x), layer.key_value(x).chunk(2, dim=1)
        rows = []
        for t in range(count):
            parts = [torch.zeros(width, dtype=torch.float64)] * heads
            heard = joined[t].nonzero().flatten().tolist()
            for h in range(heads):
                cut = slice(h * width, (h + 1) * width)
                if heard:
                    scores = [query[t, cut] @ key[s, cut] / width**0.5 + source_log_weight[s] for s in heard]
                    if typed:
                        scores = [score + layer.bias[kind[t, s], h] for score, s in zip(scores, heard, strict=True)]
                    share = torch.softmax(torch.stack(scores), 0)
                    parts[h] = sum(a * value[s, cut] for a, s in zip(share, heard, strict=True))
            rows.append(torch.cat(parts))
        return layer.out(torch.stack(rows))

    def result(function: Any) -> list[Tensor]:
        inputs = x.clone().requires_grad_(), source_log_weight.clone().requires_grad_()
        out = function(*inputs)
        return [out, *torch.autograd.grad(out.sin().sum(), inputs)]

    wanted = result(expected)
    for edges in routes.values():
        for mine, theirs in zip(result(lambda a, b, e=edges: layer(a, e, source_log_weight=b)), wanted, strict=True):
            torch.testing.assert_close(mine, theirs)


def test_edges_without_some_sources() -> None:
    silent = torch.tensor([False, True, False, True])
    adjacency = torch.ones(2, 2, 2, dtype=torch.bool)
    dense = without_sources(DenseEdges(adjacency, torch.arange(4), torch.arange(4)), silent)
    assert dense.adjacency.tolist() == [[[True, False]] * 2] * 2
    index = torch.tensor([[0, 1, 2, 3], [0, 0, 2, 2]])
    sparse = without_sources(SparseEdges(index, torch.arange(4)), silent)
    assert sparse.index.tolist() == [[0, 2], [0, 2]]
    assert sparse.edge_type.tolist() == [0, 2]


@pytest.mark.parametrize("order", ORDERS)
def test_a_block_is_its_formula(order: str) -> None:
    torch.manual_seed(0)
    block = AlternatingBlock(8, 2, order=order).double().eval()
    h = torch.randn(5, 8, dtype=torch.float64)
    intra, inter = (SparseEdges(torch.tensor(e)) for e in ([[0, 1, 3], [1, 0, 4]], [[2, 4, 0], [0, 1, 2]]))

    def across(x: Tensor, seen: Tensor) -> Tensor:
        v = block.across(seen, inter)
        z = 1 / (1 + torch.exp(-(torch.cat([x, v], 1) @ block.gate.weight.T + block.gate.bias)))
        return F.layer_norm(x + z * v, (8,), block.norm.weight, block.norm.bias)

    if order == "inter_first":
        expected = block.within(across(h, h), intra)
    else:
        x = block.within(h, intra)
        expected = across(x, h if order == "simultaneous" else x)
    torch.testing.assert_close(block(h, intra, inter), expected)


def test_a_readout_sees_what_is_present_alone() -> None:
    torch.manual_seed(0)
    read = ModalityReadout(4).double()
    states = torch.randn(3, 3, 4, dtype=torch.float64, requires_grad=True)
    present = torch.tensor([[True, False, True], [False, False, False], [True, True, True]])
    out = read(states, present)
    for n in range(3):
        there = [m for m in range(3) if present[n, m]]
        scores = [read.score(states[n, m]) for m in there]
        share = torch.softmax(torch.cat(scores), 0) if there else []
        expected = sum((a * states[n, m] for a, m in zip(share, there, strict=True)), torch.zeros(4))
        torch.testing.assert_close(out[n], expected.double())
    (gradient,) = torch.autograd.grad(out.sum(), states)
    assert torch.isfinite(gradient).all()
    assert not gradient[~present].any()


def test_standardizing_equals_numpy() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(3, 2, (50, 4))
    x[:, 2] = 7
    layer = Standardize({"text": 4}).double()
    layer.fit({"text": torch.tensor(x.mean(0))}, {"text": torch.tensor(np.where(np.ptp(x, 0) > 0, x.std(0), 0))})
    found = layer(torch.tensor(x), "text").numpy()
    keep = [0, 1, 3]
    np.testing.assert_allclose(found[:, keep], ((x - x.mean(0)) / x.std(0).clip(1e-9))[:, keep], rtol=1e-5)
    assert not found[:, 2].any()


# --- the model -------------------------------------------------------------------------------------------------------

GRAPHS: list[dict[str, Any]] = [
    {},
    {"intra": "window(radius=1)", "inter": "aligned"},
    {"intra": "temporal"},
    {"scope": "video", "context": 1},
]


@pytest.mark.parametrize(
    ("graph", "missing"),
    [*((graph, "gated") for graph in GRAPHS), (GRAPHS[-1], "silent"), (GRAPHS[-1], "dropped")],
    ids=str,
)
@pytest.mark.parametrize("order", ORDERS)
def test_routes_agree_in_the_whole_model(utterances, graph: dict[str, Any], order: str, missing: str) -> None:
    found = []
    for route in ("dense", "edge"):
        config = config_of(graph=graph, model={"order": order, "missing_node": missing, "route": route})
        model = model_of(config)
        output = model(collate(utterances, config))
        (output.value.sin().sum() + output.logits.square().sum()).backward()
        found.append([output.value, output.logits, *(p.grad for p in model.parameters() if p.grad is not None)])
    assert len(found[0]) == len(found[1])
    for dense, edge in zip(*found, strict=True):
        torch.testing.assert_close(dense, edge)


def test_its_graph_has_no_readout_nodes(utterances) -> None:
    config = config_of()
    batch = collate(utterances, config)
    assert not (batch.node_type < 2).any()
    tokens = sum(-(-u.lengths[m] // config.model.strides[m]) for u in utterances for m in MODALITIES)
    assert len(batch.node_type) == tokens == len(batch.embedding_row)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("route", ["dense", "edge"])
def test_alternation_by_perturbation(make_utterance, order: str, route: str) -> None:
    """Half a block crosses edges of one kind alone, a whole one exactly one inter edge: against NetworkX."""
    graph = {"intra": "window(radius=1)", "inter": "aligned"}
    config = config_of(graph=graph, model={"order": order, "route": route, "audio_convs": [[3, 1]]})
    model, utterance = model_of(config), make_utterance("v$_$0", (6, 4, 5))
    batch = collate([utterance], config)
    (block,) = model.blocks
    intra, inter = (batch.edges[stream] for stream in ("intra", "inter"))
    view = to_networkx(build(utterance, config.graph, config.model.strides))
    names = [(NODE_TYPES[t], int(p)) for t, p in zip(batch.node_type, batch.position, strict=True)]

    def neighbours(start: set, stream: str) -> set:
        """Where messages of ``start`` arrive over one edge, and where they were."""
        reached = {b for a, b, data in view.edges(data=True) if data["stream"] == stream and a in start}
        return {node for node in start | reached if node[0] in MODALITIES}

    for i, name in enumerate(names):
        z0 = torch.randn(len(names), 16, generator=torch.Generator().manual_seed(i), dtype=torch.float64)
        moved = z0.clone()
        moved[i] += torch.arange(16)  # not by the same everywhere, which a LayerNorm takes out

        def changed(function: Any, z0: Tensor = z0, moved: Tensor = moved) -> set:
            apart = (function(z0) - function(moved)).abs().amax(1) > 1e-12
            return {names[j] for j in apart.nonzero().flatten().tolist()}

        assert changed(lambda h: block.intra(h, intra)) == neighbours({name}, "intra")
        assert changed(lambda h: block.inter(h, inter)) == neighbours({name}, "inter")
        within, across = neighbours({name}, "intra"), neighbours({name}, "inter")
        whole = {
            "intra_first": neighbours(within, "inter"),
            "inter_first": neighbours(across, "intra"),
            "simultaneous": within | across,
        }
        assert changed(lambda h: block(h, intra, inter)) == whole[order]


@pytest.mark.parametrize(
    ("missing", "layers", "sends"), [("gated", 1, False), ("gated", 2, True), ("silent", 2, False)]
)
@pytest.mark.parametrize("route", ["dense", "edge"])
def test_a_missing_node_sends_from_the_second_block_on(
    make_utterance, missing: str, layers: int, sends: bool, route: str
) -> None:
    config = config_of(graph={"scope": "video"}, model={"missing_node": missing, "layers": layers, "route": route})
    model = model_of(config)
    clips = [make_utterance(f"v$_${i}", lengths) for i, lengths in enumerate([(3, 5, 2), (4, 0, 2), (3, 6, 0)])]
    clips = [replace(u, features={m: x.double() for m, x in u.features.items()}) for u in clips]
    batch = collate(clips, config)
    before = model.nodes(model.embedding(batch), batch)
    with torch.no_grad():
        model.embedding.missing["audio"].add_(torch.arange(16))
    after = model.nodes(model.embedding(batch), batch)
    is_it = (batch.node_type == NODE_TYPES.index("audio")) & (batch.position == 1)
    moved = (before - after).abs().amax(1) > 1e-12
    assert moved[is_it].all()
    assert moved[~is_it].any() == sends


def test_a_missing_node_receives_from_the_first_block_on(make_utterance) -> None:
    config = config_of(graph={"scope": "video"}, model={"layers": 1})
    model = model_of(config)
    clips = [make_utterance("v$_$0", (3, 5, 2)), make_utterance("v$_$1", (4, 0, 2))]
    clips = [replace(u, features={m: x.double() for m, x in u.features.items()}) for u in clips]

    def audio_of_second() -> Tensor:
        return model(collate(clips, config)).states["audio"][1]

    before = audio_of_second()
    clips[0] = replace(clips[0], features=clips[0].features | {"audio": clips[0].features["audio"] + 1})
    assert (audio_of_second() - before).abs().max() > 1e-9  # over an intra edge
    middle = audio_of_second()
    clips[1] = replace(clips[1], features=clips[1].features | {"text": clips[1].features["text"] + 1})
    assert (audio_of_second() - middle).abs().max() > 1e-9  # over an inter edge


@pytest.mark.parametrize("streams", ["intra", "inter"])
def test_half_a_model(utterances, streams: str) -> None:
    config = config_of(model={"streams": streams})
    model = model_of(config)
    other = {"intra": "across", "inter": "within"}[streams]
    assert getattr(model.blocks[0], other) is None
    assert list(collate(utterances, config).edges) == [streams]
    assert torch.isfinite(model(collate(utterances, config)).value).all()


def test_blocks_are_tied_or_not() -> None:
    assert [len(model_of(config_of(model={"layers": 3, "shared_layers": s})).blocks) for s in (True, False)] == [1, 3]


# --- what is reconstructed, and what must not leak -------------------------------------------------------------------


@pytest.mark.parametrize("target", ["observed_only", "oracle"])
def test_hidden_targets_equal_a_loop(utterances, target: str) -> None:
    masked = apply_missing(utterances, Missing("eta", 0.5), MODALITIES, 3)
    whole = {u.id: u for u in utterances}
    config = config_of(reconstruction={"weight": 0.5, "target": target}, optim={"batch_size": 4})
    examples = [Example(u) for u in masked]
    pairs = 0
    for epoch in range(20):
        for batch, targets in training_batches(examples, config, 1, "s", epoch):
            for row, name in enumerate(batch.ids):
                full_view = next(u for u in masked if u.id == name)
                for m in MODALITIES:
                    shown = int(batch.lengths[m][batch.utterance_order[row]])
                    known = full_view if target == "observed_only" else whole[name]
                    expected = known.lengths[m] > 0 and shown == 0
                    rows, features = targets.hidden.get(m, (torch.tensor([]), None))
                    assert (row in rows.tolist()) == expected
                    if expected:
                        pairs += 1
                        there = features[rows.tolist().index(row)]
                        torch.testing.assert_close(there, whole[name].features[m].mean(0))
    assert pairs > 10


def test_reconstruction_equals_a_loop(utterances) -> None:
    config = config_of(reconstruction={"weight": 0.5})
    model = model_of(config)
    model.reconstruction.standardize.fit(
        {m: torch.full((d,), 0.5) for m, d in DIMS.items()}, {m: torch.full((d,), 2.0) for m, d in DIMS.items()}
    )
    output = model(collate(utterances, config))
    rng = torch.Generator().manual_seed(0)
    hidden = {
        "text": (torch.tensor([1, 4]), torch.randn(2, 6, generator=rng, dtype=torch.float64)),
        "vision": (torch.tensor([0]), torch.randn(1, 5, generator=rng, dtype=torch.float64)),
    }
    errors = []
    for m, (rows, features) in hidden.items():
        for row, x in zip(rows.tolist(), features, strict=True):
            both = torch.cat([output.features[row], model.reconstruction.token[m]])
            guess = model.reconstruction.out[m](model.reconstruction.mlp(both))
            errors.append(((guess.float() - (x - 0.5) / 2) ** 2).mean())
    torch.testing.assert_close(reconstruction(model, output, hidden), torch.stack(errors).mean())
    assert reconstruction(model, output, {}) == 0


def test_consistency_equals_a_loop() -> None:
    rng = torch.Generator().manual_seed(0)
    value, teacher_values = torch.randn(10, generator=rng), torch.randn(4, 10, generator=rng)
    variances = [float(np.var(teacher_values[:, i].numpy(), ddof=1)) for i in range(10)]
    limit = np.quantile(np.float32(variances), 0.7)
    terms = []
    for i in range(10):
        if variances[i] <= limit:
            apart = abs(float(value[i]) - float(teacher_values[:, i].mean()))
            terms.append(np.exp(-variances[i]) * (apart**2 / 2 if apart <= 1 else apart - 0.5))
    assert len(terms) == 7
    assert float(consistency(value, teacher_values, 0.7)) == pytest.approx(np.mean(terms), rel=1e-5)


def task_of(utterances: list[Utterance], config: Config) -> FineTuning:
    examples = [*labeled_examples(utterances[:5], "mosi"), *(Example(replace(u, label=None)) for u in utterances[5:])]
    return FineTuning(config, DIMS, examples, [], utterances, torch.device("cpu"), consistent=True)


def one_step(task: FineTuning) -> list[Tensor]:
    """Loss, output-determining gradients of one step."""
    torch.manual_seed(0)
    model, teacher = task.build(), task.build()
    torch.manual_seed(1)
    total = torch.zeros(())
    for batch in task.batches(1, "stage", 1):
        total = total + task.loss(model, batch, teacher, 0.5)
    total.backward()
    return [total.detach(), *(p.grad for p in model.parameters() if p.grad is not None)]


class Teacher(torch.nn.Module):
    """Says of an utterance its number of text steps, and notes what it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[bool, list[list[int]]]] = []

    def forward(self, batch: Any) -> Output:
        lengths = [batch.lengths[m].tolist() for m in MODALITIES]
        self.seen.append((self.training, lengths))
        value = batch.lengths["text"].double() + len(self.seen)
        return Output(value, torch.zeros(len(value), 7), None, value[:, None])


@pytest.mark.parametrize(("done", "risen"), [(0.0, 0.0), (0.1, 0.25), (0.4, 1.0), (0.9, 1.0)])
def test_the_loss_of_stage_two_is_its_formula(utterances, done: float, risen: float) -> None:
    config = config_of(
        reconstruction={"weight": 0.5},
        model={"modality_dropout": dict.fromkeys(MODALITIES, 0.6)},
        consistency={"weight": 3.0, "ramp": 0.4, "confident_share": 0.7, "passes": 3},
        optim={"batch_size": 16},
    )
    task = task_of(utterances, config)
    torch.manual_seed(0)
    model, teacher = task.build().double().eval(), Teacher().eval()
    (pair,) = task.batches(1, "stage", 1)
    assert pair is not None
    value = task.loss(model, pair, teacher, done).detach()
    batch, targets = pair

    by_id = {u.id: u for u in utterances}
    whole = [[by_id[name].lengths[m] for name in batch.ids] for m in MODALITIES]
    assert teacher.seen == [(True, whole)] * 3  # with dropout, as often as asked, and nothing dropped
    assert [batch.lengths[m].tolist() for m in MODALITIES] != whole
    output = model(batch)
    teacher_values = torch.tensor(whole[0]).double() + torch.arange(1, 4)[:, None]
    expected = loss(output, targets, 0.6, 0.2)
    expected = expected + risen * 3.0 * consistency(output.value, teacher_values, 0.7)
    expected = expected + 0.5 * reconstruction(model, output, targets.hidden)
    assert float(value) == pytest.approx(float(expected), rel=1e-6)
    assert targets.hidden
    assert float(consistency(output.value, teacher_values, 0.7)) > 0.1


@pytest.mark.parametrize("scope", ["utterance", "video"])
@pytest.mark.parametrize("name", ["sslmm", "semi_iin"])
@pytest.mark.parametrize("target", ["observed_only", "oracle"])
def test_features_of_a_missing_modality_change_nothing(make_utterance, scope: str, name: str, target: str) -> None:
    config = config_of(
        name,
        graph={"scope": scope},
        reconstruction={"weight": 0.5, "target": target},
        optim={"batch_size": 4},
    )
    whole = [make_utterance(f"v{i // 3}$_${i % 3}", (4, 6, 3), i / 3 - 1) for i in range(9)]
    masked = apply_missing(whole, Missing("eta", 0.5), MODALITIES, 3)
    others = [replace(u, withheld={m: torch.randn_like(x) * 100 for m, x in u.withheld.items()}) for u in masked]
    assert sum(len(u.withheld) for u in masked) > 5
    before, after = one_step(task_of(masked, config)), one_step(task_of(others, config))
    same = all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert same == (target == "observed_only")


@pytest.mark.parametrize("scope", ["utterance", "video"])
def test_what_is_hidden_in_the_file_reaches_no_stage(
    write_mmsa, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scope: str
) -> None:
    """From the file to the predictions: normalization, both stages and scoring."""
    monkeypatch.setattr(results, "draw", lambda *a: None)
    changed = []

    def change(content: dict[str, Any]) -> None:
        for split, utterances in from_mmsa(content, "x").items():
            hidden = apply_missing(utterances, Missing("eta", 0.5), MODALITIES, 0)
            for i, (before, after) in enumerate(zip(utterances, hidden, strict=True)):
                for m in MODALITIES:
                    if before.lengths[m] and not after.lengths[m]:
                        content[split][m][i][: before.lengths[m]] *= 7
                        content[split][m][i][: before.lengths[m]] += 3
                        changed.append(before.id)

    data = {"missing": "eta:0.5", "label_ratio": 0.5, "normalize": list(MODALITIES)}
    for path in (write_mmsa("a.pkl"), write_mmsa("b.pkl", change)):
        config = small(write_mmsa, graph={"scope": scope}, data={"path": str(path), **data})
        train(config, "tiny", tmp_path / path.stem)
    assert len(changed) > 50
    for file in ("pretrain.safetensors", "model.safetensors", "predictions.csv"):
        one, two = ((tmp_path / run / "seed-1" / file).read_bytes() for run in "ab")
        assert one == two, file


def of_the_same_videos(content: dict[str, Any]) -> None:
    """Renames the utterances of a file: each video has clips in all splits."""
    for number, columns in enumerate(content.values()):
        columns["id"] = [f"v{i // 4}$_${3 * i + number}" for i in range(len(columns["id"]))]


@pytest.mark.parametrize("scope", ["utterance", "video"])
def test_training_reaches_the_scores_of_the_other_splits_by_the_weights_alone(
    write_mmsa, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scope: str
) -> None:
    """The steps are too small to move a weight."""
    monkeypatch.setattr(results, "draw", lambda *a: None)

    def change(content: dict[str, Any]) -> None:
        of_the_same_videos(content)
        for modality in MODALITIES:
            content["train"][modality] = content["train"][modality] * 3

    for name, how in (("a", of_the_same_videos), ("b", change)):
        config = small(
            write_mmsa,
            data={"path": str(write_mmsa(f"{name}.pkl", how)), "normalize": []},
            graph={"scope": scope},
            optim={"lr": 1e-40},
            pretrain={"epochs": 0},
        )
        train(config, "tiny", tmp_path / name)
    rows = [(tmp_path / run / "seed-1" / "predictions.csv").read_text().splitlines() for run in "ab"]
    for split in ("valid", "test"):
        one, two = ([line for line in lines if line.startswith(split)] for lines in rows)
        assert one == two
        assert len(one) == 12
    assert rows[0] != rows[1]


@pytest.mark.parametrize("scope", ["utterance", "video"])
def test_labels_of_the_pool_change_nothing(
    write_mmsa, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scope: str
) -> None:
    """Nor does anything of the test split, though its clips are of the same videos: the weights are equal bytes."""
    monkeypatch.setattr(results, "draw", lambda *a: None)

    path = str(write_mmsa("shared.pkl", of_the_same_videos))
    config = small(write_mmsa, data={"label_ratio": 0.5, "label_seed": 1, "path": path}, graph={"scope": scope})

    def flip(content: dict[str, Any]) -> None:
        of_the_same_videos(content)
        labeled, _ = withhold_labels(from_mmsa(content, "x")["train"], 0.5, 1)
        kept = {u.id for u in labeled}
        columns = content["train"]
        for i, name in enumerate(columns["id"]):
            if name not in kept:  # in the same class, so that the same half keeps its labels
                columns["regression_labels"][i] *= 0.99
        for modality in MODALITIES:
            content["test"][modality] = content["test"][modality] * 3 + 1
        content["test"]["regression_labels"] = content["test"]["regression_labels"][::-1].copy()

    other = replace(config, data=replace(config.data, path=str(write_mmsa("other.pkl", flip))))
    train(config, "tiny", tmp_path / "one")
    train(other, "tiny", tmp_path / "two")
    weights = [(tmp_path / run / "seed-1" / "model.safetensors").read_bytes() for run in ("one", "two")]
    assert weights[0] == weights[1]
    rows = [(tmp_path / run / "seed-1" / "predictions.csv").read_text().splitlines() for run in ("one", "two")]
    valid = [[line for line in lines if line.startswith("valid")] for lines in rows]
    assert valid[0] == valid[1]
    assert rows[0] != rows[1]


# --- pre-training ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", ["utterance", "video"])
@pytest.mark.parametrize("share", [0.3, 0.5, 0.8])
def test_masks_take_their_share_and_leave_something(make_utterance, scope: str, share: float) -> None:
    config = config_of(graph={"scope": scope}, pretrain={"mask": share}, optim={"batch_size": 16})
    lengths = [(5, 9, 3), (5, 0, 0), (0, 17, 3), (1, 0, 1), (1, 0, 0), (3, 8, 1)] * 8
    utterances = [make_utterance(f"v{i // 4}$_${i}", n) for i, n in enumerate(lengths)]
    by_id = {u.id: u for u in utterances}
    seen = set()
    for batch in pretraining_batches(utterances, config, 1, "pretrain", 1):
        masked = {m: target.flags for m, target in batch.targets.items()}
        order = torch.argsort(batch.masked.utterance_order)
        starts = dict.fromkeys(MODALITIES, 0)
        for i in order.tolist():
            utterance = by_id[batch.ids[i]]
            seen.add(utterance.id)
            nodes, gone = 0, 0
            for m in batch.masked.features:
                count = 1 if scope == "video" else token_count(utterance.lengths[m], config.model.strides[m])
                flags = masked.get(m, torch.zeros(10_000, dtype=torch.bool))[starts[m] : starts[m] + count]
                starts[m] += count
                assert not (flags.any() and not utterance.lengths[m])
                nodes += count if utterance.lengths[m] else 0
                gone += int(flags.sum())
            assert gone == min(round(share * nodes), nodes - 1)
        for m, target in batch.targets.items():
            assert (batch.masked.node_type[target.nodes] == NODE_TYPES.index(m)).all()
            assert len(target.nodes) == target.flags.sum() == len(target.features)
    assert seen == by_id.keys()


@pytest.mark.parametrize("graph", [{}, {"intra": "knn(neighbors=1)"}, {"scope": "video"}], ids=str)
@pytest.mark.parametrize("name", sorted(MODELS))
def test_what_is_masked_does_not_leak(make_utterance, graph: dict[str, Any], name: str) -> None:
    """Other features in the place of the masked ones change the targets and nothing else."""
    scope = graph.get("scope", "utterance")
    config = config_of(name, graph=graph, optim={"batch_size": 64})
    utterances = [make_utterance(f"v{i // 3}$_${i % 3}", (4, 11, 3)) for i in range(6)]
    (before,) = pretraining_batches(utterances, config, 1)
    order = torch.argsort(before.masked.utterance_order).tolist()
    names = [before.ids[i] for i in order]
    changed = {u.id: dict(u.features) for u in utterances}
    for m, target in before.targets.items():
        start = 0
        for name_ in names:
            sequence = changed[name_][m].clone()
            stride = config.model.strides[m]
            count = 1 if scope == "video" else token_count(len(sequence), stride)
            for j in target.flags[start : start + count].nonzero().flatten().tolist():
                steps = slice(None) if scope == "video" else slice(j * stride, (j + 1) * stride)
                sequence[steps] += 5 * torch.arange(sequence.shape[1])
            changed[name_][m] = sequence
            start += count
    (after,) = pretraining_batches([replace(u, features=changed[u.id]) for u in utterances], config, 1)
    torch.manual_seed(0)
    module = PretrainingModel(build_model(DIMS, config), DIMS, config).eval()
    states = []
    for batch in (before, after):
        z0 = module.model.embedding(batch.masked, {m: (t.flags, module.token[m]) for m, t in batch.targets.items()})
        states.append(module.model.nodes(z0, batch.masked))
    assert torch.equal(*states)
    for m, target in before.targets.items():
        moved = target.features + 5 * torch.arange(target.features.shape[1])
        torch.testing.assert_close(after.targets[m].features, moved)


def test_pretraining_losses_equal_loops(make_utterance) -> None:
    config = config_of(optim={"batch_size": 64})
    utterances = [make_utterance(f"v$_${i}", (4, 11, 3)) for i in range(5)]
    (batch,) = pretraining_batches(utterances, config, 1)
    torch.manual_seed(0)
    module = PretrainingModel(build_model(DIMS, config), DIMS, config).eval()
    masked, contrast = module(batch)

    one, two = (module.project(module.model(view).features).detach().numpy() for view in batch.views)
    cosine = [[a @ b / np.linalg.norm(a) / np.linalg.norm(b) / 0.07 for b in two] for a in one]
    terms = []
    for i, j in itertools.product(range(5), range(2)):
        scores = [cosine[i][k] if j else cosine[k][i] for k in range(5)]
        terms.append(np.log(np.exp(np.float64(scores)).sum()) - scores[i])
    assert contrast.item() == pytest.approx(np.mean(terms), rel=1e-4)

    z0 = module.model.embedding(batch.masked, {m: (t.flags, module.token[m]) for m, t in batch.targets.items()})
    states = module.model.nodes(z0, batch.masked).clone()
    for target in batch.targets.values():
        states[target.nodes] = 0
    decoded = module.decoder(states, batch.masked.edges["global"])
    errors = []
    for m, target in batch.targets.items():
        for node, wanted in zip(target.nodes.tolist(), target.features.numpy(), strict=True):
            guess = module.out[m](decoded[node]).detach().numpy()
            errors.append((1 - guess @ wanted / np.linalg.norm(guess) / np.linalg.norm(wanted)) ** 2)
    assert masked.item() == pytest.approx(np.mean(errors), rel=1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"train": "fixed:v"},
            r"'data.missing.train' \(fixed:v\) hides every modality of 'data.modalities' \(text, audio",
        ),
        (
            {"valid": "fixed:v"},
            "pre-training is validated on features, but no utterance of 'valid' has any; change",
        ),
    ],
)
def test_nothing_left_to_learn_from(write_mmsa, tmp_path: Path, settings: dict[str, str], message: str) -> None:
    config = small(write_mmsa, data={"modalities": ["text", "audio"], "missing": settings})
    with pytest.raises(ConfigError, match=message):
        train(config, "tiny", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_steps_that_are_lost_anew_are_lost_in_pretraining_too(make_utterance) -> None:
    config = config_of(data={"missing": {"train": "frame_uniform"}}, pretrain={"epochs": 1}, optim={"batch_size": 64})
    utterances = [make_utterance(f"v$_${i}", (20, 20, 20)) for i in range(20)]
    task = Pretraining(config, DIMS, utterances, utterances, torch.device("cpu"))
    counts = [int(batch.masked.lengths["text"].sum()) for epoch in (1, 2) for batch in task.batches(1, epoch)]
    assert counts[0] != counts[1]
    assert all(100 < count < 300 for count in counts)


def test_views_are_random_subsets(make_utterance) -> None:
    config = config_of(optim={"batch_size": 300})
    utterances = [make_utterance(f"v$_${i}", (2, 4, 2)) for i in range(280)]
    (batch,) = pretraining_batches(utterances, config, 1)
    for view in batch.views:
        there = torch.stack([view.lengths[m] > 0 for m in MODALITIES], 1)
        subsets, counts = torch.unique(there, dim=0, return_counts=True)
        assert len(subsets) == 7
        assert not (~subsets).all(1).any()
        assert counts.min() > 20  # 40 expected of each
    assert not torch.equal(*(view.lengths["text"] for view in batch.views))


# --- protocols -------------------------------------------------------------------------------------------------------


def small(write_mmsa: Any, **groups: dict[str, Any]) -> Config:
    settings: dict[str, Any] = {
        "model": {"name": "sslmm", "channels": 16, "heads": 2},
        "optim": {"epochs": 1, "min_steps": 0, "batch_size": 8},
        "reconstruction": {"weight": 0.5},
        "protocol": {"name": "sslmm"},
        "self_training": {"k": 2},
        "consistency": {"passes": 2},
        "distillation": {"teachers": 2},
        "pretrain": {"epochs": 1},
        "run": {"seeds": [1], "device": "cpu"},
        "data": {},
        "graph": {},
    }
    settings = {name: settings[name] | groups.get(name, {}) for name in settings}
    settings["data"] = {"path": str(write_mmsa()), "name": "tiny"} | settings["data"]
    return from_dict(settings)


FEW = {
    ("global", "self_training", "utterance", 0.5),
    ("hgt", "sslmm", "video", 0.5),
    ("late_fusion", "distillation", "video", 0.0),
    ("semi_iin", "self_training", "video", 0.5),
    ("semi_iin", "sslmm", "utterance", 0.0),
    ("sslmm", "supervised", "utterance", 0.5),
    ("sslmm", "sslmm", "video", 0.0),
}
"""Every model, protocol and scope once at least; the others are slow together."""


@pytest.mark.parametrize(
    ("model", "protocol", "scope", "reconstruct"),
    [
        pytest.param(*case, marks=() if case in FEW else pytest.mark.slow)
        for case in itertools.product(
            sorted(MODELS),
            ("supervised", "self_training", "distillation", "sslmm"),
            ("utterance", "video"),
            (0.0, 0.5),
        )
    ],
)
def test_any_model_with_any_protocol(
    write_mmsa,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    model: str,
    protocol: str,
    scope: str,
    reconstruct: float,
) -> None:
    monkeypatch.setattr(results, "draw", lambda *a: None)
    config = small(
        write_mmsa,
        model={"name": model},
        protocol={"name": protocol},
        graph={"scope": scope},
        reconstruction={"weight": reconstruct},
        data={"label_ratio": 0.5, "missing": "eta:0.4"},
    )
    summary = train(config, "tiny", tmp_path / "run")
    assert np.isfinite(summary["valid"]["MAE"]["mean"])
    rows = list(csv.DictReader((tmp_path / "run" / "seed-1" / "predictions.csv").open()))
    assert all(bool(row["gate_val"]) == (model == "semi_iin") for row in rows)
    assert "pretrain" not in summary["stages"]
    assert summary["missing"]["test"]["protocol"] == "eta"


def test_a_pretrained_run_is_where_another_starts(write_mmsa, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "draw", lambda *a: None)
    folder = tmp_path / "pretrained"
    summary = train(small(write_mmsa, protocol={"name": "pretrain"}), "tiny", folder)
    assert summary["valid"].keys() == {"loss", "mask", "contrast"}
    assert not summary["test"]
    for use in (lambda: evaluate(folder), lambda: predict_file(folder, write_mmsa(), tmp_path / "out.csv")):
        with pytest.raises(RunError, match="pre-trained weights, which predict nothing; train from them with"):
            use()
    begun = small(write_mmsa, pretrain={"epochs": 0}, protocol={"init_from": str(folder)})
    apart = train(begun, "tiny", tmp_path / "apart")
    together = train(small(write_mmsa), "tiny", tmp_path / "together")
    weights = [(tmp_path / run / "seed-1" / "model.safetensors").read_bytes() for run in ("apart", "together")]
    assert weights[0] == weights[1]
    assert apart["valid"] == together["valid"]
    fresh = train(small(write_mmsa, pretrain={"epochs": 0}), "tiny", tmp_path / "fresh")
    assert fresh["valid"] != apart["valid"]


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the run is that several tests start from."""
    return tmp_path_factory.mktemp("shelf")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"model": {"channels": 32}},
            r"'protocol.init_from': '.*' was trained with model.channels 16, this run has 32",
        ),
        ({"graph": {"scope": "video"}}, r"was trained with graph.scope 'utterance', this run has 'video'; make them"),
        ({"data": {"modalities": ["text", "audio"]}}, r"was trained on features of other dimensions \('.*vision.*'"),
        ({"run": {"seeds": [1, 2]}}, "has no seed 2; add it there with gmsa.train --resume --seeds 2"),
        ({"protocol": {"init_from": "nowhere"}}, "'nowhere' is not a run folder"),
        ({"data": {"normalize": ["audio"]}}, r"was trained with data.normalize \[.*\], this run has \['audio'\]; make"),
        ({"data": {"clip": 3.0}}, r"was trained with data.clip .*, this run has 3.0; make them equal"),
        (
            {"data": {"missing": {"train": "eta:0.5"}}},
            r"on the same data with data.missing.train 'none', this run has 'eta:0.5', so its weights may know what",
        ),
        ({"data": {"missing": {"seed": 3}}}, r"on the same data with data.missing.seed 0, this run has 3, so its"),
    ],
)
def test_a_start_that_does_not_fit_is_refused_before_training(
    write_mmsa, tmp_path: Path, shelf: Path, change: dict[str, Any], message: str
) -> None:
    folder = shelf / "pretrained"
    if not folder.exists():
        train(small(write_mmsa, protocol={"name": "pretrain"}), "tiny", folder)
    groups = {"pretrain": {"epochs": 0}, "protocol": {"init_from": str(folder)}} | change
    with pytest.raises(RunError, match=message):
        train(small(write_mmsa, **groups), "tiny", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_weights_that_have_seen_labels_are_no_start(
    write_mmsa, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "draw", lambda *a: None)
    train(small(write_mmsa, protocol={"name": "supervised"}, pretrain={"epochs": 0}), "tiny", tmp_path / "before")
    config = small(write_mmsa, pretrain={"epochs": 0}, protocol={"init_from": str(tmp_path / "before")})
    with pytest.raises(RunError, match="run of the protocol 'supervised', whose weights have seen labels; name one of"):
        train(config, "tiny", tmp_path / "run")


def test_weights_of_other_data_may_have_seen_all_of_it(
    write_mmsa, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "draw", lambda *a: None)
    before = tmp_path / "before"
    train(small(write_mmsa, protocol={"name": "pretrain"}), "tiny", before)
    data = {"path": str(write_mmsa("other.pkl", prefix="other-")), "missing": "eta:0.5"}
    config = small(write_mmsa, data=data, pretrain={"epochs": 0}, protocol={"init_from": str(before)})
    summary = train(config, "tiny", tmp_path / "run")
    assert summary["init_from"] == str(before)
    assert f"- Starts from: {before}\n" in (tmp_path / "run" / "summary.md").read_text()


def test_validation_of_pretraining_is_not_masked_as_training_is(utterances) -> None:
    config = config_of(data={"missing": {"train": "frame_uniform"}}, optim={"batch_size": 16})
    steps = {
        learning: sum(
            int(sum(n.sum() for n in batch.masked.lengths.values()))
            for batch in pretraining_batches(utterances, config, "valid", learning=learning)
        )
        for learning in (True, False)
    }
    there = sum(sum(u.lengths.values()) for u in utterances)
    assert steps[False] == there > steps[True]
    seen = []
    task = Pretraining(config, DIMS, utterances, utterances, torch.device("cpu"))
    module = task.build().double()
    module.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    task.score(module)
    assert sum(int(sum(n.sum() for n in batch.masked.lengths.values())) for batch in seen) == there


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": {"name": "sslmm", "streams": "global"}}, "'model.streams' of sslmm must be both, intra or inter"),
        (
            {"protocol": {"name": "sslmm"}, "optim": {"ema": 0}},
            "has the moving average as its teacher; set 'optim.ema'",
        ),
        ({"protocol": {"name": "pretrain"}}, "needs 'pretrain.epochs' above 0, for example 20"),
        ({"protocol": {"init_from": "x"}, "pretrain": {"epochs": 2}}, "both say where to start; leave one out"),
        (
            {"reconstruction": {"weight": 1}, "model": {"modality_dropout": dict.fromkeys(DIMS, 0)}},
            "'reconstruction.weight' has nothing to reconstruct: hide modalities in training by",
        ),
        (
            {"reconstruction": {"weight": 1}, "data": {"modalities": ["text"]}},
            "'reconstruction.weight' has nothing to reconstruct",
        ),
        (
            {
                "reconstruction": {"weight": 1},
                "data": {"modalities": ["text", "audio"]},
                "model": {"modality_dropout": {"text": 0, "audio": 0, "vision": 0.5}},
            },
            "'reconstruction.weight' has nothing to reconstruct",
        ),
        (
            {"pretrain": {"epochs": 2}, "graph": {"scope": "video"}, "data": {"modalities": ["text"]}},
            "'pretrain.epochs' masks whole modalities in video graphs, of which 'data.modalities' has one; set it to 0",
        ),
        ({"pretrain": {"mask": 1.0}}, "'pretrain.mask' must be less than 1"),
        ({"model": {"order": "both"}}, "'model.order' must be one of intra_first, inter_first, simultaneous"),
    ],
)
def test_settings_that_do_not_fit(settings: dict[str, Any], message: str) -> None:
    def build_and_check() -> None:
        config = from_dict(settings)
        check(config)
        check_protocol(config)

    with pytest.raises(ConfigError, match=message):
        build_and_check()


def test_a_training_split_that_lacks_text_trains_with_both_stages(
    write_mmsa, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "draw", lambda *a: None)

    def change(content: dict[str, Any]) -> None:
        content["train"]["text"] *= 0
        content["train"]["text_lengths"] = [0] * len(content["train"]["id"])

    path = str(write_mmsa("mute.pkl", change))
    config = small(write_mmsa, data={"path": path, "missing": "eta:0.3"}, reconstruction={"target": "oracle"})
    summary = train(config, "tiny", tmp_path / "run")
    assert np.isfinite(summary["test"]["MAE"]["mean"])
    for stage in ("pretrain", "model"):
        weights = load_weights(tmp_path / "run" / "seed-1" / f"{stage}.safetensors")
        assert weights
        assert not [name for name in weights if "text" in name]


def test_a_split_that_lacks_text_reconstructs_none(real_data) -> None:
    """ICT-MMMO's training split here has no text: nothing of it is a target, and the model has no part for it."""
    from gmsa.runs.prepare import prepare

    settings = {"model": {"name": "sslmm"}, "data": {"path": str(real_data("mmmo.pkl")), "missing": "eta:0.3"}}
    config = from_dict(settings | {"reconstruction": {"weight": 0.5, "target": "oracle"}})
    prepared = prepare(config)
    dims = dict(prepared.corpus.dims)
    assert set(dims) == {"audio", "vision"}
    examples = labeled_examples(prepared.splits["train"], "mosi")[:64]
    task = FineTuning(config, dims, examples, [], prepared.splits["valid"], torch.device("cpu"), consistent=True)
    model = task.build()
    losses = [task.loss(model, batch, model, 1.0) for batch in itertools.islice(task.batches(1, "x", 1), 2)]
    assert all(torch.isfinite(x) for x in losses)
    assert set(model.reconstruction.out) == {"audio", "vision"}
    pretext = Pretraining(config, dims, [e.utterance for e in examples], prepared.splits["valid"], torch.device("cpu"))
    module = pretext.build()
    assert torch.isfinite(pretext.loss(module, next(iter(pretext.batches(1))), None, 0.0))


def test_the_graph_is_that_of_pyg_without_its_readout_nodes(utterances) -> None:
    config = config_of(graph={"scope": "video", "context": 1})
    batch = collate(utterances[:3], config)
    view = to_networkx(build_video(utterances[:3], config.graph))
    view.remove_nodes_from([node for node in view if node[0] not in MODALITIES])
    names = [(NODE_TYPES[t], int(p)) for t, p in zip(batch.node_type, batch.position, strict=True)]
    for stream in ("intra", "inter"):
        mine = sorted((names[a], names[b]) for a, b in batch.edge_index(stream).T.tolist())
        theirs = sorted((a, b) for a, b, data in view.edges(data=True) if data["stream"] == stream)
        assert mine == theirs
    assert isinstance(view, nx.MultiDiGraph)
    assert Output._fields[:3] == ("value", "logits", "gate")
    assert Targets._fields[:2] == ("value", "classes")
    assert ReconstructionConfig().target == "observed_only"
