"""Predicts utterances: ``python -m gmsa.predict --run runs/mosi_graph --input FILE --out predictions.csv``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gmsa.system import cli
from gmsa.system.console import console


def parser() -> cli.Parser:
    """Builds the parser of the command's arguments."""
    parser = cli.Parser(
        prog="python -m gmsa.predict",
        description="Write id, prediction, class probabilities and gate for every utterance of a file, labeled or not.",
    )
    parser.add_argument("--run", required=True, metavar="DIR", help="run folder of a finished training, or saved model")
    parser.add_argument(
        "--input", required=True, metavar="FILE", help="data file or feature store; labels may be absent"
    )
    parser.add_argument("--out", required=True, metavar="FILE", help="CSV file to write")
    parser.add_argument(
        "--seeds", type=cli.seed_list, metavar="N,N,...", help="seeds whose predictions are averaged (default: all)"
    )
    cli.add_device_option(parser)
    cli.add_plugin_option(parser)
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command."""
    options = parser().parse_args(arguments)

    from gmsa.runs.folder import Run  # after parsing: --help need not wait for torch
    from gmsa.runs.predict import predict_file

    cli.load_plugins_of(options)
    count = predict_file(Run(options.run), options.input, Path(options.out), options.seeds, options.device)
    console().print(f"Wrote {count} prediction{'s' * (count != 1)} to {options.out}")


if __name__ == "__main__":
    cli.run(main, "predict")
