"""The page of an ablation."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from gmsa.figures.canvas import BLUE, LINES, ORANGE
from gmsa.metrics import COLUMNS, higher_is_better
from gmsa.reports.ablation import (
    MAIN,
    Comparison,
    bars_of,
    brief,
    costs_meaning,
    costs_table,
    drawn,
    drawn_interval,
    error_name,
    failures,
    folds_of,
    further_metrics,
    headline,
    interval,
    intervals_meaning,
    line_of,
    meaning,
    numeric_axis,
    p_value,
    score_interval,
    state_of,
)
from gmsa.reports.pages import charts, html
from gmsa.reports.summary import SCORED_SPLITS, dataset_of
from gmsa.reports.tables import cell, plural, title

Runs = Mapping[tuple[str, int | None, int], str]
"""The relative path of every cell's report, or else of its folder, by setting, fold (if any) and seed."""
WORDS = {"valid": "validation", "test": "test"}
COLOUR = {"valid": BLUE, "test": ORANGE}
COSTS = {
    "seconds_per_epoch": ("time", "seconds per epoch", ".2f"),
    "seconds": ("training", "seconds of training", ".1f"),
    "parameters": ("size", "parameters", ",.0f"),
    "peak_memory_mb": ("memory", "memory (MB)", ".0f"),
}
"""Costs that quality is drawn over: what a button says, their titles and formats."""
DIFFERENCE = ("difference in {error}", "95 % interval", "p (Holm)")
"""Columns of a difference to the reference."""
DIFFERENCES = (
    "Difference of a setting's {error} from the reference's, with its 95 % interval: left of 0 the setting is better. "
    "An interval that includes 0 may be chance. Rest the pointer on a mark for its numbers."
)
SIZES = {"train": "training", "valid": "validation", "test": "test"}
"""Utterances of a fold: its splits and their names."""
FOLDS = "Utterances of each fold, whose test parts share none. The scores below are means over the seeds."
TEST = "Scored once, after each training had ended. Nothing here took part in the ranking: the order is validation's."


def ablation_page(comparison: Comparison, runs: Runs, again: Sequence[str]) -> str:
    """The content of ``report.html``.

    Args:
        comparison: content of ``summary.json``.
        again: commands that give the comparison again.
    """
    rows = comparison["rows"]
    seeds, folds, failed = comparison["seeds"], folds_of(comparison), len(failures(comparison))
    trained = f"{plural(len(rows), 'setting')} with {plural(len(seeds), 'seed')} each ({', '.join(map(str, seeds))})"
    trained += f" on {plural(len(folds), 'fold')}" if folds else ""
    count = len(rows) * len(seeds) * max(1, len(folds)) - sum(len(row.get("not_run", ())) for row in rows)
    facts = {
        "Compared": f"{trained}: {plural(count, 'training')}{f', {failed} failed' if failed else ''}",
        **({"Folds": _folds_made(comparison)} if folds else {}),
        **({"Varied": ", ".join(rows[0]["values"])} if rows and rows[0]["values"] else {}),
        "Reference": comparison["reference"],
        "Ranked by": f"validation {comparison['select']}",
        "Data": dataset_of(comparison),
        "SHA-256 of the data": comparison["data_sha256"],
        "Files": html.links({name: name for name in ("summary.json", "ablation.csv", "summary.tex")}),
    }
    parts = [
        html.paragraph(headline(comparison)),
        html.facts(facts),
        *comparison_sections(comparison),
        runs_section(comparison, runs),
        html.section("How to get it again", html.code("\n".join(again))),
    ]
    heading = f"Ablation {comparison['name']}"
    return html.page(heading, parts, synthetic=comparison["synthetic"], scripts=[html.plotly_script()])


def comparison_sections(comparison: Comparison) -> list[str]:
    """Ranking, test, cost and failures."""
    ranked = ranked_rows(comparison)
    axis = numeric_axis([row["values"] for row in comparison["rows"]])
    error = error_name(comparison)
    figures = [line_plot(comparison, ranked, axis)] if axis and ranked else []
    if any("difference" in row for row in ranked):
        figures += [difference_plot(ranked, error), html.paragraph(DIFFERENCES.format(error=error))]
    costs = [cost_plot(comparison, ranked), *_costs(comparison)] if ranked else []
    return [
        html.section("Ranking, on validation", *ranking_parts(comparison), *figures),
        html.section("Test", *test_parts(comparison)),
        html.section("Folds", *fold_parts(comparison)) if folds_of(comparison) else "",
        html.section("Quality against cost", *costs),
        failed_section(comparison),
    ]


def ranked_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """The settings that were trained to their end, best first."""
    return [row for row in comparison["rows"] if row["rank"] is not None]


def ranking_parts(comparison: Comparison) -> list[str]:
    """The ranking on validation as a table; nothing where no setting was trained to its end."""
    if not ranked_rows(comparison):
        return []
    scores = [_ranking(comparison), html.paragraph(meaning(comparison))]
    return [*scores, *_intervals(comparison, "valid", _ranked_metrics(comparison))]


def test_parts(comparison: Comparison) -> list[str]:
    """The scores on test as a table; nothing where no setting was trained to its end."""
    ranked = ranked_rows(comparison)
    if not ranked:
        return []
    scores = [html.paragraph(TEST), _test(comparison, ranked)]
    return [*scores, *_intervals(comparison, "test", _tested_metrics(comparison, ranked))]


def fold_parts(comparison: Comparison) -> list[str]:
    """The score of every setting on every fold as tables, a split each, and the sizes of the folds."""
    folds, select = folds_of(comparison), comparison["select"]
    numbers = [str(fold["fold"]) for fold in folds]
    names = ["fold", *(["in the file"] if any("name" in fold for fold in folds) else [])]
    sizes = [
        [number, *([fold.get("name", "")] if names[1:] else []), *(f"{fold[split]:,}" for split in SIZES)]
        for number, fold in zip(numbers, folds, strict=True)
    ]
    parts = [html.table([*names, *SIZES.values()], sizes, names[1:]), html.paragraph(FOLDS)]
    for split in SCORED_SPLITS if ranked_rows(comparison) else ():
        rows = [
            [_name(row), *(cell(select, {"mean": v, "std": 0, "values": [v]}) for v in row[split][select]["values"])]
            for row in ranked_rows(comparison)
        ]
        header = [f"{WORDS[split]} {title(select)}", *(f"fold {number}" for number in numbers)]
        parts.append(html.table(header, rows, header[:1]))
    return parts


def _folds_made(comparison: Comparison) -> str:
    """How the parts of the folds are made."""
    made, folds = comparison["folds"], folds_of(comparison)
    if all("name" in fold for fold in folds):
        return f"{len(folds)}, as the file says"
    return f"{len(folds)} by {made['by']}, seed {made['seed']}"


def failed_section(comparison: Comparison) -> str:
    """The cells that failed, and why."""
    found = [(setting, place, brief(why)) for setting, place, why in failures(comparison)]
    left = ("setting", "training", "why")
    return html.section("Failed", html.table(left, found, left)) if found else ""


def runs_section(comparison: Comparison, runs: Runs) -> str:
    """Links to the run of every cell."""
    seeds = comparison["seeds"]
    rows = []
    for row, fold in itertools.product(comparison["rows"], [f["fold"] for f in folds_of(comparison)] or [None]):
        paths = [runs.get((row["setting"], fold, seed)) for seed in seeds]
        number = [] if fold is None else [str(fold)]
        rows.append([row["setting"], *number, *(html.links({PurePosixPath(p).stem: p}) if p else "" for p in paths)])
    header = ["setting", *(["fold"] if folds_of(comparison) else []), *(f"seed {seed}" for seed in seeds)]
    return html.section("Runs", html.table(header, rows, ("setting",))) if runs else ""


def difference_plot(ranked: Sequence[Mapping[str, Any]], error: str) -> str:
    """Differences to the reference with their intervals, best setting on top.

    Args:
        error: what they are differences of.
    """
    head, between, p = _difference_columns(error)
    traces = []
    for split, shift in (("valid", -0.13), ("test", 0.13)):
        rows = [(place, row, row["difference"][split]) for place, row in enumerate(ranked) if "difference" in row]
        notes = [
            charts.hover(
                {head: f"{d['difference']:+.4f}", between: interval(d), p: _p(d)},
                f"{row['setting']}, {WORDS[split]}",
            )
            for _, row, d in rows
        ]
        spread = {
            "type": "data",
            "symmetric": False,
            "array": [d["high"] - d["difference"] for _, _, d in rows],
            "arrayminus": [d["difference"] - d["low"] for _, _, d in rows],
            "color": COLOUR[split],
        }
        name = "validation" if split == "valid" else "test (no part in the ranking)"
        traces.append(
            charts.points(
                [d["difference"] for _, _, d in rows],
                [place + shift for place, _, _ in rows],
                name, COLOUR[split], notes, hollow=split == "test", error_x=spread,
            )
        )  # fmt: skip
    own = [place for place, row in enumerate(ranked) if row["reference"]]
    traces.append(
        charts.points([0] * len(own), own, "reference", charts.BLACK, ["the reference"] * len(own), symbol="diamond")
    )
    labels = charts.names(
        range(len(ranked)), [row["setting"] for row in ranked], range=[len(ranked) - 0.5, -0.5], showgrid=False
    )
    zero = {"type": "line", "x0": 0, "x1": 0, "yref": "paper", "y0": 0, "y1": 1, "layer": "below"}
    drawing = charts.chart(
        traces,
        {"title": head, "tickformat": "+"},
        labels,
        height=max(420, 130 + 44 * len(ranked)),
        shapes=[zero | {"line": {"color": charts.BLACK, "dash": "dash", "width": 1}}],
    )
    return html.plot(drawing, f"Differences to the reference in {error}, with 95 % intervals")


def line_plot(comparison: Comparison, ranked: Sequence[Mapping[str, Any]], axis: str) -> str:
    """The score over the one varied number: a line per combination of the other settings."""
    select = comparison["select"]
    lines = dict.fromkeys(line_of(row["values"], axis) for row in ranked)
    traces = []
    for index, line in enumerate(lines):
        rows = sorted((r for r in ranked if line_of(r["values"], axis) == line), key=lambda r: r["values"][axis])
        for split in SCORED_SPLITS:
            spreads = [drawn(select, row[split][select]) for row in rows]
            colour = LINES[index % len(LINES)]
            trace = charts.points(
                [row["values"][axis] for row in rows],
                [found["mean"] for found in spreads],
                f"{line}, {WORDS[split]}" if line else WORDS[split],
                colour,
                [_note(row, split, select) for row in rows],
                mode="lines+markers",
                hollow=split == "test",
                error_y={"type": "data", "array": [found["std"] for found in spreads], "color": colour},
            )
            trace["line"]["dash"] = "solid" if split == "valid" else "dash"
            traces.append(trace)
    values = [row["values"][axis] for row in ranked]
    height = 420 + 10 * len(traces)
    drawing = charts.chart(traces, charts.numbers(axis, values), title(select), height=height)
    return html.plot(drawing, f"{select} over {axis}")


def cost_plot(comparison: Comparison, ranked: Sequence[Mapping[str, Any]]) -> str:
    """The validation score over each cost in turn; marks bear the rank."""
    select = comparison["select"]
    found = [drawn_interval(row, select) for row in ranked]
    costs = [{**row, "seconds": row["train_seconds"]["mean"]} for row in ranked]
    notes = [
        charts.hover(
            {f"validation {title(select)}": cell(select, row["valid"][select])}
            | ({"95 % interval": shown} if (shown := score_interval(row, "valid", select)) else {})
            | {name: format(row[cost], form) for cost, (_, name, form) in COSTS.items()},
            f"{row['rank']}. {row['setting']}",
        )
        for row in costs
    ]
    axes = {cost: charts.numbers(name, [row[cost] for row in costs]) for cost, (_, name, _) in COSTS.items()}
    buttons = [
        {
            "label": COSTS[cost][0],
            "method": "update",
            "args": [{"x": [[row[cost] for row in costs]]}, {"xaxis": charts.axis(axis)}],
        }
        for cost, axis in axes.items()
    ]
    first = next(iter(COSTS))
    bars = {"array": [score["above"] for score in found], "arrayminus": [score["below"] for score in found]}
    trace = charts.points(
        [row[first] for row in costs], [score["mean"] for score in found], "validation", BLUE, notes,
        mode="markers+text", size=11, text=[str(row["rank"]) for row in ranked], textposition="top right",
        error_y={"type": "data", "symmetric": False, **bars, "color": BLUE, "thickness": 1},
        showlegend=False,
    )  # fmt: skip
    menu = {"type": "buttons", "direction": "right", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom",
            "buttons": buttons, "showactive": True}  # fmt: skip
    drawing = charts.chart([trace], axes[first], f"validation {title(select)}", updatemenus=[menu])
    better = "higher" if higher_is_better(select) else "lower"
    text = f"Marks bear the rank of a setting; bars are {bars_of(comparison)}; {better} is better."
    return html.plot(drawing, f"Validation {select} against cost") + html.paragraph(text)


def _note(row: Mapping[str, Any], split: str, select: str) -> str:
    return charts.hover({f"{WORDS[split]} {title(select)}": cell(select, row[split][select])}, row["setting"])


def _ranked_metrics(comparison: Comparison) -> list[str]:
    """The metrics of the ranking, first the one that ranks."""
    return list(dict.fromkeys([comparison["select"], *MAIN[comparison["labels"]], *further_metrics(comparison)]))


def _tested_metrics(comparison: Comparison, ranked: Sequence[Mapping[str, Any]]) -> list[str]:
    """The metrics of the table of test, first the one that ranks."""
    scored, target = ranked[0]["test"], comparison["labels"]
    order = dict.fromkeys([comparison["select"], *MAIN[target], *COLUMNS[target], *scored])
    return [metric for metric in order if metric in scored]


def _ranking(comparison: Comparison) -> str:
    metrics = _ranked_metrics(comparison)
    header = [
        "rank",
        "setting",
        title(metrics[0]),
        *_difference_columns(error_name(comparison)),
        *map(title, metrics[1:]),
    ]
    rows = []
    for row in comparison["rows"]:
        name = _name(row)
        if row["rank"] is None:
            rows.append(["", name, state_of(row), *[""] * (len(header) - 3)])
        else:
            scores = [cell(metric, row["valid"][metric]) for metric in metrics]
            rows.append([str(row["rank"]), name, scores[0], *_difference(row, "valid"), *scores[1:]])
    return html.table(header, rows, ("setting",), [0])


def _test(comparison: Comparison, ranked: Sequence[Mapping[str, Any]]) -> str:
    metrics = _tested_metrics(comparison, ranked)
    header = ["setting", title(metrics[0]), *_difference_columns(error_name(comparison)), *map(title, metrics[1:])]
    rows = []
    for row in ranked:
        scores = [cell(metric, row["test"][metric]) for metric in metrics]
        rows.append([_name(row), scores[0], *_difference(row, "test"), *scores[1:]])
    return html.table(header, rows, ("setting",))


def _costs(comparison: Comparison) -> list[str]:
    header, rows = costs_table(comparison)
    return [html.table(header, rows, ("setting",)), html.paragraph(costs_meaning(comparison))]


def _intervals(comparison: Comparison, split: str, metrics: Sequence[str]) -> list[str]:
    """The intervals of a split's scores as a table; nothing where an earlier gmsa found none."""
    known = [m for m in metrics if any(score_interval(row, split, m) for row in comparison["rows"])]
    rows = [[_name(row), *(score_interval(row, split, m) for m in known)] for row in ranked_rows(comparison)]
    header = ["95 % interval", *map(title, known)]
    return [html.table(header, rows, header[:1]), html.paragraph(intervals_meaning(comparison))] if known else []


def _difference(row: Mapping[str, Any], split: str) -> list[str]:
    found = row.get("difference", {}).get(split)
    if found is None:
        return ["", "", ""]
    return [f"{found['difference']:+.4f}", interval(found), _p(found)]


def _difference_columns(error: str) -> list[str]:
    return [name.format(error=error) for name in DIFFERENCE]


def _p(found: Mapping[str, float]) -> str:
    return p_value(found).removeprefix("p ").removeprefix("= ")


def _name(row: Mapping[str, Any]) -> str:
    return row["setting"] + (" (reference)" if row["reference"] else "")
