"""What an ablation found, in words and tables: Markdown and LaTeX."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from gmsa.metrics import COLUMNS
from gmsa.reports.summary import SCORED_SPLITS, SYNTHETIC_NOTE, dataset_of
from gmsa.reports.tables import cell, escape_markdown, pipes, plural, tabular, title

Comparison = dict[str, Any]
"""The content of ``summary.json``, as :func:`~gmsa.ablation.comparison.ablation_summary` returns it."""

SHOWN = {"mosi": ("Non0_acc_2", "Mult_acc_7"), "sims": ("Mult_acc_2", "Mult_acc_5")}
"""Accuracies in the table, per label scale."""
MEANING = (
    "Ranked by validation {select}; mean ± standard deviation over {seeds}. Test took no part in the ranking. Differences "
    "are to the reference, in MAE: paired bootstrap over utterances and seeds, 95 % interval, p not corrected for the "
    "number of settings."
)
REASON = 120
"""Characters of the beginning and of the end of a reason that are shown."""
DIFFERENCE = "difference, valid"
LEFT = ("setting", DIFFERENCE)
"""Columns that are flush left."""


def headline(comparison: Comparison) -> str:
    """What an ablation found, in a few sentences."""
    ranked = [row for row in comparison["rows"] if row["rank"] is not None]
    if not ranked:
        return "No setting was trained to its end."
    best, select = ranked[0], comparison["select"]
    role = ", the reference," if best["reference"] else ""
    sentences = [
        f"'{best['setting']}'{role} is the best of {plural(len(ranked), 'setting')} on validation: "
        f"{score(select, best['valid'][select])}, {_over(comparison)}."
    ]
    found = best.get("difference", {}).get("valid")
    if found is not None:
        apart = found["high"] < 0 or found["low"] > 0
        sentences.append(
            f"Its MAE differs from that of the reference, '{comparison['reference']}', by {found['difference']:+.4f} "
            f"(95 % interval {interval(found)}, {p_value(found)})"
            f"{'.' if apart else ': the interval includes 0, so this may be chance.'}"
        )
    sentences.append(f"On test, which took no part in the choice: {score(select, best['test'][select])}.")
    failed = len(comparison["rows"]) - len(ranked)
    return " ".join([*sentences, *([f"{plural(failed, 'setting')} failed."] if failed else [])])


def markdown_report(comparison: Comparison, links: Mapping[str, str]) -> str:
    """The content of ``summary.md``.

    Args:
        links: files beside it, by what they are.
    """
    heading = f"# {escape_markdown(comparison['name'])}{' (*synthetic* data)' if comparison['synthetic'] else ''}"
    data = f"Data: {escape_markdown(dataset_of(comparison))}, SHA-256 {comparison['data_sha256']}"
    files = ", ".join(f"[{name}]({path})" for name, path in links.items())
    parts = [heading, escape_markdown(headline(comparison)), markdown_rows(comparison).rstrip("\n"), data]
    return "\n\n".join([*parts, *([f"See {files}."] if files else [])]) + "\n"


def markdown_rows(comparison: Comparison) -> str:
    """The table, what it means, and the reasons of failed cells, as Markdown."""
    header, rows, _ = _table(comparison)
    reasons = "".join(f"- {escape_markdown(f'{s}, seed {n}: {brief(why)}')}\n" for s, n, why in failures(comparison))
    note = f"**{SYNTHETIC_NOTE}**\n\n" if comparison["synthetic"] else ""
    return f"{note}{pipes(header, rows, LEFT)}\n{meaning(comparison)}\n" + (
        f"\nFailed:\n\n{reasons}" if reasons else ""
    )


def meaning(comparison: Comparison) -> str:
    """What the columns of the table mean."""
    count = len(comparison["seeds"])
    return MEANING.format(select=comparison["select"], seeds=plural(count, "seed") if count > 1 else "one seed")


def failures(comparison: Comparison) -> list[tuple[str, str, str]]:
    """Setting, seed and reason of every failed cell."""
    return [(row["setting"], seed, why) for row in comparison["rows"] for seed, why in row["failed"].items()]


def brief(reason: str) -> str:
    """A reason without its middle, where it is long: what happened, and the remedy at its end."""
    return reason if len(reason) <= 2 * REASON else f"{reason[:REASON]} … {reason[-REASON:]}"


def further_metrics(comparison: Comparison) -> list[str]:
    """The metrics that the config asks for beyond those of the label scale."""
    scored: Mapping[str, Any] = next((row["valid"] for row in comparison["rows"] if row["rank"] is not None), {})
    return [metric for metric in scored if metric not in COLUMNS[comparison["labels"]]]


def score(metric: str, found: Mapping[str, Any]) -> str:
    """A metric's name and its value."""
    return f"{title(metric)} {cell(metric, found)}"


def interval(found: Mapping[str, float]) -> str:
    """The 95 % interval of a difference."""
    return f"[{found['low']:+.4f}, {found['high']:+.4f}]"


def p_value(found: Mapping[str, float]) -> str:
    """The p-value of a difference."""
    return f"p = {found['p']:.3f}" if found["p"] >= 0.001 else "p < 0.001"


def numeric_axis(values: Sequence[Mapping[str, Any]]) -> str | None:
    """The key that settings may be drawn over: the only numeric one with three values or more.

    None also where some combination of the other keys has one value only, a point that makes no line.

    Args:
        values: for every setting the values of the varied keys.
    """
    columns = {key: [row[key] for row in values] for key in (values[0] if values else ())}
    numeric = [
        key
        for key, column in columns.items()
        if all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in column) and len(set(column)) >= 3
    ]
    if len(numeric) != 1:
        return None
    lines = [line_of(row, numeric[0]) for row in values]
    return numeric[0] if all(lines.count(line) > 1 for line in lines) else None


def line_of(values: Mapping[str, Any], axis: str) -> str:
    """The name of a setting's line over an axis: its values of all other keys."""
    return ", ".join(plain(value) for key, value in values.items() if key != axis)


def plain(value: Any) -> str:
    """A value of a setting, in a line."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _over(comparison: Comparison) -> str:
    count = len(comparison["seeds"])
    return f"mean ± standard deviation over {count} seeds" if count > 1 else "one seed"


def _table(comparison: Comparison) -> tuple[list[str], list[list[str]], list[int]]:
    """Header, rows, and the places of the rows with the best value."""
    further = further_metrics(comparison)
    columns = [("valid", metric) for metric in ("MAE", "Corr", *further)]
    columns += [("test", metric) for metric in ("MAE", "Corr", *SHOWN[comparison["labels"]], *further)]
    header = ["rank", "setting", *(f"{split} {title(metric)}" for split, metric in columns)]
    header.insert(4 + len(further), DIFFERENCE)
    rows = []
    for row in comparison["rows"]:
        name = row["setting"] + (" (reference)" if row["reference"] else "")
        if row["rank"] is None:
            rows.append(["", name, "failed", *[""] * (len(header) - 3)])
            continue
        cells = [cell(metric, row[split][metric]) for split, metric in columns]
        found = row.get("difference", {}).get("valid")
        cells.insert(2 + len(further), f"{found['difference']:+.4f} {interval(found)} {p_value(found)}" if found else "")
        rows.append([str(row["rank"]), name, *cells])
    return header, rows, [0]


def latex_rows(comparison: Comparison) -> str:
    r"""The table as a LaTeX ``table*``; needs ``\usepackage{booktabs}``."""
    note = f" {SYNTHETIC_NOTE}" if comparison["synthetic"] else ""
    header, rows, _ = _table(comparison)
    return tabular(header, rows, LEFT, f"{dataset_of(comparison)}. {meaning(comparison)}{note}", wide=True)
