"""The picture of an utterance's graph."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from torch_geometric.data import HeteroData

from gmsa.config.presets import TEXT
from gmsa.figures.canvas import BLACK, BLUE, GREEN, LINES, MOST_MARKS, ORANGE, PURPLE, RED, SKY, YELLOW, image, label
from gmsa.graph.schema import READOUTS, STREAMS, Relation
from gmsa.system.files import write_bytes

Places = npt.NDArray[np.float64]
COLORS = (BLUE, ORANGE, GREEN, BLACK, SKY, YELLOW)
"""Colours of the modalities in their order; they begin again where there are more."""
READOUT_COLORS = dict(zip(READOUTS, (RED, PURPLE), strict=True))
"""Colour of each readout node."""

MOST_WORDS = 40
"""More words than this would overlap in a picture."""
MOST_COLUMNS = 80
"""Columns across a picture whose words do not overlap; of more, words that are drawn are further apart."""
MOST_LINES = 6_000
"""Of more edges than this in a panel, a random sample is drawn."""
CURVE = np.linspace(0, 1, 9)
"""Where the curve of an edge within a row is computed, as a share of its way."""


def draw_graph(
    data: HeteroData, path: str | Path, words: str | Sequence[str] = "", relation: Relation | None = None
) -> int:
    """Draws an utterance's graph: a panel per stream, a row per modality, time to the right.

    Args:
        path: the picture's file; SVG if it ends in ``.svg``, else PNG.
        words: the transcript; its words label the text nodes where there is one node per word, or two more
            (a BERT-like encoder's first and last token); or a label for each text node.
        relation: the only relation to draw; by default all.

    Returns:
        How many words are not drawn: all, where there are more than :data:`MOST_WORDS`.
    """
    counts = {t: data[t].num_nodes for t in data.node_types}
    streams = STREAMS if relation is None else (relation[1],)
    chosen = data.edge_types if relation is None else [relation]

    def draw_stream(axis: Any, stream: str, place: dict[str, Places], colors: Mapping[str, str]) -> str:
        count, loops, drawn = _draw_edges(axis, data, [r for r in chosen if r[1] == stream], place, colors)
        title = f"{stream if relation is None else '-'.join(relation)}: {count:,} edges"
        title += f" and {loops:,} self-loops" if loops else ""
        return title + (f" ({drawn:,} drawn)" if drawn < count else "")

    return _draw_panels(path, data.id, counts, words, streams, draw_stream)


def _draw_panels(
    path: str | Path,
    title: str,
    counts: Mapping[str, int],
    words: str | Sequence[str],
    streams: Sequence[str],
    draw_stream: Callable[[Any, str, dict[str, Places], Mapping[str, str]], str],
    beside: Sequence[str] = READOUTS,
    weights: Places | None = None,
) -> int:
    """Draws the nodes in a panel for each stream, whose edges ``draw_stream`` draws; it returns the panel's title.

    Types of nodes have a row each; those ``beside``, of one node, stand at the right. Without such, columns
    are numbered.

    Args:
        weights: of the text nodes ``[V]``: of more than :data:`MOST_WORDS` words those of the largest are drawn.

    Returns:
        How many words are not drawn.
    """
    from matplotlib.figure import Figure  # here: only pictures need Matplotlib
    from matplotlib.patheffects import withStroke

    modalities = [t for t in counts if t not in beside]
    others = [t for t in modalities if t not in READOUT_COLORS]  # a modality has its colour with readouts as rows, too
    colors = dict(zip(others, itertools.cycle(COLORS))) | READOUT_COLORS
    widest, rows = max([counts[m] for m in modalities] + [1]), max(3 if beside else 1, len(modalities))
    place = _layout(modalities, counts, widest, rows, beside)
    width = max(7.0 if beside else 10.0, min(16.0, 0.55 * widest + 3))
    size = float(np.clip(50 * width / widest, 1.5, 13)) ** 2  # area of a node in square points
    labels = _labels(words, counts.get(TEXT, 0))
    drawn = _chosen(labels, weights)
    left = len(labels) - len(drawn)
    longest = 16 if len(labels) > 1 else 40  # one alone has room
    figure = Figure(figsize=(width, (3.4 + 0.8 * (rows - 3)) * len(streams)), layout="constrained")
    for axis, stream in zip(figure.subplots(len(streams), 1, squeeze=False)[:, 0], streams, strict=True):
        axis.set_title(draw_stream(axis, stream, place, colors), fontsize=11)
        for node_type in (*beside, *modalities):
            readout = node_type in beside
            axis.scatter(
                *place[node_type].T, s=160 if readout else size, color=colors[node_type], zorder=2, linewidth=0
            )
            if readout and counts.get(node_type):
                axis.text(
                    *place[node_type][0], node_type, color="white", fontsize=7, ha="center", va="center", zorder=3
                )
        for i in drawn:
            x, y = place[TEXT][i]
            word = label(labels[i], longest)
            text = axis.text(x, y + 0.2, word, ha="center", fontsize=7, rotation=35, parse_math=False)
            text.set_path_effects([withStroke(linewidth=2, foreground="white")])  # edges cross it
        names = [
            f"{label(m)} ({counts[m] or 'missing'}{f', {len(drawn)} named' if left and m == TEXT else ''})"
            for m in modalities
        ]
        axis.set_yticks([-row for row in range(len(modalities))], labels=names, fontsize=11)
        for tick, modality in zip(axis.get_yticklabels(), modalities, strict=True):
            tick.set_color(colors[modality] if colors[modality] in LINES else BLACK)
        axis.tick_params(length=0)
        axis.set_xticks([])
        if not beside and widest <= MOST_WORDS:
            axis.set_xticks(range(widest), labels=[f"{i + 1}" for i in range(widest)])
        axis.spines[:].set_visible(False)
        right = place[beside[-1]][:, 0].max(initial=widest) if beside else widest - 0.5
        axis.set_xlim(-1.0, right + 0.05 * widest + 0.5)
        axis.set_ylim(0.4 - rows, 0.8)
    figure.suptitle(label(title, 80), fontsize=13, parse_math=False)  # an id holds dollar signs
    write_bytes(path, image(figure, "svg" if Path(path).suffix.lower() == ".svg" else "png", dpi=140))
    return left


class WeightedEdges(NamedTuple):
    """Edges of a stream, each from the node ``sources[e]`` of the type ``source_types[e]`` to a target likewise."""

    source_types: Sequence[str]
    sources: npt.NDArray[np.int64]
    target_types: Sequence[str]
    targets: npt.NDArray[np.int64]
    weights: Places
    """``[E]``"""


def draw_weights(
    path: str | Path,
    title: str,
    counts: Mapping[str, int],
    streams: Mapping[str, WeightedEdges],
    words: str | Sequence[str] = "",
    notes: Mapping[str, str] | None = None,
    beside: Sequence[str] = READOUTS,
) -> int:
    """Draws the edges of a graph, a panel per stream, each the darker the larger its weight.

    Args:
        path: the picture's file; SVG if it ends in ``.svg``, else PNG.
        counts: nodes of each type, the readout nodes' among them.
        streams: their edges.
        words: the transcript, as :func:`draw_graph` takes it.
        notes: what the title of a stream's panel says besides.
        beside: types of nodes that stand at the right, one node each; none in a dialogue, where each has a row.

    Returns:
        How many words are not drawn: of more than :data:`MOST_WORDS`, those with the least attention.
    """
    from matplotlib.collections import LineCollection
    from matplotlib.colors import to_rgba

    def draw_stream(axis: Any, stream: str, place: dict[str, Places], colors: Mapping[str, str]) -> str:
        edges = streams[stream]
        ends = zip(*edges[:4], strict=True)
        seen = np.array([edge[:2] != edge[2:] for edge in ends], dtype=bool)  # a loop, maybe of weight 1, is no line
        count, most = int(seen.sum()), edges.weights[seen].max(initial=0)
        order = np.argsort(edges.weights)
        strongest = order[seen[order]][-MOST_LINES:]  # the strongest last, above the others
        start = np.array([place[edges.source_types[e]][edges.sources[e]] for e in strongest]).reshape(-1, 2)
        end = np.array([place[edges.target_types[e]][edges.targets[e]] for e in strongest]).reshape(-1, 2)
        color = np.array([to_rgba(colors[edges.source_types[e]]) for e in strongest]).reshape(-1, 4)
        share = edges.weights[strongest] / max(most, 1e-12)
        color[:, 3] = share**1.5
        axis.add_collection(
            LineCollection(
                list(_curves(start, end, upright=not beside)),
                colors=color,
                linewidths=0.3 + 1.8 * share,
                zorder=1,
                rasterized=len(strongest) > MOST_MARKS,
            )
        )
        drawn = f" ({len(strongest):,} drawn)" if len(strongest) < count else ""
        more = f"\n{notes[stream]}" if notes and stream in notes else ""  # one line is too long for the figure
        loops = len(seen) - count
        drawn += f" and {loops:,} self-loops" if loops else ""
        return f"{stream}: attention along {count:,} edges{drawn}, at most {most:.2f}{more}"

    attended = np.zeros(counts.get(TEXT, 0))
    for edges in streams.values():
        of_text = np.array(edges.source_types) == TEXT
        np.add.at(attended, np.asarray(edges.sources)[of_text], np.asarray(edges.weights)[of_text])
    return _draw_panels(path, title, counts, words, [*streams], draw_stream, beside, attended)


def _draw_edges(
    axis: Any, data: HeteroData, chosen: Sequence[Relation], place: dict[str, Places], colors: Mapping[str, str]
) -> tuple[int, int, int]:
    """Draws edges as one collection of lines. Returns the numbers of edges, of self-loops and of lines."""
    from matplotlib.collections import LineCollection
    from matplotlib.colors import to_rgba

    starts, ends, shades, loops = [], [], [], 0
    for relation in chosen:
        source, target = data[relation].edge_index.numpy()
        other = np.ones(len(source), dtype=bool) if relation[0] != relation[2] else source != target
        loops += int((~other).sum())
        starts.append(place[relation[0]][source[other]])
        ends.append(place[relation[2]][target[other]])
        shade = to_rgba(colors[next((t for t in relation[::2] if t not in READOUTS), relation[0])])
        shades.append(np.tile(shade, (int(other.sum()), 1)))
    start, end, color = (np.concatenate(parts) for parts in (starts, ends, shades))
    count = len(start)
    kept = np.sort(np.random.default_rng(0).permutation(count)[:MOST_LINES])
    start, end, color = start[kept], end[kept], color[kept]
    color[:, 3] = np.clip(400 / max(1, len(kept)), 0.07, 0.5)
    lines = _curves(start, end)
    axis.add_collection(
        LineCollection(list(lines), colors=color, linewidths=0.5, zorder=1, rasterized=len(kept) > MOST_MARKS)
    )
    return count, loops, len(kept)


def _curves(start: Places, end: Places, upright: bool = False) -> Places:
    """The curves of edges ``[E, points, 2]``: within a row arcs, the farther the higher, on one side there and on the
    other back; likewise, where ``upright``, within a column."""
    way, same_row = end - start, start[:, 1] == end[:, 1]
    height = np.where(same_row, 0.45 * np.sign(way[:, 0]) * np.minimum(1, np.sqrt(np.abs(way[:, 0]) / 20)), 0)
    lines: Places = start[:, None] + way[:, None] * CURVE[:, None]
    lines[:, :, 1] += height[:, None] * 4 * CURVE * (1 - CURVE)
    if upright:
        aside = np.where(start[:, 0] == end[:, 0], 0.09 * way[:, 1], 0)
        lines[:, :, 0] += aside[:, None] * 4 * CURVE * (1 - CURVE)
    return lines


def _labels(words: str | Sequence[str], count: int) -> list[str]:
    """Labels of the text nodes; none where words and nodes do not match."""
    labels = words.lower().split() if isinstance(words, str) else list(words)
    if isinstance(words, str) and labels and count == len(labels) + 2:
        labels = ["[CLS]", *labels, "[SEP]"]
    return labels if count == len(labels) else []


def _chosen(labels: Sequence[str], weights: Places | None) -> list[int]:
    """The text nodes whose labels are drawn: all, or of too many to read those of the largest weights."""
    if len(labels) <= MOST_WORDS:
        return list(range(len(labels)))
    apart, found = -(-len(labels) // MOST_COLUMNS), list[int]()
    for i in () if weights is None else np.argsort(-weights, kind="stable").tolist():
        if len(found) < MOST_WORDS and all(abs(i - j) >= apart for j in found):
            found.append(i)
    return sorted(found)


def _layout(
    modalities: Sequence[str], counts: Mapping[str, int], widest: int, rows: int, beside: Sequence[str]
) -> dict[str, Places]:
    """Coordinates of the nodes of each type ``[N, 2]``: a row per modality, those beside at the right."""
    place = {}
    for row, modality in enumerate(modalities):
        steps = (np.arange(counts[modality]) + 0.5) / max(1, counts[modality]) * widest - 0.5
        place[modality] = np.stack([steps, np.full(len(steps), -float(row))], axis=1)
    for row, readout in enumerate(beside):
        place[readout] = np.tile([1.08 * widest + 1.0, 1 - rows / 2 - row], (counts.get(readout, 0), 1))
    return place
