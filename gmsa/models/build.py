"""Builds the model that a config names, and the spec of its graphs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import nn

from gmsa.config import Config, ModelConfig
from gmsa.config.components import component_name
from gmsa.config.presets import placed
from gmsa.data.targets import Target
from gmsa.errors import ConfigError, listed
from gmsa.graph import READOUTS, GraphSpec
from gmsa.models.base import Model, arguments_of
from gmsa.models.parts import find_part
from gmsa.nn import Reconstruction, UnimodalHeads
from gmsa.registry import ENCODERS, LAYERS, MODELS
from gmsa.system.memory import memory_of_machine


def model_class(config: Config) -> type[Model]:
    """The class of the model that ``config.model.name`` names."""
    found: type[Model] = MODELS[component_name(config.model.name)]
    return found


def build_model(dims: Mapping[str, int], config: Config) -> Model:
    """Builds the model that a config names.

    With ``reconstruction.weight`` above 0 it can also :meth:`~gmsa.models.Model.reconstruct`, with
    ``loss.unimodal_weight`` above 0 its output has ``unimodal``.

    Args:
        dims: feature dimension of each modality.
        config: the settings; ``data.modalities`` and the groups ``target``, ``model``, ``graph``, ``loss``
            and ``reconstruction`` count.

    Raises:
        ConfigError: ``data.modalities`` lacks one of ``dims``.
    """
    if unknown := [m for m in dims if m not in placed(config.named_modalities)]:
        raise ConfigError(f"'data.modalities' does not name {listed(unknown)}, which the data has; list all there")
    model = model_class(config).from_config(dims, config)
    if config.reconstruction.weight:
        model.reconstruction = Reconstruction(dims, config.model.channels, config.model.dropout)
    if config.loss.unimodal_weight:
        target = Target.of(config.target)
        classes = max(1, target.num_classes) if target.is_classes else 0
        model.unimodal = UnimodalHeads(model.embedding.modalities, config.model.channels, classes, config.model.dropout)
    return model


def model_skeleton(dims: Mapping[str, int], config: Config) -> Model:
    """The model that :func:`build_model` would build, without its weights: their names, types and shapes.

    A config that may be a stranger's is asked so before memory is given to it.

    Raises:
        ConfigError: the machine has too little memory for the weights.
    """
    model: Model = skeleton(lambda: build_model(dims, config))
    size, most = weight_bytes(model), memory_of_machine()
    if size > most:
        raise ConfigError(
            f"the weights of the model need {size / 1e9:,.1f} GB, this machine has {most / 1e9:,.1f} GB; lower "
            "'model.channels', 'model.layers', 'model.positions' or the convolutions' kernels"
        )
    return model


def skeleton(build: Callable[[], nn.Module]) -> Any:
    """The module that ``build`` makes, on the device ``meta``; as it is where a plug-in's part cannot be made there.

    No random number is drawn.
    """
    with torch.random.fork_rng(devices=[]):
        try:
            with torch.device("meta"):
                return build()
        except Exception:  # such as a part that reads its initial values
            return build()


def weight_bytes(module: nn.Module) -> int:
    """Bytes of a module's parameters and buffers."""
    return sum(part.numel() * part.element_size() for part in (*module.parameters(), *module.buffers()))


def graph_spec(config: Config) -> GraphSpec:
    """Describes the graphs that the model of a config takes, for :func:`gmsa.collate`."""
    model, settings = model_class(config), config.model
    is_outside = config.graph.scope == "dialogue"
    inside_route = model.route or _route_of_layer(settings) or settings.route
    outside_route = _outside_route(model, config) or inside_route
    return GraphSpec(
        graph=config.graph.outside if is_outside else config.graph,
        convs={m: settings.convs(m) for m in placed(config.named_modalities)},
        positions=settings.positions,
        streams=model.seen_outside(settings) if is_outside else model.seen_streams(settings),
        readouts=READOUTS[config.target.is_classes :] if model.readout_nodes else (),
        route=outside_route if is_outside else inside_route,
        outside_streams=model.seen_outside(settings),
        outside_route=outside_route,
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
    if config.target.is_classes and not {"num_classes", "intensity"} <= {*arguments_of(model)}:
        raise ConfigError(
            f"'model.name: {component_name(settings.name)}' predicts an intensity alone: its constructor takes no "
            "'num_classes' and 'intensity'; choose another model, or 'target.kind: intensity'"
        )
    if config.graph.scope == "hierarchical" and "context" not in arguments_of(model):
        raise ConfigError(
            f"'model.name: {component_name(settings.name)}' takes no 'context', so that it has no graphs of dialogues "
            "over those of utterances; choose another model, or another 'graph.scope'"
        )
    model.check(config)


def _outside_route(model: type[Model], config: Config) -> Literal["dense", "edge"] | None:
    """The only form of the edges between utterances that the model takes; chosen and weighed edges are lists."""
    graph = config.graph
    chosen = component_name(graph.between) == "learned" or graph.weights != "none"
    return model.outside_route or ("edge" if chosen else None)


def _route_of_layer(settings: ModelConfig) -> Literal["dense", "edge"] | None:
    """The only form of edges that the model's layer takes: its attribute ``route``."""
    return getattr(find_part(settings.layer, LAYERS, "model.layer")[0], "route", None)
