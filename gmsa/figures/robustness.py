"""The figures of a robustness report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gmsa.figures.canvas import LINES, label, legend_shape, new_figure, save, styled

RATE_LABELS = {
    "eta": "missing (utterance, modality) pairs [%]",
    "sample": "incomplete utterances [%]",
    "frame": "lost steps [%]",
}
"""Label of the rate, by protocol."""
MARKERS = "osD^v"
"""Of the runs, for those who print without colours."""
PANELS = (
    ("MAE", "MAE [points of sentiment]", 1),
    ("Corr", "Corr (Pearson)", 1),
    ("Non0_acc_2", "Non0_acc_2 [%]", 100),
    ("Mult_acc_2", "Mult_acc_2 [%]", 100),
    ("CCC", "CCC", 1),
    ("accuracy", "accuracy [%]", 100),
    ("weighted_F1", "weighted F1 [%]", 100),
    ("macro_F1", "macro F1 [%]", 100),
)
"""Metrics to draw where there are any: name, label, factor. Those of MOSI, CH-SIMS, other intensities, and classes."""


@styled
def figure_robustness(
    runs: Mapping[str, Sequence[Mapping[str, Any]]],
    path: str | Path,
    synthetic: bool = False,
    protocol: str = "eta",
) -> bool:
    """MAE, correlation and one accuracy of the test split against the rate that was asked for.

    A line per run: the mean; the band is one standard deviation over seeds and mask seeds. A single rate makes no
    line.

    Args:
        runs: per run ``{"asked": ..., "metrics": {"MAE": {"mean", "std", "values"}, ...}}`` by rising rate, of the same
            rates and metrics.
        protocol: what the rate is of.
    """
    first = next(iter(runs.values()))
    if len(first) < 2:
        return False
    panels = [panel for panel in PANELS if panel[0] in first[0]["metrics"]]
    width = 4.2 * len(panels)
    columns, more = legend_shape([label(name) for name in runs], width)
    figure, axes = new_figure(1, len(panels), width, 4.4 + more)
    rates = [100 * row["asked"] for row in first]
    for axis, (metric, meaning, factor) in zip(axes[0], panels, strict=True):
        for place, (name, rows) in enumerate(runs.items()):
            colour, marker = LINES[place % len(LINES)], MARKERS[place % len(MARKERS)]
            mean, std = (factor * np.array([row["metrics"][metric][part] for row in rows]) for part in ("mean", "std"))
            axis.fill_between(rates, mean - std, mean + std, color=colour, alpha=0.15, linewidth=0)
            axis.plot(rates, mean, color=colour, marker=marker, linewidth=1.8, label=label(name))
        axis.set_xlabel(RATE_LABELS[protocol])
        axis.set_ylabel(meaning)
    if len(runs) > 1:
        handles, names = axes[0][0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=columns, frameon=False)
    title = f"Test under {protocol}, by the rate asked: mean and standard deviation over seeds and mask seeds"
    return save(figure, path, title, synthetic)


@styled
def figure_noise(curves: Mapping[str, Sequence[Mapping[str, Any]]], path: str | Path, synthetic: bool = False) -> bool:
    """The main metrics of the test split against the ratio of features to noise, from little noise to much.

    A line per curve: the mean; the band is one standard deviation over seeds and seeds of the noise. The dashed line is
    the score without noise. A single ratio makes no line.

    Args:
        curves: per name ``{"decibels": ..., "metrics": {"MAE": {"mean", "std", "values"}, ...}}`` by falling decibels,
            first without any.
    """
    if not any(len(rows) > 2 for rows in curves.values()):
        return False
    first = next(iter(curves.values()))
    panels = [panel for panel in PANELS if panel[0] in first[0]["metrics"]]
    if not panels:
        return False
    width = 4.2 * len(panels)
    columns, more = legend_shape([label(name) for name in curves], width)
    figure, axes = new_figure(1, len(panels), width, 4.4 + more)
    for axis, (metric, meaning, factor) in zip(axes[0], panels, strict=True):
        for place, (name, (clean, *rows)) in enumerate(curves.items()):
            colour, marker = LINES[place % len(LINES)], MARKERS[place % len(MARKERS)]
            ratios = [row["decibels"] for row in rows]
            mean, std = (factor * np.array([row["metrics"][metric][part] for row in rows]) for part in ("mean", "std"))
            axis.fill_between(ratios, mean - std, mean + std, color=colour, alpha=0.15, linewidth=0)
            axis.plot(ratios, mean, color=colour, marker=marker, linewidth=1.8, label=label(name))
            axis.axhline(factor * clean["metrics"][metric]["mean"], color=colour, linestyle="--", linewidth=1)
        axis.invert_xaxis()
        axis.set_xlabel("features to noise [dB]")
        axis.set_ylabel(meaning)
    handles, names = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=columns, frameon=False)
    title = "Scores with noise on the features: mean and standard deviation over seeds and seeds of the noise"
    return save(figure, path, title, synthetic)
