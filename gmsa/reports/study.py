"""What a study found, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gmsa.reports.ablation import score
from gmsa.reports.tables import cell, plural

StudySummary = Mapping[str, Any]
"""The content of ``summary.json``, as :func:`~gmsa.tuning.study_report.study_summary` returns it."""
CHOICE = "Chosen on the validation split alone: no trial sees the test split."
CAUTION = "The best of many trials looks better than it is; its training anew says how good it is."
FINAL = (
    "The config and the best trial, trained anew and scored on the test split, once each, after the choice was made."
)


def headline(summary: StudySummary) -> str:
    """What a study found, in a few sentences."""
    best, count = summary["best"], sum(summary["trials"].values())
    if not best:
        return f"None of {plural(count, 'trial')} has a value."
    names = summary["objectives"]
    if len(names) > 1:
        front = ", ".join(str(trial["trial"]) for trial in best)
        return (
            f"{plural(len(best), 'trial')} of {count} form{'s' if len(best) == 1 else ''} the Pareto front of "
            f"{' and '.join(names)}: {front}."
        )
    chose = "; ".join(f"{key}: {short(value)}" for key, value in best[0]["chose"].items())
    own = summary["own"]
    sentences = [
        f"Trial {best[0]['trial']} is the best of {plural(count, 'trial')} on validation: "
        f"{scores(best[0]['values'])}.",
        "It is the config as it was."
        if best[0]["trial"] == 0
        else f"It chose {chose}.",
    ]  # fmt: skip
    if own is not None and best[0]["trial"] != 0:
        sentences.append(f"The config as it was, trial 0, has {scores(own)}.")
    return " ".join([*sentences, *_final(summary)])


def _final(summary: StudySummary) -> list[str]:
    comparison = summary["final"]
    if comparison is None:
        return []
    rows = {row["reference"]: row for row in comparison["rows"] if row["rank"] is not None}
    own, tuned, select = rows.get(True), rows.get(False), comparison["select"]
    if own is None or tuned is None:
        return []
    seeds = plural(len(comparison["seeds"]), "seed")
    return [
        f"Trained anew with {seeds} and tested once, it has test {score(select, tuned['test'][select])}, "
        f"the config as it was {cell(select, own['test'][select])}."
    ]


def counts(summary: StudySummary) -> str:
    """How many trials ended in which way."""
    found = summary["trials"]
    rest = found["waiting"] + found["running"]
    parts = [f"{found['complete']} complete", f"{found['pruned']} stopped early", f"{found['fail']} failed"]
    return ", ".join([*parts, *([f"{rest} not done"] if rest else [])])


def scores(values: Mapping[str, float]) -> str:
    """The values of a trial."""
    return ", ".join(f"{name} {value_text(name, value)}" for name, value in values.items())


def value_text(objective: str, value: float) -> str:
    """The value of an objective."""
    return (
        f"{value:,.0f}" if objective == "parameters" else f"{value:.1f}" if objective == "seconds" else f"{value:.4f}"
    )


def short(value: Any) -> str:
    """A value of a setting, in few digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
