"""Draws a graph: ``python -m gmsa.inspect --config FILE --id 'VIDEO$_$CLIP' --out graph.png``; with ``--model`` a
model; or, with ``--run``, what runs predict along a dialogue, or the attention of one in an utterance."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gmsa.config import load_config
from gmsa.errors import DataError, RunError, cut, nearest
from gmsa.system import cli
from gmsa.system.console import console
from gmsa.system.files import check_out_file
from gmsa.system.reading import expanded

if TYPE_CHECKING:
    from torch_geometric.data import HeteroData

    from gmsa.data import Utterance
    from gmsa.runs.folder import Run

Splits = Mapping[str, Sequence["Utterance"]]


def parser() -> cli.Parser:
    """Builds the parser of the command's arguments."""
    parser = cli.Parser(
        prog="python -m gmsa.inspect",
        description="Print and draw the graph of one utterance or dialogue, a model, what runs predict along a "
        "dialogue, or the attention of one in an utterance.",
    )
    parser.add_argument("--config", metavar="FILE", help=f"{cli.CONFIG_HELP}; its graph is drawn")
    cli.add_set_option(parser)
    parser.add_argument(
        "--run",
        action="append",
        default=[],
        metavar="DIR",
        help="run folder of a finished training: draw its predictions along the dialogue instead (may repeat, such as "
        "for a run without context and one with)",
    )
    cli.add_data_option(parser)
    cli.add_device_option(parser)
    cli.add_plugin_option(parser)
    parser.add_argument(
        "--id",
        help="utterance id, such as 'VIDEO$_$CLIP'; or a dialogue, such as VIDEO, with --run or where graph.scope is "
        "dialogue or hierarchical",
    )
    parser.add_argument("--out", required=True, metavar="FILE", help="PNG or SVG file to write")
    parser.add_argument("--relation", metavar="NAME", help="draw only this relation, such as text-intra-text")
    parser.add_argument(
        "--model",
        action="store_true",
        help="with --config: draw the model instead, its layers by stream and relation, and its parameters by part",
    )
    parser.add_argument(
        "--attention",
        action="store_true",
        help="with one --run: draw the graph of an utterance, each edge as strong as the attention along it",
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command."""
    command = parser()
    options = command.parse_args(arguments)
    if problem := _problem(options):
        command.error(problem)
    cli.load_plugins_of(options)
    out = expanded(options.out)
    if options.run:
        check_out_file(out, (".png", ".svg"))
        (_draw_attention if options.attention else _draw_predictions)(options, out)
    elif options.model:
        _draw_model(options, out)
    else:
        _draw_graph(options, out)
    console().print(f"Wrote {out}")


def _problem(options: argparse.Namespace) -> str:
    """What does not go together; nothing where all does."""
    if not options.run and options.config is None:
        return "the following arguments are required: --config, or --run"
    if options.run and options.config is not None:
        return "--config draws a graph and --run predictions; give one of them"
    if options.run and (options.overrides or options.relation is not None):
        return "--set and --relation go with --config"
    if options.attention and len(options.run) != 1:
        return "--attention draws that of one run; give one --run"
    if options.model and options.run:
        return "--model goes with --config"
    if options.model and (options.id is not None or options.relation is not None):
        return "--model draws the model, not a graph; leave --id and --relation out"
    if options.id is None and not options.model:
        return "the following arguments are required: --id, or --model"
    return ""


def _draw_graph(options: argparse.Namespace, out: Path) -> None:
    config = load_config(options.config, cli.overrides_of(options))
    check_out_file(out, (".png", ".svg"))

    from gmsa.data import load_corpus  # after parsing: --help need not wait for torch
    from gmsa.figures.dialogue_graph import draw_dialogue_graph
    from gmsa.figures.graph import draw_graph
    from gmsa.graph import build_dialogue_graph, build_graph
    from gmsa.graph.view import find_relation
    from gmsa.models import graph_spec
    from gmsa.runs.prepare import checked_texts, resolved

    texts = checked_texts(config)
    corpus = load_corpus(config.data, config.target, texts)
    config = resolved(config, corpus)
    graph, spec = config.graph, graph_spec(config)
    modalities = spec.schema.modalities
    splits = corpus.with_context if graph.has_dialogues else corpus.splits
    split, found = _find(options.id, splits, config.data.path, graph.scope)
    is_dialogue = isinstance(found, list)
    relation = None
    if options.relation is not None:
        joined = is_dialogue and graph.scope == "hierarchical"
        relation = find_relation(options.relation, modalities, is_dialogue and graph.dialogue_node, joined)
    where = f"{'synthetic, ' if corpus.synthetic else ''}{split}"
    if isinstance(found, list):
        data = build_dialogue_graph(found, graph, modalities, spec.readouts)
        speakers = {u.speaker for u in found} if any(u.speaker for u in found) else ()
        more = f", {_counted(len(speakers), 'speaker')}" if speakers else ""
        console().print(f"{data.id} ({where}), dialogue of {_counted(len(found), 'utterance')}{more}")
        for line in _describe(data, by_speaker=bool(speakers)):
            console().print(f"  {line}")
        draw_dialogue_graph(data, out, relation, by_speaker=graph.speakers != "none")
        return
    data = build_graph(found, graph, spec.strides, modalities, spec.readouts)
    label = "unknown" if found.label is None else corpus.target.name_of(found.label)
    console().print(f"{found.id} ({where}), label {label}")
    for modality, sequence in found.features.items():
        steps, width = sequence.shape
        kind = f"{steps} steps of {width} features"
        if texts is not None and modality == texts.modality and not texts.frozen:
            kind = f"{steps} {texts.settings.nodes if steps != 1 else texts.settings.nodes.removesuffix('s')}"
        console().print(f"  {modality}: {kind}, {data[modality].num_nodes} nodes")
    for line in _streams(data):
        console().print(f"  {line}")
    draw_graph(data, out, found.text if texts is None else texts.say(found), relation)


def _draw_model(options: argparse.Namespace, out: Path) -> None:
    config = load_config(options.config, cli.overrides_of(options))
    check_out_file(out, (".png", ".svg"))

    from gmsa.data import load_corpus
    from gmsa.figures.model import Panel, draw_model
    from gmsa.models import describe_model
    from gmsa.runs.prepare import checked_texts, resolved

    corpus = load_corpus(config.data, config.target, checked_texts(config))
    config = resolved(config, corpus)
    found = describe_model(corpus.dims, config)
    about = f"{found.name}, {found.parameters:,} parameters, graph.scope {found.scope}"
    console().print(f"{about}{' (synthetic corpus)' * corpus.synthetic}")
    rows: list[list[Panel]] = []
    for level, streams in found.levels.items():
        rows.append([])
        for stream in streams:
            count = sum(stream.relations.values())
            note = f"{_counted(stream.layers, 'layer')}{' of the same weights' * stream.shared}, "
            note += _counted(count, "relation")
            if not stream.layers:
                note = f"layers of its own, {count} kind{'s' * (count != 1)} of edges"
            title = stream.name if len(found.levels) == 1 else f"{level}, {stream.name}"
            rows[-1].append(Panel(title, stream.layer, note, stream.node_types, stream.relations))
            console().print(f"  {title}: {stream.layer}, {note}")
    for part, count in found.parts.items():
        console().print(f"  {part}: {count:,} parameters")
    data = "synthetic" if corpus.synthetic else config.data.name
    draw_model(out, f"{found.name} on {data}" if data else found.name, rows, found.parts)


def _find(name: str, splits: Splits, path: object, scope: str) -> tuple[str, Utterance | list[Utterance]]:
    """The utterance or the dialogue of this name, and its split.

    In scope ``dialogue`` an utterance stands for its dialogue.

    Raises:
        DataError: there is none; names the nearest.
    """
    from gmsa.graph import dialogues_of

    utterances = {u.id: (split, u) for split, members in splits.items() for u in members}
    if name in utterances and scope != "dialogue":
        return utterances[name]
    wanted = name
    if name in utterances:
        split, utterance = utterances[name]
        wanted, splits = utterance.video, {split: splits[split]}
    known: list[str] = []
    for split, members in splits.items():
        for group in dialogues_of(members):
            dialogue = [members[i] for i in group]
            if dialogue[0].video == wanted:
                if scope == "utterance":
                    raise DataError(
                        f"{path}: '{cut(name)}' is a dialogue, and with 'graph.scope: utterance' each utterance has a "
                        f"graph of its own; name one, for example {cut(dialogue[0].id)}, or set 'graph.scope' to "
                        "dialogue or hierarchical"
                    )
                return split, dialogue
            known.append(dialogue[0].video)
    what = "utterance or dialogue" if scope == "hierarchical" else scope
    names = [*(utterances if scope != "dialogue" else ()), *(known if scope != "utterance" else ())]
    example = f", for example {cut(names[0])}" if names else ""
    raise DataError(f"{path}: no {what} '{cut(name)}'{nearest(name, names) or example}")


def _describe(data: HeteroData, by_speaker: bool) -> list[str]:
    """The nodes and edges of a dialogue's graph: each modality, each relation by time and speaker, each stream."""
    from gmsa.graph.schema import DIALOGUE, READOUTS, is_among_tokens
    from gmsa.graph.view import TIMES

    lines = []
    for node_type in data.node_types:
        count = data[node_type].num_nodes
        if count and node_type not in (*READOUTS, DIALOGUE):
            missing = int((~data[node_type].present).sum())
            lines.append(f"{node_type}: {count} nodes" + (f", {missing} missing" if missing else ""))
    for relation in data.edge_types:
        store = data[relation]
        if not is_among_tokens(relation) or not store.num_edges:
            continue
        times = store.temporal_type.bincount(minlength=len(TIMES)).tolist()
        parts = [", ".join(f"{count} {TIMES[time]}" for time, count in enumerate(times) if count)]
        if by_speaker and relation[0] == relation[2]:
            same = int(store.same_speaker.sum())
            parts.append(f"{same} same speaker, {store.num_edges - same} other")
        lines.append(f"{'-'.join(relation)}: {store.num_edges} edges ({'; '.join(parts)})")
    for name, types in (("readouts", READOUTS), ("dialogue's node", (DIALOGUE,))):
        ends = [r for r in data.edge_types if r[1] == "intra" and {r[0], r[2]} & {*types}]
        ends = [r for r in ends if name != "readouts" or DIALOGUE not in r]
        if count := sum(data[r].num_edges for r in ends):
            lines.append(f"{name}: {count} edges in each stream")
    return [*lines, *_streams(data)]


def _streams(data: HeteroData) -> list[str]:
    from gmsa.graph.schema import STREAMS

    counts = {stream: sum(data[r].num_edges for r in data.edge_types if r[1] == stream) for stream in STREAMS}
    return [f"{stream}: {count} edges" for stream, count in counts.items()]


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


def _draw_predictions(options: argparse.Namespace, out: Path) -> None:
    import numpy as np

    from gmsa.data import Target
    from gmsa.figures.dialogue import MOST_RUNS, draw_dialogue, score
    from gmsa.runs.folder import Run

    if len(options.run) > MOST_RUNS:
        raise RunError(f"a picture shows at most {MOST_RUNS} runs (got {len(options.run)}); leave some --run out")
    runs = [Run(folder) for folder in options.run]
    names = [run.name for run in runs]
    if len(set(names)) < len(names):
        names = [f"{i}: {name}" for i, name in enumerate(names, start=1)]
    target = Target.of(runs[0].config.target)
    for run in runs[1:]:
        if Target.of(run.config.target) != target:
            raise RunError(
                f"'{run.folder}' predicts something else than '{runs[0].folder}'; draw runs of one target together"
            )
    found = [_dialogue_of(run, options) for run in runs]
    split, utterances = found[0]
    predictions = {}
    for name, run, (_, own) in zip(names, runs, found, strict=True):
        answers = run.predict(own, device=options.device)
        if answers.values is None:
            unknown = np.isnan(answers.probabilities).any(1)
            values = np.where(unknown, np.nan, np.nan_to_num(answers.probabilities).argmax(1))
        else:
            values = answers.values
        by_id = dict(zip(answers.ids, values.tolist(), strict=True))
        predictions[name] = np.array([by_id.get(u.id, np.nan) for u in utterances])
    labels = np.array([np.nan if u.label is None else u.label for u in utterances])
    trained_on = ", which the run was trained on" if split == "train" and not options.data else ""
    where = "synthetic, " if runs[0].synthetic and not options.data else ""
    console().print(f"{utterances[0].video} ({where}{split}{trained_on}), {_counted(len(utterances), 'utterance')}")
    for name, values in predictions.items():
        console().print(f"  {name}: {score(values, labels, target.classes) or 'no labels to compare with'}")
    draw_dialogue(
        out,
        utterances[0].video,
        predictions,
        labels,
        (target.low, target.high),
        target.classes,
        [u.speaker for u in utterances],
        [u.text for u in utterances],
    )


def _draw_attention(options: argparse.Namespace, out: Path) -> None:
    import numpy as np

    from gmsa.figures.graph import WeightedEdges, draw_weights
    from gmsa.models import graph_spec
    from gmsa.runs.folder import Run
    from gmsa.text import texts_of

    run = Run(options.run[0])
    if run.config.graph.scope != "utterance":
        raise RunError(
            f"'{run.folder}': --attention draws graphs of utterances, and 'graph.scope' of this run is "
            f"{run.config.graph.scope}; leave --attention out, or read the weights by Run.attention"
        )
    split, utterance = _utterance_of(run, options)
    found = run.attention([utterance], device=options.device)
    texts = texts_of(run.config)
    words = utterance.text if texts is None else texts.say(utterance)
    kinds = [found.node_types[k] for k in found.node_type]
    counts = {kind: kinds.count(kind) for kind in found.node_types if kind in utterance.features or kind in kinds}
    streams = {}
    for name, edges in found.streams.items():
        streams[name] = WeightedEdges(
            [kinds[v] for v in edges.source],
            found.node_position[edges.source],
            [kinds[v] for v in edges.target],
            found.node_position[edges.target],
            edges.weight.mean(1),
        )
    where = f"{'synthetic, ' * (run.synthetic and not options.data)}{split}"
    console().print(f"{utterance.id} ({where}), attention of the last layer, mean over heads, seed {found.seed}")
    notes = {}
    if found.gate is not None:
        readouts = [t for t in ("val", "cls") if t in counts][-found.gate.shape[1] :]
        opened = zip(readouts, found.gate[0].tolist(), strict=True)
        shares = ", ".join(f"{100 * share:.0f} % at {readout}" for readout, share in opened)
        notes["inter"] = f"the gate takes {shares}"
        console().print(f"  gate: share of the inter view {shares}")
    for name in graph_spec(run.config).streams:
        if name not in streams:
            console().print(f"  {name}: its layer pays no attention; it is not drawn")
    for name in streams:
        for readout in ("val", "cls"):
            if counts.get(readout):
                weights = found.of(utterance.id, name, readout)
                text = ", ".join(f"{k} {100 * float(np.sum(w)):.0f} %" for k, w in weights.items())
                console().print(f"  {name}, {readout} attends to: {text}")
    draw_weights(out, utterance.id, counts, streams, words, notes)


def _utterance_of(run: Run, options: argparse.Namespace) -> tuple[str, Utterance]:
    split, found = _find(options.id, *_splits_of(run, options), "utterance")
    assert not isinstance(found, list)
    return split, found


def _dialogue_of(run: Run, options: argparse.Namespace) -> tuple[str, list[Utterance]]:
    """The dialogue that is asked for, and its split."""
    split, found = _find(options.id, *_splits_of(run, options), "dialogue")
    assert isinstance(found, list)
    return split, found


def _splits_of(run: Run, options: argparse.Namespace) -> tuple[Splits, object]:
    """The splits of the run's own file, masked as in training, or of another; and the file."""
    from gmsa.data.loading import load_other
    from gmsa.runs.scoring.splits import masked, own_corpus
    from gmsa.text import read_dims, texts_of

    path: Any = options.data or run.config.data.path
    if options.data:
        path = expanded(options.data, DataError)
        texts, settings = texts_of(run.config), (run.config.data, run.config.target)
        dims = read_dims(run.dims, texts)
        splits: Splits = load_other(path, dims, *settings, require_labels=False, strict=False, texts=texts).splits
    else:
        splits = masked(run, own_corpus(run))[0].with_context
        if (texts := texts_of(run.config)) is not None:  # its transcript would bring back what is masked
            splits = {name: [texts.without_masked(u) for u in members] for name, members in splits.items()}
    return splits, path


if __name__ == "__main__":
    cli.run(main, "inspect")
