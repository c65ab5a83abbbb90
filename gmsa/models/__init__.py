"""Models: from a GraphBatch to intensity, classes and gate."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from gmsa.config import Config
from gmsa.models.base import Output
from gmsa.models.baselines import HGT, GlobalTransformer, LateFusion
from gmsa.models.semi_iin import SemiIIN

MODELS: dict[str, type[nn.Module]] = {
    "semi_iin": SemiIIN,
    "late_fusion": LateFusion,
    "global": GlobalTransformer,
    "hgt": HGT,
}


def build_model(dims: Mapping[str, int], config: Config) -> nn.Module:
    """Builds the model ``config.model.name`` for features of dimensions ``dims``."""
    return MODELS[config.model.name](dims, config)


__all__ = ["HGT", "MODELS", "GlobalTransformer", "LateFusion", "Output", "SemiIIN", "build_model"]
