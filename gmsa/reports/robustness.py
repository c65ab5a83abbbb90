"""The robustness report: its values as JSON and CSV, its tables, its figures."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gmsa.config.groups.missing import RATES, Missing, joined
from gmsa.errors import RunError, cut
from gmsa.figures import figure_robustness
from gmsa.figures.robustness import PANELS, figure_noise
from gmsa.reports.run import markdown_report
from gmsa.reports.summary import SPREAD, SUMMARY, SYNTHETIC_NOTE, dataset_of, spread
from gmsa.reports.tables import cell, escape_markdown, pipes, title
from gmsa.system.csv_text import csv_text
from gmsa.system.files import make_folder, make_subfolder, write_json, write_text
from gmsa.system.reading import MOST_RECORDS, exists, read_json
from gmsa.system.records import FLAG, NUMBER, TEXT, Fields, Items, Map, Maybe, check_form, one_of, whole

Report = dict[str, Any]
"""The content of ``robustness.json``, as :func:`robustness_report` returns it."""
MEANING = {
    "eta": "Rate: share of the (utterance, modality) pairs that is missing; every utterance keeps one modality.",
    "sample": "Rate: share of the utterances that keeps a random proper subset of the modalities. Realized: share of "
    "the (utterance, modality) pairs that is missing.",
    "frame": "Rate: share of the steps that is lost.",
    "fixed": "Every utterance keeps the same modalities. Realized: share of the (utterance, modality) pairs that is "
    "missing.",
}
NOISE_MEANING = (
    "Decibels: power of the features over that of white noise added to them, after normalization; fewer are more noise."
)
AREA = "\nArea: under the metric over the rate asked, divided by the range of the rates.\n"
HEADING = "## Robustness"
_ROWS = Fields(
    {"mask_seeds": Items(Maybe(whole(-(2**63)))), "realized": SPREAD, "with_text": SPREAD, "metrics": Map(SPREAD)},
    {"asked": NUMBER, "left": TEXT},
)
_NOISE = Fields({"mask_seeds": Items(Maybe(whole(-(2**63)))), "metrics": Map(SPREAD)}, {"decibels": NUMBER})
REPORT = Fields(
    {
        "dataset": TEXT,
        "synthetic": FLAG,
        "data_sha256": TEXT,
        "seeds": Items(whole(-(2**63))),
        "mask_seeds": Items(whole(-(2**63))),
        "hidden_in_training": TEXT,
        "protocols": Map(Fields({"rows": Items(_ROWS)}, {"area": Map(SPREAD)}), one_of(*MEANING)),
    },
    {"note": TEXT, "split": TEXT, "noise": Map(Fields({"rows": Items(_NOISE)}))},
)
"""The form of a report from disk, which may be a stranger's."""


@dataclass(frozen=True, eq=False)
class Point:
    """Scores under a protocol at one rate or subset, for S seeds and M mask seeds."""

    missing: Missing
    mask_seeds: Sequence[int | None]
    """``[M]``; a single None where nothing is drawn."""
    records: Sequence[Mapping[str, Any]]
    """``[M]``: the record of each mask by :func:`~gmsa.data.describe_missing`."""
    scores: Sequence[Sequence[Mapping[str, float]]]
    """``[M][S]``: the metrics."""

    def values(self, metric: str) -> np.ndarray:
        """A metric ``[S, M]``."""
        return _values(self.scores, metric)


@dataclass(frozen=True, eq=False)
class NoisePoint:
    """Scores with noise at one ratio, for S seeds and M seeds of the noise."""

    decibels: float | None
    """Ratio of the features' power to the noise's; None without noise."""
    mask_seeds: Sequence[int | None]
    """``[M]``; a single None without noise."""
    scores: Sequence[Sequence[Mapping[str, float]]]
    """``[M][S]``: the metrics."""

    def values(self, metric: str) -> np.ndarray:
        """A metric ``[S, M]``."""
        return _values(self.scores, metric)


def _values(scores: Sequence[Sequence[Mapping[str, float]]], metric: str) -> np.ndarray:
    return np.array([[one[metric] for one in seeds] for seeds in scores]).T


def robustness_report(
    facts: Mapping[str, Any],
    points: Mapping[str, Sequence[Point]],
    noise: Mapping[str, Sequence[NoisePoint]] | None = None,
) -> Report:
    """Every metric as mean, sample standard deviation and values over S seeds, and within each over M mask seeds.

    Where there are two rates or more, ``area`` has for each seed and mask seed the area under the metric over the
    rate, divided by the range of the rates: a mean over them.

    Args:
        facts: what the report begins with, such as the seeds.
        points: per protocol, by rising rate.
        noise: per set of modalities, first without noise, then by falling decibels.
    """
    protocols: dict[str, Any] = {}
    for protocol, found in points.items():
        metrics = [*found[0].scores[0][0]]
        protocols[protocol] = {"rows": [_row(point, facts["modalities"], metrics) for point in found]}
        if protocol in RATES and len(found) > 1:
            protocols[protocol]["area"] = {metric: spread(_areas(found, metric).tolist()) for metric in metrics}
    note = {"note": SYNTHETIC_NOTE} if facts["synthetic"] else {}
    curves = {name: {"rows": [_noise_row(point) for point in found]} for name, found in (noise or {}).items()}
    return {**facts, **note, "protocols": protocols, **({"noise": curves} if curves else {})}


def _noise_row(point: NoisePoint) -> dict[str, Any]:
    metrics = {metric: spread(point.values(metric).ravel().tolist()) for metric in point.scores[0][0]}
    asked = {} if point.decibels is None else {"decibels": point.decibels}
    return {**asked, "mask_seeds": list(point.mask_seeds), "metrics": metrics}


def _row(point: Point, modalities: Sequence[str], metrics: Sequence[str]) -> dict[str, Any]:
    asked: dict[str, Any] = {"asked": point.missing.rate}
    if point.missing.protocol not in RATES:
        asked = {"left": joined(point.missing.left or modalities, modalities)}
    return {
        **asked,
        "mask_seeds": list(point.mask_seeds),
        **{key: spread([record[key] for record in point.records]) for key in ("realized", "with_text")},
        "lacking": {m: spread([record["lacking"][m] for record in point.records]) for m in modalities},
        "metrics": {metric: spread(point.values(metric).ravel().tolist()) for metric in metrics},
    }


def _areas(points: Sequence[Point], metric: str) -> np.ndarray:
    """Trapezoid of each seed and mask seed, over the range of the rates ``[S * M]``; a single mask stands for all."""
    rates = np.array([point.missing.rate for point in points])
    curves = np.stack(np.broadcast_arrays(*(point.values(metric) for point in points)), -1)
    return (((curves[..., 1:] + curves[..., :-1]) / 2 * np.diff(rates)).sum(-1) / (rates[-1] - rates[0])).ravel()


def markdown_tables(report: Report) -> str:
    """The facts of the scores, then a table per protocol."""
    note = f"> **{report['note']}**\n\n" if "note" in report else ""
    seeds, masks = (", ".join(map(str, report[key])) for key in ("seeds", "mask_seeds"))
    data = f"{dataset_of(report)}, SHA-256 {report['data_sha256']}"
    facts = (
        f"{_split_of(report)} {escape_markdown(data)}. Mean ± standard deviation over seeds ({seeds}) and mask seeds "
        f"({masks}).\nHidden in training: {report['hidden_in_training']}.\n"
    )
    tables = "".join(
        f"\n### {protocol}\n\n{MEANING[protocol]}\n\n{_table(protocol, found)}"
        for protocol, found in report["protocols"].items()
    )
    area = AREA if any("area" in p for p in report["protocols"].values()) else ""
    curves = "".join(
        f"\n### Noise: {escape_markdown(name)}\n\n{NOISE_MEANING}\n\n"
        f"{pipes(*noise_table(found, [*found['rows'][0]['metrics']]))}"
        for name, found in report.get("noise", {}).items()
    )
    return note + facts + tables + area + curves


def _split_of(report: Report) -> str:
    name = report.get("split", "test")
    return "Test split of" if name == "test" else f"Split '{escape_markdown(name)}' of"


def noise_table(found: Mapping[str, Any], metrics: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of some metrics by the ratio to the noise."""
    rows = [[_decibels(row)] + [cell(metric, row["metrics"][metric]) for metric in metrics] for row in found["rows"]]
    return ["dB", *map(title, metrics)], rows


def _decibels(row: Mapping[str, Any]) -> str:
    return f"{row['decibels']:g}" if "decibels" in row else "no noise"


def _table(protocol: str, found: Mapping[str, Any]) -> str:
    return pipes(*score_table(protocol, found, [*found["rows"][0]["metrics"]]), ("Left",))


def score_table(protocol: str, found: Mapping[str, Any], metrics: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of some metrics by the rate or subset; last the area, where there is one."""
    rows = [_asked(row) + [cell(metric, row["metrics"][metric]) for metric in metrics] for row in found["rows"]]
    if "area" in found:
        rows.append(["area", "", "", *(cell(metric, found["area"][metric]) for metric in metrics)])
    return [*_asked_titles(protocol), *map(title, metrics)], rows


def comparison_tables(reports: Mapping[str, Report]) -> str:
    """Per protocol a table of each main metric, a column per run, under the same masks."""
    first = next(iter(reports.values()))
    note = f"> **{first['note']}**\n\n" if "note" in first else ""
    text = (
        f"{note}{_split_of(first)} {escape_markdown(dataset_of(first))}, SHA-256 {first['data_sha256']}. The masks are "
        f"the same for all runs. Mean ± standard deviation over seeds and mask seeds "
        f"({', '.join(map(str, first['mask_seeds']))}).\n\n"
    )
    rows = [
        [name, ", ".join(map(str, report["seeds"])), report["hidden_in_training"]] for name, report in reports.items()
    ]
    text += pipes(["Run", "Seeds", "Hidden in training"], rows, ("Run", "Seeds", "Hidden in training"))
    for protocol, found in first["protocols"].items():
        text += f"\n### {protocol}\n\n{MEANING[protocol]}\n"
        parts = [report["protocols"][protocol] for report in reports.values()]
        for metric in (name for name, *_ in PANELS if name in found["rows"][0]["metrics"]):
            rows = [
                _asked(row) + [cell(metric, part["rows"][place]["metrics"][metric]) for part in parts]
                for place, row in enumerate(found["rows"])
            ]
            if "area" in found:
                rows.append(["area", "", "", *(cell(metric, part["area"][metric]) for part in parts)])
            text += f"\n{title(metric)}:\n\n{pipes([*_asked_titles(protocol), *reports], rows, ('Left',))}"
    text += AREA if any("area" in part for part in first["protocols"].values()) else ""
    for name, found in first.get("noise", {}).items():
        text += f"\n### Noise: {escape_markdown(name)}\n\n{NOISE_MEANING}\n"
        curves = [report["noise"][name]["rows"] for report in reports.values()]
        for metric in (panel for panel, *_ in PANELS if panel in found["rows"][0]["metrics"]):
            rows = [
                [_decibels(row), *(cell(metric, curve[place]["metrics"][metric]) for curve in curves)]
                for place, row in enumerate(found["rows"])
            ]
            text += f"\n{title(metric)}:\n\n{pipes(['dB', *reports], rows)}"
    return text


def _asked_titles(protocol: str) -> list[str]:
    return ["Rate" if protocol in RATES else "Left", "Realized", "With text (%)"]


def _asked(row: Mapping[str, Any]) -> list[str]:
    """The rate or subset asked for, and the realized shares."""
    asked = f"{row['asked']:.4g}" if "asked" in row else row["left"]
    return [asked, f"{row['realized']['mean']:.4f}", f"{100 * row['with_text']['mean']:.2f}"]


def robustness_csv(reports: Mapping[str, Report]) -> str:
    """A row per run, protocol, rate or subset, seed and mask seed; no mask seed where nothing is drawn.

    Of noise, ``asked`` are the decibels and ``left`` the modalities that it is added to.
    """
    parts = [p for r in reports.values() for p in (*r["protocols"].values(), *r.get("noise", {}).values())]
    found = [row["metrics"] for part in parts for row in part["rows"]]
    metrics = list(dict.fromkeys(metric for scores in found for metric in scores))
    header = ["run", "data", "protocol", "asked", "left", "seed", "mask_seed", "realized", "with_text", *metrics]
    return csv_text(header, ([name, *row] for name, report in reports.items() for row in _csv_rows(report, metrics)))


def _csv_rows(report: Report, metrics: Sequence[str]) -> Iterator[list[Any]]:
    for protocol, found in report["protocols"].items():
        for row in found["rows"]:
            masks = row["mask_seeds"]
            for place, (seed, mask) in enumerate((s, m) for s in report["seeds"] for m in range(len(masks))):
                shares = [row[key]["values"][mask] for key in ("realized", "with_text")]
                asked = [row.get("asked", ""), row.get("left", "")]
                yield [dataset_of(report), protocol, *asked, seed, *_scores(row, place, mask, shares, metrics)]
    for name, found in report.get("noise", {}).items():
        for row in found["rows"]:
            masks = row["mask_seeds"]
            for place, (seed, mask) in enumerate((s, m) for s in report["seeds"] for m in range(len(masks))):
                asked = [row.get("decibels", ""), name]
                yield [dataset_of(report), "noise", *asked, seed, *_scores(row, place, mask, ["", ""], metrics)]


def _scores(row: Mapping[str, Any], place: int, mask: int, shares: list[Any], metrics: Sequence[str]) -> list[Any]:
    """The mask seed, the shares and the metrics of one model under one mask."""
    values = [row["metrics"].get(metric, {}).get("values") for metric in metrics]
    drawn = "" if row["mask_seeds"][mask] is None else row["mask_seeds"][mask]
    return [drawn, *shares, *("" if of is None else of[place] for of in values)]


def write_robustness(report: Report, run: Path, out: Path | None) -> None:
    """Writes ``robustness.json``, ``robustness.csv``, the figures, and in another folder ``robustness.md``.

    In the run's own folder :func:`write_report` makes the tables a section of ``summary.md``.

    Raises:
        RunError: as :func:`own_report`; nothing is written then.
    """
    if out is None:
        own_report(run)
    folder = make_folder(out or run)
    write_json(folder / "robustness.json", report)
    if out is not None:
        mark = " (*synthetic* data)" if report["synthetic"] else ""
        heading = f"# Robustness of {escape_markdown(report['name'])}{mark}"
        write_text(folder / "robustness.md", f"{heading}\n\n{markdown_tables(report)}")
    _write_values({report["name"]: report}, folder)


def write_robustness_comparison(reports: Mapping[str, Report], out: Path) -> str:
    """Writes ``robustness.md``, ``robustness.csv``, and the figures, a line per run; returns the tables."""
    tables = comparison_tables(reports)
    mark = " (*synthetic* data)" if next(iter(reports.values()))["synthetic"] else ""
    write_text(out / "robustness.md", f"# Robustness{mark}\n\n{tables}")
    _write_values(reports, out)
    return tables


def _write_values(reports: Mapping[str, Report], folder: Path) -> None:
    """Writes ``robustness.csv`` and the figures ``robustness_<protocol>``."""
    write_text(folder / "robustness.csv", robustness_csv(reports))
    make_subfolder(folder, "figures")
    synthetic = any(report["synthetic"] for report in reports.values())
    for protocol in RATES:
        path = folder / "figures" / f"robustness_{protocol}.png"
        runs = {name: report["protocols"].get(protocol, {}).get("rows", ()) for name, report in reports.items()}
        figure_robustness(runs, path, synthetic, protocol)
    curves = {
        (f"{name}: {label}" if len(reports) > 1 else label): found["rows"]
        for name, report in reports.items()
        for label, found in report.get("noise", {}).items()
    }
    figure_noise(curves, folder / "figures" / "robustness_noise.png", synthetic)


def write_report(run: Path) -> None:
    """Writes a run's ``summary.md`` anew from its ``summary.json``, with the section of ``robustness.json``, if any.

    The section names the seeds that it is of, which may be fewer than the run has now. A damaged one is left out, with
    a warning: what was trained matters more.

    Raises:
        RunError: as :func:`own_report`.
    """
    try:
        found = read_robustness(run)
        section = "" if found is None else f"\n{HEADING}\n\n{markdown_tables(found)}"
    except (RunError, ValueError, KeyError, IndexError) as error:
        section = ""
        warnings.warn(
            f"'{run / 'robustness.json'}' is damaged ({cut(error)}), so summary.md says nothing of robustness; "
            f"run gmsa.evaluate --run {run} --missing again",
            stacklevel=2,
        )
    write_text(run / "summary.md", own_report(run) + section)


def read_robustness(run: Path) -> Report | None:
    """The content of a run's ``robustness.json``; none where it has none.

    Raises:
        RunError: it cannot be read.
        ValueError: it is not what gmsa writes.
    """
    path = run / "robustness.json"
    if not exists(path):
        return None
    content = read_json(path, MOST_RECORDS, inside=run)
    check_form(content, REPORT)
    return dict(content)


def own_report(run: Path) -> str:
    """The content of a run's ``summary.md``, rendered from its ``summary.json`` without a robustness section.

    Raises:
        RunError: the run is not finished, or its ``summary.json`` is damaged.
    """
    path = run / "summary.json"
    if not exists(path):
        raise RunError(f"'{run}' has no summary.json; finish it with gmsa.train --resume, or give --out")
    content = read_json(path, MOST_RECORDS, inside=run)
    try:
        check_form(content, SUMMARY)
    except ValueError as error:
        raise RunError(f"'{path}' is damaged ({error}); train again, or give --out") from None
    return markdown_report(content, run)
