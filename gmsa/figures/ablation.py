"""The figure of an ablation."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gmsa.figures.canvas import BLUE, LINES, RED, label, legend_shape, log_scale, new_figure, save, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SPLIT_STYLES: dict[str, dict[str, Any]] = {
    "valid": {"marker": "o", "markersize": 8, "capsize": 3},
    "test": {"marker": "o", "markersize": 8, "capsize": 3, "markerfacecolor": "white"},
}
"""Marks of the splits: what chose is filled, what did not is hollow."""
LINE = 44
"""Characters in a line of a variant's name."""


@styled
def figure_ablation(
    rows: Sequence[Mapping[str, Any]],
    path: str | Path,
    synthetic: bool = False,
    metric: str = "MAE",
    key: str = "",
    over: str = "",
) -> bool:
    """Validation (filled) and test (hollow) score of every variant, mean and standard deviation over seeds or folds.

    A row per variant, from top to bottom; with ``key``, the varied number, a line over it per ``name``.

    Args:
        rows: ``{"name", "reference": bool, "x": number | None, "valid": {"mean", "std", "values"}, "test": ...}``;
            ``x`` is the row's value of ``key``.
        over: what the values are of, such as ``5 folds``; by default seeds.
    """
    if not rows:
        return False
    count = len(rows[0]["valid"]["values"])
    metric = label(metric)
    columns = 3
    if key:
        columns, more = legend_shape([f"{label(name)} validation" for name in {row["name"] for row in rows}], 8.0)
        figure, axes = new_figure(1, 1, 8.0, 5.4 + 2 * more)
        _ablation_lines(axes[0][0], rows, metric, key)
    else:
        figure, axes = new_figure(1, 1, 9.0, 4.2 + 0.42 * max(0, len(rows) - 4))
        _ablation_dots(axes[0][0], rows, metric)
    figure.legend(loc="outside lower center", ncols=columns, frameon=False)
    spread = f", mean and standard deviation over {over or f'{count} seeds'}" if count > 1 else ", one seed"
    return save(figure, path, f"Ablation: {metric}{spread}", synthetic)


def _ablation_dots(axis: Axes, rows: Sequence[Mapping[str, Any]], metric: str) -> None:
    places = np.arange(len(rows))
    parts = (("valid", "validation (ranked by)", BLUE, -0.14), ("test", "test", RED, 0.14))
    for split, word, colour, shift in parts:
        means, spreads = ([row[split][part] for row in rows] for part in ("mean", "std"))
        axis.errorbar(
            means, places + shift, xerr=spreads, linestyle="none", color=colour, label=word, **SPLIT_STYLES[split]
        )
    for row in rows:
        if row["reference"]:
            mean = row["valid"]["mean"]
            axis.axvline(mean, color="0.5", linestyle="--", linewidth=1.2, zorder=0, label="reference, validation")
    names = [textwrap.fill(label(row["name"], 2 * LINE) + " (reference)" * row["reference"], LINE) for row in rows]
    axis.set_yticks(places, names)
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.set_xlabel(metric)


def _ablation_lines(axis: Axes, rows: Sequence[Mapping[str, Any]], metric: str, key: str) -> None:
    for index, name in enumerate(dict.fromkeys(row["name"] for row in rows)):
        points = sorted((row for row in rows if row["name"] == name), key=lambda row: row["x"])
        for split, style, word in (("valid", "-", "validation"), ("test", "--", "test")):
            means, spreads = ([row[split][part] for row in points] for part in ("mean", "std"))
            axis.errorbar(
                [row["x"] for row in points], means, yerr=spreads, linestyle=style,
                label=f"{label(name)} {word}" if name else word,
                color=LINES[index % len(LINES)], **SPLIT_STYLES[split],
            )  # fmt: skip
    values = sorted({row["x"] for row in rows})
    if values[0] > 0 and values[-1] >= 50 * values[0]:
        log_scale(axis.xaxis)
    axis.set_xlabel(label(key))
    axis.set_ylabel(metric)
