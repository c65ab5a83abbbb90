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
from gmsa.data import INTENSITY_CLASSES, Target
from gmsa.metrics import metrics
from gmsa.models import build_model
from gmsa.reports.pages.run import write_run_page
from gmsa.reports.robustness import write_report
from gmsa.reports.run import write_summary
from gmsa.reports.summary import LONGEST_TEXT, summarize
from gmsa.runs.prepare import Prepared
from gmsa.system.csv_text import csv_dicts
from gmsa.system.files import make_subfolder, write_text
from gmsa.training.checkpoint import load_into
from gmsa.training.protocols import TrainingData
from gmsa.training.scoring import Predictions, predict_utterances, predictions_csv
from gmsa.training.trainer import Trainer

SPLITS = ("train", "valid", "test")
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
    truth = {u.id: u.label for u in prepared.corpus.splits["train"]}
    finals: list[dict[str, Predictions]] = []
    pools: list[Predictions] = []
    stages: dict[str, dict[str, list[dict[str, float]]]] = {}
    pseudo_rows: list[dict[str, Any]] = []
    parameters = 0
    for seed, trainer in trainers.items():
        seed_folder = folder / f"seed-{seed}"
        model = build_model(trainer.dims, config).to(trainer.device)
        parameters = sum(p.numel() for p in model.parameters())
        predicting = [stage for stage in trainer.finished if stage != "pretrain"]
        for stage in predicting:
            load_into(model, seed_folder / f"{stage}.safetensors", trained_settings(config, seed), inside=folder)
            scores = stages.setdefault(stage, {"valid": [], "test": []})
            for split in scores:
                predictions = predict_utterances(model, prepared.splits[split], config, trainer.device)
                scores[split].append(predictions.metrics(config))
            if stage == predicting[0]:
                known = [replace(u, label=truth[u.id]) for u in data_of[seed].pool if u.id in truth]
                pools.append(trainer.predict(model, known))
        # The last stage's weights are the final model's.
        final = {s: predict_utterances(model, prepared.splits[s], config, trainer.device) for s in SPLITS}
        write_text(seed_folder / "predictions.csv", predictions_csv(final.items()))
        finals.append(final)
        if data_of[seed].pseudo_labels:
            rows = [row | {"label": truth.get(row["id"])} for row in data_of[seed].pseudo_labels]
            write_text(seed_folder / "pseudo_labels.csv", csv_dicts(rows))
            pseudo_rows += _pseudo_summary(rows, seed, len(data_of[seed].pool), target)

    summary = summarize(
        **_facts(config, name, prepared, data_of, trainers),
        parameters=parameters,
        valid=[final["valid"].metrics(config) for final in finals],
        test=[final["test"].metrics(config) for final in finals],
        stages=stages,
        constant=constant_scores(config, [e.value for data in data_of.values() for e in data.labeled], finals[0]),
        worst=worst_predictions(prepared, [final["test"].value for final in finals]),
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
    )
    finish_report(folder)
    return summary


def finish_report(folder: Path) -> None:
    """Makes a run's page, then ``summary.md``, which links to it and to the figures.

    Raises:
        RunError: the run is not finished, or its ``summary.json`` is damaged.
    """
    write_run_page(folder)
    write_report(folder)


def constant_scores(config: Config, labels: Sequence[float], splits: Mapping[str, Predictions]) -> dict[str, Any]:
    """The median of training labels, and the scores of predicting it for every utterance.

    A registered metric that cannot score a constant is left out.

    Args:
        labels: those that some seed trained on.
        splits: any predictions, for the labels of ``valid`` and ``test``.
    """
    value = float(np.median(labels))
    found: dict[str, Any] = {"value": value}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a constant has no correlation
        for split in ("valid", "test"):
            truth = splits[split].labels
            truth = truth[~np.isnan(truth)]
            constant = np.full(len(truth), value)
            found[split] = metrics(config.target.chosen_metrics, constant, truth)
            for more in config.run.metrics:
                with suppress(Exception):  # it is a user's
                    found[split] |= metrics(config.target.chosen_metrics, constant, truth, [more])
    return found


def worst_predictions(prepared: Prepared, values: list[np.ndarray]) -> list[dict[str, Any]]:
    """The utterances of the test split whose mean prediction is farthest from their label, the farthest first.

    Args:
        values: predictions of each seed.
    """
    mean = np.stack(values).mean(axis=0, dtype=np.float64)
    utterances = prepared.splits["test"]
    errors = {i: abs(mean[i] - u.label) for i, u in enumerate(utterances) if u.label is not None}
    return [
        {
            "id": u.id,
            "text": _shortened(u.text),
            "truth": u.label,
            "prediction": float(mean[i]),
            "lacking": [modality for modality, there in u.present.items() if not there],
        }
        for i in sorted(errors, key=lambda i: -errors[i])[:WORST]
        for u in (utterances[i],)
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
    draw_run(folder / "figures", history, [], [], [], prepared.corpus.target, summary["synthetic"])
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
    return {
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
) -> None:
    """Draws the figures of a run; a figure without data is left out.

    Args:
        tests: the final model's predictions for the test split, one per seed; none of a run that predicts nothing.
        pools: the first stage's predictions for the pool's utterances with a withheld label, one per seed.
    """
    make_subfolder(folder.parent, folder.name)
    if not tests:
        figures.figure_curves(history, folder / "curves.png", synthetic, "loss")
        return
    seeds = len(tests)
    test, pool = _join(tests, target), _join(pools, target)
    figures.figure_curves(history, folder / "curves.png", synthetic)
    scatter = {"prediction": test["value"], "truth": test["labels"]}
    figures.figure_scatter(scatter, folder / "scatter.png", synthetic, seeds)
    confusion = {"prediction": test["probabilities"].argmax(1), "truth": test["classes"]}
    figures.figure_confusion(confusion, folder / "confusion.png", synthetic, seeds)
    gate = {"val": test["gate"][:, 0], "cls": test["gate"][:, 1]}
    figures.figure_gate(gate, folder / "gate.png", synthetic, seeds)
    figures.figure_pseudo_labels(pseudo_rows, folder / "pseudo_labels.png", synthetic)
    figures.figure_calibration(test, folder / "calibration.png", synthetic, seeds=seeds)
    of = "labels given to the pool"
    figures.figure_calibration(pool, folder / "pool_calibration.png", synthetic, of, len(pools))


def _join(seeds: list[Predictions], target: Target) -> dict[str, np.ndarray]:
    """The predictions of all seeds, concatenated."""
    labels = np.concatenate([p.labels for p in seeds])
    gates = [p.gate for p in seeds if p.gate is not None]
    return {
        "labels": labels,
        "classes": target.to_class(torch.from_numpy(labels)).numpy(),
        "value": np.concatenate([p.value for p in seeds]),
        "probabilities": np.concatenate([p.probabilities for p in seeds]),
        "gate": np.concatenate(gates) if gates else np.zeros((0, 2)),
    }


def _pseudo_summary(rows: list[dict[str, Any]], seed: int, pool: int, target: Target) -> list[dict[str, Any]]:
    """The number of kept and of correct pseudo-labels per round and class."""
    found = []
    for round_ in sorted({row["round"] for row in rows}):
        for c in range(INTENSITY_CLASSES):
            kept = [row for row in rows if row["round"] == round_ and row["class"] == c]
            known = [row for row in kept if row["label"] is not None]
            labels = torch.tensor([row["label"] for row in known], dtype=torch.float32)
            right = int((target.to_class(labels) == c).sum()) if len(known) == len(kept) else None
            confidence = float(np.mean([row["confidence"] for row in kept])) if kept else None
            found.append(
                {"seed": seed, "round": round_, "class": c, "kept": len(kept), "right": right, "pool": pool}
                | {"mean_confidence": confidence}
            )
    return found
