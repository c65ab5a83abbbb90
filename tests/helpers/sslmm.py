"""Configs, models and tasks that the tests of SSLMM and of its training share."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from gmsa.config import Config, from_dict
from gmsa.data import Target, Utterance
from gmsa.models import Model, build_model
from gmsa.training.examples import Example, labeled_examples
from gmsa.training.tasks import FineTuning

DIMS = {"text": 6, "audio": 4, "vision": 5}


def config_of(name: str = "sslmm", **groups: dict[str, Any]) -> Config:
    model = {"name": name, "channels": 16, "heads": 4} | groups.pop("model", {})
    return from_dict({"model": model, **groups})


def model_of(config: Config) -> Model:
    torch.manual_seed(0)
    return build_model(DIMS, config).double().eval()


def task_of(utterances: list[Utterance], config: Config) -> FineTuning:
    examples = [*labeled_examples(utterances[:5], Target()), *(Example(replace(u, label=None)) for u in utterances[5:])]
    return FineTuning(config, DIMS, examples, [], utterances, torch.device("cpu"), consistent=True)


def of_the_same_videos(content: dict[str, Any]) -> None:
    """Renames the utterances of a file: each video has clips in all splits."""
    for number, columns in enumerate(content.values()):
        columns["id"] = [f"v{i // 4}$_${3 * i + number}" for i in range(len(columns["id"]))]


def small_sslmm(write_mmsa: Any, **groups: dict[str, Any]) -> Config:
    """A run of both stages of SSLMM that trains in a second on the file that ``write_mmsa`` writes."""
    settings: dict[str, Any] = {
        "model": {"name": "sslmm", "channels": 16, "heads": 2},
        "optim": {"epochs": 1, "min_steps": 0, "batch_size": 8},
        "reconstruction": {"weight": 0.5},
        "protocol": {"name": "sslmm"},
        "self_training": {"k": 2},
        "consistency": {"passes": 2},
        "distillation": {"teachers": 2},
        "pretrain": {"epochs": 1},
        "run": {"seeds": [1], "device": "cpu"},
        "data": {},
        "graph": {},
    }
    settings = {name: settings[name] | groups.get(name, {}) for name in settings}
    settings["data"] = {"path": str(write_mmsa()), "name": "tiny"} | settings["data"]
    return from_dict(settings)
