"""``gmsa inspect --model`` and ``--attention``: what a model is made of, and what a trained one attends to."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.tiny_data import tiny_content, tiny_run, write_pickle
from matplotlib.backends.backend_agg import FigureCanvasAgg
from torch import nn

from gmsa import inspect
from gmsa.config import from_dict
from gmsa.figures import graph
from gmsa.figures import model as drawing
from gmsa.figures.graph import WeightedEdges, draw_weights
from gmsa.models import MODELS, Description, Embedding, Model, build_model, describe_model
from gmsa.models.views.stages import Stage
from gmsa.nn import Heads
from gmsa.runs import Run
from gmsa.runs import report as results
from gmsa.runs.pictures import attention as picture

DIMS = {"text": 6, "audio": 5}


def described(**groups: object) -> tuple[Description, Model]:
    config = from_dict({"data": {"modalities": ["text", "audio"]}, "model": {"channels": 16, "heads": 2}} | groups)
    return describe_model(DIMS, config), build_model(DIMS, config)


CONVERSATION = ["mmgcn", "dialogue_gcn", "cogmen", "gcnet"]
SCOPED = [
    *((name, scope) for name in CONVERSATION for scope in ("dialogue", "hierarchical")),
    *(
        (name, scope)
        for name in ("semi_iin", "sslmm", "hgt", "global", "late_fusion", "mtag")
        for scope in ("utterance", "dialogue", "hierarchical")
    ),
]


def stages(found: Description) -> list[Stage]:
    return [stage for row in found.stages for stage in row]


def stage_of(found: Description, name: str, level: str) -> Stage:
    (stage,) = [s for s in stages(found) if s.level == level and s.name == name]
    return stage


@pytest.mark.parametrize(("name", "scope"), SCOPED)
def test_the_stages_of_a_model_hold_all_its_parameters(name: str, scope: str) -> None:
    model = {"name": name, "channels": 16, "heads": 2, "sequence": "none" if scope == "utterance" else "transformer"}
    groups = {"graph": {"scope": scope}, "loss": {"unimodal_weight": 0.1}, "reconstruction": {"weight": 1.0}}
    found, built = described(model=model, **groups)
    assert found.parameters == sum(p.numel() for p in built.parameters())
    assert "Other parameters" not in [stage.name for stage in stages(found)]
    levels = [*dict.fromkeys(row[0].level for row in found.stages)]
    assert levels == ["utterance"] + ["dialogue"] * (scope != "utterance") + ["training"]
    assert [stage.name for stage in found.stages[0]] == ["audio", "text"]
    heads = [stage.level for stage in stages(found) if stage.name == "Heads"]
    assert heads == {"hierarchical": ["utterance", "dialogue"]}.get(scope, [scope])


def test_a_stream_names_its_layer_and_counts_the_relations_of_each_pair() -> None:
    model = {"channels": 16, "heads": 2, "layer": {"intra": "rgcn(bases=2)"}, "layers": 3, "shared_layers": False}
    found, _ = described(model=model, graph={"intra": "temporal"})
    intra, inter = (stage for stage in stages(found) if stage.grid)
    assert (intra.name, intra.layer, inter.layer) == ("intra: rgcn(bases=2)", "rgcn(bases=2)", "attention")
    assert intra.note == "3 layers, 14 relations"
    assert intra.grid.rows == intra.grid.columns == ("val", "cls", "audio", "text")
    assert intra.grid.counts["text", "text"] == 3  # past, present, future
    assert ("text", "audio") not in intra.grid.counts
    assert inter.grid.counts["text", "audio"] == inter.grid.counts["val", "audio"] == 1


def test_speakers_and_distances_make_relations() -> None:
    found, _ = described(graph={"scope": "hierarchical", "distances": 2, "speakers": "same_other"})
    counts = stage_of(found, "intra: attention", "dialogue").grid.counts
    assert counts["cls", "cls"] == counts["text", "text"] == 9  # no other speaker says the same utterance
    assert stage_of(found, "intra: attention", "utterance").grid.counts["text", "text"] == 1


@pytest.mark.parametrize(
    ("speakers", "types", "columns"),
    [("none", 1, ("any",)), ("same_other", 2, ("same", "other")), (["Ann", "Bo"], 9, ("Ann", "Bo", "others"))],
)
def test_layers_of_conversations_show_the_relations_that_they_have_weights_for(
    speakers: object, types: int, columns: tuple[str, ...]
) -> None:
    graph = {"scope": "dialogue", "speakers": speakers}
    for name in ("dialogue_gcn", "cogmen"):
        found, built = described(model={"name": name, "channels": 16, "heads": 2}, graph=graph)
        grid = stage_of(found, "utterance: RGCN", "dialogue").grid
        assert grid.columns == columns
        assert grid.relations == 2 * types == len(built.context.turn_relations)
    found, built = described(model={"name": "gcnet", "channels": 16, "heads": 2}, graph=graph)
    row = next(row for row in found.stages if row[0].layer == "RGCN")
    assert [stage.grid.relations for stage in row] == [3, types]
    assert row[0].grid.columns == ("past", "now", "future")
    assert [len(built.temporal.rgcn.weight), len(built.speaker.rgcn.weight)] == [3, types]


def test_weights_of_both_levels_count_once() -> None:
    found, _ = described(graph={"scope": "hierarchical"})
    first, second = (stage for stage in stages(found) if stage.name == "Heads")
    assert first.parameters > 0 == second.parameters
    assert second.note.endswith("the same weights as above")


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that describes no stages, and has a part of that name."""

    class Plain(Model):
        def __init__(self, dims: Mapping[str, int], *, channels: int = 8, scope: str = "utterance") -> None:
            super().__init__()
            self.embedding = Embedding(dims, channels, scope=scope)
            self.stages = nn.ModuleList([nn.GRU(channels, channels)])
            self.scale = nn.Parameter(torch.ones(3))
            self.heads = Heads(channels, 7)

    monkeypatch.setitem(MODELS._parts, "plain", Plain)


@pytest.mark.parametrize("scope", ["utterance", "dialogue"])
def test_a_model_that_describes_no_stages_is_its_parts(plain: None, scope: str) -> None:
    found, built = described(model={"name": "plain", "channels": 16}, graph={"scope": scope})
    names = [stage.name for stage in stages(found)]
    edges = ["intra: layers of its own", "inter: layers of its own"]
    assert names == ["audio", "text", "Nodes", *edges, "stages", "Heads", "Other parameters"]
    assert stages(found)[-1].note == "scale"
    assert found.parameters == sum(p.numel() for p in built.parameters())


@pytest.mark.parametrize(
    ("model", "graph", "names"),
    [
        ("gcnet(time_attention=true)", {"speakers": ["Rachel Green", "Bo", "Hannibal-Alexander the Great"]}, 3),
        ("semi_iin", {"distances": 32, "past": "all", "future": "all", "dialogue_node": True}, 8),
        ("mmgcn", {"speakers": "same_other"}, 3),
    ],
)
def test_nothing_in_the_picture_of_a_model_overlaps(
    model: str, graph: dict[str, object], names: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dims = {f"modality_of_a_long_name_{i}": 10 + i for i in range(names)}
    groups = {"model": {"name": model, "propagation": 0.1}, "graph": {"scope": "hierarchical"} | graph}
    found = describe_model(dims, from_dict({"data": {"modalities": [*dims]}} | groups))
    drawn = []
    monkeypatch.setattr(drawing, "image", lambda figure, *_, **__: drawn.append(figure) or b"")
    drawing.draw_model(tmp_path / "model.png", "A name " * 30, found.stages, {"dialogue": "Along the dialogue, " * 20})
    (figure,) = drawn
    pen = FigureCanvasAgg(figure).get_renderer()
    boxes = [text.get_window_extent(pen) for text in figure.axes[0].texts if text.get_text()]
    assert len(boxes) > 40
    for i, box in enumerate(boxes):
        assert box.x0 >= 0, i
        assert box.x1 <= figure.bbox.x1
        assert box.y0 >= 0
        assert box.y1 <= figure.bbox.y1
        for other in boxes[:i]:
            wide = min(box.x1, other.x1) - max(box.x0, other.x0)
            assert wide <= 1 or min(box.y1, other.y1) - max(box.y0, other.y0) <= 1


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inside")
    write_pickle(folder / "own.pkl", tiny_content())
    return folder


@pytest.mark.parametrize("scope", ["utterance", "hierarchical"])
def test_the_model_is_printed_and_drawn(tiny: Path, capsys: pytest.CaptureFixture[str], scope: str) -> None:
    arguments = ["--config", "mosi_graph", "--data", str(tiny / "own.pkl"), "--set", f"graph.scope={scope}"]
    inspect.main([*arguments, "--model", "--out", str(tiny / f"{scope}.svg")])
    printed = capsys.readouterr().out.splitlines()
    assert re.match(rf"semi_iin, [\d,]+ parameters, graph.scope {scope}", printed[0])
    assert printed[1] == "In each utterance"
    assert re.fullmatch(
        r"  intra: attention, 2 layers of the same weights, 15 relations \([\d,]+ parameters\)", printed[6]
    )
    along = "Along the dialogue: 2 utterances before, 2 after; edges by distance"
    assert (along in printed) == (scope == "hierarchical")
    assert (tiny / f"{scope}.svg").read_text().startswith("<?xml")


@pytest.mark.parametrize("layer", ["attention", "transformer"])
def test_attention_and_gate_are_those_of_the_run(
    tiny: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, layer: str
) -> None:
    monkeypatch.setattr(results, "draw_run", lambda *_: None)
    run = Run(tiny_run(tiny / layer, tiny / "own.pkl", model={"layer": layer, "channels": 16, "heads": 2}))
    name = "test0$_$1"
    capsys.readouterr()
    inspect.main(["--run", str(run.folder), "--attention", "--id", name, "--out", str(tiny / "attention.png")])
    printed = capsys.readouterr().out
    assert printed.startswith(f"{name} (test), attention of the last layer, mean over heads, seed 1\n")
    assert (tiny / "attention.png").stat().st_size > 5_000
    whole = run.attention(tiny / "own.pkl")
    gate = whole.gate[whole.ids.index(name)]
    assert f"share of the inter view {100 * gate[0]:.0f} % at val, {100 * gate[1]:.0f} % at cls" in printed
    weights = whole.of(name, "intra", "val")
    assert "intra, val attends to: " + ", ".join(f"{m} {100 * w.sum():.0f} %" for m, w in weights.items()) in printed
    for _, target, weight in whole.streams.values():
        sums = np.zeros((target.max() + 1, 2))
        np.add.at(sums, target, weight)
        np.testing.assert_allclose(sums[np.unique(target)], 1, atol=1e-5)


@pytest.fixture(scope="module")
def outer(tiny: Path) -> Run:
    """A run of both levels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(results, "draw_run", lambda *_: None)
        graph = {"scope": "hierarchical", "past": 1, "future": 0}
        return Run(tiny_run(tiny / "outer", tiny / "own.pkl", graph=graph, run={"seeds": [1]}))


def test_the_attention_of_a_dialogue_is_drawn_by_its_name_and_of_an_utterance_by_its_id(
    outer: Run, tiny: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[str, dict[str, int], dict[str, WeightedEdges]]] = []

    def draw(path: Path, title: str, counts: dict[str, int], streams: Any, *rest: Any, **more: Any) -> int:
        drawn.append((title, counts, streams))
        return draw_weights(path, title, counts, streams, *rest, **more)

    monkeypatch.setattr(picture, "draw_weights", draw)
    for name, file in (("test0", "dialogue.svg"), ("test0$_$1", "utterance.svg")):
        inspect.main(["--run", str(outer.folder), "--attention", "--id", name, "--out", str(tiny / file)])
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "test0 (test), dialogue of 4 utterances, attention of the last layer, mean over heads, seed 1"
    (title, counts, streams), (second, tokens, of_tokens) = drawn
    assert (title, second) == ("test0", "test0$_$1")
    assert counts == dict.fromkeys(("val", "cls", "audio", "text", "vision"), 4)
    whole = outer.attention(tiny / "own.pkl")
    prepared = {u.id: u for u in outer.prepare(tiny / "own.pkl")}
    assert tokens["text"] == prepared["test0$_$1"].lengths["text"]
    assert [*streams] == ["dialogue.intra", "dialogue.inter"]
    assert [*of_tokens] == ["intra", "inter"]
    for stream, edges in streams.items():
        assert (edges.sources <= edges.targets).all()  # nothing later is heard
        for i in range(4):
            expected = whole.of(f"test0$_${i}", stream, "utterance.val")
            chosen = (np.array(edges.target_types) == "val") & (edges.targets == i)
            for kind in ("val", "text"):
                mine = chosen & (np.array(edges.source_types) == kind)
                found = np.bincount(edges.sources[mine], edges.weights[mine])
                np.testing.assert_allclose(found, expected[f"utterance.{kind}"], atol=1e-5)
        val = [whole.of(f"test0$_${i}", stream, "utterance.val") for i in range(4)]
        own = 100 * np.mean([sum(w[i] for w in told.values() if len(w) > i) for i, told in enumerate(val)])
        line = next(x for x in printed if x.startswith(f"  {stream}, val attends to: "))
        assert line.endswith(f"; its own utterance {own:.0f} %, earlier ones {100 - own:.0f} %, later ones 0 %")
    gate = whole.gate[whole.ids.index("test0$_$1")]
    assert f"  gate: share of the inter view {100 * gate[0]:.0f} % at val, {100 * gate[1]:.0f} % at cls" in printed
    assert (tiny / "dialogue.svg").read_text().startswith("<?xml")


@pytest.mark.parametrize(("count", "named"), [(40, 40), (57, 40), (128, 40), (400, 40)])
def test_the_words_with_the_most_attention_are_named_and_do_not_overlap(
    count: int, named: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures: list[Any] = []
    monkeypatch.setattr(graph, "image", lambda figure, *_, **__: figures.append(figure) or b"")
    weights = np.random.default_rng(0).random(count)
    weights[0] = 2.0
    edges = WeightedEdges(["text"] * count, np.arange(count), ["val"] * count, np.zeros(count, np.int64), weights)
    words = [f"word{i}" for i in range(count)]
    left = draw_weights(tmp_path / "a.png", "u", {"text": count, "val": 1}, {"intra": edges}, words)
    assert left == count - named
    (axes,) = figures[0].axes
    shown = [text for text in axes.texts if text.get_text().startswith("word")]
    numbers = [int(text.get_text().removeprefix("word")) for text in shown]
    assert len(numbers) == named
    assert 0 in numbers
    if count <= 80:  # none is too close to another
        assert sorted(numbers) == sorted(np.argsort(-weights)[:named].tolist())
    (tick,) = (label.get_text() for label in axes.get_yticklabels())
    assert tick == (f"text ({count}, {named} named)" if left else f"text ({count})")
    pen = FigureCanvasAgg(figures[0]).get_renderer()
    figures[0].draw_without_rendering()
    starts = sorted(text.get_window_extent(pen).x0 for text in shown)
    height = 7 / 72 * figures[0].dpi  # of a line of text; rotated by 35 degrees it is wider
    assert min(np.diff(starts)) >= 0.75 * height / np.sin(np.radians(35))


def test_words_without_a_name_are_counted(
    tiny: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "draw_run", lambda *_: None)
    monkeypatch.setattr(graph, "MOST_WORDS", 1)
    content = tiny_content()
    lengths = [len(x) for x in content["test"]["text"]]
    content["test"]["raw_text"] = [" ".join("word" for _ in range(length)) for length in lengths]
    write_pickle(tiny / "words.pkl", content)
    folder = tiny_run(tiny / "words", tiny / "words.pkl", model={"channels": 16, "heads": 2}, run={"seeds": [1]})
    arguments = ["--id", "test0$_$1", "--out", str(tiny / "words.svg")]
    capsys.readouterr()
    inspect.main(["--run", str(folder), "--attention", *arguments])
    said = f"  text: the picture names 1 of {lengths[1]} nodes, chosen by their attention"
    assert said in capsys.readouterr().out.splitlines()
    inspect.main(["--config", "mosi_graph", "--data", str(tiny / "words.pkl"), *arguments])
    said = f"  text: the picture names none of {lengths[1]} nodes: their names would overlap"
    assert said in capsys.readouterr().out.splitlines()


def test_weights_that_are_no_softmax_are_named(
    tiny: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "draw_run", lambda *_: None)
    settings = {"model": {"name": "mmgcn"}, "graph": {"scope": "dialogue"}, "run": {"seeds": [1]}}
    folder = tiny_run(tiny / "angular", tiny / "own.pkl", **settings)
    inspect.main(["--run", str(folder), "--attention", "--id", "test0$_$1", "--out", str(tiny / "angular.png")])
    printed = capsys.readouterr().out
    assert "test0 (test), dialogue of 4 utterances" in printed  # of which the utterance has no graph of its own
    assert "  global: angular weights, divided by the root of the degrees of both ends; no softmax\n" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config", "synthetic"], "required: --id, or --model"),
        (["--config", "synthetic", "--model", "--id", "a"], "--model draws the model, not a graph"),
        (["--run", "a", "--model", "--id", "a"], "--model goes with --config"),
        (["--run", "a", "--run", "b", "--attention", "--id", "a"], "--attention draws that of one run"),
        (["--config", "synthetic", "--attention", "--id", "a"], "--attention draws that of one run"),
    ],
)
def test_what_does_not_go_together_is_said(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        inspect.main([*arguments, "--out", "x.png"])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
