"""The figure of quality against cost."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gmsa.figures.canvas import BLACK, BLUE, RED, label, new_figure, save, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.transforms import Bbox

COSTS = {"seconds": "seconds of training", "parameters": "parameters"}
"""Costs that are drawn, and their titles."""
WIDE = 10
"""How many times the least of the costs the most is, from which on their axis is logarithmic."""
NAME, SIZE = 28, 9
"""Characters of a name at a mark, and its size in points."""
RADII = (7, 13, 22, 34, 48, 64, 84, 108, 136)
"""Distances of a name from its mark, in points."""
NEAR, FAR = 13, 34
"""From further away than the first, a line leads from a name to its mark; before it goes beyond the second, it covers a
bar."""
ANGLES = (0, 180, 30, -30, 150, -150, 60, -60, 120, -120, 90, -90)
"""Directions from a mark to its name, the best first."""


@styled
def figure_costs(
    rows: Sequence[Mapping[str, Any]],
    path: str | Path,
    synthetic: bool = False,
    metric: str = "MAE",
    higher_is_better: bool = False,
    bars: str = "95 % intervals",
) -> bool:
    """Validation score of every variant over its seconds of training and, where they differ, its parameters.

    Names never cover each other or a mark; one that finds no room is left out.

    Args:
        rows: ``{"name", "reference": bool, "valid": {"mean", "below", "above"}, "seconds", "parameters"}``, best first;
            ``below`` and ``above`` say how far the bar reaches from the mean.
        bars: what the bars are.
    """
    if len(rows) < 2:
        return False
    costs = [cost for cost in COSTS if cost == "seconds" or len({row[cost] for row in rows}) > 1]
    height = min(12.0, 4.6 + 0.12 * max(0, len(rows) - 6))
    figure, axes = new_figure(1, len(costs), 1.5 + 5.5 * len(costs), height, sharey=True)
    for axis, cost in zip(axes[0], costs, strict=True):
        _marks(axis, rows, cost)
    better = "higher" if higher_is_better else "lower"
    axes[0][0].set_ylabel(f"validation {label(metric)} ({better} is better)")
    title = f"Quality against cost, {bars}"
    figure.suptitle(title + "\n" * (1 + synthetic), fontsize=13)  # its room belongs to the layout
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # what follows is placed where this layout has put the marks
    for axis, cost in zip(axes[0], costs, strict=True):
        _name(axis, rows, cost)
    return save(figure, path, title, synthetic)


def _marks(axis: Axes, rows: Sequence[Mapping[str, Any]], cost: str) -> None:
    from matplotlib.ticker import EngFormatter, LogLocator

    for row in rows:
        found, colour = row["valid"], RED if row["reference"] else BLUE
        axis.errorbar(
            row[cost], found["mean"], yerr=[[found["below"]], [found["above"]]], color=colour, ecolor=f"{colour}66",
            marker="D" if row["reference"] else "o", markersize=7, elinewidth=1.2, linestyle="none",
        )  # fmt: skip
    values = [row[cost] for row in rows]
    if min(values) > 0 and max(values) >= WIDE * min(values):
        axis.set_xscale("log")
        axis.xaxis.set_minor_locator(LogLocator(subs=(2, 5)))
        axis.xaxis.set_minor_formatter(EngFormatter(sep="") if max(values) < 100 * min(values) else "")
    else:
        axis.locator_params(axis="x", nbins=5)
    axis.xaxis.set_major_formatter(EngFormatter(sep=""))  # 20k, 1M
    axis.margins(x=0.2, y=0.12)
    axis.set_xlabel(COSTS[cost])


def _name(axis: Axes, rows: Sequence[Mapping[str, Any]], cost: str) -> None:
    """Names the marks: each at the nearest place that is free."""
    from matplotlib.patheffects import withStroke
    from matplotlib.text import Text
    from matplotlib.transforms import Bbox

    figure = axis.get_figure(root=True)
    assert figure is not None
    point = figure.dpi / 72
    room, ends = axis.get_window_extent(), axis.transData.transform
    taken, bars, marks = [], [], []
    for row in rows:
        found = row["valid"]
        (x, low), (_, mean), (_, high) = ends(
            [(row[cost], found["mean"] + by) for by in (-found["below"], 0, found["above"])]
        )
        marks.append((x, mean))
        taken.append(Bbox.from_extents(x - 5 * point, mean - 5 * point, x + 5 * point, mean + 5 * point))
        bars.append(Bbox.from_extents(x - point, min(low, high), x + point, max(low, high)))
    for row, mark in zip(rows, marks, strict=True):
        name = label(row["name"], NAME) + " (reference)" * row["reference"]
        text = axis.annotate(
            name, (row[cost], row["valid"]["mean"]), (0, 0), textcoords="offset points", fontsize=SIZE, color=BLACK,
            ha="center", va="center", arrowprops={"arrowstyle": "-", "color": "0.6", "linewidth": 0.6, "shrinkB": 4},
        )  # fmt: skip
        text.set_path_effects([withStroke(linewidth=2, foreground="white")])
        size = Text.get_window_extent(text)  # without the line
        places = [place for place in _places(mark, size, point) if _holds(room, place[0])]
        free = [place for place in places if not place[0].count_overlaps(taken)]
        clear = [place for place in free if place[2] <= FAR and not place[0].count_overlaps(bars)]
        if not free:
            text.remove()
            continue
        box, shift, far = (clear or free)[0]
        text.set_position(shift)
        if far <= NEAR and text.arrow_patch is not None:
            text.arrow_patch.set_visible(False)
        taken.append(box)


def _places(mark: tuple[float, float], size: Bbox, point: float) -> Iterator[tuple[Bbox, tuple[float, float], float]]:
    """Boxes for a name around a mark, the nearest first; how far each is shifted in points, and its distance."""
    from matplotlib.transforms import Bbox

    for radius in RADII:
        for angle in ANGLES:
            right, up = math.cos(math.radians(angle)), math.sin(math.radians(angle))
            # The nearest edge of the box, not its middle, is at this distance.
            x = right * radius * point + (abs(right) > 0.1) * math.copysign(size.width / 2, right)
            y = up * radius * point + (abs(up) > 0.1) * math.copysign(size.height / 2, up)
            box = Bbox.from_bounds(mark[0] + x - size.width / 2, mark[1] + y - size.height / 2, size.width, size.height)
            yield box, (x / point, y / point), radius


def _holds(room: Bbox, box: Bbox) -> bool:
    return bool(room.x0 <= box.x0 and box.x1 <= room.x1 and room.y0 <= box.y0 and box.y1 <= room.y1)
