"""The figure of a data check."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gmsa.figures.canvas import COLOURS, LINES, MOST_MARKS, label, log_scale, new_figure, save, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STYLES = ("-", "--", ":", "-.")
"""Lines of the splits, in their order."""
SHORT = 20
"""Characters of a split's name: the legends stand beside their axes."""
MOST_NAMED = 16
"""Classes that are named below their axis."""


@styled
def figure_check(found: Mapping[str, Any], path: str | Path) -> bool:
    """Labels, modalities present, lengths, and scales of the features beside those of the training split.

    Args:
        found: the content of ``check.json``.
    """
    if not found["splits"]:
        return False
    entries = len(found["splits"]) * max(1, len(found["dims"]))
    figure, axes = new_figure(2, 2, 12.0, 2 * min(20.0, max(4.2, 0.26 * entries)))  # room for the legends
    _labels(axes[0][0], found["splits"], found["target"]["classes"])
    _present(axes[0][1], found["splits"], list(found["dims"]))
    _lengths(axes[1][0], found["splits"], list(found["dims"]))
    _scales(axes[1][1], found["scales"], list(found["dims"]))
    return save(figure, path, f"Check of {label(Path(found['path']).name)}", synthetic=False)


def _labels(axis: Axes, splits: Mapping[str, Any], classes: Sequence[str]) -> None:
    for index, (name, split) in enumerate(splits.items()):
        labels = split["labels"]
        if labels["labeled"]:
            shares = 100 * np.array(labels["counts"]) / labels["labeled"]
            axis.stairs(
                shares,
                labels["edges"],
                label=f"{label(name, SHORT)} ({labels['labeled']})",
                linewidth=1.8,
                **_look(index),
            )
    axis.set_xlabel("class" if classes else "label")
    if 0 < len(classes) <= MOST_NAMED:
        axis.set_xticks(range(len(classes)), [label(name, SHORT) for name in classes], rotation=30, ha="right")
    axis.set_ylabel("share of the labeled utterances [%]")
    if axis.get_legend_handles_labels()[0]:
        axis.legend(frameon=False)


def _present(axis: Axes, splits: Mapping[str, Any], modalities: list[str]) -> None:
    width = 0.8 / len(splits)
    for index, (name, split) in enumerate(splits.items()):
        shares = [100 * split["lengths"][m]["present"] / max(1, split["utterances"]) for m in modalities]
        places = np.arange(len(modalities)) + (index - (len(splits) - 1) / 2) * width
        bars = axis.bar(places, shares, width, label=label(name, SHORT), color=COLOURS[index % len(COLOURS)])
        axis.bar_label(bars, fmt="%.0f", fontsize=9)
    axis.set_xticks(range(len(modalities)), modalities)
    axis.set_ylabel("utterances that have it [%]")
    axis.set_ylim(0, 112)
    axis.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _lengths(axis: Axes, splits: Mapping[str, Any], modalities: list[str]) -> None:
    for colour, modality in enumerate(modalities):
        for index, (name, split) in enumerate(splits.items()):
            steps = split["lengths"][modality]
            if steps["present"]:
                axis.plot(
                    np.array(steps["edges"])[1:],
                    100 * np.cumsum(steps["counts"]) / steps["present"],
                    drawstyle="steps-post",
                    color=LINES[colour % len(LINES)],
                    linestyle=STYLES[index % len(STYLES)],
                    marker="o" if steps["max"] == 1 else "",
                    label=f"{modality}, {label(name, SHORT)}",
                )
    log_scale(axis.xaxis, "{x:g}", subs=(2, 5))
    axis.set_xlabel("steps")
    axis.set_ylabel("sequences that have at most so many [%]")
    axis.set_ylim(0, 104)
    axis.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _scales(axis: Axes, scales: Mapping[str, Any], modalities: list[str]) -> None:
    floor = 1e-3
    for modality, splits in scales.items():
        colour = LINES[modalities.index(modality) % len(LINES)]
        for index, (name, table) in enumerate(splits.items()):
            shift = np.maximum(table["shift"], floor)
            axis.scatter(
                table["ratio"], shift, s=12, alpha=0.6, color=colour,
                marker="ox^s"[index % 4], label=f"{modality}, {label(name, SHORT)}", linewidth=0.8,
                rasterized=len(shift) > MOST_MARKS,
            )  # fmt: skip
    log_scale(axis.xaxis, "{x:g}" if all(0.1 < r < 10 for r in _ratios(scales)) else "", subs=(2, 5))
    log_scale(axis.yaxis)
    for ratio in (1 / 3, 3):
        axis.axvline(ratio, color="0.5", linestyle="--", linewidth=1.2, zorder=0)
    axis.axhline(1, color="0.5", linestyle="--", linewidth=1.2, zorder=0)
    axis.set_xlabel("standard deviation of a feature, as a multiple of train's")
    axis.set_ylabel("distance of its mean from train's\n[standard deviations of train]")
    if scales:
        axis.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    else:
        axis.text(0.5, 0.5, "no other split beside train", transform=axis.transAxes, ha="center")


def _ratios(scales: Mapping[str, Any]) -> list[float]:
    return [ratio for splits in scales.values() for table in splits.values() for ratio in table["ratio"]]


def _look(index: int) -> dict[str, Any]:
    return {"color": LINES[index % len(LINES)], "linestyle": STYLES[index % len(STYLES)]}
