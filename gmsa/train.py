"""Trains a model: ``python -m gmsa.train --config mosi_graph``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from gmsa.system import cli


def parser() -> cli.Parser:
    """Builds the parser of the command's arguments."""
    parser = cli.Parser(prog="python -m gmsa.train", description="Train a model and leave a run folder.")
    cli.add_config_options(parser)
    cli.add_data_option(parser)
    parser.add_argument(
        "--out", metavar="DIR", help="run folder to write (default: run.out of the config, numbered if taken)"
    )
    parser.add_argument(
        "--seeds", type=cli.seed_list, metavar="N,N,...", help="seeds, one training each (default: the config's)"
    )
    cli.add_device_option(parser)
    parser.add_argument(
        "--resume", action="store_true", help="resume the run in the run folder; start it where there is none yet"
    )
    parser.add_argument("--deterministic", action="store_true", help="train bit for bit the same on CUDA too; slower")
    cli.add_plugin_option(parser)
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command."""
    command = parser()
    options = command.parse_args(arguments)

    from gmsa.api import fit

    cli.load_plugins_of(options)
    with cli.resumable(*command.prog.split(), *_but_folder(sys.argv[1:] if arguments is None else arguments)):
        fit(
            options.config,
            data=options.data,
            out=options.out,
            seeds=options.seeds,
            overrides=options.overrides + ["run.deterministic=true"] * options.deterministic,
            device=options.device,
            resume=options.resume,
            plugins=options.plugins,
        )


def _but_folder(arguments: Sequence[str]) -> list[str]:
    """The arguments without ``--out`` and ``--resume``."""
    folder = argparse.ArgumentParser(add_help=False)
    folder.add_argument("--out")
    folder.add_argument("--resume", action="store_true")
    return folder.parse_known_args(arguments)[1]


if __name__ == "__main__":
    cli.run(main, "train")
