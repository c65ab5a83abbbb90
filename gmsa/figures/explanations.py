"""The figure of explanations: from the base to each prediction, modality by modality."""

# N utterances, P parts
from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gmsa.figures.canvas import BLACK, COLOURS, label, legend_shape, new_figure, save, styled

MOST_ROWS = 25
"""Utterances of a figure: of more, the first ones."""
GREY = "#8A93A0"
"""Colour of the other utterances of the dialogue."""
HIGH = 0.8
"""Height that the bars of an utterance take, of 1."""


@styled
def figure_explanations(
    rows: Sequence[Mapping[str, Any]], path: str | Path, synthetic: bool = False, what: str = "intensity"
) -> bool:
    """For each utterance, bars that lead from the base (line) to the prediction (diamond), one for each part.

    Args:
        rows: ``{"id", "base", "value", "parts": {name: contribution}}``, all with the same parts; of the last named
            ``neighbors`` the bar is grey.
        what: is explained.
    """
    if not rows:
        return False
    shown, names = rows[:MOST_ROWS], list(rows[0]["parts"])
    colours = {name: GREY if name == "neighbors" else COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}
    columns, more = legend_shape([label(name) for name in (*names, "prediction", "base")], 8.5)
    figure, axes = new_figure(1, 1, 9.0, 2.2 + more + len(shown) * (0.25 + 0.11 * len(names)))
    axis = axes[0][0]
    axis.use_sticky_edges = False  # a bar that ends at the frame looks cut
    places, high = np.arange(len(shown)), HIGH / len(names)
    ends = np.array([row["base"] for row in shown], dtype=float)
    for k, name in enumerate(names):
        steps = np.array([row["parts"][name] for row in shown], dtype=float)
        at = places - HIGH / 2 + (k + 0.5) * high
        axis.barh(at, steps, high, left=ends, color=colours[name], label=label(name))
        ends = ends + steps
    low, top = places - HIGH / 2, places + HIGH / 2
    axis.vlines([row["base"] for row in shown], low, top, color=BLACK, linewidth=1, label="base")
    values = [row["value"] for row in shown]
    axis.scatter(values, places, marker="D", s=36, color="white", edgecolor=BLACK, zorder=3, label="prediction")
    axis.set_yticks(places, [label(row["id"], 28) for row in shown])
    axis.set_ylim(len(shown) - 0.4, -0.6)
    axis.set_xlabel(what)
    figure.legend(loc="outside lower center", ncols=columns, frameon=False)
    first = f", the first {len(shown)} of {len(rows)} utterances" if len(rows) > len(shown) else ""
    return save(figure, path, f"What each modality contributes{first}", synthetic)
