"""Several runs on several data sets: the matrix of a cross-corpus evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gmsa.config.groups.target import SELECTABLE
from gmsa.errors import ConfigError, GmsaError, cut, listed, nearest, shown
from gmsa.figures.matrix import figure_matrix
from gmsa.metrics import COLUMNS
from gmsa.reports.matrix import markdown_matrix
from gmsa.reports.summary import spread
from gmsa.runs.evaluate import Scores, check_no_run
from gmsa.runs.folder import Run, as_run
from gmsa.runs.scoring.splits import splits_to_score
from gmsa.runs.scoring.windows import predict_whole
from gmsa.system.console import console, progress_bar
from gmsa.system.device import set_up
from gmsa.system.files import make_folder, make_subfolder, write_json, write_text


def evaluate_matrix(
    runs: Sequence[Run | str | Path],
    data: Sequence[str | Path],
    metrics: Sequence[str] = (),
    seeds: int | Sequence[int] | None = None,
    device: str | None = None,
    out: Path | None = None,
    split: str | None = None,
    include_training: bool = False,
) -> Scores:
    """Scores every run on every data set: a row per run, a column per data set, a table per metric.

    A cell is the mean and the standard deviation over the run's seeds, on the split that
    :func:`~gmsa.runs.evaluate.evaluate` would score; on the data that the run was trained on, that is its own test
    split, and the cell is marked. Where a run cannot be scored on a data set, the cell says why.

    Args:
        runs: run folders of different names.
        data: labeled files or feature stores.
        metrics: those to show; by default MAE and Corr, of classes weighted F1.
        seeds: seeds of every run; all by default.
        out: folder for ``matrix.md``, ``matrix.json`` and the figures; nothing is written by default.
        split, include_training: as :func:`~gmsa.runs.evaluate.evaluate` has them.

    Returns:
        ``{"runs", "data", "metrics", "cells"}``, each cell with ``run``, ``data``, and ``own``, ``split``,
        ``utterances`` and ``scores``, or a ``reason``.

    Raises:
        ConfigError: two runs or two data sets have the same name, or a metric is unknown.
        RunError: a folder is not a finished run, or ``out`` cannot be written.
    """
    if out is not None:
        check_no_run(out)
    opened = [as_run(run) for run in runs]
    names, labels = [run.name for run in opened], _labels(data)
    for run in opened:  # all that can fail comes before hours of scoring
        if names.count(run.name) > 1:
            raise ConfigError(f"--run names two runs that are called '{run.name}'; name each once, or rename a folder")
        run.chosen_seeds(seeds)
    shown_metrics = _chosen_metrics(opened, metrics)
    cells = []
    with progress_bar("cells", len(opened) * len(data)) as bar:
        for run in opened:
            where = set_up(run.config.run, device)
            models = [run.load_model(seed, where) for seed in run.chosen_seeds(seeds)]
            for file, label in zip(data, labels, strict=True):
                found = _cell(run, models, file, where, split, include_training)
                cells.append({"run": run.name, "data": label, **found})
                told = found.get("reason") or ", ".join(_told(found["scores"], shown_metrics))
                console().print(f"{cut(run.name)} on {cut(label)}: {told}")
                bar.advance()
    content = {"runs": names, "data": labels, "metrics": shown_metrics, "cells": cells}
    table = markdown_matrix(content)
    if out is not None:
        make_folder(out)
        write_json(out / "matrix.json", content)
        write_text(out / "matrix.md", f"# Runs by data\n\n{table}")
        make_subfolder(out, "figures")
        for metric in shown_metrics:
            figure_matrix(content, metric, out / "figures" / f"matrix_{metric}.png")
    return Scores(content, table)


def _cell(
    run: Run, models: Sequence[nn.Module], file: str | Path, where: torch.device, split: str | None, training: bool
) -> dict[str, Any]:
    try:
        chosen = splits_to_score(run, file, split, training, mask=True)
        utterances = [run.normalizer.apply(u) for u in chosen.utterances]
        more = [run.normalizer.apply(u) for u in chosen.unlabeled]
        found = [predict_whole(model, utterances, run.config, where, more).metrics(run.config) for model in models]
    except GmsaError as error:
        return {"reason": " ".join(str(error).split())}
    scores = {metric: spread([one[metric] for one in found]) for metric in found[0]}
    return {"own": chosen.own, "split": chosen.name, "utterances": len(utterances), "scores": scores}


def _told(scores: dict[str, Any], metrics: Sequence[str]) -> Iterator[str]:
    yield from (f"{metric} {scores[metric]['mean']:.4f}" for metric in metrics if metric in scores)


def _labels(data: Sequence[str | Path]) -> list[str]:
    """The stems of the files; their paths where two have the same."""
    stems = [Path(file).stem for file in data]
    found = [stem if stems.count(stem) == 1 else str(file) for stem, file in zip(stems, data, strict=True)]
    for label in found:
        if found.count(label) > 1:
            raise ConfigError(f"--data names {shown(label)} twice; name each once")
    return found


def _chosen_metrics(runs: Sequence[Run], metrics: Sequence[str]) -> list[str]:
    of_targets = dict.fromkeys(run.config.target.chosen_metrics for run in runs)
    if not metrics:
        first = [SELECTABLE[name][0] if name == "classes" else ("MAE", "Corr") for name in of_targets]
        return list(dict.fromkeys(m for found in first for m in ([found] if isinstance(found, str) else found)))
    known = [m for name in of_targets for m in COLUMNS[name]]
    known += [spec.partition("(")[0] for run in runs for spec in run.config.run.metrics]
    for metric in metrics:
        if metric not in known:
            raise ConfigError(
                f"--metric {cut(metric)} is none of the runs' metrics{nearest(metric, known)}; they have "
                f"{listed(dict.fromkeys(known))}"
            )
    return list(dict.fromkeys(metrics))
