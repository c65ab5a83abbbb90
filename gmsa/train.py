"""Trains a model: ``python -m gmsa.train --config configs/mosi_graph.yaml``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gmsa.config import load_config
from gmsa.system import cli


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command."""
    parser = cli.Parser(prog="python -m gmsa.train", description="Train a model and leave a run folder.")
    cli.add_config_options(parser)
    parser.add_argument("--out", metavar="DIR", help="run folder (default: run.out of the config, numbered if taken)")
    parser.add_argument("--seeds", type=cli.seed_list, metavar="N,N,...", help="seeds, one training each")
    cli.add_device_option(parser)
    parser.add_argument("--resume", action="store_true", help="go on with the run that is in the run folder")
    parser.add_argument("--deterministic", action="store_true", help="equal bits on CUDA too, though slower")
    options = parser.parse_args(arguments)

    overrides = cli.overrides_of(options) + ["run.deterministic=true"] * options.deterministic
    config = load_config(options.config, overrides)

    from gmsa.runs.resume import choose_folder
    from gmsa.runs.train import train
    from gmsa.system import distributed  # after parsing: --help need not wait for torch

    name, folder, resume = Path(options.config).stem, Path(), options.resume
    if distributed.is_main_process():
        default = config.run.out.replace("{name}", name)
        if distributed.is_restarted() and (Path(options.out or default) / "config.yaml").exists():
            resume = True
        folder = choose_folder(options.out, default, resume)
    train(config, name, folder, resume)


if __name__ == "__main__":
    cli.run(main, "train")
