"""The stages of a model: what it does one after another, with which weights, and along which relations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from torch import nn

from gmsa.config import Config
from gmsa.config.components import component_name
from gmsa.config.presets import TEXT, placed
from gmsa.errors import cut
from gmsa.graph import DIALOGUE, UTTERANCE, relations_of, schema
from gmsa.nn import Heads

if TYPE_CHECKING:
    from gmsa.models.base import Embedding, Model
    from gmsa.models.context import ContextEmbedding

Level = Literal["utterance", "dialogue", "training"]
"""What a stage looks at: single utterances, or all of a dialogue; or that only a loss needs it."""


class Grid(NamedTuple):
    """Relations by two names each, such as of the types of nodes that they join."""

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    counts: Mapping[tuple[str, str], int]
    """How many relations each row and column have; those that have none are left out."""
    axes: tuple[str, str] = ("from", "to")
    """What the rows and the columns are."""

    @property
    def relations(self) -> int:
        """Relations in all."""
        return sum(self.counts.values())


class Stage(NamedTuple):
    """One step of a model."""

    name: str
    note: str = ""
    """Sizes, and what else there is to say."""
    parts: tuple[nn.Module | nn.Parameter | None, ...] = ()
    """What it computes with; weights that an earlier stage has too count there."""
    level: Level = "utterance"
    layer: str = ""
    """Name of the layer, where the stage passes messages along edges."""
    grid: Grid | None = None
    """The relations of these edges."""
    parameters: int = 0
    """Of its parts; :func:`~gmsa.models.describe_model` counts them."""


Row = tuple[Stage, ...]
"""Stages side by side: each reads what the row before gives."""


def level_of(config: Config) -> Level:
    """The level of the graphs whose nodes are embedded tokens, or in scope ``dialogue`` their means."""
    return "dialogue" if config.graph.scope == "dialogue" else "utterance"


def counted(count: int, noun: str) -> str:
    """A count with its noun."""
    return f"{count} {noun}{'s' * (count != 1)}"


def both_ways(config: Config) -> str:
    """How a recurrent layer reads a dialogue."""
    return "both ways" if config.graph.reach[1] else "forward alone"


# --- relations --------------------------------------------------------------------------------------------------------


def stream_grid(model: Model, config: Config, level: Level, *streams: str, typed: bool = True) -> Grid:
    """The relations of streams by the types of nodes that they join.

    Args:
        typed: whether times, distances and speakers are relations of their own.
    """
    graph, names = config.graph, placed(config.named_modalities)
    is_outer, readouts = level == "dialogue", model.seen_readouts(config)
    types = schema(names)
    if is_outer:
        types = schema(names, graph.dialogue_node, joined_readouts=graph.scope == "hierarchical")
    settings = graph.outside if is_outer else graph.inside
    there = [t for t in types.node_types if t in model.embedding.modalities or t in readouts or t == DIALOGUE]
    counts: dict[tuple[str, str], int] = {}
    for stream in streams:
        for source, _, target in relations_of(stream, types, settings, readouts).triples:
            if source in there and target in there:
                counts[source, target] = counts.get((source, target), 0) + 1
    return Grid(tuple(there), tuple(there), counts if typed else dict.fromkeys(counts, 1))


def speaker_grid(config: Config, times: Sequence[str] = ()) -> Grid:
    """The relations of edges between utterances by the speakers of both ends, each once or once for each time."""
    speakers = config.graph.speakers
    if isinstance(speakers, tuple):
        names = (*speakers, "others")
        return Grid(names, names, {(a, b): len(times) or 1 for a in names for b in names})
    columns = ("same", "other") if speakers == "same_other" else ("any",)
    rows = tuple(times) or ("",)
    return Grid(rows, columns, {(a, b): 1 for a in rows for b in columns}, ("source" if times else "", "speaker"))


def turn_grid(config: Config) -> Grid:
    """The relations of DialogueGCN and COGMEN: :attr:`~gmsa.models.Context.turn_relations`."""
    return speaker_grid(config, ("earlier", "not earlier"))


def time_grid() -> Grid:
    """The relations past, now and future, where the source is, seen from the target."""
    columns = ("past", "now", "future")
    return Grid(("",), columns, {("", column): 1 for column in columns}, ("", "source"))


# --- stages that models share -----------------------------------------------------------------------------------------


def embedding_rows(embedding: Embedding, config: Config) -> list[Row]:
    """The encoders of the modalities, and what makes nodes of their tokens."""
    name, level = component_name(config.model.encoder), level_of(config)
    encoders = []
    for modality in embedding.modalities:
        widths = f"{embedding.dims[modality]} → {embedding.node_type.shape[1]}"
        convs = ", ".join(f"{kernel or 'max'}/{stride}" for kernel, stride in embedding.convs[modality])
        note = f"{name}, {widths}\nkernel/stride {convs}"
        before = embedding.text_encoder if modality == TEXT else None
        if before is not None:
            note = f"{cut(Path(str(config.model.text_encoder)).name)} ({config.text.tuning})\n{note}"
        encoders.append(Stage(modality, note, (before, embedding.encoders[modality])))
    start = "type and position of each token"
    if level == "dialogue":
        start = "mean over an utterance's tokens, a learned one where there are none; its type and place"
    parts = embedding.node_type, embedding.position, embedding.missing
    return [tuple(encoders), (Stage("Nodes", start, parts, level),), *_sequence_rows(embedding.sequence, config)]


def context_rows(outside: ContextEmbedding, config: Config, with_readouts: bool = True) -> list[Row]:
    """What makes nodes of the dialogue's graph from the states of the utterances."""
    note = "mean over an utterance's tokens, a learned one where there are none; its type"
    note = f"readout nodes, and of each modality the {note}" if with_readouts else f"of each modality the {note}"
    parts = outside.node_type, outside.missing
    return [(Stage("Nodes", note, parts, "dialogue"),), *_sequence_rows(outside.sequence, config)]


def _sequence_rows(sequence: nn.Module | None, config: Config) -> list[Row]:
    if sequence is None:
        return []
    note = f"{config.model.sequence} over the dialogue, one for each modality"
    return [(Stage("Sequence encoder", note, (sequence,), "dialogue"),)]


def stream_stage(
    model: Model,
    config: Config,
    level: Level,
    stream: str,
    layers: int,
    *parts: nn.Module | nn.Parameter | None,
    shared: bool = False,
    note: str = "",
) -> Stage:
    """The layers of a stream, as ``model.layer`` names them, along its relations."""
    layer, grid = config.model.layer.of(stream), stream_grid(model, config, level, stream)
    same = " of the same weights" if shared and layers > 1 else ""
    about = f"{counted(layers, 'layer')}{same}, {counted(grid.relations, 'relation')}{note}"
    return Stage(f"{stream}: {layer}", about, parts, level, layer, grid)


def heads_row(heads: Heads, level: Level, config: Config) -> Row:
    """The heads that predict the intensity and the class."""
    classes, channels = heads.classes.out_features, heads.classes.in_features
    answers = f"{'intensity, ' * (heads.value is not None)}{classes} class{'es' * (classes != 1)}"
    alone = level == "utterance" and config.graph.scope == "hierarchical"
    note = f"{channels} → {answers}{' from the utterance alone' * alone}"
    return (Stage("Heads", note, (heads,), level),)


def own_rows(model: Model, known: Iterable[Row], level: Level) -> list[Row]:
    """A row for each further part of a model, in their order: what a model that describes no stages is drawn as."""
    seen = {id(p) for row in known for stage in row for p in parameters_of(stage.parts)}
    seen |= {id(p) for name in ADDED for p in parameters_of([getattr(model, name, None)])}
    seen |= {id(p) for p in parameters_of([h for h in [getattr(model, "heads", None)] if isinstance(h, Heads)])}
    rows: list[Row] = []
    for name, part in model.named_children():
        if any(id(p) not in seen for p in part.parameters()):
            rows.append((Stage(name, type(part).__name__, (part,), level),))
    return rows


ADDED = ("between", "propagations", "reconstruction", "unimodal")
"""Parts that :func:`~gmsa.models.build_model` adds to any model."""


def plain_rows(model: Model, config: Config) -> list[Row]:
    """The stages of a model that describes none: the streams' relations, and a row for each of its parts."""
    from gmsa.models.base import Embedding  # which imports this module

    level, last = level_of(config), level_of(config) if model.outside is None else "dialogue"
    rows: list[Row] = []
    if isinstance(embedding := getattr(model, "embedding", None), Embedding):
        seen = model.seen_outside(config.model) if level == "dialogue" else model.seen_streams(config.model)
        rows = [*embedding_rows(embedding, config), *_edge_rows(model, config, level, seen)]
        if model.outside is not None:
            rows += context_rows(model.outside, config, model.readout_nodes)
            rows += _edge_rows(model, config, "dialogue", model.seen_outside(config.model))
    rows += own_rows(model, rows, last)
    heads = getattr(model, "heads", None)
    return [*rows, heads_row(heads, last, config)] if isinstance(heads, Heads) else rows


def _edge_rows(model: Model, config: Config, level: Level, streams: Sequence[str]) -> list[Row]:
    found, name = [], component_name(config.model.name)
    for stream in streams:
        grid = speaker_grid(config) if stream == UTTERANCE else stream_grid(model, config, level, stream)
        found.append(Stage(f"{stream}: layers of its own", counted(grid.relations, "relation"), (), level, name, grid))
    return [tuple(found)] if found else []


def parameters_of(parts: Iterable[nn.Module | nn.Parameter | None]) -> list[nn.Parameter]:
    """All parameters of parts."""
    found: list[nn.Parameter] = []
    for part in parts:
        if isinstance(part, nn.Parameter):
            found.append(part)
        elif part is not None:
            found += part.parameters()
    return found
