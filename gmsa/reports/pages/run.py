"""The page of a run, made from what its folder holds, which may be a stranger's."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gmsa.config.groups.missing import RATES
from gmsa.config.strict_yaml import parse_yaml
from gmsa.figures.canvas import spared
from gmsa.reports.pages import html
from gmsa.reports.robustness import MEANING, Report, read_robustness, score_table
from gmsa.reports.run import (
    FIGURES,
    PSEUDO_LABELS_ALONE,
    all_scores,
    class_scores,
    main_scores,
    protocol_line,
    run_facts,
    spread_note,
)
from gmsa.reports.summary import SUMMARY, Summary, dataset_of
from gmsa.reports.tables import headline, plural
from gmsa.system.files import remove, write_text
from gmsa.system.reading import MOST_RECORDS, is_file, read_bytes, read_json, read_text
from gmsa.system.records import SHA256, TEXT, Fields, Items, Map, Maybe, check_form, whole

PAGE = "report.html"
MOST_FIGURE = 1 << 24
"""Bytes of a figure, at most."""
ENVIRONMENT = Fields(
    {},
    {
        **dict.fromkeys(("python", "platform", "device", "cpu_capability"), TEXT),
        "threads": whole(),
        "git": Maybe(TEXT),
        "pool_sha256": Maybe(SHA256),
        "versions": Map(Maybe(TEXT)),
        "plugins": Items(TEXT, 1000),
        "dims": Map(whole()),
    },
)
"""What the page shows of ``environment.json``."""
MOST_ROWS = 20
"""Rows of a table that is not folded away."""
SECTIONS = {
    "Training": (("curves",),),
    "Predictions for the test split": (("scatter", "confusion"), ("classes",), ("calibration",)),
    "Gate": (("gate",),),
    "Pseudo-labels": (("pseudo_labels",), ("pool_calibration",)),
}
"""Sections that are figures alone: rows of those that stand side by side."""


def write_run_page(folder: Path) -> None:
    """Makes ``report.html`` of a finished run; one that cannot be made is a warning, and that of before is deleted.

    Raises:
        WriteError: the file cannot be written.
    """
    path, text = folder / PAGE, ""
    with spared(path, "page"):
        text = run_page(folder)
    if text:
        write_text(path, text)
    else:
        remove(path)


def run_page(folder: Path) -> str:
    """The page of a finished run.

    Raises:
        RunError: a file of the run cannot be read.
        ValueError: a file of the run is not what gmsa writes.
    """
    summary: Summary = read_json(folder / "summary.json", MOST_RECORDS, inside=folder)
    check_form(summary, SUMMARY)
    environment = read_json(folder / "environment.json", inside=folder)
    check_form(environment, ENVIRONMENT)
    settings = read_text(folder / "config.yaml", inside=folder)
    try:
        robustness = read_robustness(folder)
    except ValueError:  # summary.md says so
        robustness = None
    seeds = len(summary["seeds"])
    lead = f"{summary['model']} on {dataset_of(summary)}, {plural(seeds, 'seed')}. Training: {protocol_line(summary)}."
    parts = [
        html.paragraph(lead),
        html.section("Scores", *_scores(summary)),
        html.section("Classes", *_classes(summary)),
        html.section("What was trained", *_trained(summary, settings)),
    ]
    for name, figures in SECTIONS.items():
        parts.append(html.section(name, *(html.beside(*_figures(folder, names)) for names in figures)))
    if robustness is not None:
        parts.append(html.section("Missing modalities", *_missing(folder, robustness)))
    parts += [
        html.section("Worst predictions", *_worst(summary.get("worst", ()))),
        html.section("Environment", html.facts(_environment(environment))),
        html.section("The same again", *_again(folder, summary)),
    ]
    return html.page(summary["name"] or folder.name, parts, synthetic=summary["synthetic"])


def _scores(summary: Summary) -> list[str]:
    main, whole = main_scores(summary), all_scores(summary)
    parts = [html.table(*main, ("Metric",)), html.paragraph(spread_note(summary))]
    if whole != main:
        what = "All metrics, all stages" if summary["stages"] else "All metrics"
        parts.append(html.fold(what, html.table(*whole, ("Metric",))))
    return parts


def _classes(summary: Summary) -> list[str]:
    """Precision, recall and F1 of each class on the test split; many classes are folded away."""
    header, rows = class_scores(summary)
    if not rows:
        return []
    table = html.table(header, rows, ("Class",))
    return [table if len(rows) <= MOST_ROWS else html.fold(f"All {len(rows)} classes", table)]


def _trained(summary: Summary, settings: str) -> list[str]:
    chosen = _checkpoint(parse_yaml(settings, "config.yaml"))
    once = "; the test split is scored once, at the end" if summary["test"] else ""
    facts = {**run_facts(summary), "Checkpoint": chosen + once}
    return [html.facts(facts), html.fold("All settings", html.code(settings))]


def _checkpoint(settings: Any) -> str:
    """How the epoch was chosen, where the settings say so."""
    groups = settings if isinstance(settings, Mapping) else {}
    run, optim = ({**group} if isinstance(group := groups.get(name), Mapping) else {} for name in ("run", "optim"))
    protocol = str(groups["protocol"].get("name")) if isinstance(groups.get("protocol"), Mapping) else ""
    metric = "loss" if protocol == "pretrain" else run.get("select", "MAE")
    chosen = f"the epoch of each stage with the best validation {metric}"
    if protocol.partition("(")[0] == "soup":
        chosen += "; the final model has the mean of their weights"
    if optim.get("patience"):
        chosen += f"; a stage stops after {optim['patience']} epochs without a better one"
    return chosen


def _figures(folder: Path, names: Sequence[str]) -> list[str]:
    """Those of some figures that the folder has as SVG."""
    found = []
    for name in names:
        path = folder / "figures" / f"{name}.svg"
        if is_file(path):
            svg = read_bytes(path, MOST_FIGURE, inside=folder)
            caption = FIGURES[name]
            if name == "pseudo_labels" and not is_file(folder / "figures" / "pool_calibration.svg"):
                caption = PSEUDO_LABELS_ALONE
            found.append(html.figure(svg, name.replace("_", " "), caption))
    return found


def _missing(folder: Path, report: Report) -> list[str]:
    parts = [
        html.paragraph(
            f"Test split of {dataset_of(report)}; mean ± standard deviation over seeds and over mask seeds. "
            f"Hidden in training: {report['hidden_in_training']}."
        )
    ]
    for protocol, found in report["protocols"].items():
        if protocol in RATES:
            parts += _figures(folder, [f"robustness_{protocol}"])
        metrics = headline(found["rows"][0]["metrics"] if found["rows"] else ())
        table = html.table(*score_table(protocol, found, metrics), ("Left",))
        if protocol in RATES:
            parts.append(html.fold(f"Table of {protocol}", html.paragraph(MEANING[protocol]), table))
        else:
            parts += [html.paragraph(MEANING[protocol]), table]
    return parts


def _worst(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    if not rows:
        return []
    confident = all("confidence" in row for row in rows)  # of classes
    columns = {
        "Truth": [_label(row["truth"]) for row in rows],
        "Predicted": [_label(row["prediction"]) for row in rows],
        **({"Confidence": [f"{100 * row['confidence']:.0f} %" for row in rows]} if confident else {}),
        "Text": [row["text"] or "–" for row in rows],
        "Missing": [", ".join(row["lacking"]) or "–" for row in rows],
        "Utterance": [row["id"] for row in rows],
    }
    for name, key in (("Text", "text"), ("Missing", "lacking")):
        if not any(row[key] for row in rows):
            del columns[name]
    note = "The test utterances whose prediction, mean over seeds, is farthest from the truth."
    if confident:
        note = "The wrong predictions for the test split of the highest probability, mean over seeds."
    cells = [list(row) for row in zip(*columns.values(), strict=True)]
    left = ("Truth", "Predicted") if confident else ()
    return [html.paragraph(note), html.table(list(columns), cells, (*left, "Text", "Missing", "Utterance"))]


def _label(label: float | str) -> str:
    return label if isinstance(label, str) else f"{label:+.2f}"


def _environment(found: Mapping[str, Any]) -> dict[str, str]:
    versions = {name: value for name, value in found.get("versions", {}).items() if value is not None}
    facts = {
        "Versions": ", ".join(f"{name} {value}" for name, value in versions.items()),
        "Python": found.get("python"),
        "Platform": found.get("platform"),
        "Device": found.get("device"),
        "CPU capability": found.get("cpu_capability"),
        "Threads": found.get("threads"),
        "Commit of gmsa": found.get("git"),
        "SHA-256 of the pool": found.get("pool_sha256"),
        "Features per step": ", ".join(f"{modality} {dim}" for modality, dim in found.get("dims", {}).items()),
        "Plug-ins": ", ".join(found.get("plugins", [])),
    }
    return {name: str(value) for name, value in facts.items() if value}


def _again(folder: Path, summary: Summary) -> list[str]:
    config = shlex.quote(str(folder / "config.yaml"))
    note = (
        "With the same data (their SHA-256 is above), the same versions and the same kind of machine, "
        "this gives the same numbers, bit for bit:"
    )
    return [html.paragraph(note), html.code(f"gmsa train --config {config} --out again")]
