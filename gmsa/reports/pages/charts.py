"""Interactive figures as JSON for Plotly. Text from data is escaped here: Plotly reads tags in it."""

from __future__ import annotations

import html
import json
import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from gmsa.errors import printable
from gmsa.figures.canvas import BLACK, COLOURS, label

Trace = dict[str, Any]
"""A trace of Plotly."""
GRID = "#E3E7EC"
WIDE = 50
"""How many times the smallest number of an axis the largest is, from which on the axis is logarithmic."""
LINE, MOST_LINES = 18, 2
"""Characters and lines of a name at an axis."""


def chart(
    traces: Sequence[Trace],
    x: Mapping[str, Any] | str = "",
    y: Mapping[str, Any] | str = "",
    *,
    height: int = 420,
    **layout: Any,
) -> str:
    """A figure in our style.

    Args:
        x, y: title of the axis, or its settings.
        layout: further settings of Plotly's layout.
    """
    base = {
        "font": {"family": "system-ui, -apple-system, 'Segoe UI', Roboto, Arial, sans-serif", "color": BLACK},
        "paper_bgcolor": "#fff",
        "plot_bgcolor": "#fff",
        "colorway": COLOURS[:6],
        "height": height,
        "margin": {"l": 20, "r": 20, "t": 20, "b": 20},
        "hovermode": "closest",
        "hoverlabel": {"align": "left"},
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "xaxis": axis(x),
        "yaxis": axis(y),
    }
    return json.dumps({"data": list(traces), "layout": base | layout})


def axis(settings: Mapping[str, Any] | str) -> dict[str, Any]:
    """An axis, from its title or its settings."""
    own: dict[str, Any] = {"title": settings} if isinstance(settings, str) else dict(settings)
    own["title"] = {"text": text(own.get("title", ""), 60), "standoff": 12}
    return {"automargin": True, "gridcolor": GRID, "linecolor": GRID, "zeroline": False} | own


def numbers(title: str, values: Sequence[float], **settings: Any) -> dict[str, Any]:
    """An axis of numbers, logarithmic where they are spread widely."""
    wide = min(values, default=0) > 0 and max(values) >= WIDE * min(values)
    return {"title": title} | (powers(values) if wide else {"type": "linear"}) | settings


def whole(title: str, values: Sequence[int]) -> dict[str, Any]:
    """An axis of whole numbers."""
    return {"title": title, "tickformat": "d"} | ({"dtick": 1} if max(values) - min(values) <= 10 else {})


def powers(values: Sequence[float]) -> dict[str, Any]:
    """A logarithmic axis. Between full powers of ten Plotly would write a lone digit, which reads as another number."""
    far = max(values) >= WIDE * min(values)
    return {"type": "log", "exponentformat": "power"} | ({"dtick": 1} if far else {})


def names(places: Sequence[float], texts: Sequence[object], **settings: Any) -> dict[str, Any]:
    """An axis of names, at their places: names that look the same stay apart."""
    return {"tickmode": "array", "tickvals": list(places), "ticktext": [tick(t) for t in texts], "title": ""} | settings


def text(value: object, most: int = 120) -> str:
    """Text from data as Plotly shows it, in one line of at most ``most`` characters."""
    line = printable(" ".join(str(value).split()))
    if len(line) > most:
        line = f"{line[: most - most // 3 - 1]}…{line[-(most // 3) :]}"
    return html.escape(line, quote=False)


def tick(value: object) -> str:
    """A name beside an axis: of few short lines."""
    lines = textwrap.wrap(label(value, LINE * MOST_LINES - 4), LINE)
    return "<br>".join(html.escape(line, quote=False) for line in lines)


def hover(pairs: Mapping[str, object], title: str = "") -> str:
    """What shows where the pointer rests: a title, and a name and a value per line."""
    lines = [f"<b>{text(title)}</b>"] if title else []
    return "<br>".join([*lines, *(f"{text(name)}: {text(value)}" for name, value in pairs.items())])


def points(
    x: Sequence[float | None],
    y: Sequence[float | None],
    name: str,
    colour: str,
    notes: Sequence[str] = (),
    *,
    mode: str = "markers",
    hollow: bool = False,
    size: int = 9,
    symbol: str = "circle",
    **more: Any,
) -> Trace:
    """Points, or a line through them.

    Args:
        notes: what shows where the pointer rests on a point; nothing where there are none.
        hollow: whether the marks are rings.
    """
    return {
        "type": "scatter",
        "mode": mode,
        "name": text(name, 60),
        "x": list(map(finite, x)),
        "y": list(map(finite, y)),
        "line": {"color": colour, "width": 2},
        "marker": {
            "color": "#fff" if hollow else colour,
            "size": size,
            "symbol": symbol,
            "line": {"color": colour, "width": 2 if hollow else 0},
        },
        **({"hovertext": list(notes), "hoverinfo": "text"} if notes else {"hoverinfo": "skip"}),
        **more,
    }


def lines(members: Sequence[Sequence[tuple[float, float, str]]], name: str, colour: str, **more: Any) -> list[Trace]:
    """Many lines as one trace, which is much faster than a trace for each; none where there are no points.

    Args:
        members: for every line its points, as x, y and what shows where the pointer rests.
    """
    parted = [point for line in members if line for point in (*line, (None, None, ""))]
    if not parted:
        return []
    x, y, notes = zip(*parted, strict=True)
    return [points(x, y, name, colour, notes, mode="lines+markers", **more)]


def finite(value: float | None) -> float | None:
    """A number that JSON knows, or None."""
    return value if value is not None and math.isfinite(value) else None
