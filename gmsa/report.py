"""Summaries of a run over its seeds, and their tables in Markdown and LaTeX."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gmsa import files

Scores = Sequence[Mapping[str, float]]
"""Metrics of every seed, in the order of the seeds."""
Summary = dict[str, Any]
"""What :func:`summarize` returns and ``summary.json`` holds."""

SPLITS = ("valid", "test")
SYNTHETIC_NOTE = "SYNTHETIC corpus: these numbers say nothing about a real data set."


def summarize(
    *,
    name: str,
    dataset: str,
    synthetic: bool,
    data_sha256: str,
    seeds: Sequence[int],
    model: str,
    protocol: str,
    parameters: int,
    train_seconds: Sequence[float],
    valid: Scores,
    test: Scores = (),
    stages: Mapping[str, Mapping[str, Scores]] | None = None,
    missing: Mapping[str, Any] | None = None,
    label_ratio: float = 1.0,
    init_from: str | None = None,
) -> Summary:
    """Builds the content of ``summary.json``: every metric as mean, sample standard deviation and values.

    The standard deviation divides by n - 1 and is 0 for a single seed. ``valid`` and ``test`` are
    the final model's; ``stages`` names the splits of each training stage in order, as
    ``{"supervised": {"valid": [...], "test": [...]}, ...}``, and may name the final one again. A
    split that was not scored is an empty list, or left out.

    Args:
        train_seconds: training time of every seed.
        parameters: trainable parameters.
        missing: protocol, asked and realized rate of missing modalities, and the like; may nest.
        init_from: folder of the pre-trained run that the weights began as; named only where there is one.

    Raises:
        ValueError: some split does not hold one dict of the same metrics per seed, or a value is
            NaN or infinite.
    """
    count = len(seeds)
    if not count or len(train_seconds) != count:
        raise ValueError(f"expected one training time per seed (got {len(train_seconds)} for {count} seeds)")
    summary: Summary = {"name": name, "dataset": dataset, "synthetic": synthetic}
    if synthetic:
        summary["note"] = SYNTHETIC_NOTE
    return summary | {
        "data_sha256": data_sha256,
        "seeds": [int(seed) for seed in seeds],
        "model": model,
        "protocol": protocol,
        "parameters": int(parameters),
        "train_seconds": spread(train_seconds),
        "valid": _spreads(valid, count, "valid"),
        "test": _spreads(test, count, "test"),
        "stages": {
            stage: {split: _spreads(splits[split], count, f"{stage}/{split}") for split in SPLITS if splits.get(split)}
            for stage, splits in (stages or {}).items()
        },
        "missing": dict(missing or {}),
        "label_ratio": float(label_ratio),
        **({"init_from": init_from} if init_from else {}),
    }


def markdown_table(summaries: Sequence[Summary]) -> str:
    """One Markdown table of one or more runs: a row per run, stage and split, cells mean ± std over seeds.

    Accuracies and F1 are in percent. A single seed has no ±.
    """
    header, rows = _table(summaries, "±")
    return pipes(header, rows, _TEXT_COLUMNS)


def pipes(header: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[str] = ()) -> str:
    """A Markdown table; columns that ``left`` names are flush left, the others flush right."""
    lines = [header, [":--" if column in left else "--:" for column in header], *rows]
    return "".join("| " + " | ".join(escape_markdown(part) for part in line) + " |\n" for line in lines)


def latex_table(summaries: Sequence[Summary]) -> str:
    r"""The table of :func:`markdown_table` as a LaTeX ``table``; needs ``\usepackage{booktabs}``."""
    # ASCII markers, put in after escaping, keep the math out of the escape's way.
    header, rows = _table(summaries, "\0")
    cells = [[escape_latex(part).replace(" \0 ", r" $\pm$ ") for part in row] for row in [header, *rows]]
    body = [" & ".join(row) + r" \\" for row in cells]
    facts = "; ".join(dict.fromkeys(f"{dataset_of(s)}, {_plural(len(s['seeds']), 'seed')}" for s in summaries))
    note = f" {SYNTHETIC_NOTE}" if any(s["synthetic"] for s in summaries) else ""
    columns = "".join("l" if column in _TEXT_COLUMNS else "r" for column in header)
    return "\n".join(
        [
            r"\begin{table}[t]",
            r"\centering",
            r"\caption{" + escape_latex(f"Mean and standard deviation over seeds ({facts}).{note}") + "}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            body[0],
            r"\midrule",
            *body[1:],
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


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
    folder.mkdir(parents=True, exist_ok=True)
    files.write_json(folder / "summary.json", summary)  # first: it is the one that can refuse
    files.write_text(folder / "summary.md", markdown_report(summary))
    files.write_text(folder / "summary.tex", latex_table([summary]))


def escape_latex(text: str) -> str:
    r"""Escapes what LaTeX would act on: ``\ & % $ # _ { } ~ ^`` and line breaks."""
    return "".join(_LATEX.get(character, character) for character in text)


_LATEX = {character: f"\\{character}" for character in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",  # in the default font encoding these two print as other characters
    ">": r"\textgreater{}",
    "\n": " ",
}
_TEXT_COLUMNS = ("Run", "Data", "Stage", "Split")


def escape_markdown(text: str) -> str:
    """Escapes what would end a cell or a line of Markdown."""
    return text.replace("|", "\\|").replace("\n", " ")


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Mean, sample standard deviation (0 for a single value) and the values.

    Raises:
        ValueError: a value is NaN or infinite.
    """
    numbers = [float(value) for value in values]
    if not all(map(math.isfinite, numbers)):
        raise ValueError(f"a mean over seeds needs finite values (got {numbers})")
    return {
        "mean": statistics.fmean(numbers),
        "std": statistics.stdev(numbers) if len(numbers) > 1 else 0.0,
        "values": numbers,
    }


def _spreads(scores: Scores, count: int, where: str) -> dict[str, Any]:
    if not scores:
        return {}
    if len(scores) != count or any(seed.keys() != scores[0].keys() for seed in scores):
        raise ValueError(f"'{where}' must hold the same metrics for each of the {count} seeds")
    return {metric: spread([seed[metric] for seed in scores]) for metric in scores[0]}


def _rows(summary: Summary) -> list[tuple[str, str, Mapping[str, Any]]]:
    """(stage, split, metrics) of every row: the stages in order, the final model last."""
    final = {split: summary[split] for split in SPLITS if summary[split]}
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


def _table(summaries: Sequence[Summary], plus_minus: str) -> tuple[list[str], list[list[str]]]:
    metrics = list(dict.fromkeys(metric for s in summaries for _, _, scores in _rows(s) for metric in scores))
    staged = any(s["stages"] for s in summaries)
    header = ["Run", "Data", *(["Stage"] if staged else []), "Split"]
    header += [title(metric) for metric in metrics]
    rows = [
        [summary["name"], dataset_of(summary), *([stage] if staged else []), split]
        + [cell(metric, scores[metric], plus_minus) if metric in scores else "" for metric in metrics]
        for summary in summaries
        for stage, split, scores in _rows(summary)
    ]
    return header, rows


def title(metric: str) -> str:
    """The heading of a metric's column: with the unit where it is percent."""
    return f"{metric} (%)" if _is_share(metric) else metric


def cell(metric: str, found: Mapping[str, Any], plus_minus: str = "±") -> str:
    """Mean and standard deviation of what :func:`spread` returns; a single value has no ±."""
    scale = 100 if _is_share(metric) else 1
    digits = 1 if metric == "seconds" else 2 if _is_share(metric) else 4
    mean = f"{scale * found['mean']:.{digits}f}"
    return mean if len(found["values"]) == 1 else f"{mean} {plus_minus} {scale * found['std']:.{digits}f}"


def _is_share(metric: str) -> bool:
    return "_acc_" in metric or "F1" in metric


def dataset_of(summary: Mapping[str, Any]) -> str:
    """The name of the data of a summary, which says where they are synthetic."""
    if not summary["synthetic"]:
        return str(summary["dataset"])
    return "synthetic" if summary["dataset"] == "synthetic" else f"synthetic (not {summary['dataset']})"


def missing_lines(splits: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """What :func:`~gmsa.data.describe_missing` recorded, a line per split."""
    if not splits:
        return {"Missing modalities": "as in the data"}
    return {f"Missing modalities, {split}": _missing_line(record) for split, record in splits.items()}


def _missing_line(record: Mapping[str, Any]) -> str:
    protocol = record["protocol"]
    asked = f":{record['asked']:.4g}" if "asked" in record else f":{record['left']}" if "left" in record else ""
    name = "as in the data" if protocol == "none" else f"{protocol}{asked}"
    what = "steps lost" if protocol.startswith("frame") else "modalities missing"
    there = ", ".join(f"{modality} in {100 * (1 - share):.1f} %" for modality, share in record["lacking"].items())
    realized = record["realized"]
    gone = "steps drawn anew in every epoch" if realized is None else f"{100 * realized:.1f} % of the {what}"
    return f"{name}; {gone}; {there} of the utterances"


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
