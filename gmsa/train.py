"""Trains a model: ``python -m gmsa.train --config configs/mosi_graph.yaml``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gmsa import cli
from gmsa.config import load_config


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command."""
    parser = cli.Parser(prog="python -m gmsa.train", description="Train a model and leave a run folder.")
    cli.add_config_options(parser)
    parser.add_argument("--out", metavar="DIR", help="run folder (default: run.out of the config, numbered if taken)")
    parser.add_argument("--seeds", type=cli.seed_list, metavar="N,N,...", help="seeds, one training each")
    cli.add_device_option(parser)
    parser.add_argument("--resume", action="store_true", help="go on with the run that is in the run folder")
    options = parser.parse_args(arguments)

    config = load_config(options.config, cli.overrides_of(options))

    from gmsa.training.run import choose_folder, train  # after parsing: --help need not wait for torch

    name = Path(options.config).stem
    folder = choose_folder(options.out, config.run.out.replace("{name}", name), options.resume)
    train(config, name, folder, resume=options.resume)


if __name__ == "__main__":
    cli.run(main, "train")
