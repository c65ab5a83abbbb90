"""What the model of a config is made of, printed and drawn."""

from __future__ import annotations

from pathlib import Path

from gmsa.config import Config
from gmsa.data import load_corpus
from gmsa.figures.model import draw_model
from gmsa.models import describe_model
from gmsa.runs.prepare import checked_texts, resolved
from gmsa.system.console import console


def picture_model(config: Config, out: Path) -> None:
    """Prints and draws the model of a config, for its data.

    Raises:
        ConfigError: the model does not take the settings.
    """
    corpus = load_corpus(config.data, config.target, checked_texts(config))
    config = resolved(config, corpus)
    found = describe_model(corpus.dims, config)
    about = f"{found.name}, {found.parameters:,} parameters, graph.scope {found.scope}"
    console().print(f"{about}{' (synthetic corpus)' * corpus.synthetic}")
    headings = {"utterance": "In each utterance", "training": "For the losses alone"}
    headings["dialogue"], level = f"Along the dialogue: {_edges(config)}", ""
    for row in found.stages:
        if row[0].level != level:
            level = row[0].level
            console().print(headings[level])
        for stage in row:
            note = ", ".join(stage.note.split("\n"))
            size = f" ({stage.parameters:,} parameters)" if stage.parameters else ""
            mark = ", " if ": " in stage.name else ": "
            console().print(f"  {stage.name}{mark if note else ''}{note}{size}")
    data = "synthetic" if corpus.synthetic else config.data.name
    draw_model(out, f"{found.name} on {data}" if data else found.name, found.stages, headings)


def _edges(config: Config) -> str:
    """How far edges between utterances reach, which there are, and what tells them apart."""
    graph = config.graph
    past, future = (graph.context if x is None else x for x in (graph.past, graph.future))
    chosen = "" if graph.between == "window" else f", {graph.between}"
    kinds = "time" if graph.outside.distances == 1 else "distance"
    if graph.speakers != "none":
        who = ["same", "other"] if isinstance(graph.speakers, str) else [*graph.speakers, "others"]
        kinds += f" and speaker ({', '.join(who)})"
    return f"{past} utterances before, {future} after{chosen}; edges by {kinds}"
