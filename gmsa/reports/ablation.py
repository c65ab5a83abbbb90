"""The tables of an ablation, in Markdown and LaTeX."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gmsa.metrics import COLUMNS
from gmsa.reports.summary import SCORED_SPLITS, SYNTHETIC_NOTE, dataset_of
from gmsa.reports.tables import cell, escape_markdown, pipes, plural, tabular, title

Comparison = dict[str, Any]
"""The content of ``summary.json``, as :func:`~gmsa.ablation.comparison.ablation_summary` returns it."""

SHOWN = {"mosi": ("Non0_acc_2", "Mult_acc_7"), "sims": ("Mult_acc_2", "Mult_acc_5")}
"""Accuracies in the table, per label scale."""
MEANING = (
    "Ranked by validation {select}; mean ± standard deviation over {seeds}. Differences are to the reference, "
    "in MAE: paired bootstrap over utterances and seeds, 95 % interval, p not corrected for the number of rows. Test "
    "took no part in the ranking. Edges and nodes: per training utterance. Memory: peak of a cell's process."
)
LEFT = ("setting", *(f"difference, {split}" for split in SCORED_SPLITS))
"""Columns that are flush left."""


def markdown_rows(comparison: Comparison) -> str:
    """The table, what it means, and the reasons of failed cells, as Markdown."""
    table = pipes(*_table(comparison), LEFT)
    reasons = "".join(f"- {escape_markdown(reason)}\n" for reason in _reasons(comparison))
    note = f"**{SYNTHETIC_NOTE}**\n\n" if comparison["synthetic"] else ""
    return f"{note}{table}\n{_meaning(comparison)}\n" + (f"\nFailed:\n\n{reasons}" if reasons else "")


def latex_rows(comparison: Comparison) -> str:
    r"""The table as a LaTeX ``table*``; needs ``\usepackage{booktabs}``."""
    note = f" {SYNTHETIC_NOTE}" if comparison["synthetic"] else ""
    caption = f"{dataset_of(comparison)}. {_meaning(comparison)}{note} {' '.join(_reasons(comparison))}"
    return tabular(*_table(comparison), LEFT, caption.strip(), wide=True)


def _table(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    labels = comparison["labels"]
    scored: Mapping[str, Any] = next((row["valid"] for row in comparison["rows"] if row["rank"] is not None), {})
    further = [metric for metric in scored if metric not in COLUMNS[labels]]
    columns = [("valid", metric) for metric in ("MAE", "Corr", *further)]
    columns += [("test", metric) for metric in ("MAE", "Corr", *SHOWN[labels], *further)]
    header = ["rank", "setting", *(f"{split} {title(metric)}" for split, metric in columns)]
    header += [*LEFT[1:], "nodes", "edges", "s per epoch", "memory (MB)"]
    rows = []
    for row in comparison["rows"]:
        name = row["setting"] + (" (reference)" if row["reference"] else "")
        if row["rank"] is None:
            rows.append(["", name, "failed", *[""] * (len(header) - 3)])
            continue
        cells = [cell(metric, row[split][metric]) for split, metric in columns]
        differences = [_difference(row.get("difference", {}).get(split)) for split in SCORED_SPLITS]
        costs = [f"{row['nodes']:.1f}", f"{row['edges']:.1f}", f"{row['seconds_per_epoch']:.2f}"]
        rows.append([str(row["rank"]), name, *cells, *differences, *costs, f"{row['peak_memory_mb']:.0f}"])
    return header, rows


def _difference(found: Mapping[str, float] | None) -> str:
    if found is None:
        return ""
    p = f"p = {found['p']:.3f}" if found["p"] >= 0.001 else "p < 0.001"
    return f"{found['difference']:+.4f} [{found['low']:+.4f}, {found['high']:+.4f}] {p}"


def _meaning(comparison: Comparison) -> str:
    count = len(comparison["seeds"])
    return MEANING.format(select=comparison["select"], seeds=plural(count, "seed") if count > 1 else "one seed")


def _reasons(comparison: Comparison) -> list[str]:
    return [f"{r['setting']}, seed {s}: {why}" for r in comparison["rows"] for s, why in r["failed"].items()]
