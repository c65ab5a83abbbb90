"""The report of a study: its best config, tables and figures."""

from __future__ import annotations

import math
import operator
import statistics
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import optuna
import yaml
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from gmsa.config import Config, to_dict
from gmsa.reports.ablation import markdown_rows
from gmsa.reports.summary import SYNTHETIC_NOTE
from gmsa.reports.tables import escape_markdown, pipes
from gmsa.system.csv_text import csv_dicts
from gmsa.system.files import make_subfolder, write_json, write_text
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
        changed = "".join(f"#   {key}: {value}\n" for key, value in found.values(trial).items())
        head = (
            f"# {'SYNTHETIC data. ' if found.synthetic else ''}Trial {place} of the study {found.name}: "
            f"valid {scores}, mean over run.seeds. It chose:\n{changed}"
            f"# The same again: python -m gmsa.train --config {file}\n"
        )
        settings = to_dict(apply_values(found.config, found.values(trial)))
        write_text(file, head + yaml.safe_dump(settings, sort_keys=False, allow_unicode=True))


def write_study(found: StudyResult, facts: Mapping[str, Any], comparison: Mapping[str, Any] | None) -> None:
    """Writes ``trials.csv``, ``summary.json``, ``summary.md`` and the figures."""
    write_text(found.folder / "trials.csv", trials_csv(found))
    figures = draw_study(found, make_subfolder(found.folder, "figures")) if found.complete else []
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
        parts += [f"Best: {found.describe_best()}.", _best_trials(found)]
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
    """Draws Optuna's figures as PNG and as interactive HTML; returns the names of those that have something to show."""
    import matplotlib.pyplot as plt
    from optuna import visualization as html
    from optuna.visualization import matplotlib as png

    several = len(found.objectives) > 1
    name = found.objectives[0]
    target = {"target": lambda t: t.values[0], "target_name": name} if several else {"target_name": name}
    drawers: dict[str, tuple[Callable[..., Any], Callable[..., Any], dict[str, Any]]] = {
        "history": (png.plot_optimization_history, html.plot_optimization_history, target),
        "importance": (png.plot_param_importances, html.plot_param_importances, target),
        "slice": (png.plot_slice, html.plot_slice, target),
        "parallel": (png.plot_parallel_coordinate, html.plot_parallel_coordinate, target),
    }
    if several:
        names = {"target_names": list(found.objectives)}
        if len(found.objectives) <= 3:
            drawers["pareto"] = (png.plot_pareto_front, html.plot_pareto_front, names)
    elif any(t.intermediate_values for t in found.trials):
        drawers["curves"] = (png.plot_intermediate_values, html.plot_intermediate_values, {})
    if found.importance is None:
        del drawers["importance"]
    folder.mkdir(exist_ok=True)
    title = f"{'SYNTHETIC: ' if found.synthetic else ''}{found.name}"
    drawn = []
    for figure, (as_png, as_html, options) in drawers.items():
        with warnings.catch_warnings(), plt.rc_context():
            warnings.simplefilter("ignore")
            axes = as_png(found.study, **options)
            first = axes.flat[0] if hasattr(axes, "flat") else axes
            drawing = first.figure
            legend = first.get_legend()
            if legend is not None and len(legend.get_texts()) > SHOWN:
                legend.remove()  # a line per trial; the interactive figure tells them apart
            drawing.suptitle(title, parse_math=False)
            drawing.savefig(folder / f"{figure}.png", dpi=120, bbox_inches="tight")
            plt.close(drawing)
            page = as_html(found.study, **options)
            page.update_layout(title=f"{title}: {figure}")
            page.write_html(folder / f"{figure}.html", include_plotlyjs="directory")
        drawn.append(figure)
    return drawn
