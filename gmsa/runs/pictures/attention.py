"""The attention of a run, in one utterance or along a dialogue, printed and drawn."""

# V nodes, E edges
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gmsa.config.presets import TEXT
from gmsa.data import Utterance
from gmsa.errors import RunError
from gmsa.figures.graph import WeightedEdges, draw_weights
from gmsa.graph import READOUTS
from gmsa.graph.find import find_graph
from gmsa.models import graph_spec
from gmsa.nn.attention_weights import SOFTMAX
from gmsa.reports.tables import plural
from gmsa.runs.folder import Run
from gmsa.runs.pictures.splits import splits_of
from gmsa.runs.states.attention import DIALOGUE_LEVEL, UTTERANCE_TYPE, Attention
from gmsa.system.console import console
from gmsa.text import texts_of


def picture_attention(
    folder: str | Path, name: str, out: Path, data: str | Path | None = None, device: str | None = None
) -> None:
    """Prints and draws the graph of an utterance or a dialogue, each edge as strong as the attention along it.

    Args:
        folder: a finished run.
        name: id of the utterance, or name of the dialogue.
        data: another file to find it in.

    Raises:
        DataError: there is none.
        RunError: it is no run folder, or none whose attention can be drawn.
    """
    run = Run(folder)
    scope = run.config.graph.scope
    splits, path = splits_of(run, data)
    split, found = find_graph(name, splits, path, scope)
    where = f"{'synthetic, ' * (run.synthetic and not data)}{split}"
    if isinstance(found, list):
        lines = draw_attention(run, found, None, where, out, device)
    else:
        dialogue = [u for u in splits[split] if u.video == found.video] if scope == "hierarchical" else [found]
        lines = draw_attention(run, dialogue, found, where, out, device)
    for line in lines:
        console().print(line)


def draw_attention(
    run: Run, utterances: Sequence[Utterance], utterance: Utterance | None, where: str, out: Path, device: str | None
) -> list[str]:
    """Draws the attention of a run's first model.

    Args:
        utterances: a dialogue; in scope ``utterance`` the utterance alone.
        utterance: that of them whose graph is drawn; by default the graph of the dialogue is.
        where: the split, and whatever else is to be said of the data.
        out: the picture's file.

    Returns:
        What there is to say, line by line.

    Raises:
        RunError: the model has no attention there.
    """
    found = run.attention(list(utterances), device=device)
    level = DIALOGUE_LEVEL if utterance is None and run.config.graph.scope == "hierarchical" else ""
    names = [name for name in found.streams if name.startswith(DIALOGUE_LEVEL) == bool(level)]
    if not names:
        known = "name its dialogue instead" if utterance is not None else "name one of its utterances instead"
        raise RunError(f"'{run.folder}': the model pays no attention that gmsa can read in such graphs; {known}")
    title = utterances[0].video if utterance is None else utterance.id
    what = f"{where}), dialogue of {plural(len(utterances), 'utterance')}" if utterance is None else f"{where})"
    lines = [f"{title} ({what}, attention of the last layer, mean over heads, seed {found.seed}"]
    rows = np.arange(len(utterances)) if utterance is None else np.array([found.ids.index(utterance.id)])
    notes = {}
    if found.gate is not None:
        opened = zip(READOUTS[-found.gate.shape[1] :], found.gate[rows].mean(0).tolist(), strict=True)
        shares = ", ".join(f"{100 * share:.0f} % at {readout}" for readout, share in opened)
        notes[f"{level}inter"] = f"the gate takes {shares}"
        lines.append(f"  gate: share of the inter view {shares}")
    spec = graph_spec(run.config)
    for stream in spec.outside_streams if level else spec.streams:
        if level + stream not in names:
            lines.append(f"  {level}{stream}: its layer pays no attention; it is not drawn")
    kinds = np.array([t.removeprefix(UTTERANCE_TYPE) for t in found.node_types])[found.node_type]
    mine = np.isin(found.node_utterance, rows)
    lines += [line for name in names for line in _describe(found, name, kinds, mine, utterance is None)]
    streams = {}
    for name in names:
        source, target, weight = (column[mine[found.streams[name].target]] for column in found.streams[name])
        streams[name] = WeightedEdges(
            kinds[source].tolist(),
            found.node_position[source],
            kinds[target].tolist(),
            found.node_position[target],
            weight.mean(1),
        )
    joined = {kind for edges in streams.values() for kind in (*edges.source_types, *edges.target_types)}
    if utterance is None:
        ends = np.concatenate([found.streams[name][k] for name in names for k in (0, 1)])
        counts = {
            kind: int(found.node_position[ends][kinds[ends] == kind].max()) + 1 for kind in _ordered(joined, found)
        }
        draw_weights(out, title, counts, streams, notes=notes, beside=())
        return lines
    of_tokens = mine & ~np.char.startswith(np.array(found.node_types)[found.node_type], UTTERANCE_TYPE)
    counts = {
        kind: int((of_tokens & (kinds == kind)).sum())
        for kind in found.node_types
        if kind in utterance.features or kind in joined
    }
    texts = texts_of(run.config)
    words = utterance.text if texts is None else texts.say(utterance)
    left = draw_weights(out, title, counts, streams, words, notes)
    if left:
        count = counts[TEXT]
        lines.append(f"  text: the picture names {count - left} of {count} nodes, chosen by their attention")
    return lines


def _ordered(names: set[str], found: Attention) -> list[str]:
    """Names of types in the model's order, whichever modality the first utterance lacks."""
    return [kind for kind in dict.fromkeys(t.removeprefix(UTTERANCE_TYPE) for t in found.node_types) if kind in names]


def _describe(found: Attention, name: str, kinds: np.ndarray, mine: np.ndarray, by_time: bool) -> list[str]:
    """What the weights of a stream are, and where its readout nodes look, or the nodes of each type."""
    source, target, weight = (column[mine[found.streams[name].target]] for column in found.streams[name])
    meaning = found.meanings[name]
    lines = [] if meaning == SOFTMAX else [f"  {name}: {meaning}"]
    attending = _ordered({*kinds[target].tolist()}, found)
    for kind in attending if by_time else [k for k in attending if k in READOUTS] or attending:
        chosen = kinds[target] == kind
        share = weight[chosen].mean(1) / len(np.unique(target[chosen]))
        looked = kinds[source[chosen]]
        parts = [f"{k} {100 * share[looked == k].sum():.0f} %" for k in _ordered({*looked.tolist()}, found)]
        text = f"  {name}, {kind} attends to: {', '.join(parts)}"
        if by_time:
            way = np.sign(found.node_position[source[chosen]] - found.node_position[target[chosen]])
            times = (("its own utterance", 0), ("earlier ones", -1), ("later ones", 1))
            text += "; " + ", ".join(f"{k} {100 * share[way == sign].sum():.0f} %" for k, sign in times)
        lines.append(text)
    return lines
