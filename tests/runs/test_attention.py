"""The attention of models: of what reads it in a run, against what the models compute."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.graphs import clip
from helpers.tiny_data import tiny_run
from torch import Tensor, nn

from gmsa.config import from_dict
from gmsa.errors import RunError
from gmsa.graph import GraphBatch, collate
from gmsa.models import build_model, graph_spec
from gmsa.nn import AttentionWeights
from gmsa.registry import LAYERS
from gmsa.runs import Run
from gmsa.runs import report as results
from gmsa.runs.inputs import read_inputs
from gmsa.runs.states.reading import recorded

DIMS = {"text": 4, "audio": 2, "vision": 3}
LENGTHS = [(3, 5, 2), (2, 0, 3), (1, 4, 0), (4, 6, 1), (2, 1, 1)]
"""Of text, audio and vision in the utterances of two dialogues; two lack a modality."""
DIALOGUE = {"scope": "dialogue", "past": 2, "future": 1, "speakers": "same_other"}
HIERARCHICAL = DIALOGUE | {"scope": "hierarchical"}
SIZES = [3, 2]


class Seen:
    """What a model computes for two dialogues, and the weights that are read from it."""

    def __init__(self, name: str, graph: dict[str, Any], layer: str = "attention", **inputs: str) -> None:
        """Keeps the first input of the modules that ``inputs`` names."""
        sizes = {"channels": 8, "heads": 2, "layers": 2, "encoders": {"others": [[3, 1]]}}
        config = from_dict({"model": sizes | {"name": name, "layer": layer}, "graph": graph})
        torch.manual_seed(0)
        self.model: Any = build_model(DIMS, config).eval().requires_grad_(False)
        for parameter in self.model.parameters():  # some start as zeros
            parameter.add_(0.2 * torch.randn_like(parameter))
        clips = [clip(f"{'ab'[i > 2]}$_${i}", DIMS, n, speaker="xyxyx"[i]) for i, n in enumerate(LENGTHS)]
        self.batch: GraphBatch = collate(clips, graph_spec(config))
        self.inputs: dict[str, Tensor] = {}
        hooks = []
        for name, path in inputs.items():
            module: nn.Module = self.model.get_submodule(path)
            hooks.append(
                module.register_forward_pre_hook(lambda _, args, name=name: self.inputs.update({name: args[0]}))
            )
        with recorded(self.model) as recorder:
            self.model(self.batch)
            for hook in hooks:
                hook.remove()
            self.found: dict[tuple[bool, str], AttentionWeights] = {
                (part.outside, name): weights
                for part, told in recorder.read(self.batch)
                for name, weights in told.items()
            }


def softmax(score: dict[tuple[int, int], float]) -> dict[tuple[int, int], float]:
    """Over the edges (source, target) to each target."""
    total: dict[int, float] = {}
    for (_, target), value in score.items():
        total[target] = total.get(target, 0) + math.exp(value)
    return {edge: math.exp(value) / total[edge[1]] for edge, value in score.items()}


def told(found: AttentionWeights, head: int = 0) -> dict[tuple[int, int], float]:
    pairs = zip(found.source.tolist(), found.target.tolist(), strict=True)
    weights = dict(zip(pairs, found.weight[:, head].tolist(), strict=True))
    assert len(weights) == len(found.source), "an edge is told twice"
    return weights


def all_pairs() -> list[tuple[int, int]]:
    """Source and target of all pairs of utterances of a dialogue."""
    return [(j, i) for group in (range(3), range(3, 5)) for i in group for j in group]


def within_reach() -> list[tuple[int, int]]:
    """Source and target of the edges between utterances, and of each to itself."""
    first, pairs = 0, []
    for size in SIZES:
        pairs += [(first + j, first + i) for i in range(size) for j in range(max(0, i - 2), min(size, i + 2))]
        first += size
    return pairs


@pytest.mark.parametrize("graph", [DIALOGUE, HIERARCHICAL], ids=["dialogue", "hierarchical"])
def test_dialogue_gcn_weighs_edges_by_its_softmax_and_then_all_of_the_dialogue(graph: dict[str, Any]) -> None:
    seen, outside = Seen("dialogue_gcn", graph, g="edge_weight", h="nodal"), graph["scope"] == "hierarchical"
    g, h, model = seen.inputs["g"], seen.inputs["h"], seen.model
    score = {(j, i): float(model.edge_weight(g[i]) @ g[j]) for j, i in within_reach()}
    assert told(seen.found[outside, "utterance"]) == pytest.approx(softmax(score), abs=1e-6)
    score = {(j, i): float(model.nodal.score(h[i]) @ h[j]) for j, i in all_pairs()}
    assert told(seen.found[outside, "nodal"]) == pytest.approx(softmax(score), abs=1e-6)


def test_cogmen_tells_the_weights_of_its_graph_transformer() -> None:
    seen = Seen("cogmen(graph_heads=2)", DIALOGUE, z="attention")
    z, conv = seen.inputs["z"], seen.model.attention
    for head in range(2):
        query, key = conv.lin_query(z).view(-1, 2, 8)[:, head], conv.lin_key(z).view(-1, 2, 8)[:, head]
        score = {(j, i): float(query[i] @ key[j]) / math.sqrt(8) for j, i in within_reach()}
        assert told(seen.found[False, "utterance"], head) == pytest.approx(softmax(score), abs=1e-6)


def test_gcnet_has_attention_with_time_attention_alone() -> None:
    assert not Seen("gcnet", DIALOGUE).found
    seen = Seen("gcnet(time_attention=true)", DIALOGUE, temporal="temporal.attention", speaker="speaker.attention")
    assert {name for _, name in seen.found} == {"temporal", "speaker"}
    for name in ("temporal", "speaker"):
        h, nodal = seen.inputs[name], getattr(seen.model, name).attention
        score = {(j, i): math.tanh(float(nodal.score(h[i]) @ h[j])) for j, i in all_pairs()}
        assert told(seen.found[False, name]) == pytest.approx(softmax(score), abs=1e-6)


def test_mmgcn_tells_angular_weights_and_that_they_are_no_softmax() -> None:
    seen = Seen("mmgcn(gamma=0.5)", DIALOGUE, x="enter")
    x, (source, target) = seen.inputs["x"], seen.batch.edge_index("global")
    dense = torch.zeros(len(x), len(x))
    for j, i in zip(source.tolist(), target.tolist(), strict=True):
        cosine = float(torch.cosine_similarity(x[i], x[j], dim=0))
        across = seen.batch.node_type[i] != seen.batch.node_type[j]
        dense[i, j] = (1 - math.acos(0.99999 * cosine) / math.pi) * (0.5 if across else 1)
    degree = dense.sum(1).rsqrt()
    dense = degree[:, None] * dense * degree
    found = seen.found[False, "global"]
    edges = zip(source.tolist(), target.tolist(), strict=True)
    assert told(found) == pytest.approx({(j, i): float(dense[i, j]) for j, i in edges}, abs=1e-5)
    assert found.meaning.endswith("no softmax")


@pytest.mark.parametrize("graph", [{}, DIALOGUE, HIERARCHICAL], ids=["utterance", "dialogue", "hierarchical"])
def test_hgt_has_one_softmax_over_both_streams(graph: dict[str, Any]) -> None:
    seen = Seen("hgt", graph)
    levels = [(False, seen.batch)]
    if seen.batch.dialogues is not None:
        levels.append((True, seen.batch.dialogues))
    for outside, batch in levels:
        sums = torch.zeros(len(batch.node_type), 2)
        for stream in ("intra", "inter"):
            found = seen.found[outside, stream]
            edges = {*zip(*batch.edge_index(stream).tolist(), strict=True)}
            assert {*zip(found.source.tolist(), found.target.tolist(), strict=True)} == edges
            assert "both streams" in found.meaning
            sums.index_add_(0, found.target, found.weight)
        heard = sums[:, 0] > 0
        assert heard.any()
        torch.testing.assert_close(sums[heard], torch.ones_like(sums[heard]))


def test_hgt_scores_an_edge_by_the_types_of_its_ends_and_its_kind() -> None:
    seen = Seen("hgt", DIALOGUE)
    model, batch = seen.model, seen.batch
    conv, keys = model.convs[-1], model.keys
    states: dict[str, Tensor] = {}
    conv.register_forward_pre_hook(lambda _, args: states.update(args[0]))
    model(batch)
    x = torch.zeros(len(batch.node_type), 8)
    for node_type in batch.schema.node_types:
        x[batch.node_index(node_type)] = states[keys[node_type]]
    score: dict[tuple[int, int, str], float] = {}
    names = batch.schema.node_types
    for stream in ("intra", "inter"):
        kinds = batch._edge_type(stream).tolist()
        for j, i, kind in zip(*batch.edge_index(stream).tolist(), kinds, strict=True):
            source, target = names[batch.node_type[j]], names[batch.node_type[i]]
            number = kind % model.kinds if source == target else ""
            relation = keys[source], f"{stream}{number}", keys[target]
            key, query = conv.kqv_lin.lins[keys[source]](x[j])[:4], conv.kqv_lin.lins[keys[target]](x[i])[8:12]
            mapped = key @ conv.k_rel.weight[conv.edge_types_map[relation]]
            score[j, i, stream] = float(mapped @ query * conv.p_rel["__".join(relation)][0, 0]) / 2
    total: dict[int, float] = {}
    for (_, i, _), value in score.items():
        total[i] = total.get(i, 0) + math.exp(value)
    for stream in ("intra", "inter"):
        expected = {(j, i): math.exp(v) / total[i] for (j, i, s), v in score.items() if s == stream}
        assert told(seen.found[False, stream]) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("graph", [{}, DIALOGUE, HIERARCHICAL], ids=["utterance", "dialogue", "hierarchical"])
def test_the_readout_nodes_of_the_transformer_see_what_the_model_lets_them_see(graph: dict[str, Any]) -> None:
    seen = Seen("global", graph)
    for (outside, name), found in seen.found.items():
        batch = seen.batch.dialogues if outside else seen.batch
        assert name == "global"
        assert batch is not None
        graph_of = torch.div(batch.padded_index, batch.shape[1], rounding_mode="floor")
        if outside or graph == DIALOGUE:
            edges = {*zip(*batch.edge_index("global").tolist(), strict=True)}
            edges |= {(v, v) for v in range(len(graph_of))}
        else:
            edges = {(s, t) for s in range(len(graph_of)) for t in range(len(graph_of)) if graph_of[s] == graph_of[t]}
        readouts = {*batch.readout_index.tolist()}
        assert {*told(found)} == {(s, t) for s, t in edges if t in readouts}
        sums = torch.zeros(len(graph_of), 2).index_add(0, found.target, found.weight)
        torch.testing.assert_close(sums[batch.readout_index], torch.ones(len(readouts), 2))


def test_the_model_mtag_tells_the_edges_that_its_layers_have_kept() -> None:
    seen = Seen("mtag(keep=0.5)", {"intra": "mtag", "inter": "mtag"})
    found = seen.found[False, "global"]
    layers, batch = seen.model.layers, seen.batch
    edges = batch.edges["global"]
    assert len(found.source) < edges.index.shape[1]
    assert found.meaning == "softmax over the edges to each node, of those that earlier layers kept"
    first = layers.layers[0].attention_weights(seen.model.embedding(batch), _renumbered(layers, edges))
    graph_of = torch.div(batch.padded_index, batch.shape[1], rounding_mode="floor")
    kept = set()
    for graph in range(len(LENGTHS)):
        at = (graph_of[first.target] == graph).nonzero().squeeze(1)
        best = at[first.weight[at].mean(1).argsort(descending=True, stable=True)][: math.ceil(len(at) / 2)]
        kept |= {*zip(first.source[best].tolist(), first.target[best].tolist(), strict=True)}
    assert {*told(found)} == kept
    sums = torch.zeros(len(graph_of), 2).index_add(0, found.target, found.weight)
    heard = found.target.unique()
    torch.testing.assert_close(sums[heard], torch.ones(len(heard), 2))


def _renumbered(layers: Any, edges: Any) -> Any:
    node_type = edges.node_type - layers.first_type
    return replace(edges, relation=layers.number[edges.relation], node_type=node_type, type_counts=None)


@pytest.mark.parametrize("layer", ["gatv2", "hgt", "mtag", "rgat", "transformer", "gps(local=gatv2)"])
@pytest.mark.parametrize("model", ["semi_iin", "sslmm"])
def test_layers_are_read_on_both_levels(model: str, layer: str) -> None:
    seen = Seen(model, HIERARCHICAL | {"dialogue_node": True}, layer)
    batch, found = seen.batch, seen.found
    names = {"intra", "inter"} | ({"intra.local", "inter.local"} if layer.startswith("gps") else set())
    assert {*found} == {(outside, name) for outside in (False, True) for name in names}
    for (outside, _), weights in found.items():
        graph = batch.dialogues if outside else batch
        assert graph is not None
        sums = torch.zeros(len(graph.node_type), 2).index_add(0, weights.target, weights.weight.float())
        heard = weights.target.unique()
        torch.testing.assert_close(sums[heard], torch.ones(len(heard), 2))
        assert {*heard.tolist()} >= {*graph.readout_index.tolist()} or model == "sslmm"


@pytest.fixture
def outer(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run of both levels."""
    monkeypatch.setattr(results, "draw_run", lambda *_: None)
    graph = {"scope": "hierarchical", "past": 1, "future": 1}
    return Run(tiny_run(tiny / "attention-outer", tiny / "own.pkl", graph=graph, run={"seeds": [1]}))


def test_nodes_of_both_levels_are_numbered_by_their_utterances(outer: Run, tiny: Path) -> None:
    found = outer.attention(tiny / "other.pkl")
    names = np.array(found.node_types)[found.node_type]
    assert found.node_types[5:] == tuple(f"utterance.{t}" for t in ("val", "cls", "audio", "text", "vision"))
    assert found.steps.tolist() == [0, 0, 8, 1, 1, 0, 0, 0, 0, 0]
    assert [*found.streams] == ["intra", "inter", "dialogue.intra", "dialogue.inter"]
    prepared = {u.id: u for u in outer.prepare(tiny / "other.pkl")}
    counts = np.bincount(found.node_utterance[names == "text"], minlength=48)
    assert counts.tolist() == [prepared[i].lengths["text"] for i in found.ids]
    clips = np.array([int(i.rsplit("$_$")[1]) for i in found.ids])
    videos = np.array([i.split("$_$")[0] for i in found.ids])
    for name in ("utterance.text", "utterance.val"):
        assert found.node_utterance[names == name].tolist() == [*range(48)]
        place = [int((clips[videos == v] < c).sum()) for v, c in zip(videos, clips, strict=True)]
        assert found.node_position[names == name].tolist() == place
    for stream, (source, target, weight) in found.streams.items():
        begin, end = found.node_utterance[source], found.node_utterance[target]
        assert {*names[target]} == ({"utterance.val", "utterance.cls"} if "." in stream else {"val", "cls"})
        assert (videos[begin] == videos[end]).all()
        assert {*(clips[begin] - clips[end]).tolist()} == ({-1, 0, 1} if "." in stream else {0})
        sums = np.zeros((len(names), 2))
        np.add.at(sums, target, weight)
        np.testing.assert_allclose(sums[np.unique(target)], 1, atol=1e-5)
    told = found.of("o-test0$_$1", "dialogue.intra", "utterance.val")
    assert set(told) == {"utterance.val", "utterance.audio", "utterance.text", "utterance.vision"}
    assert len(told["utterance.val"]) == 3  # the first three of the dialogue: before, itself, after
    assert sum(map(np.sum, told.values())) == pytest.approx(1, abs=1e-5)
    with pytest.raises(RunError, match="no nodes of type 'value'; those of"):
        found.of("o-test0$_$1", "dialogue.intra", "value")


def test_weights_do_not_depend_on_the_order_or_on_other_dialogues(outer: Run, tiny: Path) -> None:
    whole = outer.attention(tiny / "other.pkl")
    utterances = read_inputs(tiny / "other.pkl", outer.dims, outer.config).utterances
    chosen = [u for u in reversed(utterances) if u.video == "o-test1"]
    alone = outer.attention(chosen)
    assert alone.ids == [u.id for u in chosen]
    for name in alone.ids:
        for stream, target in (("inter", "cls"), ("dialogue.inter", "utterance.cls")):
            one, other = alone.of(name, stream, target), whole.of(name, stream, target)
            assert one.keys() == other.keys()
            for key in one:
                np.testing.assert_allclose(one[key], other[key], atol=1e-5)
    np.testing.assert_allclose(alone.gate, whole.gate[[whole.ids.index(i) for i in alone.ids]], atol=1e-5)


def test_weights_and_their_meanings_are_saved(outer: Run, tiny: Path, tmp_path: Path) -> None:
    found = outer.attention(tiny / "other.pkl")
    found.save(tmp_path / "a.npz")
    saved = np.load(tmp_path / "a.npz", allow_pickle=False)
    np.testing.assert_array_equal(saved["dialogue.intra_weight"], found.streams["dialogue.intra"].weight)
    assert str(saved["intra_meaning"]) == "softmax over the edges to each node"


def test_a_layer_of_a_plug_in_tells_its_own_weights_or_has_none(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Mean(nn.Module):
        route = "edge"

        def __init__(self, channels: int) -> None:
            super().__init__()
            self.map = nn.Linear(channels, channels)

        def forward(self, x, edges, receivers=None, source_log_weight=None):
            source, target = edges.index
            count = len(x) if receivers is None else len(receivers)
            weight = 1 / torch.bincount(target, minlength=count)[target]
            return torch.zeros(count, x.shape[1]).index_add(0, target, weight[:, None] * self.map(x[source]))

    class Telling(Mean):
        def attention_weights(self, x, edges, receivers=None, source_log_weight=None):
            share = 1 / torch.bincount(edges.index[1])[edges.index[1]]
            return AttentionWeights.along(edges, receivers, share[:, None], "mean")

    monkeypatch.setattr(results, "draw_run", lambda *_: None)
    for name, layer in (("silent_mean", Mean), ("telling_mean", Telling)):
        monkeypatch.setitem(LAYERS._parts, name, layer)
        run = Run(tiny_run(tiny / name, tiny / "own.pkl", model={"layer": name}, run={"seeds": [1]}))
        if layer is Mean:
            with pytest.raises(RunError, match="with the layer 'silent_mean' has no attention weights"):
                run.attention(tiny / "other.pkl")
        else:
            found = run.attention(tiny / "other.pkl")
            assert found.meanings == {"intra": "mean", "inter": "mean"}
            told = np.concatenate([*found.of("o-test0$_$1", "intra", "val").values()])
            np.testing.assert_allclose(told, 1 / len(told))
