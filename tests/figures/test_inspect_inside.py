"""``gmsa inspect --model`` and ``--attention``: what a model is made of, and what a trained one attends to."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.tiny_data import tiny_content, tiny_run, write_pickle

from gmsa import inspect
from gmsa.config import from_dict
from gmsa.figures.graph import WeightedEdges, draw_weights
from gmsa.models import build_model, describe_model
from gmsa.runs import Run
from gmsa.runs import report as results
from gmsa.runs.states import picture

DIMS = {"text": 6, "audio": 5}


def described(**groups: object) -> object:
    config = from_dict({"data": {"modalities": ["text", "audio"]}, "model": {"channels": 16, "heads": 2}} | groups)
    return describe_model(DIMS, config), build_model(DIMS, config)


@pytest.mark.parametrize("scope", ["utterance", "dialogue", "hierarchical"])
@pytest.mark.parametrize("name", ["semi_iin", "sslmm", "hgt", "global", "late_fusion"])
def test_the_parts_of_a_model_are_all_its_parameters(name: str, scope: str) -> None:
    model = {"name": name, "channels": 16, "heads": 2}
    found, built = described(model=model, graph={"scope": scope})
    assert found.parameters == sum(p.numel() for p in built.parameters())
    assert [*found.levels] == (["utterance", "dialogue"] if scope == "hierarchical" else [scope])


def test_a_stream_names_its_layer_and_counts_the_relations_of_each_pair() -> None:
    model = {"channels": 16, "heads": 2, "layer": {"intra": "rgcn(bases=2)"}, "layers": 3, "shared_layers": False}
    found, _ = described(model=model, graph={"intra": "temporal"})
    intra, inter = found.levels["utterance"]
    assert (intra.layer, intra.layers, intra.shared, inter.layer) == ("rgcn(bases=2)", 3, False, "attention")
    assert intra.node_types == ("val", "cls", "audio", "text")
    assert intra.relations["text", "text"] == 3  # past, present, future
    assert ("text", "audio") not in intra.relations
    assert inter.relations["text", "audio"] == inter.relations["val", "audio"] == 1


def test_speakers_and_distances_make_relations() -> None:
    graph = {"scope": "hierarchical", "distances": 2, "speakers": "same_other"}
    found, _ = described(graph=graph)
    intra, _ = found.levels["dialogue"]
    assert (
        intra.relations["cls", "cls"] == intra.relations["text", "text"] == 9
    )  # no other speaker says the same utterance
    assert found.levels["utterance"][0].relations["text", "text"] == 1


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
    title = "intra" if scope == "utterance" else "utterance, intra"
    assert f"  {title}: attention, 2 layers of the same weights, 15 relations" in printed
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

    def draw(path: Path, title: str, counts: dict[str, int], streams: Any, *rest: Any, **more: Any) -> None:
        drawn.append((title, counts, streams))
        draw_weights(path, title, counts, streams, *rest, **more)

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
