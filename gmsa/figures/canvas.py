"""Shared by all figures: colours, style, a figure without global state, the mark of synthetic data."""

from __future__ import annotations

import functools
import inspect
import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

from numpy.typing import NDArray

from gmsa.errors import WriteError, cut, printable
from gmsa.system import files
from gmsa.system.console import console

if TYPE_CHECKING:
    from matplotlib.axis import XAxis, YAxis
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, PURPLE, RED, BLACK, SKY, YELLOW = COLOURS = (
    "#005893", "#DD7B01", "#01906A", "#531C7A", "#C6322B", "#1B2028", "#79C5ED", "#F6DD67",
)  # fmt: skip
"""Any two differ in CIE lightness by 8 or more, so they stay apart in grey print and for the colour-blind."""
LINES = COLOURS[:6]
"""Those dark enough for lines and marks on white: a contrast of 3 or more."""
MOST_MARKS = 2_000
"""Of more marks than this, an SVG holds a picture: as shapes they would take megabytes."""
LONGEST_LABEL = 40
"""Characters of a name in a figure, unless there is room for more."""
CHARACTER = 0.1
"""Inches that a character of a legend takes, about."""
P = ParamSpec("P")


def styled(draw: Callable[P, bool]) -> Callable[P, bool]:
    """Draws with Matplotlib's defaults plus ours, and leaves the user's settings as they were.

    A figure of an earlier report that has nothing to show now, or cannot be drawn, is deleted, PNG and SVG.

    Args:
        draw: draws into its argument ``path``; returns whether it did.
    """
    signature = inspect.signature(draw)

    @functools.wraps(draw)
    def draw_styled(*args: P.args, **kwargs: P.kwargs) -> bool:
        path = Path(signature.bind(*args, **kwargs).arguments["path"])
        done = False
        with spared(path), style():
            done = draw(*args, **kwargs)
        if not done:
            for file in (path, path.with_suffix(".svg")):
                files.remove(file)
        return done

    return draw_styled


@contextmanager
def style() -> Iterator[None]:
    """Draws with Matplotlib's defaults plus ours, until the block ends."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rc("font", size=12)  # legible at the width of a README
        matplotlib.rc("axes", titlesize="medium")
        matplotlib.rc("text", parse_math=False)  # a name may hold dollar signs: no formula
        yield


@contextmanager
def spared(path: Path, what: str = "figure") -> Iterator[None]:
    """Spares the report a figure that cannot be drawn: it is one line on the console, and all else is written.

    Args:
        path: file of the figure.
        what: a ``page`` likewise.

    Raises:
        WriteError: the file cannot be written.
    """
    try:
        yield
    except WriteError:
        raise
    except Exception as error:  # whatever the drawing library did not expect
        reason = cut(f"{type(error).__name__}: {error}".removesuffix(": "))
        made = "drawn" if what == "figure" else "made"
        console().print(f"WARNING: the {what} '{path.name}' could not be {made} ({reason}); everything else is written")


def label(text: object, most: int = LONGEST_LABEL) -> str:
    """Returns a name in one line that a figure can show, cut in its middle to ``most`` characters.

    What the fonts lack is written as an escape.
    """
    line = printable(" ".join(str(text).split()))
    if not line.isascii():
        line = "".join(c if c.isprintable() and _has_glyph(c) else c.encode("unicode_escape").decode() for c in line)
    if len(line) > most:
        line = f"{line[: most - most // 3 - 1]}…{line[-(most // 3) :]}"
    if not line:
        return repr(str(text)[:most])  # nothing to see: its quotes
    return f" {line}" if line[0] == "_" else line  # a legend leaves out what begins with an underscore


@functools.cache
def _has_glyph(character: str) -> bool:
    """Whether the font of our figures has a character."""
    return bool(_font().get_char_index(ord(character)))


def text_width(text: str, size: float) -> float:
    """Inches that a line of text takes in a font of ``size`` points."""
    return sum(map(_advance, text)) * size / 72


@functools.cache
def _advance(character: str) -> float:
    """Width of a character, as a share of the font's size."""
    font = _font()
    font.set_size(64, 72)
    font.set_text(character)
    return float(font.get_width_height()[0]) / 64 / 64 if character.strip() else 0.32


def _font() -> Any:
    from matplotlib.font_manager import findfont, get_font

    return get_font(findfont("DejaVu Sans"))


def wrapped(text: str, width: float, size: float, lines: int) -> str:
    """A text in at most ``lines`` lines of ``width`` inches, its end cut where there is no room."""
    words = label(text, 1_000).split(" ") if text.strip() else []
    found = [""]
    for word in words:
        longer = f"{found[-1]} {word}".strip()
        if text_width(longer, size) <= width:
            found[-1] = longer
        else:
            found += [word] if found[-1] else []
            found[-1] = fitted(word, width, size)
    if len(found) > lines:
        found = [*found[: lines - 1], fitted(f"{found[lines - 1]}…", width, size)]
    return "\n".join(found)


def fitted(text: str, width: float, size: float) -> str:
    """The text, its end cut where it is wider than ``width`` inches."""
    if text_width(text, size) <= width:
        return text
    kept = text.rstrip("…")
    while kept and text_width(f"{kept}…", size) > width:
        kept = kept[:-1]
    return f"{kept}…"


def legend_shape(labels: Sequence[str], width: float, most: int = 4) -> tuple[int, float]:
    """The columns of a legend, at most ``most``, that fit ``width`` inches, and the inches of its further rows."""
    longest = max(map(len, labels), default=0)
    columns = max(1, min(most, len(labels), int(width / (CHARACTER * longest + 0.6))))
    return columns, 0.22 * (-(-len(labels) // columns) - 1)


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
    plain_numbers(axis, minor)


def plain_numbers(axis: XAxis | YAxis, minor: str = "") -> None:
    """Writes plain numbers at an axis's ticks, where Matplotlib would write formulas."""
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(minor)


def save(figure: Figure, path: str | Path, title: str, synthetic: bool) -> bool:
    """Writes the figure under its title; says so where the data are synthetic. Always true."""
    figure.suptitle(f"{title}\nSYNTHETIC data" if synthetic else title, fontsize=13)
    write_figure(figure, Path(path))
    return True


def write_figure(figure: Figure, path: Path) -> None:
    """Writes a figure as PNG, and beside it as SVG."""
    files.write_bytes(path, image(figure, "png"))
    figure.set_layout_engine("none")  # what the PNG's layout found holds for the SVG
    files.write_bytes(path.with_suffix(".svg"), image(figure, "svg"))


def image(figure: Figure, kind: str, dpi: int = 150) -> bytes:
    """A figure as the content of a file.

    Args:
        kind: ``png`` or ``svg``.
        dpi: dots per inch, in SVG of what is rasterized.
    """
    import matplotlib

    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "gmsa", "svg.fonttype": "path"}):  # the same file; it needs no font
        figure.savefig(buffer, format=kind, dpi=dpi, metadata={"Date": None} if kind == "svg" else None)
    return buffer.getvalue()
