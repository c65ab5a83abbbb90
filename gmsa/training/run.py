"""A whole run: every seed trained, then the test split scored once, then the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import yaml

from gmsa.config import SYNTHETIC, Config, to_dict
from gmsa.errors import RunError
from gmsa.report import markdown_table
from gmsa.training.checkpoint import save_weights
from gmsa.training.environment import describe_environment
from gmsa.training.loop import Trainer
from gmsa.training.prepare import Prepared, prepare
from gmsa.training.progress import Progress
from gmsa.training.protocols import PROTOCOLS, Material
from gmsa.training.results import report
from gmsa.training.runs import resolve_device, save_inputs


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
                trainer = Trainer(
                    config, dict(corpus.dims), prepared.splits["valid"], seed, seed_folder, device, progress
                )
                model = PROTOCOLS[config.protocol.name](trainer, material)
                save_weights(seed_folder / "model.safetensors", model.state_dict())
                trainers[seed] = trainer
        except KeyboardInterrupt:
            progress.say(f"Interrupted; the last finished epoch is saved. Go on with --resume --out {folder}")
            raise
        summary = report(config, name, folder, prepared, materials, trainers)
        progress.say(f"\n{markdown_table([summary])}\nRun folder: {folder}")
    return summary


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


def describe_data(config: Config, prepared: Prepared, material: Material, device: torch.device) -> str:
    """The line that a run starts with."""
    corpus = prepared.corpus
    dims = ", ".join(f"{m} {d}" for m, d in corpus.dims.items())
    sizes = ", ".join(f"{split} {len(utterances)}" for split, utterances in corpus.splits.items())
    line = (
        f"{SYNTHETIC if corpus.synthetic else config.data.name}: {sizes} utterances; features {dims}; "
        f"{len(material.labeled)} labeled, {len(material.pool)} in the pool; {config.model.name} on {device.type}"
    )
    if not corpus.synthetic:
        return line
    asked = config.data.path
    why = "the config asks for it" if asked == SYNTHETIC else f"'{asked}' is not there, so the embedded one is used"
    return (
        f"{'=' * 79}\nSYNTHETIC corpus: {why}.\nIts numbers say nothing about a real data set; "
        f"the README says how to put MOSI in place.\n{'=' * 79}\n{line}"
    )
