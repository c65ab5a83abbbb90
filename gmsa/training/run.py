"""A whole run: every seed trained, then the test split scored once, then the report."""

from __future__ import annotations

import csv
import io
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

import gmsa
from gmsa import figures
from gmsa.config import SYNTHETIC, Config, to_dict
from gmsa.data import NUM_CLASSES, Corpus, to_class
from gmsa.errors import RunError
from gmsa.files import write_text
from gmsa.models import build_model
from gmsa.report import markdown_table, summarize, write_summary
from gmsa.training.checkpoint import load_into, save_weights
from gmsa.training.loop import Trainer
from gmsa.training.prepare import Prepared, prepare
from gmsa.training.progress import Progress
from gmsa.training.protocols import PROTOCOLS, Material
from gmsa.training.runs import resolve_device, save_inputs
from gmsa.training.scoring import Predictions, predict, predictions_csv

PACKAGES = ("gmsa", "torch", "torch-geometric", "torch-scatter", "numpy", "scikit-learn", "safetensors")
SPLITS = ("train", "valid", "test")


def choose_folder(out: str | None, default: str, resume: bool) -> Path:
    """The run folder: ``out``, or the default one, numbered where it is taken.

    Raises:
        RunError: ``out`` holds a run already and ``resume`` is not asked for, or there is nothing to resume.
    """
    if out is not None:
        folder = Path(out)
    else:
        taken = [Path(default)]
        while (following := Path(f"{default}-{len(taken) + 1}")).exists():
            taken.append(following)
        folder = taken[-1] if resume or not taken[-1].exists() else following
    if resume and not (folder / "config.yaml").exists():
        raise RunError(f"'{folder}' holds no run to resume; leave --resume out to start one")
    if not resume and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RunError(f"'{folder}' is not empty; add --resume to go on with its run, or give another --out")
    return folder


def train(config: Config, name: str, folder: Path, resume: bool = False) -> dict[str, Any]:
    """Trains every seed of ``config`` into ``folder`` and returns the content of ``summary.json``.

    Args:
        name: name of the run in its tables.
        resume: go on with the run that the folder holds; seeds that are done are not trained again.

    Raises:
        GmsaError: the config, the data or the folder is wrong; before any training where that can be known.
    """
    device = resolve_device(config.run.device)
    prepared = prepare(config)
    corpus = prepared.corpus
    materials = {seed: prepared.material(config, seed) for seed in config.run.seeds}
    if resume:
        check_same(folder, config)
    folder.mkdir(parents=True, exist_ok=True)
    environment = describe_environment(corpus, device)
    save_inputs(folder, config, environment, prepared.normalizer)

    trainers = {}
    with Progress() as progress:
        progress.say(describe_data(config, prepared, materials[config.run.seeds[0]], device))
        try:
            for seed, material in materials.items():
                seed_folder = folder / f"seed-{seed}"
                seed_folder.mkdir(exist_ok=True)
                trainer = Trainer(config, dict(corpus.dims), prepared.splits["valid"], seed, seed_folder, device, progress)
                model = PROTOCOLS[config.protocol.name](trainer, material)
                save_weights(seed_folder / "model.safetensors", model.state_dict())
                trainers[seed] = trainer
        except KeyboardInterrupt:
            progress.say(f"Interrupted; the last finished epoch is saved. Go on with --resume --out {folder}")
            raise
        summary = report(config, name, folder, prepared, materials, trainers)
        progress.say(f"\n{markdown_table([summary])}\nRun folder: {folder}")
    return summary


def report(
    config: Config,
    name: str,
    folder: Path,
    prepared: Prepared,
    materials: Mapping[int, Material],
    trainers: Mapping[int, Trainer],
) -> dict[str, Any]:
    """Scores every split with every seed's final model, once, and writes tables, predictions and figures."""
    scheme = config.data.labels
    truth = {u.id: u.label for u in prepared.corpus.splits["train"]}
    finals: list[dict[str, Predictions]] = []
    stages: dict[str, dict[str, list[dict[str, float]]]] = {}
    pseudo_rows: list[dict[str, Any]] = []
    parameters = 0
    for seed, trainer in trainers.items():
        seed_folder = folder / f"seed-{seed}"
        model = build_model(trainer.dims, config.model).to(trainer.device)
        parameters = sum(p.numel() for p in model.parameters())
        for stage in trainer.finished:
            load_into(model, seed_folder / f"{stage}.safetensors")
            scores = stages.setdefault(stage, {"valid": [], "test": []})
            for split in scores:
                scores[split].append(predict(model, prepared.splits[split], config, trainer.device).metrics(scheme))
        # The last stage's weights are the final model's.
        final = {s: predict(model, prepared.splits[s], config, trainer.device) for s in SPLITS}
        write_text(seed_folder / "predictions.csv", predictions_csv(final.items()))
        finals.append(final)
        if materials[seed].pseudo_labels:
            rows = [row | {"label": truth.get(row["id"])} for row in materials[seed].pseudo_labels]
            write_text(seed_folder / "pseudo_labels.csv", _csv(rows))
            pseudo_rows += _pseudo_summary(rows, seed, len(materials[seed].pool), scheme)

    summary = summarize(
        name=name,
        dataset=config.data.name,
        synthetic=prepared.corpus.synthetic,
        data_sha256=prepared.corpus.sha256,
        seeds=list(trainers),
        model=config.model.name,
        protocol=config.protocol.name,
        parameters=parameters,
        train_seconds=[sum(row["seconds"] for row in t.history) for t in trainers.values()],
        valid=[final["valid"].metrics(scheme) for final in finals],
        test=[final["test"].metrics(scheme) for final in finals],
        stages=stages,
        missing=_missing(prepared),
        label_ratio=config.data.label_ratio,
    )
    write_summary(folder, summary)
    history = [row for trainer in trainers.values() for row in trainer.history]
    draw(folder / "figures", history, [final["test"] for final in finals], pseudo_rows, scheme, summary["synthetic"])
    return summary


def draw(
    folder: Path,
    history: list[dict[str, Any]],
    tests: list[Predictions],
    pseudo_rows: list[dict[str, Any]],
    scheme: str,
    synthetic: bool,
) -> None:
    """Draws the figures of a run; one that has nothing to show is left out."""
    folder.mkdir(exist_ok=True)
    labels = np.concatenate([t.labels for t in tests])
    classes = to_class(torch.from_numpy(labels), scheme).numpy()
    probabilities = np.concatenate([t.probabilities for t in tests])
    gates = [t.gate for t in tests if t.gate is not None]
    gate = np.concatenate(gates) if gates else np.zeros((0, 2))
    value = np.concatenate([t.value for t in tests])
    figures.figure_curves(history, folder / "curves.png", synthetic)
    figures.figure_scatter({"prediction": value, "truth": labels}, folder / "scatter.png", synthetic)
    confusion = {"prediction": probabilities.argmax(1), "truth": classes}
    figures.figure_confusion(confusion, folder / "confusion.png", synthetic)
    figures.figure_gate({"val": gate[:, 0], "cls": gate[:, 1]}, folder / "gate.png", synthetic)
    figures.figure_pseudo_labels(pseudo_rows, folder / "pseudo_labels.png", synthetic)
    figures.figure_calibration(
        {"probabilities": probabilities, "classes": classes}, folder / "calibration.png", synthetic
    )


def check_same(folder: Path, config: Config) -> None:
    """Refuses to resume a run with other settings; more seeds and another device are welcome.

    Raises:
        RunError: names the settings that differ.
    """
    old = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    new = to_dict(config)
    differing = [
        f"{group}.{key} was {old.get(group, {}).get(key)!r}, is {value!r}"
        for group, values in new.items()
        for key, value in values.items()
        if group != "run" and old.get(group, {}).get(key) != value
    ]
    if differing:
        raise RunError(f"cannot resume '{folder}' with other settings: {'; '.join(differing)}; give another --out")


def describe_environment(corpus: Corpus, device: torch.device) -> dict[str, Any]:
    """What a run depends on besides its config: versions, machine, git, data."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    return {
        "versions": versions,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "git": _git_commit(),
        "data_sha256": corpus.sha256,
        "synthetic": corpus.synthetic,
        "dims": dict(corpus.dims),
    }


def describe_data(config: Config, prepared: Prepared, material: Material, device: torch.device) -> str:
    """The line that a run starts with."""
    corpus = prepared.corpus
    dims = ", ".join(f"{m} {d}" for m, d in corpus.dims.items())
    sizes = ", ".join(f"{split} {len(utterances)}" for split, utterances in corpus.splits.items())
    line = (
        f"{SYNTHETIC if corpus.synthetic else config.data.name}: {sizes} utterances; features {dims}; {len(material.labeled)} labeled, "
        f"{len(material.pool)} in the pool; {config.model.name} on {device.type}"
    )
    if not corpus.synthetic:
        return line
    asked = config.data.path
    why = "the config asks for it" if asked == SYNTHETIC else f"'{asked}' is not there, so the embedded one is used"
    return (
        f"{'=' * 79}\nSYNTHETIC corpus: {why}.\nIts numbers say nothing about a real data set; "
        f"the README says how to put MOSI in place.\n{'=' * 79}\n{line}"
    )


def _git_commit() -> str | None:
    try:
        result = subprocess.run(
            ["git", "-C", str(Path(gmsa.__file__).parent), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip()


def _missing(prepared: Prepared) -> dict[str, Any]:
    """Share of the utterances of each split that lack each modality."""
    return {
        split: {m: float(np.mean([not u.present[m] for u in utterances])) for m in prepared.corpus.dims}
        for split, utterances in prepared.splits.items()
    }


def _pseudo_summary(rows: list[dict[str, Any]], seed: int, pool: int, scheme: str) -> list[dict[str, Any]]:
    """Kept and right pseudo-labels per round and class."""
    found = []
    for round_ in sorted({row["round"] for row in rows}):
        for c in range(NUM_CLASSES):
            kept = [row for row in rows if row["round"] == round_ and row["class"] == c]
            known = [row for row in kept if row["label"] is not None]
            labels = torch.tensor([row["label"] for row in known], dtype=torch.float32)
            right = int((to_class(labels, scheme) == c).sum()) if len(known) == len(kept) else None
            confidence = float(np.mean([row["confidence"] for row in kept])) if kept else None
            found.append(
                {"seed": seed, "round": round_, "class": c, "kept": len(kept), "right": right, "pool": pool}
                | {"mean_confidence": confidence}
            )
    return found


def _csv(rows: list[dict[str, Any]]) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()
