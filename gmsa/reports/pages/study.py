"""The page of a study."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gmsa.figures.canvas import BLUE, ORANGE, SKY
from gmsa.reports.ablation import brief
from gmsa.reports.pages import charts, html
from gmsa.reports.pages.ablation import ranking_parts, test_parts
from gmsa.reports.study import CAUTION, CHOICE, FINAL, StudySummary, counts, headline, short, value_text
from gmsa.reports.summary import dataset_of

GREY = "#B4BDC8"
MOST_DRAWN = 3000
"""Trials, about, that a figure shows at most."""
MOST_SLICES = 24
"""Parameters, at most, that have a figure of their own."""


@dataclass(frozen=True)
class TrialRow:
    """A trial, in plain values."""

    place: int
    state: str
    values: tuple[float, ...] = ()
    """Of every objective; nothing where the trial has none."""
    chose: Mapping[str, Any] = field(default_factory=dict)
    """Value of every parameter that was searched in it."""
    curve: Mapping[int, float] = field(default_factory=dict)
    """Its score after every epoch."""
    reason: str = ""
    """Why it failed."""


@dataclass(frozen=True)
class Range:
    """What a parameter may be."""

    key: str
    log: bool = False
    choices: tuple[Any, ...] = ()
    """The values of a choice; nothing for a range of numbers."""

    def scaled(self, value: Any) -> float:
        """A value as a number that grows evenly along an axis."""
        if self.choices:
            return float(self.choices.index(value))
        return math.log10(value) if self.log else float(value)


@dataclass(frozen=True)
class StudyContent:
    """What a page shows of a study."""

    summary: StudySummary
    trials: Sequence[TrialRow]
    ranges: Sequence[Range]
    maximized: Sequence[bool]
    """Of every objective, whether more is better."""
    best: tuple[Sequence[str], Sequence[Sequence[str]]]
    """Header and rows of the table of the best trials."""
    again: Sequence[str]
    """Commands that give the study, and its best trial, again."""
    final_report: str = ""
    """Relative path of the report of the final comparison."""

    @property
    def complete(self) -> list[TrialRow]:
        """Trials with values; of very many, every n-th and the best."""
        found = [trial for trial in self.trials if trial.values]
        step = -(-len(found) // MOST_DRAWN)
        chosen = {id(trial) for trial in found[:: step or 1]}
        return [trial for trial in found if id(trial) in chosen or trial.place in self.winners]

    @property
    def winners(self) -> set[int]:
        """The best trial, or those of the Pareto front."""
        return {trial["trial"] for trial in self.summary["best"]}

    @property
    def objectives(self) -> list[str]:
        """What the study optimizes."""
        return list(self.summary["objectives"])

    def note(self, trial: TrialRow) -> str:
        """What shows where the pointer rests on a trial."""
        scores = {n: value_text(n, v) for n, v in zip(self.objectives, trial.values, strict=False)}
        return charts.hover(scores | {k: short(v) for k, v in trial.chose.items()}, f"trial {trial.place}")


def study_page(content: StudyContent) -> str:
    """The content of ``report.html``."""
    summary = content.summary
    found = content.complete
    facts = {
        "Trials": counts(summary),
        "Objective": "; ".join(
            f"{name} on validation, {'more' if up else 'less'} is better" if name not in ("seconds", "parameters")
            else f"{name}, less is better"
            for name, up in zip(content.objectives, content.maximized, strict=True)
        ),
        "Sampler and pruner": f"{summary['sampler']}, {summary['pruner']}; seed {summary['seed']}",
        "Seeds of every trial": ", ".join(map(str, summary["trial_seeds"])),
        "Training": f"{summary['seconds']:.0f} s in all; stopping early saved about "
        f"{summary['seconds_saved_by_pruning']:.0f} s",
        "Data": dataset_of(summary),
        "SHA-256 of the data": summary["data_sha256"],
        "Files": html.links({n: n for n in ("summary.json", "trials.csv")}),
    }  # fmt: skip
    header, rows = content.best
    winners = [place for place, row in enumerate(rows) if int(row[0].split()[0]) in content.winners]
    words = [r.key for r in content.ranges if r.choices]
    several = len(content.objectives) > 1
    curves = [trial for trial in content.trials if trial.curve]
    slices = [slice_plot(content, found, r) for r in content.ranges[:MOST_SLICES]]
    parts = [
        html.paragraph(headline(summary)),
        html.facts(facts),
        html.section("Best trials", html.table(header, rows, words, winners), html.paragraph(CHOICE), _caution(summary))
        if rows
        else "",
        *_final(content),
        html.section("Pareto front", *pareto_plots(content, found)) if several and found else "",
        html.section("History", *(history_plot(content, found, i) for i in range(len(content.objectives))))
        if found
        else "",
        html.section("Learning curves", curves_plot(content, curves)) if curves and not several else "",
        html.section("Importance", importance_plot(summary["importance"]), html.paragraph(IMPORTANCE))
        if summary["importance"]
        else "",
        html.section("Parallel coordinates", parallel_plot(content, found), html.paragraph(PARALLEL))
        if found and content.ranges
        else "",
        html.section("Slices", html.beside(*filter(None, slices)), html.paragraph(SLICES)) if found and slices else "",
        _failed(content),
        html.section("How to get it again", html.code("\n".join(content.again))),
    ]
    heading = f"Study {summary['study']}"
    return html.page(heading, parts, synthetic=summary["synthetic"], scripts=[html.plotly_script()])


IMPORTANCE = "Share of the spread of the values that a parameter explains (fANOVA, by Optuna), over all trials."
PARALLEL = (
    "A line is a trial, and each row a parameter, from its smallest value on the left to its largest on the right. A "
    "parameter that a trial did not search has no point on its line."
)
SLICES = "The values of all trials over each parameter; the best one stands out."


def _final(content: StudyContent) -> list[str]:
    comparison = content.summary["final"]
    if comparison is None:
        return []
    more = html.links({"The whole comparison": content.final_report}) if content.final_report else ""
    parts = [html.paragraph(FINAL), *ranking_parts(comparison), *test_parts(comparison)]
    return [html.section("The best trial, trained anew", *parts, html.paragraph(more) if more else "")]


def _caution(summary: StudySummary) -> str:
    return html.paragraph(CAUTION) if summary["final"] is not None else ""


def _failed(content: StudyContent) -> str:
    rows = [[str(t.place), brief(t.reason)] for t in content.trials if t.state == "fail"]
    return html.section("Failed trials", html.table(("trial", "why"), rows, ("why",))) if rows else ""


def history_plot(content: StudyContent, trials: Sequence[TrialRow], objective: int) -> str:
    """An objective of every trial, and the best so far."""
    name, better = content.objectives[objective], max if content.maximized[objective] else min
    values = [trial.values[objective] for trial in trials]
    places = [trial.place for trial in trials]
    so_far = list(itertools.accumulate(values, better))
    line = charts.points(places, so_far, "best so far", ORANGE, mode="lines")
    line["line"]["shape"] = "hv"
    drawing = charts.chart(
        [charts.points(places, values, "trial", BLUE, [content.note(t) for t in trials]), line],
        charts.whole("trial", places),
        charts.numbers(name, values),
    )
    return html.plot(drawing, f"{name} of every trial")


def curves_plot(content: StudyContent, trials: Sequence[TrialRow]) -> str:
    """The validation score of every trial after every epoch."""
    step = -(-len(trials) // (MOST_DRAWN // 10))
    drawn = [t for place, t in enumerate(trials) if place % step == 0 or t.place in content.winners]
    kinds = {
        "stopped early": (GREY, [t for t in drawn if t.state == "pruned"]),
        "complete": (SKY, [t for t in drawn if t.state == "complete" and t.place not in content.winners]),
        "not complete": ("#531C7A", [t for t in drawn if t.state not in ("pruned", "complete")]),
        "best": (ORANGE, [t for t in drawn if t.place in content.winners]),
    }
    traces = []
    for name, (colour, members) in kinds.items():
        lines = [
            [
                (epoch, score, f"{content.note(t)}<br>epoch {epoch}: {score:.4f}")
                for epoch, score in sorted(t.curve.items())
            ]
            for t in members
        ]
        traces += charts.lines(lines, name, colour, size=5)
    epochs = [epoch for trial in drawn for epoch in trial.curve]
    seen = [value for trial in drawn for value in trial.curve.values() if math.isfinite(value)]
    drawing = charts.chart(
        traces, charts.whole("epoch", epochs), charts.numbers(f"validation {content.objectives[0]}", seen)
    )
    return html.plot(drawing, "Learning curves of the trials")


def importance_plot(shares: Mapping[str, float]) -> str:
    """How much each parameter matters, the most important one on top."""
    items = sorted(shares.items(), key=lambda item: -item[1])
    places = list(range(len(items)))
    bar = {
        "type": "bar",
        "orientation": "h",
        "x": [share for _, share in items],
        "y": places,
        "text": [f"{share:.2f}" for _, share in items],
        "textposition": "auto",
        "hovertext": [charts.hover({"share": f"{share:.3f}"}, key) for key, share in items],
        "hoverinfo": "text",
        "marker": {"color": BLUE},
    }
    labels = charts.names(places, [key for key, _ in items], range=[len(items) - 0.5, -0.5], showgrid=False)
    drawing = charts.chart(
        [bar], {"title": "share", "rangemode": "tozero"}, labels, height=max(420, 120 + 36 * len(items))
    )
    return html.plot(drawing, "Importance of the parameters")


def slice_plot(content: StudyContent, trials: Sequence[TrialRow], parameter: Range) -> str:
    """The first objective over one parameter."""
    shown = [t for t in trials if parameter.key in t.chose and _known(parameter, t.chose[parameter.key])]
    if not shown:
        return ""
    traces = []
    for best, name, colour in ((False, "trial", BLUE), (True, "best", ORANGE)):
        members = [t for t in shown if (t.place in content.winners) == best]
        traces.append(
            charts.points(
                [_along(parameter, t.chose[parameter.key]) for t in members],
                [t.values[0] for t in members],
                name, colour, [content.note(t) for t in members],
                size=11 if best else 8, symbol="diamond" if best else "circle", opacity=1 if best else 0.7,
            )
        )  # fmt: skip
    if parameter.choices:
        count = len(parameter.choices)
        x = charts.names(range(count), parameter.choices, range=[-0.5, count - 0.5], showgrid=False) | {
            "title": parameter.key
        }
    else:
        chosen = [t.chose[parameter.key] for t in shown]
        x = {"title": parameter.key} | (charts.powers(chosen) if parameter.log else {"type": "linear"})
    values = charts.numbers(content.objectives[0], [t.values[0] for t in shown])
    return html.plot(
        charts.chart(traces, x, values, height=320, showlegend=False), f"{content.objectives[0]} over {parameter.key}"
    )


def parallel_plot(content: StudyContent, trials: Sequence[TrialRow]) -> str:
    """A line per trial through its values: rows are parameters, so that they have room for their names."""
    sign = -1 if content.maximized[0] else 1
    order = sorted(trials, key=lambda t: sign * t.values[0])
    best = [t for t in order if t.place in content.winners]
    rest = [t for t in order if t.place not in content.winners]
    quarter = -(-len(rest) // 4)
    kinds = (("other trials", GREY, rest[quarter:]), ("best quarter", BLUE, rest[:quarter]), ("best", ORANGE, best))
    rows = _rows(content, trials)
    traces = []
    for name, colour, members in kinds:
        crossings = [
            [(x, place, content.note(t)) for place, row in enumerate(rows) if (x := row.where(t)) is not None]
            for t in members
        ]
        traces += charts.lines(crossings, name, colour, size=7, opacity=0.8)
    rails = [
        {"type": "line", "x0": 0, "x1": 1, "y0": place, "y1": place, "layer": "below", "line": {"color": charts.GRID}}
        for place in range(len(rows))
    ]
    hidden = {"showgrid": False, "showticklabels": False, "showline": False, "linecolor": "#fff", "fixedrange": True}
    drawing = charts.chart(
        traces,
        hidden | {"range": [-0.06, 1.06]},
        hidden | {"range": [len(rows) - 0.4, -0.6]},
        height=max(420, 110 + 86 * len(rows)),
        annotations=[mark for place, row in enumerate(rows) for mark in row.annotations(place)],
        shapes=rails,
    )
    return html.plot(drawing, "Parallel coordinates of the trials")


@dataclass(frozen=True)
class _Row:
    """A row of the parallel coordinates."""

    parameter: Range
    low: float
    high: float
    objective: int | None = None

    def where(self, trial: TrialRow) -> float | None:
        """Where a trial's line crosses the row, from 0 to 1."""
        if self.objective is not None:
            value: Any = trial.values[self.objective]
        elif self.parameter.key in trial.chose and _known(self.parameter, trial.chose[self.parameter.key]):
            value = trial.chose[self.parameter.key]
        else:
            return None
        return (self.parameter.scaled(value) - self.low) / (self.high - self.low) if self.high > self.low else 0.5

    def annotations(self, place: int) -> list[dict[str, Any]]:
        """The name of the row, and the values at its ends or of its choices."""
        base: dict[str, Any] = {"y": place, "showarrow": False, "yanchor": "top", "yshift": -6}
        base |= {"font": {"size": 11, "color": "#5a6472"}, "bgcolor": "rgba(255, 255, 255, 0.75)", "borderpad": 0}
        name = {"text": f"<b>{charts.text(self.parameter.key, 40)}</b>", "font": {"size": 12}}
        found = [base | name | {"x": 0, "xanchor": "left", "yanchor": "bottom", "yshift": 6}]
        choices = self.parameter.choices
        if not choices:
            for x, value, side in ((0.0, self.low, "left"), (1.0, self.high, "right")):
                number = 10**value if self.parameter.log else value
                text = short(number) if self.objective is None else value_text(self.parameter.key, number)
                found.append(base | {"x": x, "xanchor": side, "text": text})
        for index, choice in enumerate(choices if len(choices) <= 8 else ()):
            x = index / (len(choices) - 1) if len(choices) > 1 else 0.5
            side = "left" if x == 0 else "right" if x == 1 else "center"
            found.append(base | {"x": x, "xanchor": side, "text": charts.text(choice, 14)})
        return found


def _rows(content: StudyContent, trials: Sequence[TrialRow]) -> list[_Row]:
    """The objectives, then the parameters that some trial searched."""
    rows = []
    for index, name in enumerate(content.objectives):
        values = [trial.values[index] for trial in trials]
        log = min(values) > 0 and max(values) >= charts.WIDE * min(values)
        own = Range(name, log)
        rows.append(_Row(own, own.scaled(min(values)), own.scaled(max(values)), index))
    for parameter in content.ranges:
        if parameter.choices:
            rows.append(_Row(parameter, 0, len(parameter.choices) - 1))
            continue
        places = [parameter.scaled(t.chose[parameter.key]) for t in trials if parameter.key in t.chose]
        if places:
            rows.append(_Row(parameter, min(places), max(places)))
    return rows


def pareto_plots(content: StudyContent, trials: Sequence[TrialRow]) -> list[str]:
    """Every two objectives against each other."""
    plots = []
    for a, b in itertools.combinations(range(len(content.objectives)), 2):
        traces = []
        for front, name, colour in ((False, "trial", GREY), (True, "Pareto front", ORANGE)):
            members = [t for t in trials if (t.place in content.winners) == front]
            traces.append(
                charts.points(
                    [t.values[a] for t in members], [t.values[b] for t in members], name, colour,
                    [content.note(t) for t in members],
                    mode="markers+text" if front and len(members) <= 20 else "markers",
                    text=[str(t.place) for t in members], textposition="top right", size=11 if front else 8,
                )
            )  # fmt: skip
        x, y = (charts.numbers(content.objectives[i], [t.values[i] for t in trials]) for i in (a, b))
        plots.append(html.plot(charts.chart(traces, x, y), f"{content.objectives[b]} over {content.objectives[a]}"))
    return plots


def _known(parameter: Range, value: Any) -> bool:
    return not parameter.choices or value in parameter.choices


def _along(parameter: Range, value: Any) -> float:
    return float(parameter.choices.index(value)) if parameter.choices else float(value)
