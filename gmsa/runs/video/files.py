"""Writes what a run says of a video: JSON, tables, a figure and a page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from gmsa.errors import GmsaError
from gmsa.figures import figure_timeline
from gmsa.reports.pages.video import video_page
from gmsa.system.csv_text import csv_text
from gmsa.system.files import make_folder, write_json, write_text
from gmsa.system.reading import exists, read_bytes

MOST_FIGURE = 1 << 24
"""Bytes of a figure, at most."""
FILES = ("answer.json", "segments.csv", "timeline.csv", "words.csv", "timeline.png", "report.html")
"""What :func:`answer_files` writes."""


def answer_files(answer: dict[str, Any], folder: Path) -> None:
    """Writes ``answer.json``, ``segments.csv``, ``timeline.csv``, ``words.csv``, ``timeline.png`` and ``report.html``.

    Args:
        answer: of :func:`gmsa.runs.video.answer.answer_of`.

    Raises:
        WriteError: the folder cannot be written.
    """
    make_folder(folder)
    write_json(folder / "answer.json", answer)
    modalities = _modalities(answer)
    write_text(folder / "segments.csv", _segments(answer, modalities))
    rows = [[_text(row[key]) for key in ("time", "value", *modalities)] for row in answer["timeline"]]
    write_text(folder / "timeline.csv", csv_text(["time", "value", *modalities], rows))
    header = ["segment", "word", "start", "end", "confidence", *(f"contribution_{m}" for m in modalities)]
    write_text(folder / "words.csv", csv_text(header, _words(answer, modalities)))
    figure_timeline(answer, folder / "timeline.png")
    svg = folder / "timeline.svg"
    try:
        figure = read_bytes(svg, MOST_FIGURE) if exists(svg) else b""
    except GmsaError:
        figure = b""
    write_text(folder / "report.html", video_page(answer, figure))


def _modalities(answer: dict[str, Any]) -> list[str]:
    return [key for key in answer["timeline"][0] if key not in ("time", "value")] if answer["timeline"] else []


def _segments(answer: dict[str, Any], modalities: Sequence[str]) -> str:
    header = ["id", "start", "end", "value", "label", "text", "base", *(f"contribution_{m}" for m in modalities)]
    header += ["contribution_neighbors", "faithful", "missing"]
    rows = []
    for segment in answer["segments"]:
        found = segment["modalities"] or {"base": None, "parts": {}, "neighbors": None}
        cells = [segment["start"], segment["stop"], segment["value"]]
        parts = [*(found["parts"].get(m) for m in modalities), found["neighbors"]]
        faithful = {None: "", True: "yes", False: "no"}[segment["faithful"]]
        missing = "; ".join(f"{m}: {why}" for m, why in segment["missing"].items())
        row = [segment["id"], *map(_text, cells), segment["label"], segment["text"], _text(found["base"])]
        rows.append([*row, *map(_text, parts), faithful, missing])
    return csv_text(header, rows)


def _words(answer: dict[str, Any], modalities: Sequence[str]) -> Iterator[list[str]]:
    for segment in answer["segments"]:
        for word in segment["words"]:
            numbers = [word["start"], word["stop"], word["confidence"]]
            parts = [word["contribution"].get(m) for m in modalities]
            yield [segment["id"], word["text"], *map(_text, numbers), *map(_text, parts)]


def _text(x: float | None) -> str:
    return "" if x is None else f"{x:.9g}"
