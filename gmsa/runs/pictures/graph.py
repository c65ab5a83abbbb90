"""The graph of an utterance or a dialogue, printed and drawn."""

from __future__ import annotations

from pathlib import Path

from gmsa.config import Config
from gmsa.data import Corpus, Utterance, load_corpus
from gmsa.figures.dialogue_graph import draw_dialogue_graph
from gmsa.figures.graph import draw_graph
from gmsa.graph import GraphSpec, Relation, build_dialogue_graph, build_graph
from gmsa.graph.find import find_graph
from gmsa.graph.view import describe_dialogue, describe_streams, find_relation
from gmsa.models import graph_spec
from gmsa.reports.tables import plural
from gmsa.runs.prepare import checked_texts, resolved
from gmsa.system.console import console
from gmsa.text import Texts


def picture_graph(config: Config, name: str, out: Path, relation: str | None = None) -> None:
    """Prints and draws the graph of an utterance or a dialogue of a config's data.

    Args:
        name: id of the utterance, or the dialogue.
        relation: name of the only relation to draw.

    Raises:
        ConfigError: there is no such relation.
        DataError: there is no such utterance or dialogue.
    """
    texts = checked_texts(config)
    corpus = load_corpus(config.data, config.target, texts)
    config = resolved(config, corpus)
    graph, spec = config.graph, graph_spec(config)
    splits = corpus.with_context if graph.has_dialogues else corpus.splits
    split, found = find_graph(name, splits, config.data.path, graph.scope)
    is_dialogue = isinstance(found, list)
    drawn = None
    if relation is not None:
        joined = is_dialogue and graph.scope == "hierarchical"
        drawn = find_relation(relation, spec.schema.modalities, is_dialogue and graph.dialogue_node, joined)
    where = f"{'synthetic, ' if corpus.synthetic else ''}{split}"
    if isinstance(found, list):
        _dialogue(found, where, config, spec, out, drawn)
    else:
        _utterance(found, where, corpus, config, spec, out, drawn, texts)


def _dialogue(
    members: list[Utterance], where: str, config: Config, spec: GraphSpec, out: Path, drawn: Relation | None
) -> None:
    data = build_dialogue_graph(members, config.graph, spec.schema.modalities, spec.readouts)
    speakers = {u.speaker for u in members} if any(u.speaker for u in members) else ()
    more = f", {plural(len(speakers), 'speaker')}" if speakers else ""
    console().print(f"{data.id} ({where}), dialogue of {plural(len(members), 'utterance')}{more}")
    for line in describe_dialogue(data, by_speaker=bool(speakers)):
        console().print(f"  {line}")
    draw_dialogue_graph(data, out, drawn, by_speaker=config.graph.speakers != "none")


def _utterance(
    utterance: Utterance,
    where: str,
    corpus: Corpus,
    config: Config,
    spec: GraphSpec,
    out: Path,
    drawn: Relation | None,
    texts: Texts | None,
) -> None:
    data = build_graph(utterance, config.graph, spec.strides, spec.schema.modalities, spec.readouts)
    label = "unknown" if utterance.label is None else corpus.target.name_of(utterance.label)
    console().print(f"{utterance.id} ({where}), label {label}")
    for modality, sequence in utterance.features.items():
        steps, width = sequence.shape
        kind = f"{steps} steps of {width} features"
        if texts is not None and modality == texts.modality and not texts.frozen:
            kind = plural(steps, texts.settings.nodes.removesuffix("s"))
        console().print(f"  {modality}: {kind}, {data[modality].num_nodes} nodes")
    for line in describe_streams(data):
        console().print(f"  {line}")
    left = draw_graph(data, out, utterance.text if texts is None else texts.say(utterance), drawn)
    if left:
        console().print(f"  text: the picture names none of {left} nodes: their names would overlap")
