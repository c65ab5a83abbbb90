"""The picture of a model: its stages from top to bottom, which layer passes messages along which relations, and where
its parameters are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from gmsa.figures.canvas import (
    BLACK,
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    RED,
    SKY,
    YELLOW,
    fitted,
    image,
    label,
    style,
    text_width,
    wrapped,
)
from gmsa.models.views.stages import Grid, Row, Stage
from gmsa.system.files import write_bytes

LAYERS = (BLUE, ORANGE, GREEN, PURPLE, RED, SKY, YELLOW, BLACK)
"""Colours of the layers, in the order in which they are met."""
GREY, PALE, LINE = "#8A93A0", "#F3F5F8", "#B6BDC7"

# All in inches; texts in points.
WIDTH, LEFT, RIGHT = 10.6, 0.3, 7.3
"""Width of the figure, and from where to where the stages stand; right of them are the bars of their parameters."""
BARS, LONGEST_BAR = 8.75, 1.0
GAP, PAD, CELL = 0.24, 0.1, 0.19
HEADING, BESIDE = 0.36, 0.15
"""Height of what stands above the stages of a level; space between stages side by side."""
NAME, NOTE, SMALL = 10.5, 9, 8
LINES = {NAME: 0.21, NOTE: 0.175, SMALL: 0.155}
"""Height of a line of text by its size."""
BAR = 0.22
"""Height of a bar with the space around it."""
MOST_BESIDE = 4
"""Stages side by side; of more, the others follow below."""
LEAST_TEXT = 1.5
"""Width that a text needs beside its grid; else the grid is below it."""


@dataclass
class _Box:
    """A stage with its texts in lines, and the place that it takes."""

    stage: Stage
    width: float
    name: list[str] = field(default_factory=list)
    note: list[str] = field(default_factory=list)
    grid: tuple[float, float] = (0.0, 0.0)
    below: bool = False
    """Whether the grid is below the text."""

    def __post_init__(self) -> None:
        room = self.width - 2 * PAD - 0.06
        if self.stage.grid is not None:
            self.grid = _grid_size(self.stage.grid)
            self.below = room - self.grid[0] < LEAST_TEXT
        if not self.below:
            room -= self.grid[0]
        name = self.stage.name if " " in self.stage.name else _shortened(self.stage.name, room, NAME)
        self.name = wrapped(name, room, NAME, 2).split("\n")
        self.note = [line for part in self.stage.note.split("\n") for line in wrapped(part, room, NOTE, 4).split("\n")]
        self.note = [line for line in self.note if line]

    @property
    def text(self) -> float:
        """Height of the texts."""
        return len(self.name) * LINES[NAME] + len(self.note) * LINES[NOTE]

    @property
    def height(self) -> float:
        """Height of the box."""
        inside = self.text + PAD + self.grid[1] if self.below else max(self.text, self.grid[1])
        return inside + 2 * PAD


def draw_model(path: str | Path, title: str, rows: Sequence[Row], headings: Mapping[str, str]) -> None:
    """Draws the stages of a model in boxes, row by row, with the relations of those that pass messages along edges.

    Args:
        path: the picture's file; SVG if it ends in ``.svg``, else PNG.
        rows: stages side by side, in their order.
        headings: what stands above the stages of each level.
    """
    from matplotlib.figure import Figure  # here: only pictures need Matplotlib

    layers = dict.fromkeys(stage.layer for row in rows for stage in row if stage.layer)
    colors = {layer: LAYERS[i % len(LAYERS)] for i, layer in enumerate(layers)}
    blocks = [(level, [_boxes(row) for row in group]) for level, group in groupby(rows, lambda row: row[0].level)]
    heights = [HEADING + sum(_height(row) + GAP for row in of_level) - GAP + BESIDE for _, of_level in blocks]
    height = 0.5 + sum(tall + GAP for tall in heights)
    most = max([stage.parameters for row in rows for stage in row] + [1])
    with style():
        figure = Figure(figsize=(WIDTH, height))
        axis = figure.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(height, 0))
        axis.set_axis_off()
        total = sum(stage.parameters for row in rows for stage in row)
        _write(axis, LEFT, 0.28, _shortened(title, BARS - LEFT - 0.3, 13), 13)
        _write(axis, BARS, 0.28, f"{total:,} parameters", NAME)
        top = 0.5
        for (level, of_level), tall in zip(blocks, heights, strict=True):
            _rectangle(axis, LEFT - BESIDE, top, RIGHT - LEFT + 2 * BESIDE, tall, PALE, PALE)
            _write(
                axis, LEFT, top + 0.19, fitted(label(headings.get(level, level), 200), RIGHT - LEFT, NOTE), NOTE, GREY
            )
            if top > 0.5 and level != "training":
                _arrow(axis, (LEFT + RIGHT) / 2, top)
            y = top + HEADING
            for number, row in enumerate(of_level):
                if number:
                    _arrows(axis, of_level[number - 1], row, y)
                _draw_row(axis, row, y, colors, most)
                y += _height(row) + GAP
            top += tall + GAP
        write_bytes(path, image(figure, "svg" if Path(path).suffix.lower() == ".svg" else "png", dpi=140))


def _boxes(row: Row) -> list[list[_Box]]:
    """The boxes of a row, in lines of at most :data:`MOST_BESIDE`."""
    lines = [row[i : i + MOST_BESIDE] for i in range(0, len(row), MOST_BESIDE)]
    beside = len(lines[0])
    width = (RIGHT - LEFT - (beside - 1) * BESIDE) / beside
    return [[_Box(stage, width) for stage in line] for line in lines]


def _line_height(line: Sequence[_Box]) -> float:
    bars = BAR * sum(box.stage.parameters > 0 for box in line)
    return max([box.height for box in line] + [bars])


def _height(lines: Sequence[Sequence[_Box]]) -> float:
    return sum(_line_height(line) for line in lines) + 0.1 * (len(lines) - 1)


def _draw_row(axis: Any, lines: Sequence[Sequence[_Box]], y: float, colors: Mapping[str, str], most: int) -> None:
    for line in lines:
        height, x = _line_height(line), LEFT
        for box in line:
            _draw_box(axis, box, x, y, height, colors.get(box.stage.layer, ""))
            x += box.width + BESIDE
        _draw_bars(axis, line, y + height / 2, most)
        y += height + 0.1


def _arrows(axis: Any, above: Sequence[Sequence[_Box]], below: Sequence[Sequence[_Box]], y: float) -> None:
    """Arrows between two rows: one from or into each box of that with more of them."""
    x = LEFT
    for box in max(below[0], above[-1], key=len):
        _arrow(axis, x + box.width / 2, y)
        x += box.width + BESIDE


def _arrow(axis: Any, x: float, y: float) -> None:
    """An arrow across the gap above y."""
    look = {"arrowstyle": "-|>", "color": GREY, "linewidth": 1, "shrinkA": 0, "shrinkB": 0}
    axis.annotate("", (x, y - 0.01), (x, y - GAP + 0.01), arrowprops=look)


def _draw_box(axis: Any, box: _Box, x: float, y: float, height: float, color: str) -> None:
    _rectangle(axis, x, y, box.width, height, "white", color or LINE)
    if color:
        _rectangle(axis, x, y, 0.06, height, color, color)
    top = y + PAD if box.below else y + (height - box.text) / 2
    for size, lines, ink in ((NAME, box.name, color or BLACK), (NOTE, box.note, BLACK)):
        for line in lines:
            _write(axis, x + 0.06 + PAD, top + LINES[size] / 2, line, size, ink)
            top += LINES[size]
    if box.stage.grid is not None:
        wide, tall = box.grid
        place = (x + 0.06 + PAD, top + PAD) if box.below else (x + box.width - PAD - wide, y + (height - tall) / 2)
        _draw_grid(axis, box.stage.grid, *place, color or BLACK)


def _shortened(text: str, width: float, size: float) -> str:
    """A text in one line, cut in its middle where it is wider than ``width``."""
    most = len(text) + 1
    while text_width(found := label(text, most), size) > width and most > 4:
        most -= 1
    return found


def _names(names: Sequence[str]) -> list[str]:
    return [label(name, 12) if name else "" for name in names]


def _label_sizes(grid: Grid) -> tuple[float, float]:
    """Width of the names of rows, height of those of columns."""
    rows, columns = (
        max([text_width(name, SMALL) for name in _names(names)] + [0]) for names in (grid.rows, grid.columns)
    )
    return rows + 0.1 + LINES[SMALL] * bool(grid.axes[0]), columns + 0.1 + LINES[SMALL] * bool(grid.axes[1])


def _grid_size(grid: Grid) -> tuple[float, float]:
    """Width and height of a grid with its names."""
    rows, columns = _label_sizes(grid)
    least = max([text_width(name, SMALL) for name in grid.axes])
    return rows + max(CELL * len(grid.columns), least), columns + max(CELL * len(grid.rows), least)


def _draw_grid(axis: Any, grid: Grid, x: float, y: float, color: str) -> None:
    from matplotlib.colors import to_rgb

    rows, columns = _label_sizes(grid)
    left, bottom = x + rows, y + CELL * len(grid.rows)
    ink = "white" if sum(to_rgb(color)) < 1.7 else BLACK
    for i, row in enumerate(grid.rows):
        for k, column in enumerate(grid.columns):
            count = grid.counts.get((row, column), 0)
            place = left + CELL * k, y + CELL * i
            _rectangle(axis, *place, CELL, CELL, color if count else "white", "#D5D9DF", 0.6)
            if count > 1:
                size = 7 if count < 100 else 6
                _write(axis, place[0] + CELL / 2, place[1] + CELL / 2, str(count), size, ink, ha="center")
    for i, name in enumerate(_names(grid.rows)):
        _write(axis, left - 0.05, y + CELL * (i + 0.5), name, SMALL, ha="right")
    for k, name in enumerate(_names(grid.columns)):
        _write(axis, left + CELL * (k + 0.5), bottom + 0.05, name, SMALL, ha="center", va="top", rotation=90)
    middle = y + CELL * len(grid.rows) / 2
    _write(axis, x + LINES[SMALL] / 2, middle, grid.axes[0], SMALL, GREY, ha="center", rotation=90)
    below = bottom + columns - LINES[SMALL] / 2
    _write(axis, left + CELL * len(grid.columns) / 2, below, grid.axes[1], SMALL, GREY, ha="center")


def _draw_bars(axis: Any, line: Sequence[_Box], middle: float, most: int) -> None:
    """The parameters of the stages of a line, beside it."""
    stages = [box.stage for box in line if box.stage.parameters]
    y = middle - BAR * len(stages) / 2
    for stage in stages:
        if len(line) > 1:
            name = _shortened(stage.name, BARS - RIGHT - 0.3, SMALL)
            _write(axis, BARS - 0.07, y + BAR / 2, name, SMALL, ha="right")
        longest = min(LONGEST_BAR, WIDTH - BARS - 0.15 - text_width(f"{most:,}", NOTE))
        wide = longest * stage.parameters / most
        _rectangle(axis, BARS, y + 0.03, wide, BAR - 0.06, GREY, GREY)
        _write(axis, BARS + wide + 0.06, y + BAR / 2, f"{stage.parameters:,}", NOTE)
        y += BAR


def _write(axis: Any, x: float, y: float, text: str, size: float, color: str = BLACK, **options: Any) -> None:
    if text:
        axis.text(x, y, text, fontsize=size, color=color, **{"va": "center_baseline", **options})


def _rectangle(
    axis: Any, x: float, y: float, width: float, height: float, color: str, edge: str, line: float = 1.0
) -> None:
    from matplotlib.patches import Rectangle

    axis.add_patch(Rectangle((x, y), width, height, facecolor=color, edgecolor=edge, linewidth=line))
