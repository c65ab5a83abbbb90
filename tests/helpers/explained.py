"""Models whose every parameter matters, with utterances that they explain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from gmsa.config import Config, from_dict
from gmsa.data import Utterance
from gmsa.explain import Predictor, Score, View, views_of
from gmsa.models import build_model
from helpers.graphs import clip

DIMS = {"text": 4, "audio": 2, "vision": 3}
LENGTHS = [(4, 6, 2), (1, 3, 2), (3, 0, 1), (3, 1, 0), (2, 2, 2), (0, 4, 1)]
BASE = 0.25


def config_of(
    name: str = "semi_iin", scope: str = "utterance", dims: Mapping[str, int] = DIMS, **groups: Any
) -> Config:
    model = {"name": name, "channels": 8, "heads": 2, "encoders": {"others": [[3, 1]]}} | groups.pop("model", {})
    graph = {"scope": scope} | groups.pop("graph", {})
    return from_dict({"data": {"modalities": [*dims]}, "model": model, "graph": graph, **groups})


def models_of(config: Config, count: int = 1, dims: Mapping[str, int] = DIMS) -> list[torch.nn.Module]:
    models = []
    for seed in range(count):
        torch.manual_seed(seed)
        model = build_model(dims, config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
        models.append(model)
    return models


def dialogue(count: int = 6, dims: Mapping[str, int] = DIMS) -> list[Utterance]:
    return [clip(f"v$_${i}", dims, LENGTHS[i % len(LENGTHS)], label=float(i % 3)) for i in range(count)]


def predictor_of(config: Config, count: int = 1, dims: Mapping[str, int] = DIMS) -> Predictor:
    return Predictor(models_of(config, count, dims), config, torch.device("cpu"))


def score_of(config: Config, count: int = 1, dims: Mapping[str, int] = DIMS) -> Score:
    return Score(predictor_of(config, count, dims), 0, BASE)


def view_of(utterances: Sequence[Utterance], config: Config, place: int = 0) -> View:
    return next(views_of(utterances, config, [place]))
