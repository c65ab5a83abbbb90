"""The tables of runs, in Markdown and LaTeX."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gmsa.config.groups.missing import RATES
from gmsa.errors import cut
from gmsa.reports.context import WITH_CONTEXT, context_facts
from gmsa.reports.summary import SCORED_SPLITS, SYNTHETIC_NOTE, Summary, dataset_of, missing_lines, spread, target_line
from gmsa.reports.tables import (
    SHORT,
    best_rows,
    cell,
    escape_markdown,
    headline,
    is_share,
    pipes,
    plural,
    tabular,
    title,
)
from gmsa.system import files
from gmsa.system.reading import is_file

LEFT = ("Run", "Data", "Stage", "Split")
"""Columns that are flush left."""
SPLITS = {"test": "Test", "valid": "Validation"}
"""Splits with scores in the order of the short tables, and what these call them."""
NEEDING_POOL = ("self_training", "distillation")
"""Protocols that end after their supervised stage where there is no pool; ``distillation`` did so in older runs."""
FINAL = " (final)"
"""Follows the name of the stage that is the final model."""
FIGURES = {
    "curves": "Training loss and validation score by epoch; a star marks the epoch that was chosen.",
    "scatter": "Predicted against true intensity of the test split, all seeds.",
    "confusion": "Predicted against true class of the test split, all seeds.",
    "classes": "F1 of each class on the test split, and how many utterances each class has.",
    "calibration": "How often the predicted class is right, by the model's confidence; test split, all seeds.",
    "gate": "How much the readout nodes take from the inter-modal view rather than from the intra-modal one.",
    "pseudo_labels": "Pseudo-labels kept per class, and how many of them are right where the true label is known.",
    "pool_calibration": "The same calibration for the unlabeled pool, where true labels were withheld.",
    **{f"robustness_{protocol}": f"Test scores by the share that {protocol} masks." for protocol in RATES},
}
"""The figures that a run folder may have, and what each shows."""
PSEUDO_LABELS_ALONE = "Pseudo-labels kept per class."
"""What that figure shows where no true label of the pool is known: ``pool_calibration`` is not there then."""


def markdown_table(summaries: Sequence[Summary]) -> str:
    """One Markdown table of one or more runs: a row per run, stage and split, cells mean ± std over seeds.

    Accuracies and F1 are in percent. A single seed has no ±.
    """
    return pipes(*_table(summaries), LEFT)


def latex_table(summaries: Sequence[Summary], metrics: Sequence[str] | None = None) -> str:
    r"""A LaTeX ``table`` that fits a column of a two-column paper; needs ``\usepackage{booktabs}``.

    A row per run and stage, of the test split (of the validation split where no test split was scored); the best of
    each column is bold.

    Args:
        metrics: columns; by default the main ones.
    """
    scored = dict.fromkeys(of for summary in summaries for _, of, _ in _rows(summary))
    split = next((name for name in (*SPLITS, *scored) if name in scored), "test")
    found = [(s["name"], stage, part) for s in summaries for stage, of, part in _rows(s) if of == split]
    if metrics is None:
        metrics = headline(dict.fromkeys(metric for _, _, scores in found for metric in scores))
    stages = [stage.removesuffix(FINAL).replace("_", "-") for _, stage, _ in found]
    names = {"Run": [name for name, _, _ in found], "Stage": stages}
    columns = [key for key, values in names.items() if len(set(values)) > 1] or ["Run"]  # what tells rows apart
    rows = [
        [*(names[key][place] for key in columns)]
        + [cell(metric, scores[metric], fewer=True) if metric in scores else "" for metric in metrics]
        for place, (_, _, scores) in enumerate(found)
    ]
    strong = set()
    for column, metric in enumerate(metrics, len(columns)):
        there = [place for place, (_, _, scores) in enumerate(found) if metric in scores]
        best = best_rows(metric, [found[place][2][metric]["mean"] for place in there])
        strong |= {(there[place], column) for place in best}
    facts = "; ".join(dict.fromkeys(f"{dataset_of(s)}, {plural(len(s['seeds']), 'seed')}" for s in summaries))
    note = f" {SYNTHETIC_NOTE}" if any(s["synthetic"] for s in summaries) else ""
    percent = "; accuracies and F1 in percent" if any(map(is_share, metrics)) else ""
    caption = f"{SPLITS.get(split, split)} split: mean ± standard deviation over seeds ({facts}){percent}.{note}"
    return tabular([*columns, *(SHORT.get(m, m) for m in metrics)], rows, LEFT, caption, strong=strong)


def markdown_report(summary: Summary, folder: Path | None = None) -> str:
    """The content of ``summary.md``: heading, main scores, the facts of the run, all scores.

    Args:
        folder: of the run; the report links to the figures and the page that it holds.
    """
    heading = f"# {escape_markdown(summary['name'])}"
    if summary["synthetic"]:
        heading += f" (*synthetic* data)\n\n> **{SYNTHETIC_NOTE}**"
    links = "" if folder is None else _links(folder)
    lines = "".join(f"- {key}: {escape_markdown(value)}\n" for key, value in run_facts(summary).items())
    main, whole = main_scores(summary), all_scores(summary)
    more = f"\n## All metrics\n\n{pipes(*whole, ('Metric',))}" if whole != main else ""
    if "classes" in summary:
        more += f"\n## Classes, test split\n\n{pipes(*class_scores(summary), ('Class',))}"
    return f"{heading}\n\n{pipes(*main, ('Metric',))}\n{spread_note(summary)}\n\n{links}{lines}{more}"


def main_scores(summary: Summary) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the main metrics of the final model: a row per metric, the test split first.

    Columns of a constant prediction follow.
    """
    found = {split: summary[split] for split in ("test", "valid") if summary[split]} | summary.get("others", {})
    linear = summary.get("context", {"scores": {}})["scores"]
    columns = {}
    for split, scores in found.items():
        columns[split] = scores
        if split in linear:
            columns[f"{SPLITS.get(split, split)}, {WITH_CONTEXT}"] = linear[split]
    return _transposed(summary, columns, headline)


def all_scores(summary: Summary) -> tuple[list[str], list[list[str]]]:
    """Header and rows of all metrics: a row per metric, a column per stage and split, and of a constant prediction."""
    rows = {(stage, split): scores for stage, split, scores in _rows(summary)}
    found = {
        (f"{stage}, {split}" if _is_staged(summary) else split): rows[stage, split]
        for stage in dict.fromkeys(stage for stage, _ in rows)
        for split in (*SPLITS, *summary.get("others", {}))
        if (stage, split) in rows
    }
    return _transposed(summary, found, list)


def class_scores(summary: Summary) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the classes: F1, precision and recall on the test split, and the number of utterances."""
    shares = ("F1", "precision", "recall")
    rows = [
        [row["class"], *(f"{cell('F1', row[share])}" for share in shares), f"{row['support']:,}"]
        for row in summary.get("classes", ())
    ]
    return ["Class", "F1 (%)", "Precision (%)", "Recall (%)", "Utterances"], rows


def intervals_line(intervals: Sequence[Mapping[str, Any]], unit: str) -> str:
    """The conformal intervals, or sets, in words: level, coverage on the test split, width.

    Args:
        unit: what the width counts, such as ``classes``.
    """
    level, expected = intervals[0]["level"], intervals[0]["expected"]
    low, high = expected if len(expected) == 2 else (0, 1)
    covered, width = (spread([row[key] for row in intervals]) for key in ("coverage", "width"))
    patterns = sum(len(row["margins"]) for row in intervals)
    return (
        f"{100 * level:g} % asked; of the test split {cell('F1', covered)} % covered (chance: {100 * low:.1f} to "
        f"{100 * high:.1f} %), mean width {cell('width', width, fewer=True)}{unit}"
        + (", margins by pattern of missing modalities" if patterns > len(intervals) else "")
    )


def constant_name(summary: Summary) -> str:
    """The constant prediction: the name of the class, or the intensity."""
    constant = summary["constant"]
    return cut(constant["class"]) if "class" in constant else f"{constant['value']:.2f}"


def spread_note(summary: Summary) -> str:
    """What the numbers of the main scores are."""
    seeds = ", ".join(map(str, summary["seeds"]))
    over = "One seed" if len(summary["seeds"]) == 1 else "Mean ± standard deviation over the seeds"
    note = f"{over} ({seeds}) of the final model, whose epoch was chosen on the validation split."
    if "constant" in summary:
        what = "most frequent class" if "class" in summary["constant"] else "median"
        note += f" To compare, always {constant_name(summary)}: the {what} of the training labels, "
        note += "predicted for every utterance."
    return note


def run_facts(summary: Summary) -> dict[str, str]:
    """What was trained on what."""
    return {
        "Data": dataset_of(summary),
        **({"Target": target_line(summary)} if "target" in summary else {}),
        "SHA-256 of the data": summary["data_sha256"],
        **({"Utterances": _counts_line(summary["utterances"])} if "utterances" in summary else {}),
        "Model": f"{summary['model']}, {summary['parameters']:,} trainable parameters",
        "Protocol": protocol_line(summary),
        "Seeds": ", ".join(map(str, summary["seeds"])),
        "Label ratio": f"{summary['label_ratio']:g}",
        **({"Starts from": summary["init_from"]} if "init_from" in summary else {}),
        **missing_lines(summary["missing"]),
        **_intervals(summary),
        **context_facts(summary),
        "Training time per seed": cell("seconds", summary["train_seconds"]) + " s",
    }


def _intervals(summary: Summary) -> dict[str, str]:
    if not summary.get("intervals"):
        return {}
    is_classes = summary.get("target", {}).get("kind") == "classes"
    name = "Prediction sets" if is_classes else "Prediction intervals"
    return {name: intervals_line(summary["intervals"], " classes" if is_classes else "")}


def _counts_line(counts: Mapping[str, int]) -> str:
    train, valid, test, labeled = (counts[key] for key in ("train", "valid", "test", "labeled"))
    return f"{train:,} for training ({labeled:,} with labels), {valid:,} for validation, {test:,} for the test"


def protocol_line(summary: Summary) -> str:
    """The protocol with the stages that ran."""
    protocol, stages = summary["protocol"], list(summary["stages"])
    if protocol in NEEDING_POOL and stages == ["supervised"]:
        return f"supervised only (there was no pool for {protocol})"
    return f"{protocol} ({', '.join(stages)})" if len(stages) > 1 else protocol


def write_summary(folder: str | Path, summary: Summary) -> None:
    """Writes ``summary.json``, ``summary.md`` and ``summary.tex`` into a run folder, each atomically.

    Raises:
        ValueError: a value is NaN or infinite, which JSON does not know; nothing is written then.
    """
    folder = Path(folder)
    files.make_folder(folder)
    files.write_json(folder / "summary.json", summary)  # first: it is the one that can refuse
    files.write_text(folder / "summary.md", markdown_report(summary, folder))
    files.write_text(folder / "summary.tex", latex_table([summary]))


def _rows(summary: Summary) -> list[tuple[str, str, Mapping[str, Any]]]:
    """(stage, split, metrics) of every row: the stages in order, the final model last."""
    final = {split: summary[split] for split in SCORED_SPLITS if summary[split]} | summary.get("others", {})
    stages = {name: splits for name, splits in summary["stages"].items() if splits}
    label = "final"
    # The last stage usually is the final model: one row says both.
    if stages and all(final.get(split) == scores for split, scores in list(stages.values())[-1].items()):
        label = f"{list(stages)[-1]}{FINAL}"
        stages.popitem()
    linear = summary["context"]["scores"] if "context" in summary else {}
    rows = [(stage, split, scores) for stage, splits in stages.items() for split, scores in splits.items()]
    for split, scores in final.items():
        rows += [(label, split, scores)] + ([(WITH_CONTEXT, split, linear[split])] if split in linear else [])
    return rows


def _is_staged(summary: Summary) -> bool:
    """Whether the summary has scores of more than the final model alone."""
    return bool(summary["stages"]) or "context" in summary


def _transposed(
    summary: Summary, found: Mapping[str, Mapping[str, Any]], choose: Callable[[Any], list[str]]
) -> tuple[list[str], list[list[str]]]:
    """Header and rows: a row per chosen metric, a column per entry of ``found``."""
    metrics = choose(dict.fromkeys(metric for scores in found.values() for metric in scores))
    rows = [[title(m), *(cell(m, s[m]) if m in s else "" for s in found.values())] for m in metrics]
    header = ["Metric", *(SPLITS.get(name, name) for name in found)]
    if constant := summary.get("constant"):
        splits = [split for split in SPLITS if summary[split]]
        header += [f"{SPLITS[split]}, always {constant_name(summary)}" for split in splits]
        for metric, row in zip(metrics, rows, strict=True):
            scores = (constant[split].get(metric) for split in splits)
            row += ["" if score is None else cell(metric, spread([score])) for score in scores]
    return header, rows


def _links(folder: Path) -> str:
    """A line of links to the page and to the figures that a run folder has; nothing where it has none."""
    shown = [name for name in FIGURES if is_file(folder / "figures" / f"{name}.png")]
    links = ["Page: [report.html](report.html)."] if is_file(folder / "report.html") else []
    links += ["Figures: " + ", ".join(f"[{n}](figures/{n}.png)" for n in shown) + "."] if shown else []
    return f"{' '.join(links)}\n\n" if links else ""


def _table(summaries: Sequence[Summary]) -> tuple[list[str], list[list[str]]]:
    metrics = list(dict.fromkeys(metric for s in summaries for _, _, scores in _rows(s) for metric in scores))
    staged = any(map(_is_staged, summaries))
    header = ["Run", "Data", *(["Stage"] if staged else []), "Split"]
    header += [title(metric) for metric in metrics]
    rows = [
        [summary["name"], dataset_of(summary), *([stage] if staged else []), split]
        + [cell(metric, scores[metric]) if metric in scores else "" for metric in metrics]
        for summary in summaries
        for stage, split, scores in _rows(summary)
    ]
    return header, rows
