"""Models: from a GraphBatch to intensity, classes and gate."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from gmsa.config import Config
from gmsa.models.base import Model, Output, edges_of
from gmsa.models.global_transformer import GlobalTransformer
from gmsa.models.hgt import HGT
from gmsa.models.late_fusion import LateFusion
from gmsa.models.semi_iin import SemiIIN
from gmsa.models.sslmm import SSLMM
from gmsa.nn import Reconstruction

MODELS: dict[str, Callable[[Mapping[str, int], Config], Model]] = {
    "semi_iin": SemiIIN,
    "sslmm": SSLMM,
    "late_fusion": LateFusion,
    "global": GlobalTransformer,
    "hgt": HGT,
}


def build_model(dims: Mapping[str, int], config: Config) -> Model:
    """Builds the model ``config.model.name`` for features of dimensions ``dims``.

    Where ``reconstruction.weight`` is not 0 it can :meth:`~gmsa.models.Model.reconstruct`.
    """
    model = MODELS[config.model.name](dims, config)
    if config.reconstruction.weight:
        model.reconstruction = Reconstruction(dims, config.model.channels, config.model.dropout)
    return model


__all__ = [
    "HGT",
    "MODELS",
    "SSLMM",
    "GlobalTransformer",
    "LateFusion",
    "Model",
    "Output",
    "SemiIIN",
    "build_model",
    "edges_of",
]
