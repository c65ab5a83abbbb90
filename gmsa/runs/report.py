"""The report of a finished run: predictions, tables and figures."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gmsa import figures
from gmsa.config import Config
from gmsa.config.trained import trained_settings
from gmsa.data import INTENSITY_CLASSES, SPLITS, Target
from gmsa.data.lazy import ids_of, labels_of
from gmsa.metrics import metrics, per_class
from gmsa.models import build_model
from gmsa.reports.pages.run import write_run_page
from gmsa.reports.robustness import write_report
from gmsa.reports.run import write_summary
from gmsa.reports.summary import LONGEST_TEXT, spread, summarize
from gmsa.runs.intervals import calibration_turns, conformal_rows, predict_turns
from gmsa.runs.prepare import Prepared
from gmsa.system.csv_text import csv_dicts
from gmsa.system.files import make_subfolder, write_text
from gmsa.training.checkpoint import load_into
from gmsa.training.protocols import TrainingData, training_labels
from gmsa.training.scoring import Predictions, predict_utterances, predictions_csv, readouts
from gmsa.training.trainer import Trainer

WORST = 10
"""Utterances of the test split that the summary shows because their predictions are farthest off."""


def report(
    config: Config,
    name: str,
    folder: Path,
    prepared: Prepared,
    data_of: Mapping[int, TrainingData],
    trainers: Mapping[int, Trainer],
) -> dict[str, Any]:
    """Scores every split once with every seed's models, and writes tables, predictions and figures.

    Withheld labels are read here alone, to score the pseudo-labels.
    """
    target = prepared.corpus.target
    truth = _truth(prepared) if any(len(data.pool) for data in data_of.values()) else {}
    finals: list[dict[str, Predictions]] = []
    pools: list[Predictions] = []
    turns = calibration_turns(prepared)
    calibrating: dict[int, tuple[list[Predictions], Predictions]] = {}
    stages: dict[str, dict[str, list[dict[str, float]]]] = {}
    pseudo_rows: list[dict[str, Any]] = []
    parameters = 0
    for seed, trainer in trainers.items():
        seed_folder = folder / f"seed-{seed}"
        model = build_model(trainer.dims, config).to(trainer.device)
        parameters = sum(p.numel() for p in model.parameters())
        predicting = [stage for stage in trainer.finished if stage != "pretrain"]
        last: dict[str, Predictions] = {}
        for stage in predicting:
            load_into(model, seed_folder / f"{stage}.safetensors", trained_settings(config, seed), inside=folder)
            scores = stages.setdefault(stage, {"valid": [], "test": []})
            for split in scores:
                context = prepared.context.get(split, ())
                last[split] = predict_utterances(model, prepared.splits[split], config, trainer.device, context)
                scores[split].append(last[split].metrics(config))
            if stage == predicting[0]:
                known = [replace(u, label=truth[u.id]) for u in data_of[seed].pool if u.id in truth]
                pools.append(trainer.predict(model, known))
        # The last stage's weights are the final model's.
        # Those for training are among the utterances of the pool, as in training.
        final = {s: trainer.predict(model, prepared.splits[s]) if s == "train" else last[s] for s in SPLITS}
        write_text(seed_folder / "predictions.csv", predictions_csv(final.items()))
        finals.append(final)
        calibrating[seed] = predict_turns(model, turns, prepared, final["valid"], trainer.device), final["test"]
        if data_of[seed].pseudo_labels:
            rows = [row | {"label": truth.get(row["id"])} for row in data_of[seed].pseudo_labels]
            write_text(seed_folder / "pseudo_labels.csv", csv_dicts(_named(row, target) for row in rows))
            pseudo_rows += _pseudo_summary(rows, seed, len(data_of[seed].pool), target)

    summary = summarize(
        **_facts(config, name, prepared, data_of, trainers),
        parameters=parameters,
        valid=[final["valid"].metrics(config) for final in finals],
        test=[final["test"].metrics(config) for final in finals],
        stages=stages,
        constant=constant_scores(config, _labels(data_of), finals[0]),
        worst=worst_predictions(prepared, [final["test"] for final in finals]),
        classes=class_rows([final["test"] for final in finals]),
        intervals=conformal_rows(prepared, turns, calibrating),
    )
    write_summary(folder, summary)
    history = [row for trainer in trainers.values() for row in trainer.history if row["stage"] != "pretrain"]
    draw_run(
        folder / "figures",
        history,
        [final["test"] for final in finals],
        pools,
        pseudo_rows,
        target,
        summary["synthetic"],
        config.select,
        {"training": _labels(data_of, first=True), "test": finals[0]["test"].labels},
    )
    finish_report(folder)
    return summary


def _truth(prepared: Prepared) -> dict[str, float]:
    """The labels of the training split by id."""
    train = prepared.corpus.splits["train"]
    labels = labels_of(train).tolist()
    return {name: label for name, label in zip(ids_of(train), labels, strict=True) if label == label}


def finish_report(folder: Path) -> None:
    """Makes a run's page, then ``summary.md``, which links to it and to the figures.

    Raises:
        RunError: the run is not finished, or its ``summary.json`` is damaged.
    """
    write_run_page(folder)
    write_report(folder)


def constant_scores(config: Config, labels: np.ndarray, splits: Mapping[str, Predictions]) -> dict[str, Any]:
    """The median of training labels, or their most frequent class, and the scores of predicting it for every utterance.

    A registered metric that cannot score a constant is left out.

    Args:
        labels: those that some seed trained on.
        splits: any predictions, for the labels of ``valid`` and ``test``.
    """
    target = splits["test"].target
    value = float(
        np.bincount(_whole(labels)).argmax() if target.is_classes else np.median(np.asarray(labels, np.float32))
    )
    found: dict[str, Any] = {"value": value} | ({"class": target.name_of(value)} if target.is_classes else {})
    scored = config.target.chosen_metrics
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a constant has no correlation
        for split in ("valid", "test"):
            truth = splits[split].labels
            truth = truth[~np.isnan(truth)]
            constant = np.full(len(truth), value)
            found[split] = metrics(scored, constant, truth, num_classes=target.num_classes)
            for more in config.run.metrics:
                with suppress(Exception):  # it is a user's
                    found[split] |= metrics(scored, constant, truth, [more], target.num_classes)
    return found


def worst_predictions(prepared: Prepared, tests: Sequence[Predictions]) -> list[dict[str, Any]]:
    """The utterances of the test split whose mean prediction is farthest from their label, the farthest first.

    Of classes, the wrong ones that are predicted with the highest mean probability.

    Args:
        tests: predictions of each seed.
    """
    target, utterances = tests[0].target, prepared.splits["test"]
    truth = labels_of(utterances)
    labeled = np.flatnonzero(~np.isnan(truth)).tolist()
    found: dict[int, dict[str, Any]] = {}
    if target.is_classes:
        mean = np.stack([p.probabilities for p in tests]).mean(axis=0, dtype=np.float64)
        likeliest, errors = mean.argmax(1), mean.max(1)
        for i in (i for i in labeled if likeliest[i] != truth[i]):
            names = {"truth": target.name_of(truth[i]), "prediction": target.name_of(likeliest[i])}
            found[i] = names | {"confidence": float(errors[i])}
    else:
        mean = np.stack([p.predicted for p in tests]).mean(axis=0, dtype=np.float64)
        errors = np.abs(mean - truth)
        found = {i: {"truth": float(truth[i]), "prediction": float(mean[i])} for i in labeled}
    return [
        {
            "id": u.id,
            "text": _shortened(u.text),
            **found[i],
            "lacking": [modality for modality, there in u.present.items() if not there],
        }
        for i in sorted(found, key=lambda i: -errors[i])[:WORST]
        for u in (utterances[i],)
    ]


def class_rows(tests: Sequence[Predictions]) -> list[dict[str, Any]]:
    """Precision, recall and F1 of each class, as spreads over the seeds; none of an intensity.

    Args:
        tests: predictions of each seed for the same utterances.
    """
    target = tests[0].target
    if not target.is_classes:
        return []
    known = ~np.isnan(tests[0].labels)
    seeds = [per_class(p.predicted[known], p.labels[known], target.classes) for p in tests]
    return [
        {"class": rows[0]["class"], "support": rows[0]["support"]}
        | {share: spread([row[share] for row in rows]) for share in ("precision", "recall", "F1")}
        for rows in zip(*seeds, strict=True)
    ]


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= LONGEST_TEXT else f"{line[: LONGEST_TEXT - 1]}…"


def report_pretraining(
    config: Config,
    name: str,
    folder: Path,
    prepared: Prepared,
    data_of: Mapping[int, TrainingData],
    trainers: Mapping[int, Trainer],
) -> dict[str, Any]:
    """Writes the summary of a run that predicts nothing: its losses on the validation split at the best epochs."""
    best = [[row for row in t.history if row["best"]][-1]["valid"] for t in trainers.values()]
    model = build_model(next(iter(trainers.values())).dims, config)
    summary = summarize(
        **_facts(config, name, prepared, data_of, trainers),
        parameters=sum(p.numel() for p in model.parameters()),
        valid=best,
    )
    write_summary(folder, summary)
    history = [row for trainer in trainers.values() for row in trainer.history]
    draw_run(folder / "figures", history, [], [], [], prepared.corpus.target, summary["synthetic"], "loss")
    finish_report(folder)
    return summary


def _facts(
    config: Config,
    name: str,
    prepared: Prepared,
    data_of: Mapping[int, TrainingData],
    trainers: Mapping[int, Trainer],
) -> dict[str, Any]:
    """The entries that every summary has."""
    target = prepared.corpus.target
    predicted = {"classes": list(target.classes)} if target.is_classes else {"range": [target.low, target.high]}
    return {
        "target": {"kind": target.kind} | predicted,
        "name": name,
        "dataset": config.data.name,
        "synthetic": prepared.corpus.synthetic,
        "data_sha256": prepared.corpus.sha256,
        "seeds": list(trainers),
        "model": config.model.name,
        "protocol": config.protocol.name,
        "train_seconds": [sum(row["seconds"] for row in t.history) for t in trainers.values()],
        "utterances": {split: len(prepared.splits[split]) for split in SPLITS}
        | {"labeled": len(next(iter(data_of.values())).labeled)},  # as many for every seed
        "missing": prepared.missing,
        "label_ratio": config.data.label_ratio,
        "init_from": config.protocol.init_from,
    }


def draw_run(
    folder: Path,
    history: list[dict[str, Any]],
    tests: list[Predictions],
    pools: list[Predictions],
    pseudo_rows: list[dict[str, Any]],
    target: Target,
    synthetic: bool,
    select: str = "MAE",
    labels: Mapping[str, Sequence[float] | np.ndarray] | None = None,
) -> None:
    """Draws the figures of a run; a figure without data is left out.

    Args:
        select: the validation score of the curves.
        labels: labels by split, to count the classes.
        tests: the final model's predictions for the test split, one per seed; none of a run that predicts nothing.
        pools: the first stage's predictions for the pool's utterances with a withheld label, one per seed.
    """
    make_subfolder(folder.parent, folder.name)
    if not tests:
        figures.figure_curves(history, folder / "curves.png", synthetic, select)
        return
    seeds, classes = len(tests), _class_names(target)
    test, pool = _join(tests, target), _join(pools, target)
    figures.figure_curves(history, folder / "curves.png", synthetic, select)
    scatter = {"prediction": test["value"], "truth": test["labels"][: len(test["value"])]}
    figures.figure_scatter(scatter, folder / "scatter.png", synthetic, seeds)
    confusion = {"prediction": test["probabilities"].argmax(1), "truth": test["classes"]}
    figures.figure_confusion(confusion, folder / "confusion.png", synthetic, seeds, classes)
    rows = class_rows(tests)
    f1 = {"class": [row["class"] for row in rows], "F1": [row["F1"]["values"] for row in rows]}
    known = labels or {} if target.is_classes else {}
    counts = {split: np.bincount(_whole(values), minlength=len(rows)) for split, values in known.items()}
    figures.figure_classes(f1, folder / "classes.png", synthetic, counts)
    gate = dict(zip(readouts(target), test["gate"].T, strict=False))
    figures.figure_gate(gate, folder / "gate.png", synthetic, seeds)
    figures.figure_pseudo_labels(pseudo_rows, folder / "pseudo_labels.png", synthetic, classes)
    figures.figure_calibration(test, folder / "calibration.png", synthetic, seeds=seeds, classes=classes)
    of = "labels given to the pool"
    figures.figure_calibration(pool, folder / "pool_calibration.png", synthetic, of, len(pools), classes)


def _class_names(target: Target) -> Sequence[str]:
    """The names of the classes; of an intensity, the middles of its bins."""
    if target.is_classes:
        return target.classes
    width, sign = (target.high - target.low) / (INTENSITY_CLASSES - 1), "+" if target.low < 0 < target.high else ""
    return [f"{middle:{sign}.3g}" if middle else "0" for middle in target.low + width * np.arange(INTENSITY_CLASSES)]


def _whole(labels: Sequence[float] | np.ndarray) -> np.ndarray:
    """The numbers of classes."""
    return np.asarray(labels).astype(np.int64)


def _labels(data_of: Mapping[int, TrainingData], first: bool = False) -> np.ndarray:
    """The labels that the seeds trained on, or the first of them."""
    chosen = list(data_of.values())[: 1 if first else None]
    return np.concatenate([training_labels(data) for data in chosen])


def _named(row: dict[str, Any], target: Target) -> dict[str, Any]:
    """A row of pseudo-labels with the names of its classes."""
    if not target.is_classes:
        return row
    label = None if row["label"] is None else target.name_of(row["label"])
    return row | {"class": target.name_of(row["class"]), "label": label}


def _join(seeds: list[Predictions], target: Target) -> dict[str, np.ndarray]:
    """The predictions of all seeds, concatenated."""
    labels = np.concatenate([p.labels for p in seeds])
    gates = [p.gate for p in seeds if p.gate is not None]
    values = [p.value for p in seeds if p.value is not None]
    return {
        "labels": labels,
        "classes": target.to_class(torch.from_numpy(labels)).numpy(),
        "value": np.concatenate(values) if values else np.zeros(0),
        "probabilities": np.concatenate([p.probabilities for p in seeds]),
        "gate": np.concatenate(gates) if gates else np.zeros((0, 2)),
    }


def _pseudo_summary(rows: list[dict[str, Any]], seed: int, pool: int, target: Target) -> list[dict[str, Any]]:
    """The number of kept and of correct pseudo-labels per round and class."""
    by_class: dict[tuple[int, int], list[dict[str, Any]]] = {}
    for row in rows:
        by_class.setdefault((row["round"], row["class"]), []).append(row)
    found = []
    for round_ in sorted({row["round"] for row in rows}):
        for c in range(target.num_classes):
            kept = by_class.get((round_, c), [])
            known = [row for row in kept if row["label"] is not None]
            labels = torch.tensor([row["label"] for row in known], dtype=torch.float32)
            right = int((target.to_class(labels) == c).sum()) if len(known) == len(kept) else None
            confidence = float(np.mean([row["confidence"] for row in kept])) if kept else None
            found.append(
                {"seed": seed, "round": round_, "class": c, "kept": len(kept), "right": right, "pool": pool}
                | {"mean_confidence": confidence}
            )
    return found
