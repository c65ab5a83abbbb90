"""Describes, checks, imports and extracts data: ``python -m gmsa.data info``, ``check``, ``import``, ``extract``."""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from gmsa.config import AUTO, MODALITIES, DataConfig, TargetConfig
from gmsa.config.load import settings_of
from gmsa.data import importers
from gmsa.data.checks import examine
from gmsa.data.checks.reading import describe_store
from gmsa.data.store.files import DTYPES, LABEL_SCALES, SHARD
from gmsa.data.store.store import Store, is_store
from gmsa.data.store.writer import Row, check_target, write_store
from gmsa.errors import ConfigError, DataError, shown
from gmsa.media.jobs.command import add_extract, add_models
from gmsa.registry import IMPORTERS
from gmsa.reports.data import markdown_check, markdown_overview
from gmsa.system import cli, files
from gmsa.system.console import console, progress_bar
from gmsa.system.reading import expanded

_PATH = "pickle, table, folder of features or of .csd files, or feature store"
_OF_TRAINING = frozenset(
    f"data.{key}"
    for key in (
        "split",
        "pool",
        "path",
        "label_ratio",
        "label_seed",
        "label_unit",
        "missing",
        "if_missing",
        "normalize",
        "clip",
        "name",
    )
)
"""Settings that the import has no use for."""
_EVERY = 20.0
"""Seconds between two lines about progress where there is no terminal."""


def parser() -> cli.Parser:
    """Builds the parser of the command's arguments."""
    parser = cli.Parser(prog="python -m gmsa.data", description="Describe, check, import and extract data to train on.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    info = commands.add_parser(
        "info",
        help="describe data",
        description="Describe data, and say what training would say of it.",
        example="clips.pkl",
    )
    info.add_argument("path", help=_PATH)
    _add_settings(info)
    info.set_defaults(run=_info)

    check = commands.add_parser(
        "check",
        help="find errors in data",
        description="Find errors in data; exit with 1 if there are any.",
        example="clips.pkl --out report",
    )
    check.add_argument("path", help=_PATH)
    _add_settings(check)
    check.add_argument("--out", metavar="DIR", help="folder for check.md, check.json and check.png")
    check.set_defaults(run=_check)

    new = commands.add_parser(
        "import",
        help="write a feature store",
        description="Read a source of features and write it as a feature store.",
        example="clips.pkl --out clips",
    )
    new.add_argument("source", help=_PATH)
    new.add_argument("--out", required=True, metavar="DIR", help="feature store to write: a new folder")
    new.add_argument(
        "--format",
        default="auto",
        metavar="NAME",
        help="importer: mmsa, semi_iin, manifest, csd, datasets, mds or a plug-in's (default: auto, by the source)",
    )
    for modality in MODALITIES:
        new.add_argument(
            f"--{modality}", metavar="FILE", help=f"take the features of {modality} from this file, by the ids"
        )
    new.add_argument(
        "--features",
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="the same for a modality of any name, as eeg=FILE (may repeat)",
    )
    _add_settings(new)
    new.add_argument("--dtype", choices=tuple(DTYPES), help="type of the stored features (default: the source's)")
    new.add_argument(
        "--splits",
        metavar="FILE",
        help="CSV that assigns utterances to splits, in the columns id or video, and split (default: the source's)",
    )
    new.add_argument(
        "--shard-size",
        type=_gigabytes,
        default=SHARD,
        metavar="GB",
        help="gigabytes of features after which further files are begun (default: 2)",
    )
    cli.add_plugin_option(new)
    new.set_defaults(run=_import)
    add_extract(commands)
    add_models(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command."""
    command = parser()
    options = command.parse_args(arguments)
    with cli.resumable(*command.prog.split(), *(sys.argv[1:] if arguments is None else arguments)):
        options.run(options)


def _add_settings(parser: cli.Parser) -> None:
    parser.add_argument(
        "--labels", choices=LABEL_SCALES, help="short for --set target.preset=: mosi is [-3, 3], sims is [-1, 1]"
    )
    cli.add_set_option(parser, "change a setting of data or target, as target.kind=classes (may repeat)")


class _Settings(NamedTuple):
    data: DataConfig
    target: TargetConfig
    given: frozenset[str]
    """Keys that the user set."""

    @property
    def chosen_target(self) -> TargetConfig | None:
        """The target, if the user says anything of it."""
        return self.target if any(key.startswith("target.") or key == "target" for key in self.given) else None


def _gigabytes(text: str) -> int:
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not 0.001 <= found <= 1000:
        raise argparse.ArgumentTypeError(f"must be 0.001 to 1000 (got {shown(text)})")
    return int(found * 1e9)


def _settings(options: argparse.Namespace) -> _Settings:
    """The groups ``data`` and ``target`` that ``--set`` and ``--labels`` give."""
    overrides = [*([f"target.preset={options.labels}"] if options.labels else []), *options.overrides]
    config, given = settings_of(overrides, ("data", "target"))
    return _Settings(config.data, config.target, given)


def _info(options: argparse.Namespace) -> None:
    settings = _settings(options)
    found = examine.overview(expanded(options.path, DataError), settings.data, settings.chosen_target)
    console().print(markdown_overview(found))


def _check(options: argparse.Namespace) -> None:
    settings = _settings(options)
    out = expanded(options.out) if options.out else None
    if out is not None:
        files.check_out_folder(out)
    path = expanded(options.path, DataError)
    found = examine.to_json(examine.examine(path, settings.data, settings.chosen_target, track))
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
    settings = _settings(options)
    for key in sorted(settings.given & _OF_TRAINING):
        raise ConfigError(f"--set {key}: is of training, not of import; set it there (--splits FILE assigns splits)")
    out = expanded(options.out)
    check_target(out)
    splits = expanded(options.splits, DataError) if options.splits else None
    data = settings.data if "data.modalities" in settings.given else replace(settings.data, modalities=AUTO)
    path, target = expanded(options.source, DataError), settings.chosen_target
    source = importers.open_source(path, options.format, target, splits, data, _features(options))
    dtypes = dict.fromkeys(source.dtypes, options.dtype) if options.dtype else source.dtypes
    rows = track(source.rows, source.count)
    if target is None:
        target = Store(path).manifest.target.settings(TargetConfig()) if is_store(path) else TargetConfig()
    clips = None if source.clips is None else partial(str, source.clips)
    store = write_store(out, rows, dtypes, target, source.about, options.source, clips, options.shard_size)
    console().print(markdown_overview(examine.describe(describe_store(store))))
    console().print(f"Wrote {out}")


def _features(options: argparse.Namespace) -> dict[str, Path]:
    """The files of the features of single modalities."""
    found = {m: file for m in MODALITIES if (file := getattr(options, m))}
    for item in options.features:
        modality, equals, file = item.partition("=")
        if not equals or not file or not modality.isidentifier():
            raise ConfigError(f"--features takes NAME=FILE, as eeg=eeg.pkl (got {shown(item)})")
        if modality in found:
            raise ConfigError(f"--features {modality}: has two files; name one")
        found[modality] = file
    return {modality: expanded(file, DataError) for modality, file in found.items()}


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
