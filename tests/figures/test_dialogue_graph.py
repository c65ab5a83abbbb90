"""The picture of a dialogue's graph: what is drawn, that it can be read, and that no name harms it."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.graphs import clip
from helpers.hostile_names import NAMES
from helpers.pictures import legend, no_overlap, texts
from matplotlib.collections import PathCollection, PolyCollection
from matplotlib.figure import Figure
from torch_geometric.data import HeteroData

from gmsa.config import from_dict
from gmsa.figures import dialogue_graph
from gmsa.figures.canvas import BLACK, fitted, text_width, wrapped
from gmsa.figures.dialogue_graph import FUTURE, INTER, JOINT, KINDS, PAST, READOUT, draw_dialogue_graph
from gmsa.graph import DIALOGUE, READOUTS, build_dialogue_graph
from gmsa.graph.view import to_networkx

DIMS = {"text": 3, "audio": 2, "vision": 2}


def dialogue(count: int, turns: Sequence[str] = ("",), name: str = "talk", **graph: Any) -> HeteroData:
    """The graph of a dialogue; every third utterance lacks audio, and the speakers take turns."""
    clips = [
        clip(f"{name}$_${i}", DIMS, (2, int(i % 3 != 1), 1), speaker=turns[i % len(turns)], of_video=name, place=i)
        for i in range(count)
    ]
    return build_dialogue_graph(clips, from_dict({"graph": {"scope": "dialogue"} | graph}).graph)


@pytest.fixture
def draw(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Figure]:
    """Draws a graph and returns the figure instead of writing it."""
    drawn: list[Figure] = []
    monkeypatch.setattr(dialogue_graph, "image", lambda figure, *_, **__: drawn.append(figure) or b"")

    def figure(data: HeteroData, **options: Any) -> Figure:
        draw_dialogue_graph(data, tmp_path / "a.png", **options)
        return drawn[-1]

    return figure


def curves(figure: Figure) -> list[tuple[str, bool, np.ndarray]]:
    """The edges: kind, whether it is dashed, the three points of its curve."""
    return [
        (str(found.get_label()), found.get_linestyle()[0][1] is not None, path.vertices)
        for found in figure.axes[0].collections
        if isinstance(found, PathCollection) and found.get_label() in KINDS
        for path in found.get_paths()
    ]


def heads(figure: Figure) -> int:
    return sum(len(c.get_paths()) for c in figure.axes[0].collections if isinstance(c, PolyCollection))


def expected(data: HeteroData) -> Counter[str]:
    """The oracle: the edges of the NetworkX view by kind, self-loops apart, both streams' common ones once."""
    found: set[tuple[str, Any, Any]] = set()
    for source, target in set(to_networkx(data).edges()):
        types = {source[0], target[0]}
        if source == target:
            continue
        kind = JOINT if DIALOGUE in types else READOUT if types & {*READOUTS} else INTER
        if len(types) == 1:
            kind = PAST if source[1] < target[1] else FUTURE
        found.add((kind, source, target))
    return Counter(kind for kind, *_ in found)


SETTINGS: dict[str, dict[str, Any]] = {
    "window": {"context": 2},
    "causal": {"past": 3, "future": 0, "dialogue_node": True},
    "whole": {"context": "all", "dialogue_node": True, "speakers": "same_other"},
    "speaker": {"context": 4, "between": "speaker"},
    "alone": {"context": 0},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_every_edge_is_drawn_with_its_head_and_counted(name: str, draw: Callable[..., Figure]) -> None:
    data = dialogue(7, ("Ann", "Bo"), **SETTINGS[name])
    figure = draw(data, by_speaker=True)
    wanted = expected(data)
    assert Counter(kind for kind, *_ in curves(figure)) == wanted
    assert heads(figure) == wanted.total()
    entries = [f"{kind} ({wanted[kind]:,})" for kind in KINDS if wanted[kind]]
    assert legend(figure) == [*entries, "same speaker", "other speaker", "missing modality"]
    assert "Each node of a modality is also joined with itself (21 self-loops, not drawn)." in texts(figure)


def test_the_past_is_above_its_row_and_the_future_below(draw: Callable[..., Figure]) -> None:
    found = curves(draw(dialogue(6, context=2)))
    for kind, _, (start, middle, end) in found:
        if kind in (PAST, FUTURE):
            assert (start[0] < end[0]) == (kind == PAST)
            assert (middle[1] > start[1]) == (kind == PAST)
    assert {kind for kind, *_ in found} == {PAST, FUTURE, INTER, READOUT}


def test_edges_between_speakers_are_dashed_where_the_graph_tells_them_apart(draw: Callable[..., Figure]) -> None:
    data = dialogue(6, ("Ann", "Bo"), context=2)
    dashed = Counter(dashed for kind, dashed, _ in curves(draw(data, by_speaker=True)) if kind in (PAST, FUTURE))
    relations = [data[m, "intra", m] for m in DIMS]
    assert dashed[True] == sum(int((~r.same_speaker).sum()) for r in relations) > 0
    assert dashed[False] == sum(int(r.same_speaker.sum()) - 6 for r in relations) > 0
    figure = draw(data)
    assert not any(dashed for _, dashed, _ in curves(figure))
    assert "other speaker" not in legend(figure)


def test_missing_modalities_are_hollow(draw: Callable[..., Figure]) -> None:
    figure = draw(dialogue(6))
    faces: Counter[str] = Counter()
    for found in figure.axes[0].collections:
        if isinstance(found, PathCollection) and found.get_label() not in KINDS and len(found.get_offsets()):
            white = found.get_facecolor()[0][:3].tolist() == [1, 1, 1]
            faces["hollow" if white else "filled"] += len(found.get_offsets())
    assert faces == {"hollow": 2, "filled": 3 * 6 - 2 + 2 * 6}
    assert "audio (2 missing)" in texts(figure)
    assert {"text", "vision", "val (readout)", "cls (readout)"} <= {*texts(figure)}


def test_one_relation_is_drawn_alone(draw: Callable[..., Figure]) -> None:
    found = curves(draw(dialogue(5, context=1), relation=("text", "inter", "audio")))
    assert Counter(kind for kind, *_ in found) == {INTER: 5}
    assert not curves(draw(dialogue(1), relation=("text", "intra", "text")))


def test_of_many_edges_those_into_some_utterances_are_drawn(
    draw: Callable[..., Figure], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dialogue_graph, "MOST_EDGES", 300)
    data = dialogue(24, context="all")
    figure = draw(data)
    found = curves(figure)
    assert 100 < len(found) <= 300
    ends = {round(curve[0][0], 6) for kind, _, curve in found if kind == INTER}  # in a column, start and end
    assert len(ends) == 24 // 8
    line = f"{len(found):,} of {expected(data).total():,} edges are drawn: those into utterances 1, 9, 17 and so on."
    assert line in texts(figure)
    figure = draw(dialogue(100, context=0))
    assert any("among the first 80 of 100 utterances" in text for text in texts(figure))


def test_speakers_are_a_band_with_a_letter_each(draw: Callable[..., Figure]) -> None:
    names = [f"speaker {i}" for i in range(10)]
    found = texts(draw(dialogue(20, names)))
    for letter in "ABCDEFGH":
        assert found.count(letter) == 2
    assert found.count("+") == 4
    assert "A: speaker 0 (2)" in found
    assert "+: 2 others (4)" in found
    assert not {"A", "speaker"} & {*texts(draw(dialogue(3)))}  # nobody is named
    assert "B: not named (1)" in texts(draw(dialogue(2, ("Ann", ""))))


@pytest.mark.parametrize("count", [1, 90])
def test_labels_do_not_overlap(count: int, draw: Callable[..., Figure]) -> None:
    names = [name for key, name in NAMES.items() if key != "empty"]
    long = "a very long name of a dialogue " * 9
    data = dialogue(count, names, long, context=1, dialogue_node=True, speakers="same_other")
    no_overlap(draw(data, by_speaker=True))


@pytest.mark.parametrize("name", ["html", "formula that fails"])
def test_hostile_names_do_no_harm(name: str, tmp_path: Path) -> None:
    data = dialogue(3, (NAMES[name], "$", "_x"), NAMES[name])
    for file in ("a.svg", "b.svg"):
        draw_dialogue_graph(data, tmp_path / file, by_speaker=True)
    text = (tmp_path / "a.svg").read_text(encoding="utf-8")
    assert text == (tmp_path / "b.svg").read_text(encoding="utf-8")
    assert "\x1b" not in text
    assert "<script" not in text
    ET.fromstring(text)


def test_a_png_is_the_same_each_time(tmp_path: Path) -> None:
    for file in ("a.png", "b.png"):
        draw_dialogue_graph(dialogue(4, ("Ann", "Bo")), tmp_path / file)
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_texts_fit_the_width_they_are_given() -> None:
    figure = Figure()
    for text in ("It was the best of times, it was the worst", "W" * 90, NAMES["CJK"] * 9, "ill" * 30, "fi ffi -- 'a'"):
        for line in wrapped(text, 1.2, 8, 3).split("\n"):
            drawn = figure.text(0, 0, line, fontsize=8, color=BLACK, parse_math=False)
            assert drawn.get_window_extent().width / figure.dpi <= 1.2 + 0.03, line
        assert wrapped(text, 1.2, 8, 3).count("\n") <= 2
    assert fitted("short", 5, 8) == "short"
    assert fitted("W" * 90, 1, 8).endswith("W…")
    assert text_width("", 8) == 0
    assert wrapped("", 1, 8, 3) == wrapped(" \n", 1, 8, 3) == ""
