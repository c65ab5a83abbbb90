"""The report of an ablation: rows ranked on validation, differences to the reference, tables and the figure."""

from __future__ import annotations

import shlex
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from gmsa.ablation.cells import COSTS, LOG, NOT_RUN, Cell, CellKey, Record
from gmsa.ablation.variants import Variant, entries_of, varied_keys
from gmsa.config import to_dict
from gmsa.config.components import component_name
from gmsa.errors import RunError, cut
from gmsa.figures import figure_ablation, figure_costs
from gmsa.metrics import COLUMNS, higher_is_better, paired_bootstrap
from gmsa.metrics.resampling import metric_intervals
from gmsa.reports.ablation import (
    Comparison,
    bars_of,
    correct_p_values,
    drawn,
    drawn_interval,
    latex_rows,
    line_of,
    markdown_report,
    numeric_axis,
    plain,
    repeated,
    streams_of,
)
from gmsa.reports.pages.ablation import ablation_page
from gmsa.reports.pages.run import PAGE
from gmsa.reports.pages.write import write_page
from gmsa.reports.summary import SCORED_SPLITS, SYNTHETIC_NOTE, dataset_of, summarize
from gmsa.reports.tables import title
from gmsa.system.csv_text import csv_text
from gmsa.system.files import make_folder, make_subfolder, remove, write_json, write_text
from gmsa.system.reading import exists

Records = Mapping[CellKey, Record]
"""The record of every cell, by name of the variant, fold and seed."""


def ranking(valid: Mapping[str, Sequence[Mapping[str, float]]], select: str) -> list[str]:
    """Names of the variants from best to worst mean validation score; equal ones in the order given.

    Args:
        valid: validation metrics of every seed, or of every fold, by variant.
        select: the metric.
    """
    sign = -1 if higher_is_better(select) else 1
    means = {name: statistics.fmean(scores[select] for scores in seeds) for name, seeds in valid.items()}
    return sorted(means, key=lambda name: sign * means[name])


def ablation_summary(
    name: str,
    variants: Sequence[Variant],
    cells: Sequence[Cell],
    records: Records,
    facts: Mapping[str, Any],
    dialogues: Mapping[str, str] | None = None,
) -> Comparison:
    """Builds the content of ``summary.json``. A variant with a cell that failed or was not run has no rank, no scores.

    With cross-validation the values of a score are those of the folds, each the mean over the seeds, and differences
    are over the utterances of all folds: each is in the test part of one, and in the validation part of another.

    Args:
        facts: ``synthetic`` and ``data_sha256`` of the data, the ``classes`` of its target, and its ``folds``.
        dialogues: the dialogue of each id, where the bootstrap draws whole ones.
    """
    reference = variants[0]
    config = reference.config
    seeds = config.run.seeds
    failed: dict[str, dict[str, str]] = {}
    not_run: dict[str, list[str]] = {}
    for cell in cells:
        record, place = records[cell.key], str(cell.seed) if cell.fold is None else cell.place
        if record["state"] == "failed":
            failed.setdefault(cell.variant.name, {})[place] = record["reason"]
        elif record["state"] == NOT_RUN:
            not_run.setdefault(cell.variant.name, []).append(place)
    unfinished = dict.fromkeys(s.name for found in (failed, not_run) for s in variants if s.name in found)
    whole = {s.name: repeats(s, cells, records) for s in variants if s.name not in unfinished}
    ranks = ranking({n: [record["valid"] for record in whole[n]] for n in whole}, config.select)
    keys = varied_keys(variants)
    by_name = {s.name: s for s in variants}
    rows: list[dict[str, Any]] = []
    for row_name in (*ranks, *unfinished):
        variant = by_name[row_name]
        row: dict[str, Any] = {
            "rank": ranks.index(row_name) + 1 if row_name in whole else None,
            "setting": row_name,
            "reference": variant is reference,
            "values": {key: variant.value(key) for key in keys},
            "folder": f"cells/{variant.slug}",
            "failed": failed.get(row_name, {}),
        } | ({"not_run": not_run[row_name]} if row_name in not_run else {})
        rows.append(row | _scores(variant, whole[row_name], facts) if row_name in whole else row)
    errors = {
        (done, split): errors_of([c for c in cells if c.variant.name == done], split)
        for done in (ranks if reference.name in whole else ())
        for split in SCORED_SPLITS
    }
    for (other, split), found in errors.items():
        if found.shape != errors[reference.name, split].shape:
            names = f"'{cut(other)}' and '{cut(reference.name)}'"
            raise RunError(f"{names} predict different utterances; compare them apart")
    groups = {
        split: dialogues_of(cells, reference, split, dialogues) for split in SCORED_SPLITS if errors and dialogues
    }
    for row in rows:
        if not row["reference"] and (row["setting"], "valid") in errors:
            row["difference"] = {
                split: asdict(
                    paired_bootstrap(
                        errors[reference.name, split], errors[row["setting"], split], groups=groups.get(split)
                    )
                )
                for split in SCORED_SPLITS
            }
    correct_p_values(rows)
    for row in rows:
        if row["rank"] is not None:
            own = [cell for cell in cells if cell.variant.name == row["setting"]]
            classes = facts.get("classes", ())
            row["intervals"] = {split: intervals_of(own, split, classes, dialogues) for split in SCORED_SPLITS}
    facts = dict(facts) | ({"note": SYNTHETIC_NOTE} if facts["synthetic"] else {})
    head = {"name": name, "dataset": config.data.name, "labels": config.target.chosen_metrics, **facts}
    head |= {"seeds": list(seeds), "select": config.select, "reference": reference.name}
    head |= {"dialogues": {split: len(set(names)) for split, names in groups.items()}} if groups else {}
    return head | {"chosen": ranks[0] if ranks else None, "rows": rows}


def repeats(variant: Variant, cells: Sequence[Cell], records: Records) -> list[Record]:
    """What a variant's spread is over: the records of its seeds, or of its folds, each the mean over the seeds."""
    groups: dict[int, list[Record]] = {}
    for cell in cells:
        if cell.variant.name == variant.name:
            groups.setdefault(cell.seed if cell.fold is None else cell.fold, []).append(records[cell.key])
    return [_mean(group) if len(group) > 1 else group[0] for group in groups.values()]


def _mean(records: Sequence[Record]) -> Record:
    """The mean of the scores and the costs of some records."""
    scores = {
        split: {metric: statistics.fmean(r[split][metric] for r in records) for metric in records[0][split]}
        for split in SCORED_SPLITS
    }
    costs = {key: statistics.fmean(record[key] for record in records) for key in (*COSTS, "train_seconds")}
    return records[0] | costs | scores


def errors_of(cells: Sequence[Cell], split: str) -> np.ndarray:
    """Errors of a variant's cells, as :meth:`Cell.errors` has them, of a seed those of all folds: ``[seeds, N]``."""
    found: dict[int, list[np.ndarray]] = {}
    for cell in cells:
        try:
            found.setdefault(cell.seed, []).append(cell.errors(split))
        except ValueError as error:
            raise RunError(f"'{cell.predictions}' is damaged ({cut(error)}); run the same command again") from None
    if len({tuple(map(len, folds)) for folds in found.values()}) > 1:
        folder = cells[0].folder.parents[0 if cells[0].fold is None else 1]
        raise RunError(f"the seeds of '{folder}' predict different utterances; delete that folder")
    return np.stack([np.concatenate(folds) for folds in found.values()])


def intervals_of(
    cells: Sequence[Cell], split: str, classes: Sequence[str], dialogues: Mapping[str, str] | None = None
) -> dict[str, list[float]]:
    """The 95 % intervals of a variant's metrics, but for those of the user's own; none where answers do not fit.

    Args:
        classes: names of the target's classes.
        dialogues: the dialogue of each id, where the bootstrap draws whole ones.
    """
    config, number = cells[0].config, {name: i for i, name in enumerate(classes)}
    folds: dict[int | None, list[tuple[np.ndarray, np.ndarray]]] = {}
    for cell in cells:
        try:
            predictions, labels = cell.answers(split)
        except ValueError as error:
            raise RunError(f"'{cell.predictions}' is damaged ({cut(error)}); run the same command again") from None
        if config.target.is_classes:
            if not {*predictions, *labels} <= number.keys():
                return {}
            predictions, labels = (np.array([number[name] for name in names]) for names in (predictions, labels))
        folds.setdefault(cell.fold, []).append((predictions, labels))
    if any(len({len(labels) for _, labels in seeds}) > 1 for seeds in folds.values()):
        return {}
    parts = [(np.stack([predictions for predictions, _ in seeds]), seeds[0][1]) for seeds in folds.values()]
    wanted = {*COLUMNS[config.target.chosen_metrics], *map(component_name, config.run.metrics)}
    firsts = {cell.fold: cell for cell in reversed(cells)}
    groups = [[dialogues.get(i, i) for i in firsts[fold].ids(split)] for fold in folds] if dialogues else None
    found = metric_intervals(config.target.chosen_metrics, parts, groups=groups, num_classes=len(classes) or None)
    return {metric: list(ends) for metric, ends in found.items() if metric in wanted}


def dialogues_of(cells: Sequence[Cell], variant: Variant, split: str, dialogues: Mapping[str, str]) -> list[str]:
    """The dialogue of each utterance of :func:`errors_of`."""
    seed = variant.config.run.seeds[0]
    chosen = [cell for cell in cells if cell.variant.name == variant.name and cell.seed == seed]
    return [dialogues.get(identity, identity) for cell in chosen for identity in cell.ids(split)]


def write_comparison(
    out: Path, comparison: Comparison, variants: Sequence[Variant], cells: Sequence[Cell], records: Records
) -> bool:
    """Writes ``summary.json``, ``.md`` and ``.tex``, ``ablation.csv``, the figure, and ``report.html``.

    ``base.yaml`` and ``settings.yaml``, the reference's config and the variants, give the comparison again.
    Returns whether there is a page.
    """
    make_folder(out)
    write_json(out / "summary.json", comparison)
    write_text(out / "summary.tex", latex_rows(comparison))
    write_text(out / "ablation.csv", cells_csv(comparison, variants, cells, records))
    make_subfolder(out, "figures")
    there = draw_comparison(out / "figures" / "ablation.png", comparison)
    costs = draw_costs(out / "figures" / "cost.png", comparison)
    again = write_settings(out, variants, cells)
    written = write_page(out / PAGE, lambda: ablation_page(comparison, reports_of(out, cells), again))
    links = {PAGE: PAGE} if written else {}
    links |= {"the figure": "figures/ablation.png"} if there else {}
    links |= {"quality against cost": "figures/cost.png"} if costs else {}
    write_text(out / "summary.md", markdown_report(comparison, links | {"every cell": "ablation.csv"}))
    return written


def draw_comparison(path: Path, comparison: Comparison) -> bool:
    """Draws the scores of the variants: over the varied number, where there is one."""
    axis = numeric_axis([row["values"] for row in comparison["rows"]])
    select = comparison["select"]
    rows = [
        {"name": line_of(row["values"], axis) if axis else row["setting"], "reference": row["reference"]}
        | {"x": row["values"][axis] if axis else None}
        | {split: drawn(select, row[split][select]) for split in SCORED_SPLITS}
        for row in comparison["rows"]
        if row["rank"] is not None
    ]
    return figure_ablation(rows, path, comparison["synthetic"], title(select), axis or "", repeated(comparison))


def draw_costs(path: Path, comparison: Comparison) -> bool:
    """Draws the validation score of the variants, with its interval, over what each costs."""
    select = comparison["select"]
    rows = [
        {"name": row["setting"], "reference": row["reference"], "valid": drawn_interval(row, select)}
        | {"seconds": row["train_seconds"]["mean"], "parameters": row["parameters"]}
        for row in comparison["rows"]
        if row["rank"] is not None
    ]
    better = higher_is_better(select)
    return figure_costs(rows, path, comparison["synthetic"], title(select), better, bars_of(comparison))


def write_settings(out: Path, variants: Sequence[Variant], cells: Sequence[Cell]) -> list[str]:
    """Writes ``base.yaml`` and ``settings.yaml``; returns the commands that give the comparison again.

    Variants whose keys do not say all have no such files: each one's config is in its cell.
    """
    base, file = out / "base.yaml", out / "settings.yaml"
    entries = entries_of(variants)
    if entries is None:
        for path in (base, file):
            remove(path)
        seeds = ",".join(map(str, variants[0].config.run.seeds))
        first = variants[0].config.run.seeds[0]
        configs = [cell.folder / "config.yaml" for cell in cells if cell.seed == first]
        return [shlex.join(["gmsa", "train", "--config", str(config), "--seeds", seeds]) for config in configs]
    for path, content in ((base, to_dict(variants[0].config)), (file, entries)):
        write_text(path, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
    folds = len({cell.fold for cell in cells})
    parts = [("--config", str(base)), ("--settings", str(file))]
    parts += [] if cells[0].fold is None else [("--folds", str(folds))]
    parts += [("--out", f"{out}-again")]
    return [" \\\n  ".join(["gmsa ablate", *map(shlex.join, parts)])]


def reports_of(out: Path, cells: Sequence[Cell]) -> dict[CellKey, str]:
    """The path from ``out`` to the report of every cell that has a folder, or to its log where it has none."""
    found = {}
    for cell in (cell for cell in cells if exists(cell.folder)):
        file = next((p for p in (cell.folder / PAGE, cell.folder / LOG) if exists(p)), cell.folder)
        found[cell.key] = file.relative_to(out).as_posix()
    return found


def cells_csv(comparison: Comparison, variants: Sequence[Variant], cells: Sequence[Cell], records: Records) -> str:
    """One row per cell: its values, state, costs and scores."""
    keys = varied_keys(variants)
    data = dataset_of(comparison)
    added = map(component_name, variants[0].config.run.metrics)
    metrics = list(dict.fromkeys([*COLUMNS[comparison["labels"]], *added]))  # RMSE may be both
    splits = [f"{split}_{metric}" for split in SCORED_SPLITS for metric in metrics]
    facts = ["parameters", *COSTS, "epochs", "train_seconds", "device"]
    streams = streams_of(comparison)
    rows = []
    for variant in variants:
        for cell in (c for c in cells if c.variant is variant):
            record = records[cell.key]
            scores = [record.get(split, {}).get(m, "") for split in SCORED_SPLITS for m in metrics]
            values = [plain(variant.value(key)) for key in keys]
            ended = [record["state"], record.get("reason", ""), *(record.get(fact, "") for fact in facts)]
            ended += [record.get("stream_edges", {}).get(stream, "") for stream in streams]
            fold = [] if cell.fold is None else [cell.fold]
            rows.append([data, variant.name, *values, *fold, cell.seed, *ended, *scores])
    place = ["seed"] if cells[0].fold is None else ["fold", "seed"]
    edges = [f"{stream}_edges" for stream in streams]
    return csv_text(["data", "setting", *keys, *place, "state", "reason", *facts, *edges, *splits], rows)


def _scores(variant: Variant, records: Sequence[Record], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics as mean, standard deviation and values over the seeds, or the folds; costs as means."""
    config = variant.config
    summary = summarize(
        name=variant.name,
        dataset=config.data.name,
        synthetic=facts["synthetic"],
        data_sha256=facts["data_sha256"],
        seeds=range(len(records)),
        model=config.model.name,
        protocol=config.protocol.name,
        parameters=records[0]["parameters"],
        train_seconds=[record["train_seconds"] for record in records],
        valid=[record["valid"] for record in records],
        test=[record["test"] for record in records],
    )
    kept = {key: summary[key] for key in ("parameters", "train_seconds", *SCORED_SPLITS)}
    kept |= {cost: statistics.fmean(record[cost] for record in records) for cost in COSTS}
    if all("stream_edges" in record for record in records):  # those of an earlier gmsa have none
        streams = dict.fromkeys(stream for record in records for stream in record["stream_edges"])
        kept["stream_edges"] = {
            stream: statistics.fmean(record["stream_edges"].get(stream, 0) for record in records) for stream in streams
        }
    return kept
