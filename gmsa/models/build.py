"""Builds the model that a config names, and the spec of its graphs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from gmsa.config import Config, ModelConfig, TextConfig
from gmsa.config.components import component_name
from gmsa.config.presets import TEXT, placed
from gmsa.data.targets import Target
from gmsa.errors import ConfigError, cut, listed
from gmsa.graph import UTTERANCE, GraphSpec
from gmsa.models.base import Model, arguments_of
from gmsa.models.context import Context
from gmsa.models.parts import Layers, find_part
from gmsa.nn import (
    AngularWeights,
    LearnedChoice,
    Propagation,
    Reconstruction,
    RecurrentEncoder,
    Relations,
    SequenceEncoder,
    UnimodalHeads,
    WindowEncoder,
    make_layer,
)
from gmsa.registry import CONTEXT_BUILDERS, ENCODERS, LAYERS, MODELS
from gmsa.system.memory import memory_of_machine
from gmsa.text import TextEncoder, texts_of

READ_BY_ALL = (
    *("name", "layer", "encoders", "tokens", "modality_dropout", "propagation", "sequence", "route", "text_encoder"),
)
"""Settings that a model's constructor need not take: others look at them, or refuse them."""


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
    texts = texts_of(config) if TEXT in dims and config.text.tuning != "frozen" else None
    if texts is not None:
        dims = {m: texts.folder.width if m == TEXT else dim for m, dim in dims.items()}
    model = model_class(config).from_config(dims, config)
    model.spec = graph_spec(config)
    if texts is not None:
        rank = config.text.lora_rank if config.text.tuning == "lora" else 0
        model.embedding.text_encoder = TextEncoder(
            texts.folder, texts.pieces, rank, config.text.checkpointing, config.text.frozen_layers
        )
    if config.graph.has_dialogues:
        _add_context_parts(model, config)
    if config.reconstruction.weight:
        channels = config.model.channels
        wanted = dict.fromkeys(dims, channels) if config.reconstruction.of == "states" else dims
        model.reconstruction = Reconstruction(wanted, channels, config.model.dropout)
    if config.loss.unimodal_weight:
        target = Target.of(config.target)
        classes = max(1, target.num_classes) if target.is_classes else 0
        model.unimodal = UnimodalHeads(model.embedding.modalities, config.model.channels, classes, config.model.dropout)
    return model


def _add_context_parts(model: Model, config: Config) -> None:
    """Adds what chooses among and weighs edges between utterances, the encoder of their sequence, and what propagates
    predictions."""
    graph, settings, modalities = config.graph.outside, config.model, model.embedding.modalities
    context = Context.of(config)
    if model.outside is not None and settings.propagation:
        count = 1 if config.target.is_classes else 2
        weight = settings.propagation
        model.propagations.extend(Propagation(context.dialogue_node, context.causal, weight) for _ in range(count))
    types = model.embedding.schema if model.outside is None else model.embedding.outer_schema
    name, given = graph.between_builder
    if name == "learned":
        default = CONTEXT_BUILDERS.parameters(name)["neighbors"].default
        # Those of the first relations, so that their edge types are the first.
        edge_types = context.kinds * len(types.context_relations)
        model.between.append(LearnedChoice(settings.channels, edge_types, given.get("neighbors", default)))
    if graph.weights == "angular":
        model.between.append(AngularWeights(context.edge_types(types)))
    if settings.sequence == "none":
        return
    build: Callable[[], nn.Module] = partial(RecurrentEncoder, settings.channels, context.causal, settings.dropout)
    if settings.sequence == "transformer":
        build = partial(WindowEncoder, settings.channels, settings.heads, *graph.reach, settings.dropout)
    (model.embedding if model.outside is None else model.outside).sequence = SequenceEncoder(modalities, build)


def model_skeleton(dims: Mapping[str, int], config: Config) -> Model:
    """The model that :func:`build_model` would build, without its weights: their names, types and shapes.

    A config that may be a stranger's is asked so before memory is given to it.

    Raises:
        ConfigError: the machine has too little memory for the weights.
    """
    model: Model = skeleton(lambda: build_model(dims, config), _has_plug_ins(config))
    size, most = weight_bytes(model), memory_of_machine()
    if size > most:
        raise ConfigError(
            f"the weights of the model need {size / 1e9:,.1f} GB, this machine has {most / 1e9:,.1f} GB; lower "
            "'model.channels', 'model.layers', 'model.positions', the convolutions' kernels, or what 'model.layer' and "
            "'model.name' have in brackets"
        )
    return model


def skeleton(build: Callable[[], nn.Module], plug_in: bool = False) -> Any:
    """The module that ``build`` makes, on the device ``meta``; no random number is drawn.

    Args:
        plug_in: whether parts are not gmsa's own: what cannot be made on ``meta``, such as a part that reads its
            initial values, is made as it is. Parts of gmsa can; a stranger's settings must not ask for memory here.

    Raises:
        ConfigError: a parameter of gmsa's own parts has no such value.
    """
    with torch.random.fork_rng(devices=[]):
        try:
            with torch.device("meta"), _NoInitialValues():
                return build()
        except ConfigError:
            raise
        except Exception as error:
            if plug_in:
                return build()
            raise ConfigError(
                f"the model cannot be made ({type(error).__name__}: {cut(error)}); correct the parameters of "
                "'model.name' and 'model.layer'"
            ) from error


class _NoInitialValues(TorchFunctionMode):
    """Leaves out what fills tensors without memory, of which a layer with weights for each relation has thousands.

    Raises:
        ConfigError: there are more than any use has, which would take minutes and more memory than they name.
    """

    MOST = 250_000
    FILL = frozenset(
        {Tensor.uniform_, Tensor.normal_, Tensor.fill_, Tensor.zero_}
        | {nn.init.uniform_, nn.init.normal_, nn.init.constant_, nn.init.kaiming_uniform_}
    )

    def __init__(self) -> None:
        super().__init__()
        self.made = 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        self.made += func is torch.empty
        if self.made > self.MOST:
            raise ConfigError(
                f"the model has more than {self.MOST:,} separate weights; lower 'model.layers', 'model.context_layers' "
                "or 'graph.distances', list fewer 'graph.speakers', or choose another 'model.layer'"
            )
        if func in self.FILL and (tensor := args[0] if args else given["tensor"]).is_meta:
            return tensor
        # On "meta" torch draws, and multiplies, by parts of its compiler, whose import takes as long as torch's.
        if func is torch.randn and "generator" not in given:
            func = torch.empty
        elif func is Tensor.mul and args[0].is_meta and isinstance(args[1], float):
            return args[0]
        return func(*args, **given)


def _has_plug_ins(config: Config) -> bool:
    """Whether the model has parts that are not gmsa's own."""
    settings = config.model
    parts = [(MODELS, settings.name), (ENCODERS, settings.encoder), *((LAYERS, x) for x in settings.layer.values())]
    return not all(registry.module_of(component_name(spec)).startswith("gmsa.") for registry, spec in parts)


def weight_bytes(module: nn.Module) -> int:
    """Bytes of a module's parameters and buffers."""
    return sum(part.numel() * part.element_size() for part in (*module.parameters(), *module.buffers()))


def graph_spec(config: Config) -> GraphSpec:
    """Describes the graphs that the model of a config takes, for :func:`gmsa.collate`."""
    model, settings = model_class(config), config.model
    is_outside = config.graph.scope == "dialogue"
    layers = _layers(model, settings)
    inside_route = model.route or next(filter(None, layers.say("route")), None) or settings.route
    outside_route = _outside_route(model, config) or inside_route
    graph = config.graph.outside if is_outside else config.graph
    if model.seen_outside(settings) == (UTTERANCE,):  # no edge could join the node of a dialogue
        graph = replace(graph, dialogue_node=False)
    return GraphSpec(
        graph=graph,
        convs={m: settings.convs(m) for m in placed(config.named_modalities)},
        positions=settings.positions,
        streams=model.seen_outside(settings) if is_outside else model.seen_streams(settings),
        readouts=model.seen_readouts(config),
        route=outside_route if is_outside else inside_route,
        outside_streams=model.seen_outside(settings),
        outside_route=outside_route,
        relations=model.takes_relations or any(layers.say("takes_relations")),
        takes_weights=model.takes_weights and all(layers.say("takes_weights", False)),
    )


def check(config: Config) -> None:
    """Refuses settings that the model of a config does not take.

    Raises:
        ConfigError: names the setting.
    """
    model, settings = model_class(config), config.model
    for spec, registry, key in (
        (settings.name, MODELS, "model.name"),
        *((spec, LAYERS, "model.layer") for spec in settings.layer.values()),
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
    _check_layers(model, config)
    if config.graph.scope == "hierarchical" and config.loss.alone_weight and not model.says_alone:
        raise ConfigError(
            f"'loss.alone_weight' needs what each utterance's own graph predicts, which 'model.name: "
            f"{component_name(settings.name)}' does not say; set it to 0 (one that has 'Output.alone' says so by "
            "'says_alone = True')"
        )
    _check_context(model, config)
    model.check(config)


def unused_settings(config: Config) -> list[str]:
    """Settings with a value of their own that the model of a config never looks at, by their keys."""
    model, settings, default = model_class(config), config.model, ModelConfig()
    read = {*arguments_of(model), *READ_BY_ALL, *(("heads",) if settings.sequence == "transformer" else ())}
    if model.seen_streams(settings) != model.seen_streams(replace(settings, streams=default.streams)):
        read.add("streams")
    names = [f.name for f in fields(settings) if f.name not in read]
    found = [f"model.{name}" for name in names if getattr(settings, name) != getattr(default, name)]
    layers = _layers(model, settings)
    found += [f"model.layer.{stream}" for stream in settings.layer.named if stream not in layers]
    if settings.text_encoder is None:
        found += [f"text.{f.name}" for f in fields(TextConfig) if getattr(config.text, f.name) != f.default]
    propagates = config.graph.scope == "hierarchical" and settings.propagation
    if config.graph.dialogue_node and model.seen_outside(settings) == (UTTERANCE,) and not propagates:
        found.append("graph.dialogue_node")
    return found


def _layers(model: type[Model], settings: ModelConfig) -> Layers:
    """The layers of the model's streams; none where it has no streams of layers."""
    return Layers(settings.layer, model.seen_streams(settings) if "layer" in arguments_of(model) else ())


def _check_layers(model: type[Model], config: Config) -> None:
    settings = config.model
    if "layer" not in arguments_of(model):
        if settings.layer != ModelConfig().layer:
            raise ConfigError(
                f"'model.name: {component_name(settings.name)}' has layers of its own; leave 'model.layer' out, or "
                "choose another model, such as semi_iin or sslmm"
            )
        return
    layers = _layers(model, settings)
    routes = [*filter(None, layers.say("route"))]
    if len(routes) > 1:
        raise ConfigError(f"the layers that 'model.layer' names take edges in different forms ({listed(routes)})")
    for layer in layers.values():
        heads = layer.keywords.get("heads", settings.heads)
        if not layer.func.__module__.startswith("gmsa."):
            continue
        if heads < 1 or settings.channels % heads:
            raise ConfigError(
                f"'model.channels' must be divisible by the 'heads' of 'model.layer' (got {settings.channels} and "
                f"{heads})"
            )
        # What a layer says of its parameters, before any data is read; the relations are known later.
        sizes = {"channels": settings.channels, "heads": heads, "edge_types": 0, "number": 1}
        skeleton(partial(make_layer, layer, relations=Relations(("any",), (("any", "any", "any"),)), **sizes))
    if looks_at_dialogues(config) and not config.graph.reach[1]:
        raise ConfigError(
            "'graph.future' is 0, but a layer of 'model.layer' attends to all utterances of a dialogue; choose another "
            "layer (gps attends to all nodes of a graph), or leave 'graph.future' out"
        )


def looks_at_dialogues(config: Config) -> bool:
    """Whether a layer sees whole dialogues, whatever the edges between utterances (it has ``sees_graph = True``)."""
    return _outside_layers_say(config, "sees_graph")


def counts_degrees(config: Config) -> bool:
    """Whether a layer between utterances weighs messages by the edges that end at their senders."""
    return _outside_layers_say(config, "counts_degrees")


def _outside_layers_say(config: Config, attribute: str) -> bool:
    """Whether a layer between utterances has a class attribute that is true."""
    model = model_class(config)
    if not config.graph.has_dialogues or not model.layers_outside:
        return False
    layers = _layers(model, config.model)
    seen = [layers[stream] for stream in model.seen_outside(config.model) if stream in layers]
    return any(getattr(layer.func, attribute, False) for layer in seen)


def _check_context(model: type[Model], config: Config) -> None:
    settings, asked = config.model, _weighs(config)
    if asked is None:
        return
    if not model.takes_weights:
        raise ConfigError(
            f"'model.name: {component_name(settings.name)}' takes no weights of edges, which '{asked}' gives them; "
            "choose another model, such as semi_iin or sslmm, or leave that out"
        )
    for stream, layer in _layers(model, settings).items():
        if not getattr(layer.func, "takes_weights", False):
            raise ConfigError(
                f"'model.layer: {component_name(settings.layer.of(stream))}' takes no weights of edges, which "
                f"'{asked}' gives them; choose another layer, or leave that out (one that takes them has "
                "'takes_weights = True')"
            )


def _weighs(config: Config) -> str | None:
    """The setting that gives weights to the edges between utterances; None where none does."""
    graph = config.graph
    if graph.has_dialogues and graph.between_builder[0] == "learned":
        return "graph.between: learned"
    return f"graph.weights: {graph.weights}" if graph.has_dialogues and graph.weights != "none" else None


def _outside_route(model: type[Model], config: Config) -> Literal["dense", "edge"] | None:
    """The only form of the edges between utterances that the model takes; chosen and weighed edges are lists."""
    return model.outside_route or ("edge" if _weighs(config) else None)
