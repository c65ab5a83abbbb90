"""Data files and stores in Markdown: what is in one, and what a check found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gmsa.data.checks import findings as check
from gmsa.reports.tables import escape_markdown, pipes

_MEANING = f"""\
An error makes training or its scores wrong; a warning may; a note is good to know. A feature is on another scale
where its standard deviation is more than {check.RATIO:g} times that of the training split, or less than that
divided by {check.RATIO:g}, or its mean more than {check.SHIFT:g} standard deviation away (by chance alone, 0.1 for a
hundred utterances); that is told where {check.MANY:.0%} of a modality's features are.
"""
_KINDS = {"manifest": "table", "datasets": "data set", "csd": "folder of .csd files", "semi_iin": "folder of features"}
MOST_CLASSES = 40
"""Classes that a table shows."""


def markdown_check(found: dict[str, Any]) -> str:
    """The content of ``check.md``.

    Args:
        found: the result of a check, as :func:`gmsa.data.checks.examine.to_json` gives it.
    """
    rows = [[f["severity"], f["what"], f["where"], str(f["count"]), _examples(f)] for f in found["findings"]]
    counts = {severity: sum(f["severity"] == severity for f in found["findings"]) for severity in check.SEVERITIES}
    total = ", ".join(f"{count} {severity}{'' if count == 1 else 's'}" for severity, count in counts.items())
    header = ("Severity", "Finding", "Where", "Count", "Examples")
    table = pipes(header, rows, [column for column in header if column != "Count"])
    name = escape_markdown(Path(found["path"]).name)
    return f"# Check of {name}: {total}\n\n{table}\n{markdown_overview(found)}\n{_MEANING}"


def markdown_overview(found: dict[str, Any]) -> str:
    """The facts of a file or store, and tables with a row per class and per split.

    Args:
        found: as :func:`gmsa.data.checks.examine.overview` gives it.
    """
    kind = _KINDS.get(found["kind"], found["kind"])
    size = f", {found['bytes'] / 1e6:.1f} MB" if found["bytes"] else ""
    facts = {
        "Data": f"{found['path']} ({kind}{size})",
        "SHA-256": found["sha256"] + (" (of its manifest)" if found["kind"] == "store" else ""),
        "Target": f"{found['target']['text']}, metrics {found['target']['metrics']}",
        "Features": ", ".join(f"{m} {dim} {found['dtypes'].get(m, '')}".strip() for m, dim in found["dims"].items()),
    }
    if found["error"] and "findings" not in found:
        facts["Training"] = f"would stop: {found['error']}"
    if found["source"]:
        parts = [f"{file['name']} ({file['sha256']})" for file in found["source"].get("files", [])]
        facts["From"] = f"{', '.join(parts) or 'rows'}, importer {found['source'].get('importer', 'none')}"
    lines = "".join(f"- {key}: {escape_markdown(value)}\n" for key, value in facts.items())
    return f"{lines}\n{_classes(found)}{_splits(found)}"


def _splits(found: dict[str, Any]) -> str:
    """A row per split."""
    groups = {"videos": "Videos", "speakers": "Speakers", "folds": "Folds"}
    shown = [key for key in groups if key == "videos" or any(split[key] for split in found["splits"].values())]
    several = any((split["per_video"] or {"max": 1})["max"] > 1 for split in found["splits"].values())
    ranged = not found["target"]["classes"]
    rows = []
    for name, split in found["splits"].items():
        row = [name, str(split["utterances"]), str(split["labels"]["labeled"])]
        for modality in found["dims"]:
            steps = split["lengths"][modality]
            row.append(f"{steps['present'] / max(1, split['utterances']):.1%}")
            row.append(f"{steps['mean']:.1f} ({steps['min']}–{steps['max']})" if steps["present"] else "–")
        if ranged:
            labels = split["labels"]
            row.append(f"{labels['mean']:.2f} ({labels['min']:g} to {labels['max']:g})" if labels["labeled"] else "–")
        row += [str(split[key]) for key in shown]
        if several:
            sizes = split["per_video"]
            row.append(f"{sizes['median']:g} ({sizes['min']}–{sizes['max']})" if sizes else "–")
        rows.append(row)
    header = ["Split", "Utterances", "Labeled", *(f"{m}{part}" for m in found["dims"] for part in ("", " steps"))]
    header += [*(["Labels"] if ranged else []), *(groups[key] for key in shown)]
    header += ["Utterances per video"] if several else []
    return pipes(header, rows, ("Split",))


def _classes(found: dict[str, Any]) -> str:
    """A row per class; the most frequent ones of many."""
    counts = {name: split["labels"].get("classes", {}) for name, split in found["splits"].items()}
    classes = found["target"]["classes"]
    totals = {c: sum(split.get(c, 0) for split in counts.values()) for c in classes}
    kept = set(sorted(classes, key=lambda c: -totals[c])[:MOST_CLASSES])
    rows = [[c, *(str(split.get(c, 0)) for split in counts.values())] for c in classes if c in kept]
    more = f"The {MOST_CLASSES} most frequent of {len(classes)} classes.\n\n" if len(classes) > len(kept) else ""
    return f"{pipes(['Class', *counts], rows, ('Class',))}\n{more}" if rows else ""


def _examples(finding: dict[str, Any]) -> str:
    more = finding["count"] - len(finding["examples"])
    return "; ".join(finding["examples"]) + (" ..." if finding["examples"] and more > 0 else "")
