"""Makes, describes and checks data: ``python -m gmsa.data import``, ``info`` and ``check``."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from gmsa.data import importers
from gmsa.data.checks import examine
from gmsa.data.checks import findings as check
from gmsa.data.store.files import DTYPES, LABEL_SCALES
from gmsa.data.store.writer import Row, check_target, write_store
from gmsa.reports.tables import escape_markdown, pipes
from gmsa.system import cli, files

_EVERY = 20.0
"""Seconds between two lines about progress where there is no terminal."""

_MEANING = f"""\
An error makes training or its scores wrong; a warning may; a note is good to know. A feature is on another scale
where its standard deviation is more than {check.RATIO:g} times that of the training split, or less than that
divided by {check.RATIO:g}, or its mean more than {check.SHIFT:g} standard deviation away (by chance alone, 0.1 for a
hundred utterances); that is a warning where {check.MANY:.0%} of a modality's features are.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command."""
    parser = cli.Parser(prog="python -m gmsa.data", description="Make, describe and check data to train on.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    new = commands.add_parser("import", help="make a feature store", description="Make a feature store of a source.")
    new.add_argument("source", help="MMSA's pickle, Semi-IIN's folder, or a CSV that names .npy and .npz files")
    new.add_argument("--out", required=True, metavar="DIR", help="folder to make")
    new.add_argument("--format", choices=("auto", *importers.FORMATS), default="auto", help="what the source is")
    new.add_argument("--labels", choices=LABEL_SCALES, default="mosi", help="label scale: [-3, 3] or [-1, 1]")
    new.add_argument(
        "--dtype", choices=tuple(DTYPES), help="type of the features (default: float16 where they are that)"
    )
    new.add_argument("--splits", metavar="FILE", help="CSV with the columns id or video, and split, to use instead")
    new.set_defaults(run=_import)

    info = commands.add_parser("info", help="say what there is", description="Say what is in a pickle or a store.")
    info.add_argument("path", help="pickle in MMSA's format, or feature store")
    info.set_defaults(run=_info)

    find = commands.add_parser("check", help="find what is wrong", description="Find what is wrong with data.")
    find.add_argument("path", help="pickle in MMSA's format, or feature store")
    find.add_argument("--labels", choices=LABEL_SCALES, help="label scale (default: the store's, or mosi)")
    find.add_argument("--out", metavar="DIR", help="folder for check.md, check.json and check.png")
    find.set_defaults(run=_check)

    options = parser.parse_args(arguments)
    options.run(options)


def _import(options: argparse.Namespace) -> None:
    out = Path(options.out)
    check_target(out)
    splits = Path(options.splits) if options.splits else None
    source = importers.open_source(Path(options.source), options.format, options.labels, splits)
    dtypes = dict.fromkeys(source.dtypes, options.dtype) if options.dtype else source.dtypes
    rows = track(source.rows, source.count)
    write_store(out, rows, dtypes, options.labels, source.about, options.source)
    print(_described(examine.overview(out)))
    print(f"Wrote {out}")


def _info(options: argparse.Namespace) -> None:
    print(_described(examine.overview(Path(options.path))))


def _check(options: argparse.Namespace) -> None:
    out = Path(options.out) if options.out else None
    if out is not None:
        files.check_out_folder(out)
    found = examine.to_json(examine.examine(Path(options.path), options.labels, track))
    report = _report(found)
    print(report)
    if out is not None:
        from gmsa.figures.data import figure_check  # Matplotlib takes its time

        out.mkdir(parents=True, exist_ok=True)
        files.write_json(out / "check.json", found)
        files.write_text(out / "check.md", report)
        figure_check(found, out / "check.png")
        print(f"Wrote {out / 'check.md'}, check.json and check.png")
    if any(finding["severity"] == "error" for finding in found["findings"]):
        sys.exit(1)


def track(rows: Iterable[Row], count: int) -> Iterator[Row]:
    """Passes rows on; shows a bar on a terminal, and plain lines elsewhere if it takes long."""
    if sys.stderr.isatty():
        columns = (TextColumn("utterances"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
            yield from bar.track(rows, total=count)
        return
    said = time.monotonic()
    for number, row in enumerate(rows):
        if time.monotonic() - said > _EVERY:
            said = time.monotonic()
            print(f"{number} of {count} utterances", file=sys.stderr, flush=True)
        yield row


def _report(found: dict[str, Any]) -> str:
    """The content of ``check.md``."""
    rows = [[f["severity"], f["what"], f["where"], str(f["count"]), _examples(f)] for f in found["findings"]]
    counts = {severity: sum(f["severity"] == severity for f in found["findings"]) for severity in check.SEVERITIES}
    said = ", ".join(f"{count} {severity}{'' if count == 1 else 's'}" for severity, count in counts.items())
    table = pipes(
        ("Severity", "Finding", "Where", "Count", "Examples"), rows, ("Severity", "Finding", "Where", "Examples")
    )
    return (
        f"# Check of {escape_markdown(Path(found['path']).name)}: {said}\n\n{table}\n{_described(found)}\n" + _MEANING
    )


def _examples(finding: dict[str, Any]) -> str:
    more = finding["count"] - len(finding["examples"])
    return "; ".join(finding["examples"]) + (" ..." if finding["examples"] and more > 0 else "")


def _described(found: dict[str, Any]) -> str:
    """What there is, as facts and a table with a row per split."""
    facts = {
        "Data": f"{found['path']} ({found['kind']}, {found['bytes'] / 1e6:.1f} MB)",
        "SHA-256": found["sha256"] + (" (of its manifest)" if found["kind"] == "store" else ""),
        "Labels": f"{found['labels']} scale",
        "Features": ", ".join(f"{m} {dim} {found['dtypes'].get(m, '')}" for m, dim in found["dims"].items()),
    }
    if found["source"]:
        parts = [f"{file['name']} ({file['sha256']})" for file in found["source"].get("files", [])]
        facts["From"] = f"{', '.join(parts) or 'rows'}, importer {found['source'].get('importer', 'none')}"
    lines = "".join(f"- {key}: {escape_markdown(value)}\n" for key, value in facts.items())
    rows = []
    for name, split in found["splits"].items():
        row = [name, str(split["utterances"]), str(split["labels"]["labeled"])]
        for modality in found["dims"]:
            steps = split["lengths"][modality]
            row.append(f"{steps['present'] / max(1, split['utterances']):.1%}")
            row.append(f"{steps['mean']:.1f} ({steps['min']}–{steps['max']})" if steps["present"] else "–")
        rows.append(row)
    header = ["Split", "Utterances", "Labeled", *(f"{m}{part}" for m in found["dims"] for part in ("", " steps"))]
    return f"{lines}\n{pipes(header, rows, ('Split',))}"


if __name__ == "__main__":
    cli.run(main, "data")
