"""The palette, and what a figure leaves on the disk."""

from __future__ import annotations

import itertools
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from gmsa import figures
from gmsa.figures.canvas import COLOURS, LINES, MOST_MARKS, new_figure, write_figure


def luminance(colour: str) -> float:
    """Relative luminance Y of an sRGB colour, in [0, 1]."""
    parts = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def lightness(colour: str) -> float:
    """CIE L*, in [0, 100]."""
    y = luminance(colour)
    return 116 * y ** (1 / 3) - 16 if y > 0.008856 else 903.3 * y


def test_lightness_is_that_of_the_standard() -> None:
    assert [round(lightness(c), 1) for c in ("#000000", "#FFFFFF", "#777777", "#FF0000")] == [0, 100, 50.0, 53.2]


def test_colours_differ_in_lightness() -> None:
    for one, other in itertools.combinations(COLOURS, 2):
        assert abs(lightness(one) - lightness(other)) >= 7.9, (one, other)
    # Lines that stand beside each other most often differ the most.
    assert abs(lightness(LINES[0]) - lightness(LINES[1])) > 20


def test_lines_stand_out_from_white() -> None:
    assert set(LINES) < set(COLOURS)
    for colour in LINES:
        assert 1.05 / (luminance(colour) + 0.05) >= 3, colour


def test_a_figure_is_a_png_and_an_svg_of_the_same_bytes(tmp_path: Path) -> None:
    data = {"val": [0.2, 0.4, 0.9], "cls": [0.5, 0.5, 0.6]}
    for name in ("a", "b"):
        assert figures.figure_gate(data, tmp_path / f"{name}.png")
    for ending in ("png", "svg"):
        assert (tmp_path / f"a.{ending}").read_bytes() == (tmp_path / f"b.{ending}").read_bytes()
    root = ET.fromstring((tmp_path / "a.svg").read_bytes())
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert not list(root.iter("{http://www.w3.org/2000/svg}text"))  # no font is needed
    assert "<dc:date>" not in (tmp_path / "a.svg").read_text()


def test_a_figure_with_nothing_to_show_deletes_both(tmp_path: Path) -> None:
    for ending in ("png", "svg"):
        (tmp_path / f"gate.{ending}").write_bytes(b"of an earlier report")
    assert not figures.figure_gate({"val": [], "cls": []}, tmp_path / "gate.png")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("count", [MOST_MARKS, MOST_MARKS + 1])
def test_an_svg_of_many_marks_holds_a_picture(tmp_path: Path, count: int) -> None:
    values = np.random.default_rng(0).normal(size=count)
    assert figures.figure_scatter({"prediction": values, "truth": values}, tmp_path / "a.png")
    content = (tmp_path / "a.svg").read_text()
    assert ("data:image/png;base64" in content) == (count > MOST_MARKS)
    assert len(content) < 500_000


def test_both_have_the_same_layout(tmp_path: Path) -> None:
    figure, axes = new_figure(1, 1, 4.0, 3.0)
    axes[0][0].set_ylabel("a label")
    write_figure(figure, tmp_path / "a.png")
    first = axes[0][0].get_position().bounds
    figure.draw_without_rendering()
    assert axes[0][0].get_position().bounds == first
    assert first != (0.125, 0.11, 0.775, 0.77)  # Matplotlib's own, without a layout
