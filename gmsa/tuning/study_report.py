"""The report of a study: its best config, tables and figures."""

from __future__ import annotations

import math
import operator
import statistics
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import optuna
import yaml
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from gmsa.config import Config, to_dict
from gmsa.errors import printable
from gmsa.figures.canvas import image, label, plain_numbers, spared
from gmsa.reports.ablation import brief, markdown_rows
from gmsa.reports.pages.run import PAGE
from gmsa.reports.pages.study import Range, StudyContent, TrialRow, study_page
from gmsa.reports.pages.write import write_page
from gmsa.reports.study import CHOICE, FINAL, counts, headline, scores, short, value_text
from gmsa.reports.summary import SYNTHETIC_NOTE, dataset_of
from gmsa.reports.tables import escape_markdown, pipes
from gmsa.system.csv_text import csv_dicts
from gmsa.system.files import make_subfolder, remove, write_bytes, write_json, write_text
from gmsa.system.reading import exists
from gmsa.tuning.objective import COST, COSTS, direction_of
from gmsa.tuning.space import Space, apply_values
from gmsa.tuning.trials import REASON, attempts_of, place_of

SHOWN = 10
"""Trials, at most, in the table of the best ones."""
KILLED = "its worker was killed too often"
"""Why a trial failed that gives no reason."""


@dataclass(frozen=True)
class StudyResult:
    """The trials of a study, one per place."""

    name: str
    config: Config
    space: Space
    objectives: tuple[str, ...]
    trials: list[FrozenTrial]
    folder: Path
    synthetic: bool

    @cached_property
    def complete(self) -> list[FrozenTrial]:
        """Trials with values, which are finite."""
        return [t for t in self.trials if t.state == TrialState.COMPLETE and all(map(math.isfinite, t.values))]

    @cached_property
    def best(self) -> list[FrozenTrial]:
        """The best trial, the first of equal ones; for several objectives, those that no other one beats in all."""
        costs = {place_of(t): self.costs(t) for t in self.complete}
        if len(self.objectives) == 1:
            return [min(self.complete, key=lambda t: (costs[place_of(t)], place_of(t)))]

        def beaten(trial: FrozenTrial) -> bool:
            own = costs[place_of(trial)]
            return any(other != own and all(map(operator.le, other, own)) for other in costs.values())

        return sorted((t for t in self.complete if not beaten(t)), key=lambda t: costs[place_of(t)])

    @cached_property
    def study(self) -> Study:
        """The trials in memory, for Optuna's figures: without the attempts that did not count."""
        study = optuna.create_study(study_name=self.name, directions=[direction_of(o) for o in self.objectives])
        # An unfinished trial keeps its number.
        unfinished = optuna.trial.create_trial(state=TrialState.FAIL)
        study.add_trials([t if t.state.is_finished() else unfinished for t in self.trials])
        return study

    def costs(self, trial: FrozenTrial) -> list[float]:
        """A trial's values, less being better."""
        signs = [1 if direction_of(o) == "minimize" else -1 for o in self.objectives]
        return [sign * value for sign, value in zip(signs, trial.values, strict=True)]

    def values(self, trial: FrozenTrial) -> dict[str, Any]:
        """The config's values that a trial chose."""
        return self.space.values(trial.params)

    def best_file(self, trial: FrozenTrial) -> str:
        """Name of the file with the config of one of the best trials."""
        return f"best-{place_of(trial):05d}.yaml" if len(self.objectives) > 1 else "best.yaml"

    def describe_best(self) -> str:
        """The best trials in a line."""
        lines = []
        for trial in self.best:
            found = scores(dict(zip(self.objectives, trial.values, strict=True)))
            lines.append(f"trial {place_of(trial)} (valid {found})")
        return "; ".join(lines)

    @cached_property
    def importance(self) -> dict[str, float] | None:
        """How much of the first objective's spread each parameter explains; None for too few trials."""
        if len(self.complete) < 3:
            return None
        target = (lambda t: t.values[0]) if len(self.objectives) > 1 else None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # parameters that few trials have
                shares = optuna.importance.get_param_importances(self.study, target=target)
        except (ValueError, RuntimeError):  # all values, or all parameters, are the same
            return None
        return {key: float(value) for key, value in shares.items() if math.isfinite(value)}

    def saved_by_pruning(self) -> float:
        """Seconds, about, that the stopped trials would have taken on: their own seconds per epoch, for the epochs
        that they lack to the median of the complete ones."""
        whole = [t.user_attrs[COST]["epochs"] for t in self.complete if COST in t.user_attrs]
        if not whole:
            return 0.0
        stopped = [t.user_attrs[COST] for t in self.trials if t.state == TrialState.PRUNED and COST in t.user_attrs]
        usual = statistics.median(whole)
        return float(sum(c["seconds"] / c["epochs"] * max(0, usual - c["epochs"]) for c in stopped if c["epochs"]))

    def count(self, state: TrialState) -> int:
        """How many trials ended so."""
        return sum(t.state == state for t in self.trials)


def write_best(found: StudyResult) -> None:
    """Writes ``best.yaml``: a config that gives the trial's score again. For several objectives, one per best trial."""
    for trial in found.best:
        place, file = place_of(trial), found.folder / found.best_file(trial)
        scores = ", ".join(f"{n} {v!r}" for n, v in zip(found.objectives, trial.values, strict=True))
        lines = [
            f"{'SYNTHETIC data. ' if found.synthetic else ''}Trial {place} of the study {found.name}: "
            f"valid {scores}, mean over run.seeds. It chose:",
            *(f"  {key}: {value}" for key, value in found.values(trial).items()),
            f"The same again: python -m gmsa.train --config {file}",
        ]
        # A name with a line break must not end the comment.
        head = "".join(f"# {printable(' '.join(line.splitlines()))}\n" for line in lines)
        settings = to_dict(apply_values(found.config, found.values(trial)))
        write_text(file, head + yaml.safe_dump(settings, sort_keys=False, allow_unicode=True))


def write_study(
    found: StudyResult,
    facts: Mapping[str, Any],
    comparison: Mapping[str, Any] | None,
    figures: Sequence[str],
    again: Sequence[str],
) -> bool:
    """Writes ``trials.csv``, ``summary.json``, ``report.html`` and ``summary.md``; returns whether there is a page.

    Args:
        figures: names of those that were drawn.
        again: commands that give the study again.
    """
    write_text(found.folder / "trials.csv", trials_csv(found))
    summary = study_summary(found, facts, comparison)
    write_json(found.folder / "summary.json", summary)
    written = write_page(found.folder / PAGE, lambda: study_page(study_content(found, summary, again)))
    links = ({PAGE: PAGE} if written else {}) | {name: f"figures/{name}.png" for name in figures}
    write_text(found.folder / "summary.md", study_markdown(found, summary, links | {"every trial": "trials.csv"}))
    return written


def write_settings(folder: Path, config: Config, space: Space) -> dict[str, Path]:
    """Writes ``base.yaml`` and ``space.yaml``, the config and the space of a study; returns their paths."""
    files = {"config": folder / "base.yaml", "space": folder / "space.yaml"}
    for path, content in zip(files.values(), (to_dict(config), space.entries()), strict=True):
        write_text(path, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
    return files


def study_content(found: StudyResult, summary: Mapping[str, Any], again: Sequence[str]) -> StudyContent:
    """What the page shows of a study, in plain values."""
    finite = {place_of(t) for t in found.complete}
    trials = [
        TrialRow(
            place_of(t),
            t.state.name.lower(),
            tuple(t.values) if place_of(t) in finite else (),
            t.params,
            t.intermediate_values,
            _why(t) or KILLED,
        )
        for t in found.trials
    ]
    ranges = [
        Range(p.key, bool(getattr(p.distribution, "log", False)), tuple(getattr(p.distribution, "choices", ())))
        for p in found.space.parameters
    ]
    maximized = [direction_of(name) == "maximize" for name in found.objectives]
    best = best_trials(found) if found.complete else ((), ())
    report = f"final/{PAGE}" if exists(found.folder / "final" / PAGE) and summary["final"] else ""
    return StudyContent(summary, trials, ranges, maximized, best, again, report)


def trials_csv(found: StudyResult) -> str:
    """A row per trial: number, state, values, cost, why it failed, and a column per parameter."""
    columns = ["trial", "state", *found.objectives, "seconds", "epochs", "parameters", "attempts", REASON]
    columns += [p.key for p in found.space.parameters]
    rows = []
    for trial in found.trials:
        row: dict[str, Any] = {"trial": place_of(trial), "state": trial.state.name.lower()}
        row |= trial.user_attrs.get(COST, {})
        if trial.state == TrialState.COMPLETE:
            row |= dict(zip(found.objectives, trial.values, strict=True))
        rows.append(row | {"attempts": attempts_of(trial), REASON: _why(trial)} | trial.params)
    return csv_dicts(rows, list(dict.fromkeys(columns)))


def study_summary(found: StudyResult, facts: Mapping[str, Any], comparison: Mapping[str, Any] | None) -> dict[str, Any]:
    """The content of ``summary.json``."""
    seconds = sum(t.user_attrs.get(COST, {}).get("seconds", 0.0) for t in found.trials)
    saved = found.saved_by_pruning()
    best = [
        {"trial": place_of(t), "values": dict(zip(found.objectives, t.values, strict=True)), "chose": found.values(t)}
        for t in (found.best if found.complete else ())
    ]
    own = next((dict(zip(found.objectives, t.values, strict=True)) for t in found.complete if place_of(t) == 0), None)
    return {
        "study": found.name,
        "dataset": found.config.data.name,
        "synthetic": found.synthetic,
        **{key: facts[key] for key in ("data_sha256", "objectives", "sampler", "pruner", "seed", "trial_seeds")},
        "trials": {s.name.lower(): found.count(s) for s in TrialState},
        "seconds": seconds,
        "seconds_saved_by_pruning": saved,
        "best": best,
        "own": own,
        "importance": found.importance,
        "final": None if comparison is None else dict(comparison),
    }


def study_markdown(found: StudyResult, summary: Mapping[str, Any], links: Mapping[str, str]) -> str:
    """The content of ``summary.md``.

    Args:
        links: files beside it, by what they are.
    """
    parts = [f"# Study {escape_markdown(found.name)}"]
    if found.synthetic:
        parts += [f"**{SYNTHETIC_NOTE}**"]
    parts += [escape_markdown(headline(summary))]
    if found.complete:
        words = [p.key for p in found.space.parameters if getattr(p.distribution, "choices", ())]
        parts += [pipes(*best_trials(found), words), CHOICE]
    if summary["final"] is not None:
        parts += ["## The best trial, trained anew", FINAL, markdown_rows(summary["final"])]
    failed = [[str(place_of(t)), brief(_why(t) or KILLED)] for t in found.trials if t.state == TrialState.FAIL]
    if failed:
        parts += ["## Failed trials", pipes(["trial", "why"], failed, ("why",))]
    parts += [
        f"Trials: {counts(summary)}. Data: {escape_markdown(dataset_of(summary))}, SHA-256 {summary['data_sha256']}",
        f"See {', '.join(f'[{name}]({path})' for name, path in links.items())}.",
    ]
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def best_trials(found: StudyResult) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the best trials."""
    keys = [p.key for p in found.space.parameters]
    best = sorted(found.complete, key=lambda t: (found.costs(t), place_of(t)))[:SHOWN]
    if len(found.objectives) == 1 and found.complete[0] not in best and place_of(found.complete[0]) == 0:
        best.append(found.complete[0])  # the config's own
    header = ["trial", *(o if o in COSTS else f"valid {o}" for o in found.objectives), *keys]
    rows = []
    for trial in best:
        number = f"{place_of(trial)}{' (the config)' if place_of(trial) == 0 else ''}"
        chosen = [short(trial.params.get(key, "")) for key in keys]
        rows.append([number, *map(value_text, found.objectives, trial.values), *chosen])
    return header, rows


def _why(trial: FrozenTrial) -> str:
    """Why a trial failed, in a line."""
    return " ".join(str(trial.user_attrs.get(REASON, "")).split())


def draw_study(found: StudyResult, folder: Path) -> list[str]:
    """Draws Optuna's figures as PNG and SVG; returns the names of those that have something to show.

    Those of an earlier report that have nothing to show now, or cannot be drawn, are deleted.
    """
    several = len(found.objectives) > 1
    name = found.objectives[0]
    target = {"target": lambda t: t.values[0], "target_name": name} if several else {"target_name": name}
    wanted: dict[str, tuple[str, dict[str, Any]]] = {
        "history": ("plot_optimization_history", target),
        "importance": ("plot_param_importances", target),
        "slice": ("plot_slice", target),
        "parallel": ("plot_parallel_coordinate", target),
        "pareto": ("plot_pareto_front", {"target_names": list(found.objectives)}),
        "curves": ("plot_intermediate_values", {}),
    }
    shown = {"history", "slice", "parallel"}
    shown |= {"importance"} if found.importance is not None else set()
    shown |= {"pareto"} if 2 <= len(found.objectives) <= 3 else set()
    shown |= {"curves"} if not several and any(t.intermediate_values for t in found.trials) else set()
    make_subfolder(folder.parent, folder.name)
    drawn = []
    for figure, (kind, options) in wanted.items():
        path = folder / f"{figure}.png"
        if figure in shown:
            with spared(path):
                _draw(found, kind, options, path)
                drawn.append(figure)
        # An earlier gmsa wrote a page for every figure.
        for stale in (folder / f"{figure}.html", *((path, path.with_suffix(".svg")) if figure not in drawn else ())):
            remove(stale)
    remove(folder / "plotly.min.js")
    return drawn


def _title(found: StudyResult) -> str:
    return f"{'SYNTHETIC: ' if found.synthetic else ''}{label(found.name)}"


def _draw(found: StudyResult, kind: str, options: Mapping[str, Any], path: Path) -> None:
    """Writes a figure of Optuna."""
    import matplotlib.pyplot as plt
    from optuna.visualization import matplotlib as drawers

    before = set(plt.get_fignums())
    try:
        with warnings.catch_warnings(), plt.rc_context({"text.parse_math": False, "savefig.bbox": "tight"}):
            warnings.simplefilter("ignore")
            axes = getattr(drawers, kind)(found.study, **options)
            first = axes.flat[0] if hasattr(axes, "flat") else axes
            drawing = first.figure
            legend = first.get_legend()
            if legend is not None and len(legend.get_texts()) > SHOWN:
                legend.remove()  # a line per trial; the page tells them apart
            for axis in (a for axes in drawing.axes for a in (axes.xaxis, axes.yaxis)):
                if axis.get_scale() == "log":
                    low, high = sorted(axis.get_view_interval())
                    plain_numbers(axis, "{x:g}" if high < 10 * low else "")
            drawing.suptitle(_title(found))
            for file in (path, path.with_suffix(".svg")):
                write_bytes(file, image(drawing, file.suffix.removeprefix("."), 120))
    finally:
        for number in set(plt.get_fignums()) - before:
            plt.close(number)
