"""A run folder: all that evaluating and predicting need."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from gmsa.config import Config, from_dict, to_dict
from gmsa.data import Normalizer, Utterance, load_utterances
from gmsa.errors import RunError
from gmsa.models import build_model
from gmsa.system.files import write_json, write_text
from gmsa.training.checkpoint import load_into, load_weights, save_weights
from gmsa.training.protocols import build_protocol


@dataclass(frozen=True, eq=False)
class Run:
    """An existing run folder."""

    folder: Path
    config: Config
    environment: dict[str, Any]
    dims: dict[str, int]
    """Feature dimension of each modality that the run was trained with."""
    normalizer: Normalizer

    @property
    def name(self) -> str:
        """The folder's own name, also where it is given as ``.``."""
        return self.folder.resolve().name

    @property
    def synthetic(self) -> bool:
        """Whether the run was trained on the synthetic corpus."""
        return bool(self.environment["synthetic"])

    def model(self, seed: int, device: torch.device) -> nn.Module:
        """The final model of a seed, in evaluation mode.

        Raises:
            RunError: the seed was not trained, or its weights are damaged or of another model.
        """
        file = self.folder / f"seed-{seed}" / "model.safetensors"
        if not file.exists():
            raise RunError(f"'{self.folder}' has no finished seed {seed}; finish it with gmsa.train --resume")
        model = build_model(self.dims, self.config).to(device)
        load_into(model, file)
        return model.eval()

    def train_seconds(self, seed: int) -> float:
        """Seconds that the seed's epochs took, all stages together."""
        path = self.folder / f"seed-{seed}" / "history.jsonl"
        try:
            return sum(json.loads(line)["seconds"] for line in path.read_text(encoding="utf-8").splitlines())
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(f"'{path}' is missing or damaged ({error}); restore it, or train again") from None

    def read(self, path: str | Path, require_labels: bool) -> list[Utterance]:
        """Reads another file as the run's own was read, and normalizes it with the run's normalizer.

        Raises:
            DataError: the file is missing, unsafe or wrong, or its dimensions are not those of the run.
        """
        data = self.config.data
        utterances = load_utterances(path, self.dims, data.modalities, data.labels, require_labels=require_labels)
        return [self.normalizer.apply(u) for u in utterances]


def save_inputs(folder: Path, config: Config, environment: dict[str, Any], normalizer: Normalizer) -> None:
    """Writes what a run is before it starts: ``config.yaml``, ``environment.json``, ``normalizer.safetensors``."""
    save_weights(folder / "normalizer.safetensors", normalizer.state())
    write_json(folder / "environment.json", environment)
    # Last: a folder with a config.yaml is one that can be resumed.
    write_text(folder / "config.yaml", yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True))


def read_config(folder: Path) -> Config:
    """The settings that a run was started with.

    Raises:
        RunError: its ``config.yaml`` is damaged.
    """
    try:
        settings = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        if not isinstance(settings, dict):
            raise ValueError("config.yaml holds no settings")
        return from_dict(settings, "config.yaml")
    except (yaml.YAMLError, ValueError) as error:
        raise RunError(f"'{folder}' is damaged: {' '.join(str(error).split())}; train again") from None


def open_run(folder: str | Path) -> Run:
    """Opens a run folder.

    Raises:
        RunError: it is not one, or a part of it is missing or damaged.
    """
    folder = Path(folder)
    for name in ("config.yaml", "environment.json", "normalizer.safetensors"):
        if not (folder / name).is_file():
            raise RunError(f"'{folder}' is not a run folder: it has no {name}; name one that gmsa.train wrote")
    config = read_config(folder)
    try:
        environment = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
        dims = {str(modality): int(dim) for modality, dim in environment["dims"].items()}
        _ = bool(environment["synthetic"]), str(environment["data_sha256"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(f"'{folder}' is damaged: environment.json: {error}; train again") from None
    statistics = load_weights(folder / "normalizer.safetensors")
    try:
        normalizer = Normalizer.from_state(statistics)
    except KeyError as error:
        raise RunError(f"'{folder}/normalizer.safetensors' is damaged (no {error}); train again") from None
    return Run(folder, config, environment, dims, normalizer)


def finished_seeds(run: Run, chosen: Sequence[int] | None = None) -> tuple[int, ...]:
    """The seeds to use: ``chosen`` ones, or all of the run.

    Raises:
        RunError: a chosen seed is not of the run, or the run is of pre-training alone.
    """
    if not build_protocol(run.config).predicts:
        raise RunError(
            f"'{run.folder}' holds pre-trained weights, which predict nothing; train from them with "
            f"--set protocol.init_from={run.folder}"
        )
    seeds = run.config.run.seeds
    if chosen and len(set(chosen)) != len(chosen):
        raise RunError(f"a seed is named twice (got {', '.join(map(str, chosen))}); name each once")
    for seed in chosen or ():
        if seed not in seeds:
            raise RunError(f"'{run.folder}' has no seed {seed}; it has {', '.join(map(str, seeds))}")
    return tuple(chosen) if chosen else seeds
