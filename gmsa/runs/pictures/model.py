"""What the model of a config is made of, printed and drawn."""

from __future__ import annotations

from pathlib import Path

from gmsa.config import Config
from gmsa.data import load_corpus
from gmsa.figures.model import Panel, draw_model
from gmsa.models import describe_model
from gmsa.reports.tables import plural
from gmsa.runs.prepare import resolved
from gmsa.system.console import console


def picture_model(config: Config, out: Path) -> None:
    """Prints and draws the model of a config, for its data."""
    corpus = load_corpus(config.data, config.target)
    config = resolved(config, corpus)
    found = describe_model(corpus.dims, config)
    about = f"{found.name}, {found.parameters:,} parameters, graph.scope {found.scope}"
    console().print(f"{about}{' (synthetic corpus)' * corpus.synthetic}")
    rows: list[list[Panel]] = []
    for level, streams in found.levels.items():
        rows.append([])
        for stream in streams:
            count = sum(stream.relations.values())
            note = f"{plural(stream.layers, 'layer')}{' of the same weights' * stream.shared}, "
            note += plural(count, "relation")
            if not stream.layers:
                note = f"layers of its own, {count} kind{'s' * (count != 1)} of edges"
            title = stream.name if len(found.levels) == 1 else f"{level}, {stream.name}"
            rows[-1].append(Panel(title, stream.layer, note, stream.node_types, stream.relations))
            console().print(f"  {title}: {stream.layer}, {note}")
    for part, count in found.parts.items():
        console().print(f"  {part}: {count:,} parameters")
    data = "synthetic" if corpus.synthetic else config.data.name
    draw_model(out, f"{found.name} on {data}" if data else found.name, rows, found.parts)
