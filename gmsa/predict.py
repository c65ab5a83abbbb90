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
    parser.add_argument("--out", metavar="FILE", help="CSV file to write (may be left out beside the two below)")
    parser.add_argument(
        "--features", metavar="FILE.npz", help="also write the representations that the models predict from, by seed"
    )
    parser.add_argument(
        "--attention",
        metavar="FILE.npz",
        help="also write the attention weights of the last layer of each stream, of the first seed's model",
    )
    parser.add_argument(
        "--strict",
        action="store_true",
        help="stop at an utterance that cannot be predicted (default: report it)",
    )
    parser.add_argument(
        "--seeds", type=cli.seed_list, metavar="N,N,...", help="seeds whose predictions are averaged (default: all)"
    )
    cli.add_device_option(parser)
    cli.add_plugin_option(parser)
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command."""
    command = parser()
    options = command.parse_args(arguments)
    if not (options.out or options.features or options.attention):
        command.error("the following arguments are required: --out")

    from gmsa.runs.folder import Run  # after parsing: --help need not wait for torch
    from gmsa.runs.predict import predict_file
    from gmsa.system.files import check_out_file

    cli.load_plugins_of(options)
    run, seeds = Run(options.run), options.seeds
    arrays = [Path(file) for file in (options.features, options.attention) if file]
    for file in arrays:  # before work that takes time
        check_out_file(file, (".npz",))
    if options.out:
        count = predict_file(run, options.input, Path(options.out), seeds, options.device, options.strict)
        console().print(f"Wrote {count} prediction{'s' * (count != 1)} to {options.out}")
    if options.features:
        run.features(options.input, seeds, options.device).save(options.features)
        console().print(f"Wrote features to {options.features}")
    if options.attention:
        run.attention(options.input, None if seeds is None else seeds[0], options.device).save(options.attention)
        console().print(f"Wrote attention weights to {options.attention}")


if __name__ == "__main__":
    cli.run(main, "predict")
