"""Compares settings: ``python -m gmsa.ablate --config FILE --vary model.fusion=gate,add --seeds 1111,1112``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from gmsa.system import cli


def parser() -> cli.Parser:
    """Builds the parser of the command's arguments."""
    parser = cli.Parser(
        prog="python -m gmsa.ablate",
        description="Train every setting with every seed and compare them. Run the same command again to resume.",
    )
    cli.add_config_options(parser)
    cli.add_data_option(parser)
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
        help="YAML list of settings, or the name of a packaged one, such as fusion (with --vary: all combinations)",
    )
    parser.add_argument(
        "--seeds", type=cli.seed_list, metavar="N,N,...", help="seeds of every setting (default: the config's)"
    )
    parser.add_argument(
        "--folds",
        type=int,
        metavar="N",
        help="cross-validation: train every setting, or the config alone, on each of N folds; a column 'fold' of the "
        "file is honoured",
    )
    parser.add_argument(
        "--by",
        choices=("video", "speaker", "utterance"),
        help="what stays together in a fold (default: data.split.by of the config, which is video)",
    )
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="NAME,...",
        help="settings to train now, by name or pattern, for example 'gatv2*' (may repeat); the comparison says which "
        "were not run, and the same command without --only trains them",
    )
    parser.add_argument("--jobs", type=_jobs, default=1, metavar="N", help="number of trainings at a time (default: 1)")
    parser.add_argument(
        "--out", metavar="DIR", help="folder to write (default: runs/ablate- and the names of the files)"
    )
    cli.add_device_option(parser)
    cli.add_plugin_option(parser)
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command."""
    options = parser().parse_args(arguments)

    from gmsa.api import compare

    cli.load_plugins_of(options)
    table = compare(
        options.config,
        options.vary,
        options.settings,
        seeds=options.seeds,
        folds=options.folds,
        by=options.by,
        only=options.only,
        jobs=options.jobs,
        out=options.out,
        data=options.data,
        overrides=options.overrides,
        device=options.device,
        plugins=options.plugins,
    )
    if any(row["failed"] for row in table.rows):
        sys.exit(1)


def _jobs(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number of trainings from 1 on (got '{text}')")
    return int(text)


if __name__ == "__main__":
    cli.run(main, "ablate")
