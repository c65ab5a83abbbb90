"""Draws an utterance's graph: ``python -m gmsa.inspect --config FILE --id 'VIDEO$_$CLIP' --out graph.png``."""

from __future__ import annotations

from collections.abc import Sequence

from gmsa.config import load_config
from gmsa.errors import DataError, nearest
from gmsa.system import cli
from gmsa.system.console import console
from gmsa.system.files import check_out_file
from gmsa.system.reading import expanded


def parser() -> cli.Parser:
    """Builds the parser of the command's arguments."""
    parser = cli.Parser(prog="python -m gmsa.inspect", description="Print and draw the graph of one utterance.")
    cli.add_config_options(parser)
    cli.add_data_option(parser)
    cli.add_plugin_option(parser)
    parser.add_argument("--id", required=True, help="utterance id, such as 'VIDEO$_$CLIP'")
    parser.add_argument("--out", required=True, metavar="FILE", help="PNG or SVG file to write")
    parser.add_argument("--relation", metavar="NAME", help="draw only this relation, such as text-intra-text")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command."""
    options = parser().parse_args(arguments)
    cli.load_plugins_of(options)
    config = load_config(options.config, cli.overrides_of(options))
    out = expanded(options.out)
    check_out_file(out, (".png", ".svg"))

    from gmsa.data import load_corpus  # after parsing: --help need not wait for torch
    from gmsa.figures.graph import draw_graph
    from gmsa.graph import build_graph
    from gmsa.graph.view import find_relation
    from gmsa.models import graph_spec
    from gmsa.runs.prepare import resolved

    corpus = load_corpus(config.data, config.target)
    spec = graph_spec(resolved(config, corpus))
    modalities = spec.schema.modalities
    relation = None if options.relation is None else find_relation(options.relation, modalities)
    found = {u.id: (split, u) for split, utterances in corpus.splits.items() for u in utterances}
    if options.id not in found:
        example = next(iter(found))
        raise DataError(
            f"{config.data.path}: no utterance '{options.id}'{nearest(options.id, found) or f', for example {example}'}"
        )
    split, utterance = found[options.id]
    data = build_graph(utterance, config.graph, spec.strides, modalities, spec.readouts)
    label = "unknown" if utterance.label is None else corpus.target.name_of(utterance.label)
    console().print(f"{utterance.id} ({'synthetic, ' if corpus.synthetic else ''}{split}), label {label}")
    for modality, sequence in utterance.features.items():
        steps, width = sequence.shape
        console().print(f"  {modality}: {steps} steps of {width} features, {data[modality].num_nodes} nodes")
    for stream in ("intra", "inter"):
        count = sum(data[r].num_edges for r in data.edge_types if r[1] == stream)
        console().print(f"  {stream}: {count} edges")
    draw_graph(data, out, utterance.text, relation)
    console().print(f"Wrote {out}")


if __name__ == "__main__":
    cli.run(main, "inspect")
