"""The speakers of a dialogue in a figure: a band below the utterances, and what its letters mean."""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gmsa.figures.canvas import BLACK, fitted, label, text_width

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TINTS = ("#9CC4E4", "#F7D08A", "#8FD3B6", "#D9C2EC", "#F3B5AF", "#D0D3D8", "#CFEBFA", "#FBF2C0")
"""Colours of speakers, light enough for dark letters; they are told apart by letters too."""
REST = "#F1F1F1"
"""Colour of the speakers after those."""
HEIGHT = 0.24
"""Inches of the band, and of each line of its legend."""


def speaker_letters(speakers: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Letter and colour of each speaker, in the order in which they first speak; none where nobody is named."""
    names = list(dict.fromkeys(speakers)) if any(speakers) else []
    found = dict(zip(names, zip(string.ascii_uppercase, TINTS, strict=False), strict=False))
    return {name: found.get(name, ("+", REST)) for name in names}


def legend_lines(speakers: Sequence[str], width: float) -> list[list[tuple[str, str, float]]]:
    """What the letters mean, in lines of ``width`` inches: text, colour and place in inches of each entry."""
    letters = speaker_letters(speakers)
    entries = []
    for name, (letter, colour) in letters.items():
        if colour != REST:
            entries.append(
                (f"{letter}: {label(name, 24) if name else 'not named'} ({list(speakers).count(name)})", colour)
            )
    if rest := [name for name, (_, colour) in letters.items() if colour == REST]:
        entries.append((f"+: {len(rest)} others ({sum(s in set(rest) for s in speakers)})", REST))
    lines: list[list[tuple[str, str, float]]] = [[]]
    place = 0.0
    for text, colour in entries:
        text = fitted(text, width - 0.2, 8)
        if lines[-1] and place + text_width(text, 8) + 0.2 > width:
            lines.append([])
            place = 0.0
        lines[-1].append((text, colour, place))
        place += text_width(text, 8) + 0.35
    return lines if entries else []


def draw_speakers(axis: Axes, x: Sequence[float], column: float, top: float, speakers: Sequence[str]) -> None:
    """Draws the band and its legend on an axis whose units are inches.

    Args:
        x: middle of each utterance.
        column: inches from an utterance to the next.
        top: upper end of the band; it and each line of the legend take :data:`HEIGHT`.
    """
    from matplotlib.patches import Rectangle

    letters = speaker_letters(speakers)
    if not letters:
        return
    for place, speaker in zip(x, speakers, strict=True):
        letter, colour = letters[speaker]
        axis.add_patch(
            Rectangle((place - column / 2, top - 0.2), column, 0.2, facecolor=colour, edgecolor="white", linewidth=0.6)
        )
        axis.text(
            place, top - 0.1, letter, fontsize=min(8, 60 * column), ha="center", va="center_baseline", color=BLACK
        )
    left = x[0] - column / 2
    for line, entries in enumerate(legend_lines(speakers, axis.get_xlim()[1] - left), start=1):
        y = top - HEIGHT * line - 0.12
        for text, colour, place in entries:
            axis.add_patch(Rectangle((left + place, y - 0.05), 0.12, 0.12, facecolor=colour, linewidth=0))
            axis.text(left + place + 0.17, y, text, fontsize=8, va="center_baseline", color=BLACK)
