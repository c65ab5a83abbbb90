"""The tables of several runs on several data sets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gmsa.reports.tables import cell, escape_markdown, pipes, title

OWN = "*"
"""Marks the test split of the data that a run was trained on."""


def markdown_matrix(content: Mapping[str, Any]) -> str:
    """A table per metric: a row per run, a column per data set; below them why a cell is empty.

    Args:
        content: as :func:`gmsa.runs.scoring.matrix.evaluate_matrix` returns it.
    """
    cells = {(found["run"], found["data"]): found for found in content["cells"]}
    reasons = [found for found in content["cells"] if "reason" in found]
    numbers = {(found["run"], found["data"]): place for place, found in enumerate(reasons, 1)}
    text = ""
    for metric in content["metrics"]:
        rows = [
            [run, *(_cell(cells[run, data], metric, numbers.get((run, data))) for data in content["data"])]
            for run in content["runs"]
        ]
        text += f"{escape_markdown(title(metric))}:\n\n{pipes(['Run', *content['data']], rows, ('Run',))}\n"
    text += "Mean ± standard deviation over seeds."
    if any(found.get("own") for found in content["cells"]):
        text += f" {OWN} The data that the run was trained on: its own test split."
    splits = dict.fromkeys(found["split"] for found in content["cells"] if found.get("split", "test") != "test")
    for name in splits:
        where = dict.fromkeys(found["data"] for found in content["cells"] if found.get("split") == name)
        text += f" Of {escape_markdown(', '.join(where))} the split {escape_markdown(repr(name))} was scored."
    lines = [f"{place}. {f['run']} on {f['data']}: {f['reason']}" for place, f in enumerate(reasons, 1)]
    return text + "\n" + ("\nNot scored:\n\n" + "".join(f"{_numbered(line)}\n" for line in lines) if lines else "")


def _numbered(line: str) -> str:
    number, _, rest = line.partition(" ")
    return f"{number} {escape_markdown(rest)}"


def _cell(found: Mapping[str, Any], metric: str, number: int | None) -> str:
    if number is not None:
        return f"– ({number})"
    if metric not in found["scores"]:
        return "–"
    return cell(metric, found["scores"][metric]) + (f" {OWN}" if found["own"] else "")
