"""The picture of a model: which layer passes messages along which relations, and where its parameters are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gmsa.figures.canvas import BLACK, BLUE, GREEN, ORANGE, PURPLE, RED, SKY, YELLOW, image, label, style
from gmsa.system.files import write_bytes

LAYERS = (BLUE, ORANGE, GREEN, PURPLE, RED, SKY, YELLOW, BLACK)
"""Colours of the layers, in the order in which they are met."""


class Panel(NamedTuple):
    """The relations along which the layers of a stream pass messages."""

    title: str
    layer: str
    note: str
    """What else there is to say of the layers."""
    node_types: Sequence[str]
    relations: Mapping[tuple[str, str], int]
    """How many relations join each pair of source and target type."""


def draw_model(path: str | Path, title: str, rows: Sequence[Sequence[Panel]], parameters: Mapping[str, int]) -> None:
    """Draws a panel per stream, whose squares are the relations by source and target, and the parameters by part.

    Args:
        path: the picture's file; SVG if it ends in ``.svg``, else PNG.
        rows: panels of one level each, such as of the graphs of utterances and of dialogues.
        parameters: of each part of the model, in their order.
    """
    from matplotlib.figure import Figure  # here: only pictures need Matplotlib

    rows = [row for row in rows if row]
    colors = dict(zip(dict.fromkeys(panel.layer for row in rows for panel in row), LAYERS, strict=False))
    most = max([len(panel.node_types) for row in rows for panel in row] + [4])
    side, columns = 0.42 * most + 1.9, max([len(row) for row in rows] + [0])
    with style():
        height = max(len(rows) * side, 0.32 * len(parameters)) + 0.6
        figure = Figure(figsize=(columns * side + 4.6, height), layout="constrained")
        grid = figure.add_gridspec(max(1, len(rows)), columns + 1, width_ratios=[*[side] * columns, 4.6])
        for i, row in enumerate(rows):
            for k, panel in enumerate(row):
                _draw_panel(figure.add_subplot(grid[i, k]), panel, colors.get(panel.layer, BLACK))
        _draw_parameters(figure.add_subplot(grid[:, columns]), parameters)
        figure.suptitle(label(title, 90), fontsize=13, parse_math=False)
        write_bytes(path, image(figure, "svg" if Path(path).suffix.lower() == ".svg" else "png", dpi=140))


def _draw_panel(axis: Any, panel: Panel, color: str) -> None:
    from matplotlib.colors import to_rgb

    count, place = len(panel.node_types), {name: i for i, name in enumerate(panel.node_types)}
    squares = np.ones((count, count, 3))
    for source, target in panel.relations:
        squares[place[source], place[target]] = to_rgb(color)
    axis.imshow(squares, aspect="equal")
    for (source, target), number in panel.relations.items():
        if number > 1:
            ink = "white" if sum(to_rgb(color)) < 1.7 else BLACK
            axis.text(place[target], place[source], str(number), ha="center", va="center", fontsize=8, color=ink)
    names = [label(name, 12) for name in panel.node_types]
    axis.set_xticks(range(count), labels=names, rotation=90, fontsize=9)
    axis.set_yticks(range(count), labels=names, fontsize=9)
    axis.set_xticks(np.arange(count + 1) - 0.5, minor=True)
    axis.set_yticks(np.arange(count + 1) - 0.5, minor=True)
    axis.grid(which="minor", color="#D5D9DF", linewidth=0.8)
    axis.tick_params(which="both", length=0)
    axis.spines[:].set_visible(False)
    axis.set_xlabel("to", fontsize=9)
    axis.set_ylabel("from", fontsize=9)
    axis.set_title(f"{panel.title}: {label(panel.layer, 28)}\n{panel.note}", fontsize=10, color=color)


def _draw_parameters(axis: Any, parameters: Mapping[str, int]) -> None:
    names, counts = [label(name, 20) for name in parameters], [*parameters.values()]
    axis.barh(range(len(counts)), counts, color="#8A93A0", height=0.6)
    for row, number in enumerate(counts):
        axis.text(number, row, f" {number:,}", va="center", fontsize=9)
    axis.set_yticks(range(len(counts)), labels=names, fontsize=9)
    axis.set_ylim(max(len(counts), 3) - 0.5, -0.5)
    axis.set_xlim(0, 1.45 * max([*counts, 1]))
    axis.set_xticks([])
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    axis.set_title(f"{sum(counts):,} parameters", fontsize=10)
