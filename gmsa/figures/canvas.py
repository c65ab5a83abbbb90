"""Shared by all figures: colours, style, a figure without global state, the mark of synthetic data."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

from numpy.typing import NDArray

from gmsa.system import files

if TYPE_CHECKING:
    from matplotlib.axis import XAxis, YAxis
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, PURPLE, SKY, RED, YELLOW, BLACK = COLOURS = (
    "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000",
)  # fmt: skip
P = ParamSpec("P")


def styled(draw: Callable[P, bool]) -> Callable[P, bool]:
    """Draws with Matplotlib's defaults plus ours, and leaves the user's settings as they were."""

    @functools.wraps(draw)
    def draw_styled(*args: P.args, **kwargs: P.kwargs) -> bool:
        import matplotlib

        with matplotlib.rc_context():
            matplotlib.rcdefaults()
            matplotlib.rc("font", size=12)  # legible at the width of a README
            matplotlib.rc("axes", titlesize="medium")
            matplotlib.rc("text", parse_math=False)  # a name may hold dollar signs: no formula
            return draw(*args, **kwargs)

    return draw_styled


def new_figure(rows: int, columns: int, width: float, height: float, **options: Any) -> tuple[Figure, NDArray[Any]]:
    """A figure of ``width`` by ``height`` inches and its axes ``[rows, columns]``, without pyplot's global state."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def log_scale(axis: XAxis | YAxis, minor: str = "", **options: Any) -> None:
    """Makes an axis logarithmic, with plain numbers at its ticks: Matplotlib's own are formulas.

    Args:
        minor: format of the numbers between those of full powers, such as ``{x:g}``; by default there are none.
    """
    (axis.axes.set_xscale if axis.axis_name == "x" else axis.axes.set_yscale)("log", **options)
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(minor)


def save(figure: Figure, path: str | Path, title: str, synthetic: bool) -> bool:
    """Writes the figure under its title; says so where the data are synthetic. Always true."""
    figure.suptitle(f"{title}\nSYNTHETIC data" if synthetic else title, fontsize=13)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    files.write_bytes(path, buffer.getvalue())
    return True
