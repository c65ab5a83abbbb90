"""The report of an ablation: rows ranked on validation, differences to the reference, tables and the figure."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from gmsa.ablation.cells import COSTS, Cell, Record
from gmsa.ablation.variants import Variant, varied_keys
from gmsa.config.components import component_name
from gmsa.errors import RunError, cut
from gmsa.figures import figure_ablation
from gmsa.metrics import COLUMNS, higher_is_better, paired_bootstrap
from gmsa.reports.ablation import Comparison, latex_rows, markdown_rows
from gmsa.reports.summary import SCORED_SPLITS, SYNTHETIC_NOTE, dataset_of, summarize
from gmsa.reports.tables import escape_markdown
from gmsa.system.csv_text import csv_text
from gmsa.system.files import make_folder, make_subfolder, write_json, write_text

Records = Mapping[tuple[str, int], Record]
"""The record of every cell, by name of the variant and seed."""


def ranking(valid: Mapping[str, Sequence[Mapping[str, float]]], select: str) -> list[str]:
    """Names of the variants from best to worst mean validation score; equal ones in the order given.

    Args:
        valid: validation metrics of every seed, by variant.
        select: the metric.
    """
    sign = -1 if higher_is_better(select) else 1
    means = {name: statistics.fmean(scores[select] for scores in seeds) for name, seeds in valid.items()}
    return sorted(means, key=lambda name: sign * means[name])


def ablation_summary(
    name: str, variants: Sequence[Variant], cells: Sequence[Cell], records: Records, facts: Mapping[str, Any]
) -> Comparison:
    """Builds the content of ``summary.json``. A variant with a failed cell has no rank and no scores.

    Args:
        facts: ``synthetic`` and ``data_sha256`` of the data.
    """
    reference = variants[0]
    config = reference.config
    seeds = config.run.seeds
    failed: dict[str, dict[str, str]] = {}
    for (failing, seed), record in records.items():
        if record["state"] == "failed":
            failed.setdefault(failing, {})[str(seed)] = record["reason"]
    whole = {s.name: [records[s.name, seed] for seed in seeds] for s in variants if s.name not in failed}
    ranks = ranking({n: [record["valid"] for record in whole[n]] for n in whole}, config.run.select)
    keys = varied_keys(variants)
    by_name = {s.name: s for s in variants}
    rows: list[dict[str, Any]] = []
    for row_name in (*ranks, *(s.name for s in variants if s.name in failed)):
        variant = by_name[row_name]
        row: dict[str, Any] = {
            "rank": ranks.index(row_name) + 1 if row_name in whole else None,
            "setting": row_name,
            "reference": variant is reference,
            "values": {key: variant.value(key) for key in keys},
            "failed": failed.get(row_name, {}),
        }
        rows.append(row | _scores(variant, whole[row_name], facts) if row_name in whole else row)
    errors = {
        (done, split): absolute_errors([c for c in cells if c.variant.name == done], split)
        for done in (ranks if reference.name in whole else ())
        for split in SCORED_SPLITS
    }
    for (other, split), found in errors.items():
        if found.shape != errors[reference.name, split].shape:
            names = f"'{cut(other)}' and '{cut(reference.name)}'"
            raise RunError(f"{names} predict different utterances; compare them apart")
    for row in rows:
        if not row["reference"] and (row["setting"], "valid") in errors:
            row["difference"] = {
                split: asdict(paired_bootstrap(errors[reference.name, split], errors[row["setting"], split]))
                for split in SCORED_SPLITS
            }
    facts = dict(facts) | ({"note": SYNTHETIC_NOTE} if facts["synthetic"] else {})
    head = {"name": name, "dataset": config.data.name, "labels": config.data.labels, **facts}
    head |= {"seeds": list(seeds), "select": config.run.select, "reference": reference.name}
    return head | {"chosen": ranks[0] if ranks else None, "rows": rows}


def absolute_errors(cells: Sequence[Cell], split: str) -> np.ndarray:
    """Absolute errors of a variant's cells, as the label scale's MAE counts them: ``[seeds, utterances]``."""
    found = []
    for cell in cells:
        try:
            found.append(cell.errors(split))
        except ValueError as error:
            raise RunError(f"'{cell.predictions}' is damaged ({cut(error)}); run the same command again") from None
    if len({len(errors) for errors in found}) > 1:
        raise RunError(f"the seeds of '{cells[0].folder.parent}' predict different utterances; delete that folder")
    return np.stack(found)


def write_comparison(
    out: Path, comparison: Comparison, variants: Sequence[Variant], cells: Sequence[Cell], records: Records
) -> None:
    """Writes ``summary.json``, ``summary.md``, ``summary.tex``, ``ablation.csv`` and ``figures/ablation.png``."""
    make_folder(out)
    write_json(out / "summary.json", comparison)
    heading = f"# {escape_markdown(comparison['name'])}{' (*synthetic* data)' if comparison['synthetic'] else ''}"
    facts = f"Data: {escape_markdown(dataset_of(comparison))}, SHA-256 {comparison['data_sha256']}"
    write_text(out / "summary.md", f"{heading}\n\n{facts}\n\n{markdown_rows(comparison)}")
    write_text(out / "summary.tex", latex_rows(comparison))
    write_text(out / "ablation.csv", cells_csv(comparison, variants, cells, records))
    make_subfolder(out, "figures")
    axis = numeric_axis(variants)
    select = comparison["select"]
    rows = [
        {"name": _line(row["values"], axis) if axis else row["setting"], "reference": row["reference"]}
        | {"x": row["values"][axis] if axis else None}
        | {split: row[split][select] for split in SCORED_SPLITS}
        for row in comparison["rows"]
        if row["rank"] is not None
    ]
    figure_ablation(rows, out / "figures" / "ablation.png", comparison["synthetic"], select, axis or "")


def numeric_axis(variants: Sequence[Variant]) -> str | None:
    """The key that variants may be drawn over: the only numeric one with three values or more.

    None also where some combination of the other keys has one value only, a point that makes no line.
    """
    keys = varied_keys(variants)
    columns = {key: [s.value(key) for s in variants] for key in keys}
    numeric = [
        key
        for key, values in columns.items()
        if all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values) and len(set(values)) >= 3
    ]
    if len(numeric) != 1:
        return None
    lines = [_line({key: s.value(key) for key in keys}, numeric[0]) for s in variants]
    return numeric[0] if all(lines.count(line) > 1 for line in lines) else None


def cells_csv(comparison: Comparison, variants: Sequence[Variant], cells: Sequence[Cell], records: Records) -> str:
    """One row per cell: its values, state, costs and scores."""
    keys = varied_keys(variants)
    data = dataset_of(comparison)
    metrics = [*COLUMNS[comparison["labels"]], *map(component_name, variants[0].config.run.metrics)]
    splits = [f"{split}_{metric}" for split in SCORED_SPLITS for metric in metrics]
    facts = ["parameters", *COSTS, "epochs", "train_seconds", "device"]
    rows = []
    for variant in variants:
        for cell in (c for c in cells if c.variant is variant):
            record = records[variant.name, cell.seed]
            scores = [record.get(split, {}).get(m, "") for split in SCORED_SPLITS for m in metrics]
            values = [_plain(variant.value(key)) for key in keys]
            ended = [record["state"], record.get("reason", ""), *(record.get(fact, "") for fact in facts)]
            rows.append([data, variant.name, *values, cell.seed, *ended, *scores])
    return csv_text(["data", "setting", *keys, "seed", "state", "reason", *facts, *splits], rows)


def _scores(variant: Variant, records: Sequence[Record], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics as mean, standard deviation and values over the seeds; costs as means."""
    config = variant.config
    summary = summarize(
        name=variant.name,
        dataset=config.data.name,
        synthetic=facts["synthetic"],
        data_sha256=facts["data_sha256"],
        seeds=config.run.seeds,
        model=config.model.name,
        protocol=config.protocol.name,
        parameters=records[0]["parameters"],
        train_seconds=[record["train_seconds"] for record in records],
        valid=[record["valid"] for record in records],
        test=[record["test"] for record in records],
    )
    kept = {key: summary[key] for key in ("parameters", "train_seconds", *SCORED_SPLITS)}
    return kept | {cost: statistics.fmean(record[cost] for record in records) for cost in COSTS}


def _line(values: Mapping[str, Any], axis: str) -> str:
    """The name of a row's line: its values of all keys but the axis."""
    return ", ".join(_plain(value) for key, value in values.items() if key != axis)


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
