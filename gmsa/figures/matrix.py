"""The figure of several runs on several data sets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gmsa.figures.canvas import label, new_figure, save, styled


@styled
def figure_matrix(content: Mapping[str, Any], metric: str, path: str | Path) -> bool:
    """A heat map of one metric: a row per run, a column per data set; a frame marks a run's own data.

    Args:
        content: as :func:`gmsa.runs.scoring.matrix.evaluate_matrix` returns it.
    """
    from matplotlib.patches import Rectangle

    runs, data = content["runs"], content["data"]
    table = np.full((len(runs), len(data)), np.nan)
    own = []
    for found in content["cells"]:
        if metric in found.get("scores", {}):
            place = runs.index(found["run"]), data.index(found["data"])
            table[place] = found["scores"][metric]["mean"]
            own += [place] if found["own"] else []
    if np.isnan(table).all():
        return False
    figure, axes = new_figure(1, 1, 3.2 + 1.1 * len(data), 2.0 + 0.55 * len(runs))
    axis = axes[0, 0]
    picture = axis.imshow(table, cmap="Blues", aspect="auto")
    middle = (np.nanmin(table) + np.nanmax(table)) / 2
    for (row, column), value in np.ndenumerate(table):
        text, colour = ("–", "black") if np.isnan(value) else (f"{value:.3f}", "white" if value > middle else "black")
        axis.text(column, row, text, ha="center", va="center", color=colour)
    for row, column in own:
        axis.add_patch(Rectangle((column - 0.47, row - 0.45), 0.94, 0.9, fill=False, edgecolor="black", linewidth=1.8))
    axis.set_xticks(range(len(data)), [label(name, 16) for name in data], rotation=30, ha="right")
    axis.set_yticks(range(len(runs)), [label(name, 24) for name in runs])
    axis.set_xlabel("scored on")
    axis.set_ylabel("run")
    figure.colorbar(picture, ax=axis, label=label(metric))
    return save(figure, path, f"{label(metric)}, mean over seeds; framed: the run's own test split", False)
