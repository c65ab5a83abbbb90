"""Builds the model that a config names, and the spec of its graphs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from gmsa.config import MODALITIES, Config, ModelConfig
from gmsa.config.components import component_name
from gmsa.graph import GraphSpec
from gmsa.models.base import Model
from gmsa.models.parts import find_part
from gmsa.nn import Reconstruction
from gmsa.registry import ENCODERS, LAYERS, MODELS


def model_class(config: Config) -> type[Model]:
    """The class of the model that ``config.model.name`` names."""
    found: type[Model] = MODELS[component_name(config.model.name)]
    return found


def build_model(dims: Mapping[str, int], config: Config) -> Model:
    """Builds the model that a config names.

    With ``reconstruction.weight`` above 0 it can also :meth:`~gmsa.models.Model.reconstruct`.

    Args:
        dims: feature dimension of each modality.
    """
    model = model_class(config).from_config(dims, config)
    if config.reconstruction.weight:
        model.reconstruction = Reconstruction(dims, config.model.channels, config.model.dropout)
    return model


def graph_spec(config: Config) -> GraphSpec:
    """The graphs that the model of a config needs."""
    model, settings = model_class(config), config.model
    return GraphSpec(
        graph=config.graph,
        convs={m: settings.convs(m) for m in MODALITIES},
        positions=settings.positions,
        streams=model.seen_streams(settings),
        readout_nodes=model.readout_nodes,
        route=model.route or _route_of_layer(settings) or settings.route,
    )


def check(config: Config) -> None:
    """Refuses settings that the model of a config does not take.

    Raises:
        ConfigError: names the setting.
    """
    model, settings = model_class(config), config.model
    for spec, registry, key in (
        (settings.name, MODELS, "model.name"),
        (settings.layer, LAYERS, "model.layer"),
        (settings.encoder, ENCODERS, "model.encoder"),
    ):
        find_part(spec, registry, key)
    model.check(config)


def _route_of_layer(settings: ModelConfig) -> Literal["dense", "edge"] | None:
    """The only form of edges that the model's layer takes: its attribute ``route``."""
    return getattr(find_part(settings.layer, LAYERS, "model.layer")[0], "route", None)
