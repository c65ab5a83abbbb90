"""The tables of runs, in Markdown and LaTeX."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gmsa.reports.summary import SCORED_SPLITS, SYNTHETIC_NOTE, Summary, dataset_of, missing_lines
from gmsa.reports.tables import cell, escape_markdown, pipes, plural, tabular, title
from gmsa.system import files

LEFT = ("Run", "Data", "Stage", "Split")
"""Columns that are flush left."""


def markdown_table(summaries: Sequence[Summary]) -> str:
    """One Markdown table of one or more runs: a row per run, stage and split, cells mean ± std over seeds.

    Accuracies and F1 are in percent. A single seed has no ±.
    """
    return pipes(*_table(summaries), LEFT)


def latex_table(summaries: Sequence[Summary]) -> str:
    r"""The table of :func:`markdown_table` as a LaTeX ``table``; needs ``\usepackage{booktabs}``."""
    facts = "; ".join(dict.fromkeys(f"{dataset_of(s)}, {plural(len(s['seeds']), 'seed')}" for s in summaries))
    note = f" {SYNTHETIC_NOTE}" if any(s["synthetic"] for s in summaries) else ""
    return tabular(*_table(summaries), LEFT, f"Mean and standard deviation over seeds ({facts}).{note}")


def markdown_report(summary: Summary) -> str:
    """The content of ``summary.md``: heading, the facts of the run, its table."""
    seconds = summary["train_seconds"]
    facts = {
        "Data": dataset_of(summary),
        "SHA-256 of the data": summary["data_sha256"],
        "Model": f"{summary['model']}, {summary['parameters']:,} trainable parameters",
        "Protocol": summary["protocol"],
        "Seeds": ", ".join(map(str, summary["seeds"])),
        "Label ratio": f"{summary['label_ratio']:g}",
        **({"Starts from": summary["init_from"]} if "init_from" in summary else {}),
        **missing_lines(summary["missing"]),
        "Training time per seed": cell("seconds", seconds) + " s",
    }
    heading = f"# {escape_markdown(summary['name'])}"
    if summary["synthetic"]:
        heading += f" (*synthetic* data)\n\n> **{SYNTHETIC_NOTE}**"
    lines = "".join(f"- {key}: {escape_markdown(value)}\n" for key, value in facts.items())
    return f"{heading}\n\n{lines}\nMean ± standard deviation over seeds.\n\n{markdown_table([summary])}"


def write_summary(folder: str | Path, summary: Summary) -> None:
    """Writes ``summary.json``, ``summary.md`` and ``summary.tex`` into a run folder, each atomically.

    Raises:
        ValueError: a value is NaN or infinite, which JSON does not know; nothing is written then.
    """
    folder = Path(folder)
    files.make_folder(folder)
    files.write_json(folder / "summary.json", summary)  # first: it is the one that can refuse
    files.write_text(folder / "summary.md", markdown_report(summary))
    files.write_text(folder / "summary.tex", latex_table([summary]))


def _rows(summary: Summary) -> list[tuple[str, str, Mapping[str, Any]]]:
    """(stage, split, metrics) of every row: the stages in order, the final model last."""
    final = {split: summary[split] for split in SCORED_SPLITS if summary[split]}
    stages = {name: splits for name, splits in summary["stages"].items() if splits}
    label = "final"
    # The last stage usually is the final model: one row says both.
    if stages and all(final.get(split) == scores for split, scores in list(stages.values())[-1].items()):
        label = f"{list(stages)[-1]} (final)"
        stages.popitem()
    return [
        (stage, split, scores)
        for stage, splits in [*stages.items(), (label, final)]
        for split, scores in splits.items()
    ]


def _table(summaries: Sequence[Summary]) -> tuple[list[str], list[list[str]]]:
    metrics = list(dict.fromkeys(metric for s in summaries for _, _, scores in _rows(s) for metric in scores))
    staged = any(s["stages"] for s in summaries)
    header = ["Run", "Data", *(["Stage"] if staged else []), "Split"]
    header += [title(metric) for metric in metrics]
    rows = [
        [summary["name"], dataset_of(summary), *([stage] if staged else []), split]
        + [cell(metric, scores[metric]) if metric in scores else "" for metric in metrics]
        for summary in summaries
        for stage, split, scores in _rows(summary)
    ]
    return header, rows
