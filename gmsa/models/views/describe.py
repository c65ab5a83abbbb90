"""Says what a model is made of: its parts, and which layer passes messages along which relations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from gmsa.config import Config
from gmsa.config.components import component_name
from gmsa.config.presets import placed
from gmsa.graph import DIALOGUE, UTTERANCE, Relation, Schema, relations_of, schema
from gmsa.models.base import arguments_of
from gmsa.models.build import check, graph_spec, model_class, model_skeleton


class StreamLayers(NamedTuple):
    """The layers of a stream."""

    name: str
    """``intra``, ``inter``, ``global``, or ``utterance`` for edges between utterances as such."""
    layer: str
    """Name of the layer, or of the model whose own layers these are."""
    layers: int
    """How many there are; 0 where the model has layers of its own."""
    shared: bool
    """Whether they share their weights."""
    node_types: tuple[str, ...]
    """Types of nodes between which messages pass."""
    relations: Mapping[tuple[str, str], int]
    """Pairs of source and target type that edges join, and how many relations each pair has: by time, distance and
    speakers."""


@dataclass(frozen=True)
class Description:
    """What a model is made of."""

    name: str
    """Its name in a config."""
    scope: str
    """Whose graphs it takes."""
    parts: Mapping[str, int]
    """Parameters of each of its parts, in their order."""
    levels: Mapping[str, tuple[StreamLayers, ...]]
    """The streams of the graphs of an ``utterance``, of a ``dialogue``, or of both."""

    @property
    def parameters(self) -> int:
        """Parameters of the whole model."""
        return sum(self.parts.values())


def describe_model(dims: Mapping[str, int], config: Config) -> Description:
    """Says what the model of a config is made of, without making its weights.

    Args:
        dims: feature dimension of each modality.

    Raises:
        ConfigError: the model does not take the settings.
    """
    check(config)
    skeleton, cls, spec, graph = model_skeleton(dims, config), model_class(config), graph_spec(config), config.graph
    parts = {name: sum(p.numel() for p in part.parameters()) for name, part in skeleton.named_children()}
    if own := sum(p.numel() for p in skeleton.parameters(recurse=False)):
        parts["other"] = own
    has_layers, settings, levels = "layer" in arguments_of(cls), config.model, {}
    names = placed(config.named_modalities)
    of_dialogues = schema(names, graph.dialogue_node, joined_readouts=graph.scope == "hierarchical")
    for level in ("utterance", "dialogue"):
        if graph.scope not in (level, "hierarchical"):
            continue
        is_outer = level == "dialogue"
        types = of_dialogues if is_outer else schema(names)
        streams = spec.outside_streams if is_outer else spec.streams
        if graph.scope == "dialogue":
            streams = spec.streams
        count = settings.context_layers if is_outer and graph.scope == "hierarchical" else settings.layers
        found = []
        for name in streams:
            by_layer = has_layers and (cls.layers_outside or not is_outer)
            layer = settings.layer.of(name) if by_layer else component_name(settings.name)
            node_types, relations = _relations(name, types, dims, spec.readouts, config, is_outer)
            shared = by_layer and settings.shared_layers and count > 1
            found.append(StreamLayers(name, layer, count if by_layer else 0, shared, node_types, relations))
        levels[level] = tuple(found)
    return Description(component_name(settings.name), graph.scope, {k: n for k, n in parts.items() if n}, levels)


def _relations(
    stream: str, types: Schema, dims: Mapping[str, int], readouts: tuple[str, ...], config: Config, is_outer: bool
) -> tuple[tuple[str, ...], dict[tuple[str, str], int]]:
    settings = config.graph.outside if is_outer else config.graph.inside
    there = [t for t in types.node_types if t in dims or t in readouts or t == DIALOGUE]
    if stream == UTTERANCE:
        joined = relations_of("intra", schema(types.modalities, joined_readouts=True), settings)
        kinds = [t for t in joined.triples if t[0] == t[2] == "cls"]
        return (UTTERANCE,), {(UTTERANCE, UTTERANCE): len(kinds)}
    found: dict[tuple[str, str], int] = {}
    triples: tuple[Relation, ...] = relations_of(stream, types, settings, readouts).triples
    for source, _, target in triples:
        if source in there and target in there:
            found[source, target] = found.get((source, target), 0) + 1
    return tuple(there), found
