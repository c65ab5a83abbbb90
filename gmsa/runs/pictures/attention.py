"""The attention of a run in an utterance, printed and drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gmsa.errors import RunError
from gmsa.figures.graph import WeightedEdges, draw_weights
from gmsa.graph.find import find_graph
from gmsa.models import graph_spec
from gmsa.runs.folder import Run
from gmsa.runs.pictures.splits import splits_of
from gmsa.system.console import console


def picture_attention(
    folder: str | Path, name: str, out: Path, data: str | Path | None = None, device: str | None = None
) -> None:
    """Prints and draws the graph of an utterance, each edge as strong as the attention of a finished run along it.

    Args:
        name: id of the utterance.
        data: another file to find it in.

    Raises:
        DataError: there is no such utterance.
        RunError: it is no run folder, or none whose attention can be drawn.
    """
    run = Run(folder)
    if run.config.graph.scope != "utterance":
        raise RunError(
            f"'{run.folder}': --attention draws graphs of utterances, and 'graph.scope' of this run is "
            f"{run.config.graph.scope}; leave --attention out, or read the weights by Run.attention"
        )
    split, utterance = find_graph(name, *splits_of(run, data), "utterance")
    assert not isinstance(utterance, list)
    found = run.attention([utterance], device=device)
    kinds = [found.node_types[k] for k in found.node_type]
    counts = {kind: kinds.count(kind) for kind in found.node_types if kind in utterance.features or kind in kinds}
    streams = {}
    for stream, edges in found.streams.items():
        streams[stream] = WeightedEdges(
            [kinds[v] for v in edges.source],
            found.node_position[edges.source],
            [kinds[v] for v in edges.target],
            found.node_position[edges.target],
            edges.weight.mean(1),
        )
    where = f"{'synthetic, ' * (run.synthetic and not data)}{split}"
    console().print(f"{utterance.id} ({where}), attention of the last layer, mean over heads, seed {found.seed}")
    notes = {}
    if found.gate is not None:
        readouts = [t for t in ("val", "cls") if t in counts][-found.gate.shape[1] :]
        opened = zip(readouts, found.gate[0].tolist(), strict=True)
        shares = ", ".join(f"{100 * share:.0f} % at {readout}" for readout, share in opened)
        notes["inter"] = f"the gate takes {shares}"
        console().print(f"  gate: share of the inter view {shares}")
    for stream in graph_spec(run.config).streams:
        if stream not in streams:
            console().print(f"  {stream}: its layer pays no attention; it is not drawn")
    for stream in streams:
        for readout in ("val", "cls"):
            if counts.get(readout):
                weights = found.of(utterance.id, stream, readout)
                text = ", ".join(f"{k} {100 * float(np.sum(w)):.0f} %" for k, w in weights.items())
                console().print(f"  {stream}, {readout} attends to: {text}")
    draw_weights(out, utterance.id, counts, streams, utterance.text, notes)
