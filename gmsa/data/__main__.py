"""Describes, checks and imports data: ``python -m gmsa.data info``, ``check`` and ``import``."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Iterator, Sequence

from gmsa.data import importers
from gmsa.data.checks import examine
from gmsa.data.store.files import DTYPES, LABEL_SCALES
from gmsa.data.store.writer import Row, check_target, write_store
from gmsa.errors import DataError
from gmsa.registry import IMPORTERS
from gmsa.reports.data import markdown_check, markdown_overview
from gmsa.system import cli, files
from gmsa.system.console import console, progress_bar
from gmsa.system.reading import expanded

_EVERY = 20.0
"""Seconds between two lines about progress where there is no terminal."""


def parser() -> cli.Parser:
    """Builds the parser of the command's arguments."""
    parser = cli.Parser(prog="python -m gmsa.data", description="Describe, check and import data to train on.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    info = commands.add_parser(
        "info", help="describe data", description="Describe a data file or a feature store.", example="clips.pkl"
    )
    info.add_argument("path", help="pickle in MMSA's format, or feature store")
    info.set_defaults(run=_info)

    check = commands.add_parser(
        "check",
        help="find errors in data",
        description="Find errors in a data file or a feature store; exit with 1 if there are any.",
        example="clips.pkl --out report",
    )
    check.add_argument("path", help="pickle in MMSA's format, or feature store")
    check.add_argument("--labels", choices=LABEL_SCALES, help="label scale (default: the store's, or mosi)")
    check.add_argument("--out", metavar="DIR", help="folder for check.md, check.json and check.png")
    check.set_defaults(run=_check)

    new = commands.add_parser(
        "import",
        help="write a feature store",
        description="Read a source of features and write it as a feature store.",
        example="clips.pkl --out clips",
    )
    new.add_argument("source", help="MMSA's pickle, Semi-IIN's folder, or a CSV that names .npy and .npz files")
    new.add_argument("--out", required=True, metavar="DIR", help="feature store to write: a new folder")
    new.add_argument(
        "--format",
        default="auto",
        metavar="NAME",
        help="importer: mmsa, semi_iin, manifest or a plug-in's (default: auto, by the source)",
    )
    new.add_argument(
        "--labels",
        choices=LABEL_SCALES,
        default="mosi",
        help="label scale: mosi is [-3, 3], sims is [-1, 1] (default: mosi)",
    )
    new.add_argument("--dtype", choices=tuple(DTYPES), help="type of the stored features (default: the source's)")
    new.add_argument(
        "--splits",
        metavar="FILE",
        help="CSV that assigns utterances to splits, in the columns id or video, and split (default: the source's)",
    )
    cli.add_plugin_option(new)
    new.set_defaults(run=_import)

    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command."""
    options = parser().parse_args(arguments)
    options.run(options)


def _info(options: argparse.Namespace) -> None:
    console().print(markdown_overview(examine.overview(expanded(options.path, DataError))))


def _check(options: argparse.Namespace) -> None:
    out = expanded(options.out) if options.out else None
    if out is not None:
        files.check_out_folder(out)
    found = examine.to_json(examine.examine(expanded(options.path, DataError), options.labels, track))
    report = markdown_check(found)
    console().print(report)
    if out is not None:
        from gmsa.figures.data import figure_check  # Matplotlib takes its time

        files.make_folder(out)
        files.write_json(out / "check.json", found)
        files.write_text(out / "check.md", report)
        drawn = figure_check(found, out / "check.png")
        console().print(f"Wrote {out / 'check.md'}{', check.json and check.png' if drawn else ' and check.json'}")
    if any(finding["severity"] == "error" for finding in found["findings"]):
        sys.exit(1)


def _import(options: argparse.Namespace) -> None:
    cli.load_plugins_of(options)
    if options.format != "auto":
        IMPORTERS.check(options.format, "--format")
    out = expanded(options.out)
    check_target(out)
    splits = expanded(options.splits, DataError) if options.splits else None
    source = importers.open_source(expanded(options.source, DataError), options.format, options.labels, splits)
    dtypes = dict.fromkeys(source.dtypes, options.dtype) if options.dtype else source.dtypes
    rows = track(source.rows, source.count)
    write_store(out, rows, dtypes, options.labels, source.about, options.source)
    console().print(markdown_overview(examine.overview(out)))
    console().print(f"Wrote {out}")


def track(rows: Iterable[Row], count: int) -> Iterator[Row]:
    """Passes rows on; shows a bar on a terminal, and plain lines elsewhere if it takes long."""
    lines, said = not sys.stderr.isatty(), time.monotonic()
    with progress_bar("utterances", count, stderr=True) as bar:
        for number, row in enumerate(rows):
            if lines and time.monotonic() - said > _EVERY:
                said = time.monotonic()
                console(stderr=True).print(f"{number} of {count} utterances")
            yield row
            bar.advance()


if __name__ == "__main__":
    cli.run(main, "data")
