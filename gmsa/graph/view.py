"""A graph to look at: as NetworkX, and as a picture."""

from __future__ import annotations

import io
from pathlib import Path

import networkx as nx
from torch_geometric.data import HeteroData
from torch_geometric.utils import to_networkx as pyg_to_networkx

from gmsa.config import MODALITIES
from gmsa.graph.schema import NODE_TYPES, READOUTS, STREAMS
from gmsa.system.files import write_bytes

COLORS = {"text": "#0072B2", "audio": "#E69F00", "vision": "#009E73", "val": "#D55E00", "cls": "#CC79A7"}
"""Colour of each node type, from Okabe and Ito's palette for all kinds of colour vision."""

MOST_WORDS = 40
"""More words than this would overlap in a picture."""


def to_networkx(data: HeteroData) -> nx.MultiDiGraph:
    """The graph as NetworkX: nodes ``(type, place)`` with attribute ``type``, edges with attribute ``stream``."""
    plain = pyg_to_networkx(data, to_multi=True)
    # PyG numbers the nodes type by type; a name that says which is which is what one wants to ask for.
    first: dict[str, int] = {}
    for node, attributes in plain.nodes(data=True):
        first.setdefault(attributes["type"], node)
    names = {n: (a["type"], n - first[a["type"]]) for n, a in plain.nodes(data=True)}
    graph = nx.MultiDiGraph(id=data.id)
    graph.add_nodes_from((names[n], {"type": a["type"]}) for n, a in plain.nodes(data=True))
    graph.add_edges_from((names[s], names[t], {"stream": a["type"][1]}) for s, t, a in plain.edges(data=True))
    return graph


def draw(data: HeteroData, path: str | Path, words: str = "") -> None:
    """Draws an utterance's graph as PNG: one panel per stream, a row per modality, time to the right.

    Args:
        words: the transcript; its words name the text nodes where there is one node per word, or two more
            (a BERT-like encoder's first and last token).
    """
    from matplotlib.figure import Figure  # here: only pictures need Matplotlib

    graph = to_networkx(data)
    counts = {t: sum(1 for n in graph if n[0] == t) for t in NODE_TYPES}
    place = _layout(counts)
    named = words.lower().split()
    if counts["text"] == len(named) + 2:
        named = ["[CLS]", *named, "[SEP]"]
    if counts["text"] != len(named) or len(named) > MOST_WORDS:
        named = []
    widest = max([counts[m] for m in MODALITIES] + [1])
    figure = Figure(figsize=(max(7.0, min(16.0, 0.55 * widest + 3)), 6.8), layout="constrained")
    for axis, stream in zip(figure.subplots(len(STREAMS), 1), STREAMS, strict=True):
        edges = [(s, t) for s, t, name in graph.edges(data="stream") if name == stream and s != t]
        loops = sum(1 for s, t, name in graph.edges(data="stream") if name == stream and s == t)
        for readout in (False, True):
            some = [(s, t) for s, t in edges if (s[0] in READOUTS or t[0] in READOUTS) == readout]
            nx.draw_networkx_edges(
                graph, place, edgelist=some, ax=axis, arrows=True, arrowstyle="-", width=0.7,
                alpha=0.25 if readout else 0.45, edge_color="0.55" if readout else "0.15",
                connectionstyle="arc3,rad=0.2", node_size=180,
            )  # fmt: skip
        nodes = list(graph)
        nx.draw_networkx_nodes(graph, place, nodes, node_color=[COLORS[n[0]] for n in nodes], node_size=180, ax=axis)
        labels = {n: n[0] for n in nodes if n[0] in READOUTS}
        nx.draw_networkx_labels(graph, place, labels, font_size=7, font_color="white", ax=axis)
        for row, modality in enumerate(MODALITIES):
            note = f"{modality} ({counts[modality] or 'missing'})"
            axis.text(-1.5, -row, note, color=COLORS[modality], va="center", ha="right", fontsize=11)
        for step, word in enumerate(named):
            x, y = place["text", step]
            axis.text(x, y + 0.28, word, ha="center", fontsize=7, rotation=20, parse_math=False)
        axis.set_title(f"{stream}: {len(edges)} edges" + (f" and {loops} self-loops" if loops else ""), fontsize=11)
        axis.set_xlim(-5.0, widest + 3.5)
        axis.set_ylim(-2.7, 0.9)
        axis.axis("off")
    figure.suptitle(data.id, fontsize=13, parse_math=False)  # an id holds dollar signs
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=140)
    write_bytes(path, buffer.getvalue())


def _layout(counts: dict[str, int]) -> dict[tuple[str, int], tuple[float, float]]:
    """A row per modality over the same duration; the readout nodes to the right."""
    widest = max([counts[m] for m in MODALITIES] + [1])
    place: dict[tuple[str, int], tuple[float, float]] = {}
    for row, modality in enumerate(MODALITIES):
        for step in range(counts[modality]):
            place[modality, step] = ((step + 0.5) / counts[modality] * widest - 0.5, -float(row))
    for row, readout in enumerate(READOUTS):
        place[readout, 0] = (widest + 2.0, -0.5 - row)
    return place
