"""The tables of ``benchmarks/results``, from what the commands of :mod:`results` print and write."""

from __future__ import annotations

import csv
import itertools
import json
import statistics
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

MEANING = (
    "Ranked by validation MAE; mean ± standard deviation over {} seeds. Differences are to the reference, in MAE: "
    "paired bootstrap over utterances and seeds, 95 % interval, p not corrected for the number of rows. Test took no "
    "part in the ranking. Edges and nodes: per training utterance. Memory: peak of a cell's process."
)
CONDITIONS = {
    f"missing_{labels}_{short}": f"{words}, {mask}"
    for labels, words in (("all_labels", "all labels"), ("half_labels", "half of the labels"))
    for short, mask in (("none", "nothing missing"), ("eta", "`eta:0.5`"), ("sample", "`sample:0.5`"))
}
"""What each of the six ablations of SSLMM's parts is called where they stand side by side."""
THRESHOLDS = (1.10, 1.05, 1.00, 0.95, 0.90, 0.85)
"""Validation MAEs to which epochs are counted."""


def printed(folder: Path, output: str) -> str:
    """What a benchmark prints, without its last line, which names the machine."""
    return output.strip().rpartition("\n")[0]


def ablation(folder: Path, output: str = "") -> str:
    """An ablation: scores, differences and costs of each setting."""
    found = _json(folder / "summary.json")
    header = ["rank", "setting", "valid MAE", "valid Corr", "test MAE", "test Corr"]
    header += ["test Non0_acc_2 (%)", "test Mult_acc_7 (%)", "difference, valid", "difference, test"]
    rows = []
    for row in _whole(found):
        rows.append([str(row["rank"]), row["setting"] + (" (reference)" if row["reference"] else "")])
        rows[-1] += [_cell(row[split][metric]) for split in ("valid", "test") for metric in ("MAE", "Corr")]
        rows[-1] += [_cell(row["test"][metric], 100, 1) for metric in ("Non0_acc_2", "Mult_acc_7")]
        rows[-1] += [_difference(row, "valid"), _difference(row, "test")]
        rows[-1] += [f"{row['nodes']:.1f}", f"{row['edges']:.1f}", f"{row['seconds_per_epoch']:.2f}"]
        rows[-1] += [f"{row['peak_memory_mb']:.0f}"]
    header += ["nodes", "edges", "s per epoch", "memory (MB)"]
    left = ("setting", "difference, valid", "difference, test")
    return f"{_table(header, rows, left)}\n{MEANING.format(len(found['seeds']))}\n"


def by_condition(folder: Path, output: str) -> str:
    """Several ablations of the same settings, by the names of their folders."""
    meaning, tables = "", []
    for path in sorted(folder.glob("*/summary.json")):
        table, _, meaning = ablation(path.parent).strip().rpartition("\n\n")
        tables.append(f"{path.parent.name}\n\n{table}")
    return "\n\n".join([*tables, meaning]) + "\n"


def models(folder: Path, output: str) -> str:
    """Models with their parameters and seconds, and how far the first is ahead."""
    rows = _whole(_json(folder / "summary.json"))
    header = ["model", "parameters", "seconds", "valid MAE", "test MAE", "test Corr"]
    header += ["Non0 acc-2", "Non0 F1", "acc-7"]
    lines = [
        [row["setting"], f"{row['parameters']:,}", f"{row['train_seconds']['mean']:.0f}", _cell(row["valid"]["MAE"])]
        + [_cell(row["test"]["MAE"]), _cell(row["test"]["Corr"])]
        + [_cell(row["test"][metric], 100, 1) for metric in ("Non0_acc_2", "Non0_F1_score", "Mult_acc_7")]
        for row in rows
    ]
    first = next(row["setting"] for row in rows if row["reference"])
    ahead = [[row["setting"], *_reversed(row, "valid")] for row in rows if not row["reference"]]
    columns = [f"validation MAE, {first} minus", "difference", "p"]
    return f"{_table(header, lines, ('model',))}\n{_table(columns, ahead, columns[:2])}"


def encoders(folder: Path, output: str) -> str:
    """The same of an ablation in ``rows``, a folder beside its list of settings."""
    return models(folder / "rows", output)


def robustness(folder: Path, output: str) -> str:
    """Per protocol, MAE and Corr of each run, at each rate or subset."""
    with open(folder / "compared" / "robustness.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    runs = list(dict.fromkeys(row["run"] for row in rows))
    parts = []
    for protocol, key in (("eta", "asked"), ("fixed", "left")):
        chosen = [row for row in rows if row["protocol"] == protocol]
        points = list(dict.fromkeys(row[key] for row in chosen))
        lines = []
        for point in points:
            here = [row for row in chosen if row[key] == point]
            shares = [statistics.fmean(float(row[name]) for row in here) for name in ("realized", "with_text")]
            scores = [
                _cell(_spread([float(row[metric]) for row in here if row["run"] == run]))
                for run in runs
                for metric in ("MAE", "Corr")
            ]
            lines.append([point, f"{shares[0]:.3f}", f"{100 * shares[1]:.0f}", *scores])
        if protocol == "eta":
            areas = [_cell(_spread(_areas(chosen, run, metric))) for run in runs for metric in ("MAE", "Corr")]
            lines.append(["area", "", "", *areas])
        columns = [text for run in runs for text in (f"{run}: MAE", f"{run}: Corr")]
        parts.append(_table([f"`{protocol}`", "realized", "with text (%)", *columns], lines, (f"`{protocol}`",)))
    return "\n".join(parts)


def targets(folder: Path, output: str) -> str:
    """Per run of a target, its main metrics on both splits, beside those of a constant."""
    rows = []
    for place in sorted(path.parent for path in folder.glob("*/summary.json")):
        found = _json(place / "summary.json")
        classes = found["target"]["kind"] == "classes"
        names = ("weighted_F1", "macro_F1", "accuracy") if classes else ("MAE", "Corr")
        what = (
            f"{len(found['target']['classes'])} classes"
            if classes
            else "intensity in [{:g}, {:g}]".format(*found["target"]["range"])
        )
        for name in names:
            scale, digits = (100, 1) if classes else (1, 3)
            constant = found["constant"]["test"].get(name)
            rows.append(
                [place.name, what, f"{name} (%)" if classes else name, _cell(found["valid"][name], scale, digits)]
            )
            rows[-1] += [_cell(found["test"][name], scale, digits)]
            rows[-1] += ["" if constant is None else f"{scale * constant:.{digits}f}"]
    header = ["run", "target", "metric", "valid", "test", "constant, test"]
    meaning = (
        "Mean ± standard deviation over 3 seeds. The constant is the most frequent class of the training labels, or "
        "their median."
    )
    return f"{_table(header, rows, ('run', 'target', 'metric'))}\n{meaning}\n"


def intervals(folder: Path, output: str) -> str:
    """Per run and seed, the share of test labels that conformal intervals of 90 % hold, and their width."""
    from gmsa.metrics import binomial_interval  # torch takes seconds

    rows = []
    for place in sorted(path.parent for path in folder.glob("*/summary.json")):
        found = _json(place / "summary.json")
        count = found["utterances"]["test"]
        plain = binomial_interval(count, 0.9)
        for row in found["intervals"]:
            ends = [f"{low:.3f} to {high:.3f}" for low, high in (plain, row["expected"])]
            rows.append([place.name, str(row["seed"]), str(count), f"{row['coverage']:.3f}", *ends])
            rows[-1] += [f"{row['width']:.2f}"]
    header = ["run", "seed", "test utterances", "coverage", "binomial 95 %", "with calibration 95 %", "mean width"]
    return _table(header, rows, ("run",))


def _areas(rows: Sequence[Mapping[str, str]], run: str, metric: str) -> list[float]:
    """Area under a run's metric over the rate, divided by the range of the rates, per seed and mask seed."""
    rates = sorted({float(row["asked"]) for row in rows})
    own = [row for row in rows if row["run"] == run]
    masks = sorted({row["mask_seed"] for row in own if row["mask_seed"]}) or [""]
    found = []
    for seed in sorted({row["seed"] for row in own}):
        for mask in masks:  # at rate 0 there is a single one
            curve = {
                float(row["asked"]): float(row[metric])
                for row in own
                if row["seed"] == seed and row["mask_seed"] in (mask, "")
            }
            area = sum((curve[low] + curve[high]) / 2 * (high - low) for low, high in itertools.pairwise(rates))
            found.append(area / (rates[-1] - rates[0]))
    return found


def conditions(folder: Path, output: str) -> str:
    """The six ablations of SSLMM's parts side by side, and SSLMM minus Semi-IIN."""
    found = {name: {row["setting"]: row for row in _whole(_json(_beside(folder, name)))} for name in CONDITIONS}
    settings = list(dict.fromkeys(setting for rows in found.values() for setting in rows))
    text = ""
    for split, title in (("valid", "Validation MAE"), ("test", "Test MAE")):
        best = {n: min(rows, key=lambda s, r=rows: r[s][split]["MAE"]["mean"]) for n, rows in found.items()}
        lines = []
        for setting in settings:
            lines.append([setting])
            for name, rows in found.items():
                cell = _cell(rows[setting][split]["MAE"]) if setting in rows else ""
                cell = f"**{cell}**" if best[name] == setting else cell
                p = rows.get(setting, {}).get("difference", {}).get(split, {"p": 1.0})["p"]
                lines[-1].append(cell + (r" \*" if p < 0.05 else ""))
        text += f"{title}\n\n{_table(['', *CONDITIONS.values()], lines, ('',))}\n"
    rows = [
        [words, *(" ".join(_reversed(found[name]["semi_iin"], split)) for split in ("valid", "test"))]
        for name, words in CONDITIONS.items()
    ]
    columns = ["", "valid MAE [95 %], p", "test MAE [95 %], p"]
    return f"{text}`sslmm` − `semi_iin`, MAE\n\n{_table(columns, rows, columns)}"


def epochs(folder: Path, output: str) -> str:
    """Epochs to a validation MAE, with and without pre-training."""
    lines = []
    for name, words in CONDITIONS.items():
        curves = [_curves(_beside(folder, name).parent, setting) for setting in ("sslmm", "without pre-training")]
        first = " / ".join(f"{statistics.median(c[0] for c in part):.3f}" for part in curves)
        lines.append([words, first])
        for threshold in THRESHOLDS:
            counts = [[_epochs_to(curve, threshold) for curve in part] for part in curves]
            reached = all(None not in part for part in counts)
            lines[-1].append(" / ".join(f"{statistics.median(part):g}" for part in counts) if reached else "")
    columns = ["", "first epoch's MAE", *(f"epochs to {t:.2f}" for t in THRESHOLDS)]
    return _table(columns, lines, ("",))


def _curves(folder: Path, setting: str) -> list[list[float]]:
    """Validation MAE after each epoch of learning from labels, per seed."""
    curves = []
    for cell in sorted((folder / "cells").glob("*/seed-*/cell.json")):
        record = _json(cell)
        if record["setting"] == setting:
            history = cell.parent / f"seed-{record['seed']}" / "history.jsonl"
            lines = map(json.loads, history.read_text(encoding="utf-8").splitlines())
            curves.append([line["valid"]["MAE"] for line in lines if line["stage"] != "pretrain"])
    return curves


def _epochs_to(curve: Sequence[float], threshold: float) -> int | None:
    return next((epoch for epoch, value in enumerate(curve, 1) if value <= threshold), None)


def tried(folder: Path, output: str) -> str:
    """The ablations of what was tried with SSLMM, one after another."""
    titles = ("One seed", "Two seeds, without pre-training", "Video graphs of context 2, five seeds")
    parts = (ablation(folder / f"{number}") for number in range(1, 4))
    return "\n".join(f"{title}\n\n{part}" for title, part in zip(titles, parts, strict=True))


def study(folder: Path, output: str) -> str:
    """A study: its trials, its choice beside the config, the importance of the parameters."""
    found = _json(folder / "summary.json")
    with open(folder / "trials.csv", newline="", encoding="utf-8") as file:
        trials = list(csv.DictReader(file))
    counts, (best,) = found["trials"], found["best"]
    keys = list(trials[0])[list(trials[0]).index("reason") + 1 :]
    complete = sorted((t for t in trials if t["state"] == "complete"), key=lambda t: float(t["MAE"]))
    shown = complete[:10] + [t for t in complete[10:] if t["trial"] == "0"]
    rows = [
        [t["trial"] + (" (the config)" if t["trial"] == "0" else ""), f"{float(t['MAE']):.4f}"]
        + [_short(t[key]) for key in keys]
        for t in shown
    ]
    text = (
        f"{counts['complete']} trials complete, {counts['pruned']} stopped early, {counts['fail']} failed; "
        f"{found['sampler']} sampler, {found['pruner']} pruner, seed {found['seed']}; every trial trains seeds "
        f"{', '.join(map(str, found['trial_seeds']))}. Training took {found['seconds']:.0f} s in all; stopping early "
        f"saved about {found['seconds_saved_by_pruning']:.0f} s.\n\nChosen on the validation split alone. No trial "
        f"sees the test split.\n\nBest: trial {best['trial']} (valid MAE {best['values']['MAE']:.4f}).\n\n"
    )
    text += _table(["trial", "valid MAE", *(f"`{key}`" for key in keys)], rows)
    text += f"\n## The config and the best trial, trained anew\n\n{ablation(folder / 'final')}"
    if found["importance"]:
        shares = [[f"`{key}`", f"{share:.2f}"] for key, share in found["importance"].items()]
        text += "\n## Importance\n\nShare of the spread of the values that a parameter explains (Optuna).\n\n"
        text += _table(["parameter", "share"], shares, ("parameter",))
    return text


def workers(folder: Path, output: str) -> str:
    """Seconds of the tests in which workers are killed, per storage."""
    rows = []
    for case in ElementTree.parse(folder / "report.xml").iter("testcase"):
        left_out = "left out: no server" if any(case.iter("skipped")) else f"{float(case.attrib['time']):.0f}"
        rows.append(["PostgreSQL" if "server" in case.attrib["name"] else "journal", left_out])
    return _table(["storage", "seconds"], rows, ("storage",))


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _beside(folder: Path, name: str) -> Path:
    return folder.parent / name / "summary.json"


def _whole(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows of an ablation.

    Raises:
        ValueError: a cell has failed.
    """
    failed = [row["setting"] for row in summary["rows"] if row["rank"] is None]
    if failed:
        raise ValueError(f"failed: {', '.join(failed)}")
    return list(summary["rows"])


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"mean": statistics.fmean(values), "std": statistics.stdev(values) if len(values) > 1 else 0.0}


def _cell(values: Mapping[str, float], scale: float = 1.0, digits: int = 3) -> str:
    return f"{values['mean'] * scale:.{digits}f} ± {values['std'] * scale:.{digits}f}"


def _difference(row: Mapping[str, Any], split: str) -> str:
    if row["reference"]:
        return ""
    found = row["difference"][split]
    p = f"p = {found['p']:.3f}" if found["p"] >= 0.001 else "p < 0.001"
    return f"{found['difference']:+.3f} [{found['low']:+.3f}, {found['high']:+.3f}] {p}"


def _reversed(row: Mapping[str, Any], split: str) -> tuple[str, str]:
    """The reference minus this row with its interval, and p."""
    found = row["difference"][split]
    return f"{-found['difference']:+.3f} [{-found['high']:+.3f}, {-found['low']:+.3f}]", f"{found['p']:.2g}"


def _short(value: str) -> str:
    try:
        return f"{float(value):.4g}"
    except ValueError:
        return value


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[str] = ()) -> str:
    lines = [header, [":--" if column in left else "--:" for column in header], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
