"""The picture of predictions along a dialogue: what is drawn, that it can be read, and that no name harms it."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.hostile_names import NAMES
from helpers.pictures import legend, no_overlap, texts
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from gmsa.figures import dialogue
from gmsa.figures.canvas import BLACK, BLUE, COLOURS, ORANGE
from gmsa.figures.dialogue import OTHERS, draw_dialogue, score

NAN = float("nan")
CLASSES = ("joy", "anger", "fear")


@pytest.fixture
def draw(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Figure]:
    """Draws predictions and returns the figure instead of writing it."""
    drawn: list[Figure] = []
    monkeypatch.setattr(dialogue, "image", lambda figure, *_, **__: drawn.append(figure) or b"")

    def figure(predictions: dict[str, Any], labels: Sequence[float], name: str = "talk", **options: Any) -> Figure:
        draw_dialogue(tmp_path / "a.png", name, predictions, labels, **options)
        return drawn[-1]

    return figure


def test_intensities_are_lines(draw: Callable[..., Figure]) -> None:
    labels, plain, context = [1.0, NAN, -1.0], [2.0, 1.0, NAN], [1.5, 0.0, -1.0]
    figure = draw({"alone": plain, "context": context}, labels, texts=("one", "two", "three"))
    assert legend(figure) == ["label", "alone (MAE 1.000)", "context (MAE 0.250)"]
    lines = [line for line in figure.axes[1].get_lines() if len(line.get_xdata()) == 3]
    for line, values in zip(lines, (labels, plain, context), strict=True):
        np.testing.assert_array_equal(np.asarray(line.get_ydata()), values)
    assert [line.get_color() for line in lines] == [BLACK, ORANGE, BLUE]
    assert {"1", "2", "3", "one", "two", "three"} <= {*texts(figure)}
    low, high = figure.axes[1].get_ylim()
    assert low < -3 < 3 < high  # the whole scale


def test_without_labels_runs_have_no_score(draw: Callable[..., Figure]) -> None:
    figure = draw({"alone": [0.2, 0.3]}, [NAN, NAN], scale=(-1.0, 1.0))
    assert legend(figure) == ["alone"]
    assert figure.axes[1].get_lines()[-1].get_color() == ORANGE


def cells(figure: Figure) -> list[list[str]]:
    """The colours of each strip's cells."""
    rows: dict[float, list[str]] = {}
    for patch in figure.axes[0].patches:
        if isinstance(patch, Rectangle) and patch.get_height() > 0.3:
            rows.setdefault(round(patch.get_y(), 4), []).append(to_hex(patch.get_facecolor()).upper())
    return [rows[y] for y in sorted(rows, reverse=True)]


def test_classes_are_strips(draw: Callable[..., Figure]) -> None:
    figure = draw({"alone": [1, NAN, 2]}, [1, 0, NAN], classes=CLASSES)
    joy, anger, fear = (COLOURS[i].upper() for i in range(3))
    assert cells(figure) == [[anger, joy, "#FFFFFF"], [anger, "#FFFFFF", fear]]
    assert legend(figure) == [*CLASSES]
    assert {"label", "alone (1 of 1 right)"} <= {*texts(figure)}
    assert texts(figure).count("anger") == 2


def test_of_many_classes_the_most_frequent_have_colours(draw: Callable[..., Figure]) -> None:
    labels = [0.0, 0.0, *range(1, 12)]
    figure = draw({"alone": labels}, labels, classes=[f"class {i}" for i in range(30)])
    strip = cells(figure)[0]
    assert strip.count(OTHERS) == 12 - len(COLOURS)
    assert legend(figure)[0] == "class 0"
    assert legend(figure)[-1] == "4 others"


def test_scores() -> None:
    assert score(np.array([1.0, 2.0]), np.array([1.5, NAN]), ()) == "MAE 0.500"
    assert score(np.array([1.0, 2.0, NAN]), np.array([1.0, 0.0, 2.0]), CLASSES) == "1 of 2 right"
    assert score(np.array([1.0]), np.array([NAN]), ()) == ""


def test_a_long_dialogue_is_cut_and_says_so(draw: Callable[..., Figure]) -> None:
    figure = draw({"alone": np.zeros(400)}, np.zeros(400), texts=["never shown"] * 400)
    assert "The first 150 of 400 utterances are shown." in texts(figure)
    assert "never shown" not in texts(figure)


@pytest.mark.parametrize("count", [12])
@pytest.mark.parametrize("classes", [(), tuple(NAMES.values())], ids=["intensity", "classes"])
def test_labels_do_not_overlap(count: int, classes: Sequence[str], draw: Callable[..., Figure]) -> None:
    said = [name * 3 for name in NAMES.values()]
    runs = {"long " * 30 + end: np.arange(count) % 3 for end in ("x", "xx", "$x^$")}
    figure = draw(
        runs, np.arange(count) % 2, "name " * 60, classes=classes, texts=said[:count] + [""] * (count - len(said)),
        speakers=[[*NAMES.values()][i % 11] for i in range(count)],
    )  # fmt: skip
    no_overlap(figure)
    if not classes:  # names that are cut to the same stay two runs
        assert len(legend(figure)) == 4


@pytest.mark.parametrize("name", ["html", "escape sequence"])
def test_hostile_names_do_no_harm(name: str, tmp_path: Path) -> None:
    hostile = NAMES[name]
    for file, classes in (("a.svg", ()), ("b.svg", ()), ("c.svg", (hostile, "b"))):
        draw_dialogue(
            tmp_path / file, hostile, {hostile: [0.0, 1.0]}, [1, 0], classes=classes, speakers=[hostile, "$"],
            texts=[hostile, "_"],
        )  # fmt: skip
        text = (tmp_path / file).read_text(encoding="utf-8")
        assert "\x1b" not in text
        assert "<script" not in text
        ET.fromstring(text)
    assert (tmp_path / "a.svg").read_text() == (tmp_path / "b.svg").read_text()
