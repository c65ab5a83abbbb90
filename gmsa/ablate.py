"""Compares settings: ``python -m gmsa.ablate --config FILE --vary model.fusion=gate,add --seeds 1111,1112``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from gmsa.system import cli


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command."""
    parser = cli.Parser(
        prog="python -m gmsa.ablate",
        description="Train every setting with every seed and compare them. The same command again goes on.",
    )
    cli.add_config_options(parser)
    parser.add_argument(
        "--vary",
        action="append",
        default=[],
        metavar="KEY=A,B,...",
        help="values of a setting to compare, for example model.fusion=gate,add (may repeat: all combinations)",
    )
    parser.add_argument(
        "--settings",
        metavar="FILE",
        help="YAML list of settings, or a name: fusion (with --vary: all combinations)",
    )
    parser.add_argument("--seeds", type=cli.seed_list, metavar="N,N,...", help="seeds of every setting")
    parser.add_argument("--jobs", type=_jobs, default=1, metavar="N", help="trainings at a time (default: 1)")
    parser.add_argument("--out", metavar="DIR", help="folder (default: runs/ablate- and the names of the files)")
    cli.add_device_option(parser)
    options = parser.parse_args(arguments)

    from gmsa.ablation.ablate import ablate  # after parsing: --help need not wait for torch
    from gmsa.ablation.variants import read_variants

    settings = read_variants(options.config, cli.overrides_of(options), options.vary, options.settings)
    name = "-".join(Path(file).stem for file in (options.config, options.settings) if file)
    if not ablate(settings, name, Path(options.out or f"runs/ablate-{name}"), options.jobs):
        sys.exit(1)


def _jobs(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number of trainings from 1 on (got '{text}')")
    return int(text)


if __name__ == "__main__":
    cli.run(main, "ablate")
