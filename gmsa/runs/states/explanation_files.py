"""Writes explanations of a run's predictions into a folder: JSON, tables, a figure and a page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from gmsa.explain import Explanations
from gmsa.figures import figure_explanations
from gmsa.reports.pages.explanations import explanations_page
from gmsa.runs.folder import Run
from gmsa.runs.inputs import Input
from gmsa.system.csv_text import csv_text
from gmsa.system.files import check_out_folder, make_folder, write_json, write_text
from gmsa.system.reading import exists, read_bytes

PAGE, FIGURE = "explanations.html", "modalities.png"
MOST_FIGURE = 1 << 24
"""Bytes of a figure, at most."""


def explain_file(
    run: Run,
    x: Input,
    folder: Path,
    ids: Sequence[str] | None = None,
    seeds: int | Sequence[int] | None = None,
    device: str | None = None,
    limit: int | None = None,
) -> Explanations:
    """Explains predictions for a file, and writes what :func:`write_explanations` does.

    Raises:
        RunError, DataError: as :meth:`Run.explain`, or the folder cannot be written.
    """
    check_out_folder(folder)  # before work that takes time
    found = run.explain(x, ids, seeds, device, limit=limit)
    write_explanations(found, folder, run.name, run.synthetic)
    return found


def write_explanations(found: Explanations, folder: Path, name: str, synthetic: bool = False) -> None:
    """Writes ``explanations.json``, ``modalities.csv``, ``words.csv``, ``modalities.png`` and ``explanations.html``.

    Args:
        name: of the run.
    """
    make_folder(folder)
    content = {"run": name, **found.as_dict()}
    write_json(folder / "explanations.json", content)
    write_text(folder / "modalities.csv", _modalities_csv(found))
    write_text(folder / "words.csv", csv_text(WORDS, _word_rows(content["utterances"])))
    figure_explanations(_figure_rows(content), folder / FIGURE, synthetic, content["explained"])
    svg = (folder / FIGURE).with_suffix(".svg")
    figure = read_bytes(svg, MOST_FIGURE) if exists(svg) else b""
    write_text(folder / PAGE, explanations_page(content, f"Explanations of {name}", synthetic, figure))


WORDS = ("id", "modality", "place", "token", "contribution", "method", "faithful")
"""Columns of ``words.csv``."""


def _modalities_csv(found: Explanations) -> str:
    """A row per utterance; the contribution of a missing modality is empty."""
    names = found.modalities
    contributions = [*(f"contribution_{m}" for m in names), "contribution_neighbors"]
    header = ["id", "class", "prediction", "base", *contributions, *(f"without_{m}" for m in names)]
    rows = []
    for item in found:
        parts = [None if m in item.missing else item.modalities[m] for m in names]
        cells = [item.value, item.base, *parts, item.neighbors, *(item.without(m) for m in names)]
        rows.append([item.id, item.predicted_class or "", *("" if x is None else f"{x:.9g}" for x in cells)])
    return csv_text(header, rows)


def _word_rows(items: Sequence[dict[str, Any]]) -> Iterator[list[str]]:
    for item in items:
        words = item["words"]
        for modality, tokens in ({} if words is None else words["tokens"]).items():
            for place, token in enumerate(tokens):
                yield [
                    item["id"],
                    modality,
                    str(place),
                    token["token"],
                    f"{token['contribution']:.9g}",
                    words["method"],
                    "yes" if words["faithful"] else "no",
                ]


def _figure_rows(content: dict[str, Any]) -> list[dict[str, Any]]:
    items = content["utterances"]
    in_dialogues = any(item["neighbors"] is not None for item in items)
    return [
        {key: item[key] for key in ("id", "base", "value")}
        | {"parts": item["modalities"] | ({"neighbors": item["neighbors"] or 0.0} if in_dialogues else {})}
        for item in items
    ]
