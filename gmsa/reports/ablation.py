"""The tables of an ablation, in Markdown and LaTeX."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gmsa.reports.summary import SPLITS, SYNTHETIC_NOTE
from gmsa.reports.tables import escape_latex

Comparison = dict[str, Any]
"""What :func:`~gmsa.ablation.comparison.compare` returns and ``summary.json`` holds."""

SHOWN = {"mosi": ("Non0_acc_2", "Mult_acc_7"), "sims": ("Mult_acc_2", "Mult_acc_5")}
"""Accuracies in the table, per label scale."""
MEANING = (
    "Ranked by validation {select}; mean ± standard deviation over {seeds}. Differences are to the reference, "
    "in MAE: paired bootstrap over utterances and seeds, 95 % interval, p not corrected for the number of rows. Test "
    "took no part in the ranking. Edges and nodes: per training utterance. Memory: most that a cell's process had."
)


def markdown_rows(comparison: Comparison) -> str:
    """The table, what it means, and the reasons of failed cells, as Markdown."""
    header, rows = _table(comparison)
    align = [":--" if column == "setting" or "difference" in column else "--:" for column in header]
    lines = "".join("| " + " | ".join(_escape(cell) for cell in line) + " |\n" for line in [header, align, *rows])
    reasons = "".join(f"- {_escape(reason)}\n" for reason in _reasons(comparison))
    note = f"**{SYNTHETIC_NOTE}**\n\n" if comparison["synthetic"] else ""
    return f"{note}{lines}\n{_meaning(comparison)}\n" + (f"\nFailed:\n\n{reasons}" if reasons else "")


def latex_rows(comparison: Comparison) -> str:
    r"""The table as a LaTeX ``table*``; needs ``\usepackage{booktabs}``."""
    header, rows = _table(comparison)
    body = [" & ".join(_tex(cell) for cell in row) + r" \\" for row in [header, *rows]]
    note = f" {SYNTHETIC_NOTE}" if comparison["synthetic"] else ""
    caption = f"{_data(comparison)}. {_meaning(comparison)}{note} {' '.join(_reasons(comparison))}"
    columns = "".join("l" if column == "setting" or "difference" in column else "r" for column in header)
    head = [r"\begin{table*}[t]", r"\centering", r"\scriptsize", rf"\caption{{{_tex(caption.strip())}}}"]
    head += [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", body[0], r"\midrule"]
    return "\n".join([*head, *body[1:], r"\bottomrule", r"\end{tabular}", r"\end{table*}", ""])


def _table(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    accuracies = SHOWN[comparison["labels"]]
    columns = [
        ("valid", "MAE"),
        ("valid", "Corr"),
        ("test", "MAE"),
        ("test", "Corr"),
        *(("test", a) for a in accuracies),
    ]
    header = ["rank", "setting"]
    header += [f"{split} {metric}{' (%)' if '_acc_' in metric else ''}" for split, metric in columns]
    header += ["difference, valid", "difference, test", "nodes", "edges", "s per epoch", "memory (MB)"]
    rows = []
    for row in comparison["rows"]:
        name = row["setting"] + (" (reference)" if row["reference"] else "")
        if row["rank"] is None:
            rows.append(["", name, "failed", *[""] * (len(header) - 3)])
            continue
        cells = [_cell(metric, row[split][metric]) for split, metric in columns]
        differences = [_difference(row.get("difference", {}).get(split)) for split in SPLITS]
        costs = [f"{row['nodes']:.1f}", f"{row['edges']:.1f}", f"{row['seconds_per_epoch']:.2f}"]
        rows.append([str(row["rank"]), name, *cells, *differences, *costs, f"{row['peak_memory_mb']:.0f}"])
    return header, rows


def _cell(metric: str, spread: Mapping[str, Any]) -> str:
    scale, digits = (100, 1) if "_acc_" in metric else (1, 3)
    mean = f"{scale * spread['mean']:.{digits}f}"
    return mean if len(spread["values"]) == 1 else f"{mean} ± {scale * spread['std']:.{digits}f}"


def _difference(found: Mapping[str, float] | None) -> str:
    if found is None:
        return ""
    p = f"p = {found['p']:.3f}" if found["p"] >= 0.001 else "p < 0.001"
    return f"{found['difference']:+.3f} [{found['low']:+.3f}, {found['high']:+.3f}] {p}"


def _meaning(comparison: Comparison) -> str:
    count = len(comparison["seeds"])
    return MEANING.format(select=comparison["select"], seeds=f"{count} seeds" if count > 1 else "one seed")


def _reasons(comparison: Comparison) -> list[str]:
    return [f"{r['setting']}, seed {s}: {why}" for r in comparison["rows"] for s, why in r["failed"].items()]


def _data(comparison: Comparison) -> str:
    name = str(comparison["dataset"])
    return name if not comparison["synthetic"] else "synthetic" if name == "synthetic" else f"synthetic (not {name})"


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _tex(text: str) -> str:
    return escape_latex(text).replace("±", r"$\pm$")
