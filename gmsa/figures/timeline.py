"""The figure of a video: what is predicted along it, from all modalities and from each alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gmsa.figures.canvas import BLACK, COLOURS, label, legend_shape, new_figure, save, styled


@styled
def figure_timeline(answer: Mapping[str, Any], path: str | Path) -> bool:
    """Lines over the seconds of a video; where a modality is missing, its line has a gap.

    Args:
        answer: what ``answer.json`` of ``gmsa predict --video`` holds.
    """
    rows, target = answer["timeline"], answer["target"]
    if not rows:
        return False
    modalities = [key for key in rows[0] if key not in ("time", "value")]
    classes = target["kind"] == "classes"
    columns, more = legend_shape(["all", *(f"{label(m)} alone" for m in modalities)], 9.0)
    figure, axes = new_figure(1, 1, 9.0, 3.4 + more)
    axis = axes[0][0]
    times = [row["time"] for row in rows]
    for place, segment in enumerate(answer["segments"]):
        if place % 2:
            axis.axvspan(segment["start"], segment["stop"], color="#F0F2F5", linewidth=0)
    if not classes:
        axis.axhline((target["low"] + target["high"]) / 2, color="#B6BCC6", linewidth=0.8)
    lines = [(m, f"{label(m)} alone", COLOURS[i % len(COLOURS)], 1.2) for i, m in enumerate(modalities)]
    for key, name, colour, width in [("value", "all", BLACK, 3.4), *lines]:  # the thin ones on top
        values = np.array([np.nan if row[key] is None else row[key] for row in rows], dtype=float)
        if not np.isnan(values).all():
            axis.plot(times, values, color=colour, linewidth=width, label=name, marker="o" if len(rows) < 3 else None)
    axis.set_xlim(0, max(answer["duration"], 1e-3))
    axis.set_xlabel("seconds")
    axis.set_ylabel(f"p({label(answer['label'], 20)})" if classes else "intensity")
    if classes:
        axis.set_ylim(0, 1)
    else:
        axis.set_ylim(target["low"], target["high"])
    figure.legend(loc="outside lower center", ncols=columns, frameon=False)
    return save(figure, path, f"{label(answer['video'])}: along the video", answer["synthetic"])
