"""The picture of a dialogue's graph."""

# n utterances, E edges
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from torch_geometric.data import HeteroData

from gmsa.figures.canvas import BLACK, BLUE, GREEN, ORANGE, PURPLE, RED, image, label, style, text_width
from gmsa.figures.speakers import HEIGHT, draw_speakers, legend_lines
from gmsa.graph.schema import DIALOGUE, READOUTS, Relation, is_among_tokens
from gmsa.graph.view import by_utterance
from gmsa.system.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Numbers = npt.NDArray[Any]
PAST, FUTURE, INTER, READOUT, JOINT = KINDS = (
    "from the past", "from the future", "between modalities", "with readouts", "with the dialogue's node",
)  # fmt: skip
"""Kinds of edges."""
COLORS = dict(zip(KINDS, (BLUE, ORANGE, GREEN, PURPLE, RED), strict=True))
MOST_UTTERANCES = 80
"""Utterances that a picture shows, at most: the first ones."""
MOST_EDGES = 1_500
"""Of more edges, those that end at every second, third ... utterance are drawn."""
WIDEST = 16.0
"""Inches."""
GAP = 0.95
"""Inches from a row of nodes to the next."""


@dataclass(frozen=True)
class _Edges:
    """Edges but for self-loops, those of both streams once: columns of length E."""

    kind: Numbers
    """Number in :data:`KINDS`."""
    rows: Numbers
    """Rows of source and target ``[2, E]``."""
    columns: Numbers
    """Utterances of source and target ``[2, E]``; both that of the other end at a node of the whole dialogue."""
    other: Numbers
    """Whether they are to be dashed, between utterances of different speakers."""

    def __getitem__(self, chosen: Numbers) -> _Edges:
        return _Edges(self.kind[chosen], self.rows[:, chosen], self.columns[:, chosen], self.other[chosen])


def draw_dialogue_graph(
    data: HeteroData, path: str | Path, relation: Relation | None = None, by_speaker: bool = False
) -> None:
    """Draws the graph of a dialogue: its utterances from left to right, a row of nodes per type.

    Edges bend to the left of their direction: those from the past are arcs above their row, those from the future
    below. Missing modalities are hollow.

    Args:
        data: of :func:`gmsa.graph.build_dialogue_graph`.
        path: the picture's file; SVG if it ends in ``.svg``, else PNG.
        relation: the only relation to draw; by default all.
        by_speaker: whether edges from another speaker's utterances are dashed.
    """
    with style():
        figure = _figure(data, relation, by_speaker and any(data.speakers))
        write_bytes(path, image(figure, "svg" if Path(path).suffix.lower() == ".svg" else "png", dpi=140))


def _figure(data: HeteroData, relation: Relation | None, by_speaker: bool) -> Any:
    from matplotlib.figure import Figure

    rows = [t for t in (DIALOGUE, *_modalities(data), *READOUTS) if t in data.node_types and data[t].num_nodes]
    edges, loops = _edges(data, rows, relation, by_speaker)
    n = min(len(data.ids), MOST_UTTERANCES)
    shown = edges[np.all(edges.columns < n, axis=0)]
    every = _thinning(shown, n)
    drawn = shown[shown.columns[1] % every == 0]

    names = {t: _name(data, t) for t in rows}
    left = 0.35 + max(text_width(name, 11) for name in names.values())
    column = float(np.clip((WIDEST - left - 0.3) / n, 0.1, 1.15))
    width = max(9.0, left + n * column + 0.3)
    x = left + column * (np.arange(n) + 0.5)
    speakers = data.speakers[:n]
    entries = _legend(data, edges, by_speaker)
    legend_rows = -(-len(entries) // _columns(entries, width))
    looped = "a modality" if relation is None else relation[0]
    notes = _notes(data, n, len(edges.kind), len(drawn.kind), every, loops, looped)
    # From above, in inches: title, legend, rows of nodes, numbers, speakers.
    band = HEIGHT * (1 + len(legend_lines(speakers, width - left))) if any(speakers) else 0.0
    bottom = 0.4 + band + 0.22 * len(notes)
    # An arc above the first row and one below the last take half a gap each; a bar or a readout has none.
    room = [0.47 if t in _modalities(data) else 0.2 for t in (rows[0], rows[-1])]
    top = bottom + GAP * (len(rows) - 1) + sum(room)
    height = top + 0.22 * legend_rows + 0.5
    y = top - room[0] - GAP * np.arange(len(rows))

    figure = Figure(figsize=(width, height))
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set(xlim=(0, width), ylim=(0, height))
    axis.axis("off")
    title = label(data.id, max(10, int((width - 2.5) / 0.13)))
    count = f"{len(data.ids)} utterance{'s' * (len(data.ids) != 1)}"
    axis.text(0.15, height - 0.25, f"Dialogue {title}: {count}", fontsize=13, va="center_baseline", color=BLACK)
    _draw_edges(axis, drawn, x, y, column)
    for row, node_type in enumerate(rows):
        axis.text(left - 0.12, y[row], names[node_type], fontsize=11, ha="right", va="center_baseline", color=BLACK)
        _draw_nodes(axis, data, node_type, x, float(y[row]), column)
    step = next(s for s in (1, 2, 5, 10, 20) if s * column > 0.3)
    line = bottom - 0.16
    for i in range(n):
        if i == 0 or (i + 1) % step == 0:
            axis.text(x[i], line, str(i + 1), fontsize=9, ha="center", va="center_baseline", color=BLACK)
    axis.text(left - 0.12, line, "utterance", fontsize=9, ha="right", va="center_baseline", color=BLACK)
    if any(speakers):
        axis.text(left - 0.12, line - 0.26, "speaker", fontsize=9, ha="right", va="center_baseline", color=BLACK)
        draw_speakers(axis, x.tolist(), column, line - 0.16, speakers)
    for i, note in enumerate(reversed(notes)):
        axis.text(0.15, 0.14 + 0.22 * i, note, fontsize=9, va="center_baseline", color="0.35")
    axis.legend(
        handles=entries, loc="upper left", bbox_to_anchor=(0.15, height - 0.46), bbox_transform=axis.transData,
        ncols=_columns(entries, width), frameon=False, fontsize=10, borderaxespad=0, borderpad=0, labelspacing=0.3,
        handlelength=1.6, columnspacing=1.4,
    )  # fmt: skip
    return figure


def _modalities(data: HeteroData) -> list[str]:
    return [t for t in data.node_types if t not in (*READOUTS, DIALOGUE)]


def _name(data: HeteroData, node_type: str) -> str:
    missing = int((~data[node_type].present).sum()) if "present" in data[node_type] else 0
    more = "readout" if node_type in READOUTS else f"{missing} missing" if missing else ""
    return label(node_type, 24) + (f" ({more})" if more else "")


def _edges(data: HeteroData, rows: list[str], relation: Relation | None, by_speaker: bool) -> tuple[_Edges, int]:
    """The edges to draw, and the number of self-loops."""
    nothing = np.zeros((2, 0), dtype=np.int64)
    parts, loops = [_Edges(nothing[0], nothing, nothing, nothing[0] > 0)], 0
    for source, stream, target in data.edge_types if relation is None else [relation]:
        among = is_among_tokens((source, stream, target))
        store = data[source, stream, target]
        if not store.num_edges or (relation is None and not among and stream != "intra"):
            continue  # both streams have the same edges of readouts and of the dialogue's node
        columns = store.edge_index.numpy()
        if not by_utterance(data, source) or not by_utterance(data, target):
            columns = columns[[int(not by_utterance(data, source))] * 2]
        kind = np.full(columns.shape[1], KINDS.index(INTER))
        if DIALOGUE in (source, target):
            kind[:] = KINDS.index(JOINT)
        elif not among:
            kind[:] = KINDS.index(READOUT)
        elif source == target:
            kind = np.where(columns[0] < columns[1], KINDS.index(PAST), KINDS.index(FUTURE))
        other = np.zeros(len(kind), dtype=bool)
        if by_speaker and "same_speaker" in store:
            other = ~store.same_speaker.numpy()
        kept = (columns[0] != columns[1]) | (source != target)
        loops += int((~kept).sum())
        ends = np.tile([[rows.index(source)], [rows.index(target)]], len(kind))
        parts.append(_Edges(kind, ends, columns, other)[kept])
    joined = _Edges(
        np.concatenate([p.kind for p in parts]),
        np.concatenate([p.rows for p in parts], axis=1),
        np.concatenate([p.columns for p in parts], axis=1),
        np.concatenate([p.other for p in parts]),
    )
    return joined, loops


def _thinning(edges: _Edges, n: int) -> int:
    """The least k such that the edges that end at every k-th utterance are few enough."""
    per_target = np.bincount(edges.columns[1], minlength=n)
    return next((k for k in range(1, n + 1) if per_target[::k].sum() <= MOST_EDGES), n)


def _notes(data: HeteroData, n: int, count: int, drawn: int, every: int, loops: int, looped: str) -> list[str]:
    notes = []
    if loops:
        notes.append(f"Each node of {looped} is also joined with itself ({loops:,} self-loops, not drawn).")
    if drawn < count:
        first = f"among the first {n} of {len(data.ids)} utterances" if n < len(data.ids) else ""
        some = f"into utterances 1, {1 + every}, {1 + 2 * every} and so on" if every > 1 else ""
        notes.append(f"{drawn:,} of {count:,} edges are drawn: those {', '.join(filter(None, (first, some)))}.")
    return notes


def _draw_edges(axis: Axes, edges: _Edges, x: Numbers, y: Numbers, column: float) -> None:
    """Draws edges as curves with arrowheads, a collection of curves and one of heads per kind."""
    from matplotlib.collections import PathCollection, PolyCollection
    from matplotlib.path import Path as Curve

    way = np.abs(edges.columns[0] - edges.columns[1])
    apart = np.abs(edges.rows[0] - edges.rows[1])
    is_arc = apart == 0
    farthest = max(1, int(way[is_arc].max(initial=1)))
    # In a column, edges of different lengths leave a node at different angles.
    upright = 0.42 * min(column, 1.0) * (apart / max(1, len(y) - 1)) ** 1.3
    bend = np.where(is_arc, 0.43 * GAP * np.sqrt(way / farthest), upright)
    start, end = (np.stack([x[edges.columns[i]], y[edges.rows[i]]], axis=1) for i in (0, 1))
    across = end - start
    direction = across / np.maximum(1e-9, np.linalg.norm(across, axis=1, keepdims=True))
    aside = np.stack([-direction[:, 1], direction[:, 0]], axis=1)
    middle = (start + end) / 2 + 2 * bend[:, None] * aside  # the control point of a curve that bends half as far
    arriving = (end - middle) / np.maximum(1e-9, np.linalg.norm(end - middle, axis=1, keepdims=True))
    length = min(0.09, 0.35 * column)
    tip = end - (_radius(column) + 0.01) * arriving
    base, wing = tip - length * arriving, 0.38 * length * np.stack([-arriving[:, 1], arriving[:, 0]], axis=1)
    curves, heads = np.stack([start, middle, base], axis=1), np.stack([tip, base + wing, base - wing], axis=1)
    for number, kind in enumerate(KINDS):
        over = way[edges.kind == number].sum() / len(x) / len(y)  # curves that pass a column in a row, on average
        for other in (False, True):
            for passes in (False, True):
                chosen = (edges.kind == number) & (edges.other == other) & ((way > 0) == passes)
                if not chosen.any():
                    continue
                share = 2.5 / over if passes else 1.0  # the more curves, the fainter
                width, alpha = float(np.clip(share, 0.35, min(1.0, 0.5 + column))), float(np.clip(share, 0.2, 0.9))
                paths = [Curve(points, [Curve.MOVETO, Curve.CURVE3, Curve.CURVE3]) for points in curves[chosen]]
                axis.add_collection(
                    PathCollection(
                        paths, facecolors="none", edgecolors=COLORS[kind], zorder=1, label=kind,
                        linestyles=(0, (4, 2)) if other else "-", linewidths=width, alpha=alpha,
                    )
                )  # fmt: skip
                axis.add_collection(
                    PolyCollection(heads[chosen], facecolors=COLORS[kind], linewidths=0, alpha=alpha, zorder=2)
                )


def _radius(column: float) -> float:
    """Inches of a node's radius."""
    return float(np.clip(0.22 * column, 0.025, 0.085))


def _draw_nodes(axis: Axes, data: HeteroData, node_type: str, x: Numbers, y: float, column: float) -> None:
    """Draws the nodes of a type; one node of the whole dialogue is a bar above all utterances."""
    from matplotlib.patches import FancyBboxPatch

    radius = _radius(column)
    if not by_utterance(data, node_type):
        axis.add_patch(
            FancyBboxPatch(
                (x[0] - column * 0.3, y - 0.06), x[-1] - x[0] + column * 0.6, 0.12,
                boxstyle="round,pad=0,rounding_size=0.06", facecolor=RED, linewidth=0, zorder=3,
            )
        )  # fmt: skip
        return
    color = {DIALOGUE: RED, **dict.fromkeys(READOUTS, PURPLE)}.get(node_type, BLACK)
    marker = {DIALOGUE: "D", **dict.fromkeys(READOUTS, "s")}.get(node_type, "o")
    present = data[node_type].present.numpy()[: len(x)] if "present" in data[node_type] else np.ones(len(x), dtype=bool)
    for there in (True, False):
        chosen = x[present == there]
        axis.scatter(
            chosen, np.full(len(chosen), y), s=(2 * 72 * radius) ** 2 * (0.8 if marker != "o" else 1), marker=marker,
            facecolor=color if there else "white", edgecolor=color, linewidth=min(1.3, 14 * radius), zorder=3,
        )  # fmt: skip


def _legend(data: HeteroData, edges: _Edges, by_speaker: bool) -> list[Any]:
    """Entries of the legend: the kinds of edges that there are, with their numbers, and what else needs words."""
    from matplotlib.lines import Line2D

    counts = np.bincount(edges.kind, minlength=len(KINDS)).tolist()
    entries = [
        Line2D([], [], color=COLORS[kind], linewidth=2, label=f"{kind} ({count:,})")
        for kind, count in zip(KINDS, counts, strict=True)
        if count
    ]
    if by_speaker:
        for dashed, name in ((False, "same speaker"), (True, "other speaker")):
            entries.append(Line2D([], [], color="0.4", linestyle=(0, (4, 2)) if dashed else "-", label=name))
    if any((~data[m].present).any() for m in _modalities(data)):
        entries.append(
            Line2D(
                [], [], linestyle="none", marker="o", markerfacecolor="white", markeredgecolor=BLACK,
                label="missing modality",
            )
        )  # fmt: skip
    return entries


def _columns(entries: list[Any], width: float) -> int:
    """Columns of a legend that fit ``width`` inches."""
    longest = max((text_width(e.get_label(), 10) for e in entries), default=0.0)
    return max(1, min(len(entries), int((width - 0.3) / (longest + 0.55))))
