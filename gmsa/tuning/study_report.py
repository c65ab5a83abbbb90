"""The report of a study: its best config, tables and figures."""

from __future__ import annotations

import html
import io
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
from gmsa.figures.canvas import label, plain_numbers, spared
from gmsa.reports.ablation import markdown_rows
from gmsa.reports.summary import SYNTHETIC_NOTE
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

    def describe_best(self) -> str:
        """The best trials in a line."""
        lines = []
        for trial in self.best:
            scores = ", ".join(f"{n} {v:.4f}" for n, v in zip(self.objectives, trial.values, strict=True))
            lines.append(f"trial {place_of(trial)} (valid {scores})")
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
    several = len(found.objectives) > 1
    for trial in found.best:
        place = place_of(trial)
        file = found.folder / (f"best-{place:05d}.yaml" if several else "best.yaml")
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


def write_study(found: StudyResult, facts: Mapping[str, Any], comparison: Mapping[str, Any] | None) -> None:
    """Writes ``trials.csv``, ``summary.json``, ``summary.md`` and the figures."""
    write_text(found.folder / "trials.csv", trials_csv(found))
    figures = draw_study(found, found.folder / "figures") if found.complete else []
    summary = study_summary(found, facts, comparison)
    write_json(found.folder / "summary.json", summary)
    write_text(found.folder / "summary.md", study_markdown(found, summary, figures, comparison))


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
    return {
        "study": found.name,
        "dataset": found.config.data.name,
        "synthetic": found.synthetic,
        **{key: facts[key] for key in ("data_sha256", "objectives", "sampler", "pruner", "seed", "trial_seeds")},
        "trials": {s.name.lower(): found.count(s) for s in TrialState},
        "seconds": seconds,
        "seconds_saved_by_pruning": saved,
        "best": best,
        "importance": found.importance,
        "final": None if comparison is None else dict(comparison),
    }


def study_markdown(
    found: StudyResult, summary: Mapping[str, Any], figures: Sequence[str], comparison: Mapping[str, Any] | None
) -> str:
    """The content of ``summary.md``."""
    counts = summary["trials"]
    parts = [f"# Study {escape_markdown(found.name)}"]
    if found.synthetic:
        parts += [f"**{SYNTHETIC_NOTE}**"]
    parts += [
        f"{counts['complete']} trials complete, {counts['pruned']} stopped early, {counts['fail']} failed, "
        f"{counts['waiting'] + counts['running']} not done; {summary['sampler']} sampler, pruner {summary['pruner']}, "
        f"seed {summary['seed']}; every trial trains seeds {', '.join(map(str, summary['trial_seeds']))}. "
        f"Training took {summary['seconds']:.0f} s in all; stopping early saved about "
        f"{summary['seconds_saved_by_pruning']:.0f} s.",
        "Chosen on the validation split alone. No trial sees the test split.",
    ]
    if found.complete:
        parts += [f"Best: {escape_markdown(found.describe_best())}.", _best_trials(found)]
    if comparison is not None:
        parts += [
            "## The config and the best trial, trained anew",
            "The test split is scored here, once for each. The choice was made before. `p`: paired bootstrap against "
            "`default`. The trial's own validation score is a best of many and too good; so, less, is the one here.",
            markdown_rows(dict(comparison)),
        ]
    if summary["importance"]:
        rows = [[f"`{key}`", f"{share:.2f}"] for key, share in summary["importance"].items()]
        parts += ["## Importance", "Share of the spread of the values that a parameter explains (Optuna)."]
        parts += [pipes(["parameter", "share"], rows, ("parameter",))]
    failed = [t for t in found.trials if t.state == TrialState.FAIL]
    if failed:
        rows = [[str(place_of(t)), _why(t) or KILLED] for t in failed]
        parts += ["## Failed trials", pipes(["trial", "why"], rows, ("why",))]
    parts += [f"![{name}](figures/{name}.png) [interactive](figures/{name}.html)" for name in figures]
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def _best_trials(found: StudyResult) -> str:
    """The best trials as a Markdown table."""
    keys = [p.key for p in found.space.parameters]
    best = sorted(found.complete, key=lambda t: (found.costs(t), place_of(t)))[:SHOWN]
    if len(found.objectives) == 1 and found.complete[0] not in best and place_of(found.complete[0]) == 0:
        best.append(found.complete[0])  # the config's own
    header = ["trial", *(o if o in COSTS else f"valid {o}" for o in found.objectives), *(f"`{k}`" for k in keys)]
    rows = []
    for trial in best:
        number = f"{place_of(trial)}{' (the config)' if place_of(trial) == 0 else ''}"
        chosen = [_short(trial.params.get(key, "")) for key in keys]
        rows.append([number, *(f"{value:.4f}" for value in trial.values), *chosen])
    return pipes(header, rows)


def _why(trial: FrozenTrial) -> str:
    """Why a trial failed, in a line."""
    return " ".join(str(trial.user_attrs.get(REASON, "")).split())


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def draw_study(found: StudyResult, folder: Path) -> list[str]:
    """Draws Optuna's figures as PNG and as interactive HTML; returns the names of those that have something to show.

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
        png, page = folder / f"{figure}.png", folder / f"{figure}.html"
        if figure in shown:
            with spared(png):
                write_bytes(png, _png(found, kind, options))
                write_text(page, _page(found, kind, options, figure))
                drawn.append(figure)
        if figure not in drawn:
            remove(png)
            remove(page)
    if drawn and not exists(folder / "plotly.min.js"):
        from plotly.offline import get_plotlyjs

        write_text(folder / "plotly.min.js", get_plotlyjs())  # so that the pages open without a network
    return drawn


def _title(found: StudyResult) -> str:
    return f"{'SYNTHETIC: ' if found.synthetic else ''}{label(found.name)}"


def _png(found: StudyResult, kind: str, options: Mapping[str, Any]) -> bytes:
    """A figure of Optuna as PNG."""
    import matplotlib.pyplot as plt
    from optuna.visualization import matplotlib as drawers

    before = set(plt.get_fignums())
    try:
        with warnings.catch_warnings(), plt.rc_context({"text.parse_math": False}):
            warnings.simplefilter("ignore")
            axes = getattr(drawers, kind)(found.study, **options)
            first = axes.flat[0] if hasattr(axes, "flat") else axes
            drawing = first.figure
            legend = first.get_legend()
            if legend is not None and len(legend.get_texts()) > SHOWN:
                legend.remove()  # a line per trial; the interactive figure tells them apart
            for axis in (a for axes in drawing.axes for a in (axes.xaxis, axes.yaxis)):
                if axis.get_scale() == "log":
                    low, high = sorted(axis.get_view_interval())
                    plain_numbers(axis, "{x:g}" if high < 10 * low else "")
            drawing.suptitle(_title(found))
            buffer = io.BytesIO()
            drawing.savefig(buffer, format="png", dpi=120, bbox_inches="tight")
            return buffer.getvalue()
    finally:
        for number in set(plt.get_fignums()) - before:
            plt.close(number)


def _page(found: StudyResult, kind: str, options: Mapping[str, Any], figure: str) -> str:
    """A figure of Optuna as an interactive page, which reads ``plotly.min.js`` beside it."""
    from optuna import visualization as drawers

    page = getattr(drawers, kind)(found.study, **options)
    page.update_layout(title=f"{html.escape(_title(found), quote=False)}: {figure}")  # Plotly reads tags in a title
    return str(page.to_html(include_plotlyjs="directory"))
