"""Draws a graph: ``python -m gmsa.inspect --config FILE --id 'VIDEO$_$CLIP' --out graph.png``; with ``--model`` a
model; or, with ``--run``, what runs predict along a dialogue, or the attention of one in an utterance."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from gmsa.config import load_config
from gmsa.system import cli
from gmsa.system.console import console
from gmsa.system.files import check_out_file
from gmsa.system.reading import expanded


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
        help="with --config: draw the model instead: its stages, their parameters, and the relations of each layer",
    )
    parser.add_argument(
        "--attention",
        action="store_true",
        help="with one --run: draw the graph of an utterance or dialogue, each edge as strong as its attention",
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
    _draw(options, out)
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
        return f"the following arguments are required: --id{'' if options.run else ', or --model'}"
    return ""


def _draw(options: argparse.Namespace, out: Path) -> None:
    """Draws what the options ask for."""
    config = None if options.run else load_config(options.config, cli.overrides_of(options))
    check_out_file(out, (".png", ".svg"))

    from gmsa.runs import pictures  # after parsing: --help need not wait for torch

    if config is None and options.attention:
        pictures.picture_attention(options.run[0], options.id, out, options.data, options.device)
    elif config is None:
        pictures.picture_predictions(options.run, options.id, out, options.data, options.device)
    elif options.model:
        pictures.picture_model(config, out)
    else:
        pictures.picture_graph(config, options.id, out, options.relation)


if __name__ == "__main__":
    cli.run(main, "inspect")
