"""The picture of what runs predict along a dialogue."""

# n utterances
from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gmsa.figures.canvas import (
    BLACK,
    BLUE,
    COLOURS,
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
from gmsa.figures.speakers import HEIGHT, draw_speakers, legend_lines
from gmsa.system.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Values = NDArray[Any]
Series = Sequence[tuple[str, Values]]
RUN_COLORS = (ORANGE, BLUE, GREEN, PURPLE, RED)
"""Colours of the runs in their order."""
MARKERS = ("s", "^", "D", "v", "P")
MOST_RUNS = len(RUN_COLORS)
MOST_UTTERANCES = 150
"""Utterances that a picture shows, at most: the first ones."""
MOST_TEXTS = 12
"""Of more utterances, the texts would not be legible."""
TEXT_LINES = 6
WIDEST = 16.0
"""Inches."""
OTHERS = "#B9BDC4"
"""Colour of the classes that have none of their own."""


def draw_dialogue(
    path: str | Path,
    name: str,
    predictions: Mapping[str, ArrayLike],
    labels: ArrayLike,
    scale: tuple[float, float] = (-3.0, 3.0),
    classes: Sequence[str] = (),
    speakers: Sequence[str] = (),
    texts: Sequence[str] = (),
) -> None:
    """Draws what runs predict along a dialogue: lines of intensities, or a strip of classes per run.

    Args:
        path: the picture's file; SVG if it ends in ``.svg``, else PNG.
        name: of the dialogue.
        predictions: by name of the run, intensities or numbers of classes ``[n]``; NaN where there is none. At most
            :data:`MOST_RUNS` runs.
        labels: likewise.
        scale: least and largest intensity.
        classes: names of the classes; none for an intensity.
        speakers: who speaks ``[n]``.
        texts: what is said ``[n]``, shown below the axis where there is room.
    """
    with style():
        truth = np.asarray(labels, dtype=np.float64)
        series = {run: np.asarray(values, dtype=np.float64) for run, values in predictions.items()}
        figure = _figure(name, series, truth, scale, classes, list(speakers), list(texts))
        write_bytes(path, image(figure, "svg" if Path(path).suffix.lower() == ".svg" else "png", dpi=140))


def score(prediction: Values, truth: Values, classes: Sequence[str]) -> str:
    """How good predictions are where the label is known: the MAE, or how many classes are right; else nothing."""
    known = ~np.isnan(truth) & ~np.isnan(prediction)
    if not known.any():
        return ""
    if classes:
        return f"{int((prediction == truth)[known].sum())} of {int(known.sum())} right"
    return f"MAE {np.abs(prediction - truth)[known].mean():.3f}"


def _figure(
    name: str,
    series: Mapping[str, Values],
    truth: Values,
    scale: tuple[float, float],
    classes: Sequence[str],
    speakers: list[str],
    texts: list[str],
) -> Any:
    from matplotlib.figure import Figure

    n = min(len(truth), MOST_UTTERANCES)
    shown = {run: values[:n] for run, values in series.items()}
    scores = {run: score(values, truth, classes) for run, values in series.items()}
    named = [(label(run, 24) + (f" ({scores[run]})" if scores[run] else ""), shown[run]) for run in shown]
    known = not np.isnan(truth[:n]).all()
    if known:
        named = [("label", truth[:n]), *named]
    names = [row for row, _ in named]
    left = 0.3 + max([text_width("utterance", 9), *(text_width(row, 10) for row in names if classes)])
    column = float(np.clip((WIDEST - left - 0.3) / n, 0.09, 1.3))
    width = max(9.0, left + n * column + 0.3)
    x = left + column * (np.arange(n) + 0.5)

    band = HEIGHT * (1 + len(legend_lines(speakers[:n], width - left))) if any(speakers[:n]) else 0.0
    lines = [wrapped(text, column - 0.12, 8, TEXT_LINES) for text in texts[:n]] if n <= MOST_TEXTS else []
    below = 0.1 + 0.145 * max((line.count("\n") + 1 for line in lines if line), default=0)
    bottom = 0.45 + band + below + (0.22 if n < len(truth) else 0.0)
    body = 0.4 * len(named) if classes else 3.4
    entries = _class_entries(named, classes) if classes else None
    texts_of = [e.get_label() for e in entries] if entries else names
    columns = max(1, min(len(texts_of), int((width - 0.3) / (max(map(_legend_width, texts_of), default=1)))))
    legend = 0.22 * -(-len(texts_of) // columns)
    height = bottom + body + legend + 0.62

    figure = Figure(figsize=(width, height))
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set(xlim=(0, width), ylim=(0, height))
    axis.axis("off")
    what = "predicted classes" if classes else "predicted sentiment"
    axis.text(
        0.15, height - 0.25, f"Dialogue {label(name, max(10, int((width - 3.5) / 0.13)))}: {what}", fontsize=13,
        va="center_baseline", color=BLACK,
    )  # fmt: skip
    if classes:
        _draw_strips(axis, named, classes, x, column, bottom + body)
    else:
        place = (left / width, bottom / height, n * column / width, body / height)
        entries = _draw_lines(figure.add_axes(place), named, scale, known)
    axis.legend(
        handles=entries, loc="upper left", bbox_to_anchor=(0.15, height - 0.46), bbox_transform=axis.transData,
        ncols=columns, frameon=False, fontsize=10, borderaxespad=0, borderpad=0, labelspacing=0.3, handlelength=1.6,
        columnspacing=1.4,
    )  # fmt: skip
    _draw_below(axis, x, column, bottom - 0.18, left, speakers[:n], lines, band)
    if n < len(truth):
        axis.text(
            0.15, 0.14, f"The first {n} of {len(truth)} utterances are shown.", fontsize=9, va="center_baseline",
            color="0.35",
        )  # fmt: skip
    return figure


def _legend_width(text: str) -> float:
    return text_width(text, 10) + 0.55


def _draw_below(
    axis: Axes, x: Values, column: float, line: float, left: float, speakers: list[str], texts: list[str], band: float
) -> None:
    """Draws what stands below the axis: numbers, speakers, texts."""
    step = next(s for s in (1, 2, 5, 10, 20) if s * column > 0.3)
    for i, place in enumerate(x):
        if i == 0 or (i + 1) % step == 0:
            axis.text(place, line, str(i + 1), fontsize=9, ha="center", va="center_baseline", color=BLACK)
    axis.text(left - 0.12, line, "utterance", fontsize=9, ha="right", va="center_baseline", color=BLACK)
    if band:
        axis.text(left - 0.12, line - 0.26, "speaker", fontsize=9, ha="right", va="center_baseline", color=BLACK)
        draw_speakers(axis, x.tolist(), column, line - 0.16, speakers)
    for place, text in zip(x, texts, strict=False):
        axis.text(place, line - 0.22 - band, text, fontsize=8, ha="center", va="top", color=BLACK, linespacing=1.15)


def _draw_lines(axis: Axes, series: Series, scale: tuple[float, float], known: bool) -> list[Any]:
    """Draws intensities as lines; the labels, which are the first if known, are black. Returns the legend's entries."""
    n = len(series[0][1])
    axis.axhline(sum(scale) / 2, color="0.8", linewidth=1, zorder=0)
    found = np.concatenate([*(values for _, values in series), scale])
    margin = 0.04 * (np.nanmax(found) - np.nanmin(found))
    axis.set(xlim=(0.5, n + 0.5), ylim=(np.nanmin(found) - margin, np.nanmax(found) + margin))
    axis.set_ylabel("intensity", fontsize=11)
    axis.spines[["top", "right"]].set_visible(False)
    axis.set_xticks(np.arange(1, n + 1), labels=[])
    size = float(np.clip(200 / n, 2.5, 6))
    looks: list[dict[str, Any]] = [{"color": BLACK, "marker": "o", "linewidth": 2.2}] if known else []
    looks += [{"color": c, "marker": m, "linewidth": 1.6} for c, m in zip(RUN_COLORS, MARKERS, strict=True)]
    entries = []
    for (name, values), look in zip(series, looks, strict=False):
        entries += axis.plot(np.arange(1, n + 1), values, label=name, markersize=size, clip_on=False, **look)
    return entries


def _class_colors(series: Series, classes: Sequence[str]) -> dict[int, str]:
    """A colour for each class that occurs: that of its number, or where there are too many, for the most frequent."""
    found = np.concatenate([values for _, values in series])
    counts = np.bincount(found[~np.isnan(found)].astype(int), minlength=len(classes))
    if len(classes) <= len(COLOURS):
        return {c: COLOURS[c] for c in np.flatnonzero(counts).tolist()}
    order = [c for c in np.argsort(-counts, kind="stable").tolist() if counts[c]]
    return {c: COLOURS[i] if i < len(COLOURS) else OTHERS for i, c in enumerate(order)}


def _class_entries(series: Series, classes: Sequence[str]) -> list[Any]:
    from matplotlib.patches import Patch

    colors = _class_colors(series, classes)
    own = [(label(classes[c], 24), color) for c, color in colors.items() if color != OTHERS]
    rest = sum(color == OTHERS for color in colors.values())
    return [Patch(color=color, label=name) for name, color in [*own, *([(f"{rest} others", OTHERS)] if rest else [])]]


def _draw_strips(axis: Axes, series: Series, classes: Sequence[str], x: Values, column: float, top: float) -> None:
    """Draws a strip of coloured cells per source, with the names of the classes where they fit."""
    from matplotlib.patches import Rectangle

    colors = _class_colors(series, classes)
    for row, (name, values) in enumerate(series):
        y = top - 0.4 * (row + 1)
        axis.text(x[0] - column / 2 - 0.12, y + 0.2, name, fontsize=10, ha="right", va="center_baseline", color=BLACK)
        for place, value in zip(x, values, strict=True):
            color = "white" if np.isnan(value) else colors[int(value)]
            axis.add_patch(
                Rectangle(
                    (place - column / 2, y + 0.04), column, 0.32, facecolor=color,
                    edgecolor="0.8" if np.isnan(value) else "white", linewidth=min(1.0, 4 * column),
                )
            )  # fmt: skip
            if column > 0.5 and not np.isnan(value):
                text = fitted(label(classes[int(value)], 24), column - 0.1, 8)
                ink = BLACK if color in (ORANGE, SKY, YELLOW, OTHERS) else "white"
                axis.text(place, y + 0.2, text, fontsize=8, ha="center", va="center_baseline", color=ink)
