"""What an ablation found, in words and tables: Markdown and LaTeX."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from gmsa.figures.canvas import label
from gmsa.metrics import COLUMNS, holm
from gmsa.reports.summary import SCORED_SPLITS, SYNTHETIC_NOTE, dataset_of
from gmsa.reports.tables import SHORT, best_rows, cell, escape_markdown, is_share, pipes, plural, tabular, title
from gmsa.reports.tables import headline as main_metrics

Comparison = dict[str, Any]
"""The content of ``summary.json``, as :func:`~gmsa.ablation.comparison.ablation_summary` returns it."""

MAIN = {
    "mosi": ("MAE", "Corr"),
    "sims": ("MAE", "Corr"),
    "intensity": ("MAE", "Corr"),
    "classes": ("weighted_F1", "accuracy"),
}
"""Metrics in the table, of both splits, by the target's."""
SHOWN = {
    "mosi": ("Non0_acc_2", "Mult_acc_7"),
    "sims": ("Mult_acc_2", "Mult_acc_5"),
    "intensity": ("RMSE", "CCC"),
    "classes": ("macro_F1", "unweighted_accuracy"),
}
"""Further metrics in the table, of the test split."""
MEANING = (
    "Ranked by validation {select}; {over}. Test took no part in the ranking. "
    "Differences are to the reference, in {error}: paired bootstrap over {sampled}, 95 % interval, p "
    "corrected for the number of settings by Holm's method. The intervals are not corrected."
)
COSTS = (
    "Edges and nodes: mean per training utterance; edges of a stream: those that the model reads. Seconds: mean over "
    "{repeated}. Memory: the peak of a training's process, on CUDA of its tensors."
)
INTERVALS = (
    "95 % intervals of scores: bootstrap over {sampled}. Settings whose intervals overlap may still differ: that is "
    "what the interval of their difference says."
)
PAPER, TESTED = 16, 3
"""Characters of a setting's name, and scores of the test split, in a paper's table."""
REASON = 120
"""Characters of the beginning and of the end of a reason that are shown."""
DIFFERENCE = "difference, valid (Holm's p)"
ALPHA = 0.05
LEFT = ("setting", DIFFERENCE)
"""Columns that are flush left."""


def headline(comparison: Comparison) -> str:
    """What an ablation found, in a few sentences."""
    ranked = [row for row in comparison["rows"] if row["rank"] is not None]
    if not ranked:
        return " ".join(["No setting was trained to its end.", *unfinished(comparison)])
    best, select = ranked[0], comparison["select"]
    role = ", the reference," if best["reference"] else ""
    sentences = [
        f"'{best['setting']}'{role} is the best of {plural(len(ranked), 'setting')} on validation: "
        f"{score(select, best['valid'][select])}, {_over(comparison)}."
    ]
    found = best.get("difference", {}).get("valid")
    if found is not None:
        sentences.append(
            f"Its {error_name(comparison)} differs from that of the reference, '{comparison['reference']}', by "
            f"{found['difference']:+.4f} "
            f"(95 % interval {interval(found)}, Holm's {p_value(found)}){_chance(found, len(ranked) - 1)}."
        )
    sentences.append(f"On test, which took no part in the choice: {score(select, best['test'][select])}.")
    return " ".join([*sentences, *unfinished(comparison)])


def unfinished(comparison: Comparison) -> list[str]:
    """How many settings failed, and how many were not run, in sentences."""
    failed = sum(bool(row["failed"]) for row in comparison["rows"])
    left = sum(is_not_run(row) for row in comparison["rows"])
    sentences = [f"{plural(failed, 'setting')} failed."] if failed else []
    were = "was" if left == 1 else "were"
    again = f"{plural(left, 'setting')} {were} not run; the same command without --only trains what is left."
    return [*sentences, *([again] if left else [])]


def is_not_run(row: Mapping[str, Any]) -> bool:
    """Whether a setting has no rank because not all of its trainings were run, though none failed."""
    return bool(row.get("not_run")) and not row["failed"]


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
    """The table of scores and that of costs, what they mean, and the reasons of failed cells, as Markdown."""
    header, rows = _table(comparison)
    reasons = "".join(f"- {escape_markdown(f'{s}, {at}: {brief(why)}')}\n" for s, at, why in failures(comparison))
    note = f"**{SYNTHETIC_NOTE}**\n\n" if comparison["synthetic"] else ""
    text = f"{note}{pipes(header, rows, LEFT)}\n{meaning(comparison)}\n"
    if any(row["rank"] is not None for row in comparison["rows"]):
        text += f"\n{pipes(*costs_table(comparison), LEFT)}\n{costs_meaning(comparison)}\n"
    return text + (f"\nFailed:\n\n{reasons}" if reasons else "")


def latex_rows(comparison: Comparison) -> str:
    r"""A LaTeX ``table`` that fits a column of a two-column paper; needs ``\usepackage{booktabs}``.

    The score that chose, then the main ones of the test split; the best of each column is bold.
    """
    select, ranked = comparison["select"], [row for row in comparison["rows"] if row["rank"] is not None]
    usual = COLUMNS[comparison["labels"]]
    scored = main_metrics(ranked[0]["test"]) if ranked else []
    tested = [m for m in scored if m in usual][:TESTED] + [m for m in scored if m not in usual]
    columns = [("valid", select), *(("test", metric) for metric in tested)]
    rows, strong = [], set()
    for row in comparison["rows"]:
        scores = [cell(metric, row[split][metric], fewer=True) for split, metric in columns] if row["rank"] else []
        rows.append([_paper_name(row), *(scores or [state_of(row), *[""] * len(tested)])])
    for column, (split, metric) in enumerate(columns, 1):
        best = best_rows(metric, [row[split][metric]["mean"] for row in ranked])
        strong |= {(place, column) for place in best}
    header = ["Setting", f"Valid {SHORT.get(select, select)}", *(SHORT.get(metric, metric) for metric in tested)]
    varied = ", ".join(comparison["rows"][0]["values"]) if comparison["rows"] else ""
    caption = (
        f"{dataset_of(comparison)}{f', {varied}' if varied else ''}: ranked by validation {select}; the other scores "
        f"are of the test split. {_over(comparison).capitalize()}; accuracies in percent."
    ) + (f" {SYNTHETIC_NOTE}" if comparison["synthetic"] else "")
    return tabular(header, rows, ("Setting",), caption, strong=strong)


def meaning(comparison: Comparison) -> str:
    """What the columns of the table mean."""
    over = _over(comparison) if folds_of(comparison) else f"mean ± standard deviation over {repeated(comparison)}"
    error, sampled = error_name(comparison), _sampled(comparison)
    return MEANING.format(select=comparison["select"], over=over, error=error, sampled=sampled)


def costs_table(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """The validation score with its interval and the costs of every setting that was trained to its end.

    What an earlier gmsa did not measure is an empty cell.
    """
    select, streams = comparison["select"], streams_of(comparison)
    forms = {"parameters": ",.0f", "nodes": ".1f", "edges": ".1f"}
    seconds = {"seconds_per_epoch": ".2f", "train_seconds": ".1f", "peak_memory_mb": ".0f"}
    header = ["setting", *forms, *(f"{stream} edges" for stream in streams)]
    header += ["seconds per epoch", "seconds of training", "memory (MB)", f"valid {title(select)}", "95 % interval"]
    rows = []
    for row in comparison["rows"]:
        if row["rank"] is None:
            continue
        costs = row | {"train_seconds": row.get("train_seconds", {}).get("mean")}
        cells = [_number(costs.get(key), form) for key, form in forms.items()]
        cells += [_number(row.get("stream_edges", {}).get(stream), ".1f") for stream in streams]
        cells += [_number(costs.get(key), form) for key, form in seconds.items()]
        name = row["setting"] + (" (reference)" if row["reference"] else "")
        rows.append([name, *cells, cell(select, row["valid"][select]), score_interval(row, "valid", select)])
    return header, rows


def costs_meaning(comparison: Comparison) -> str:
    """What the columns of the table of costs mean."""
    known = any("intervals" in row for row in comparison["rows"])
    said = [COSTS.format(repeated=repeated(comparison)), *([intervals_meaning(comparison)] if known else [])]
    return " ".join(said)


def intervals_meaning(comparison: Comparison) -> str:
    """What the intervals of scores mean."""
    return INTERVALS.format(sampled=_sampled(comparison))


def streams_of(comparison: Comparison) -> list[str]:
    """The streams that some setting reads."""
    return list(dict.fromkeys(stream for row in comparison["rows"] for stream in row.get("stream_edges", {})))


def score_interval(row: Mapping[str, Any], split: str, metric: str) -> str:
    """The 95 % interval of a score, with the digits of the score; empty where there is none."""
    ends = row.get("intervals", {}).get(split, {}).get(metric)
    return "" if ends is None else "[{}, {}]".format(*(cell(metric, {"mean": end, "values": [end]}) for end in ends))


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _sampled(comparison: Comparison) -> str:
    what = "utterances"
    if sizes := comparison.get("dialogues"):
        what = f"whole dialogues ({sizes['valid']} in validation, {sizes['test']} in test)"
    return f"seeds and the {what} of all folds" if folds_of(comparison) else f"{what} and seeds"


def folds_of(comparison: Comparison) -> list[dict[str, Any]]:
    """The folds of cross-validation: their number, their name in the file, if any, and their sizes."""
    return list(comparison.get("folds", {}).get("parts", ()))


def repeated(comparison: Comparison) -> str:
    """What means and standard deviations are over: seeds, or folds."""
    if folds := folds_of(comparison):
        return plural(len(folds), "fold")
    count = len(comparison["seeds"])
    return plural(count, "seed") if count > 1 else "one seed"


def error_name(comparison: Comparison) -> str:
    """What the differences to the reference are differences of."""
    return "share of errors" if comparison["labels"] == "classes" else "MAE"


def failures(comparison: Comparison) -> list[tuple[str, str, str]]:
    """Setting, place (``seed 1``, or ``fold 0, seed 1``) and reason of every failed cell."""
    before = "" if folds_of(comparison) else "seed "
    return [(row["setting"], f"{before}{at}", why) for row in comparison["rows"] for at, why in row["failed"].items()]


def state_of(row: Mapping[str, Any]) -> str:
    """Why a setting has no rank."""
    return "not run" if is_not_run(row) else "failed"


def brief(reason: str) -> str:
    """A reason without its middle, where it is long: what happened, and the remedy at its end."""
    return reason if len(reason) <= 2 * REASON else f"{reason[:REASON]} … {reason[-REASON:]}"


def further_metrics(comparison: Comparison) -> list[str]:
    """The metrics that the config asks for beyond those of the target."""
    scored: Mapping[str, Any] = next((row["valid"] for row in comparison["rows"] if row["rank"] is not None), {})
    return [metric for metric in scored if metric not in COLUMNS[comparison["labels"]]]


def score(metric: str, found: Mapping[str, Any]) -> str:
    """A metric's name and its value."""
    return f"{title(metric)} {cell(metric, found)}"


def correct_p_values(rows: Sequence[dict[str, Any]]) -> None:
    """Adds ``p_holm`` to each difference: its p-value after Holm's correction over the rows, per split."""
    for split in SCORED_SPLITS:
        found = [row["difference"][split] for row in rows if "difference" in row]
        for difference, p in zip(found, holm([difference["p"] for difference in found]), strict=True):
            difference["p_holm"] = p


def drawn(metric: str, found: Mapping[str, Any]) -> dict[str, Any]:
    """Mean, standard deviation and values of a metric as figures show them: in percent where tables do."""
    scale = 100 if is_share(metric) else 1
    return {
        "mean": scale * found["mean"],
        "std": scale * found["std"],
        "values": [scale * value for value in found["values"]],
    }


def drawn_interval(row: Mapping[str, Any], metric: str) -> dict[str, float]:
    """Mean of a validation score and how far its interval reaches below and above it, as figures show them.

    Where there is no interval, as of a metric of the user's own, it is the standard deviation.
    """
    found, ends = drawn(metric, row["valid"][metric]), row.get("intervals", {}).get("valid", {}).get(metric)
    if ends is None:
        return {"mean": found["mean"], "below": found["std"], "above": found["std"]}
    low, high = (100 * end if is_share(metric) else end for end in ends)
    return {"mean": found["mean"], "below": max(0.0, found["mean"] - low), "above": max(0.0, high - found["mean"])}


def bars_of(comparison: Comparison) -> str:
    """What :func:`drawn_interval` gives."""
    ranked = [row for row in comparison["rows"] if row["rank"] is not None]
    known = all(comparison["select"] in row.get("intervals", {}).get("valid", {}) for row in ranked)
    over = "folds" if folds_of(comparison) else "seeds"
    return "95 % intervals" if known else f"standard deviations over the {over}"


def interval(found: Mapping[str, float]) -> str:
    """The 95 % interval of a difference."""
    return f"[{found['low']:+.4f}, {found['high']:+.4f}]"


def p_value(found: Mapping[str, float]) -> str:
    """The p-value of a difference, after Holm's correction."""
    return f"p = {found['p_holm']:.3f}" if found["p_holm"] >= 0.001 else "p < 0.001"


def _chance(found: Mapping[str, float], comparisons: int) -> str:
    """Whether a difference may be chance, and why."""
    if found["low"] <= 0 <= found["high"]:
        return ": the interval includes 0, so this may be chance"
    return "" if found["p_holm"] < ALPHA else f": one of {plural(comparisons, 'comparison')}, this may be chance"


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
    if folds_of(comparison):
        means = f" of the mean over {count} seeds" if count > 1 else ""
        return f"mean ± standard deviation over {repeated(comparison)}{means}"
    return f"mean ± standard deviation over {count} seeds" if count > 1 else "one seed"


def _paper_name(row: Mapping[str, Any]) -> str:
    """A setting's name in a paper's table: short, and without the keys, which the caption names."""
    name = row["setting"]
    for key in row["values"]:
        name = name.replace(f"{key}=", "")
    return label(name, PAPER) + (" (ref.)" if row["reference"] else "")


def _table(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    further = further_metrics(comparison)
    main = MAIN[comparison["labels"]]
    columns = [("valid", metric) for metric in (*main, *further)]
    columns += [("test", metric) for metric in (*main, *SHOWN[comparison["labels"]], *further)]
    header = ["rank", "setting", *(f"{split} {title(metric)}" for split, metric in columns)]
    header.insert(4 + len(further), DIFFERENCE)
    rows = []
    for row in comparison["rows"]:
        name = row["setting"] + (" (reference)" if row["reference"] else "")
        if row["rank"] is None:
            rows.append(["", name, state_of(row), *[""] * (len(header) - 3)])
            continue
        cells = [cell(metric, row[split][metric]) for split, metric in columns]
        found = row.get("difference", {}).get("valid")
        apart = f"{found['difference']:+.4f} {interval(found)} {p_value(found)}" if found else ""
        cells.insert(2 + len(further), apart)
        rows.append([str(row["rank"]), name, *cells])
    return header, rows
