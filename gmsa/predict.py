"""Predicts utterances: ``python -m gmsa.predict --run runs/mosi_graph --input FILE --out predictions.csv``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gmsa.errors import DataError
from gmsa.system import cli
from gmsa.system.console import console
from gmsa.system.csv_text import csv_text

if TYPE_CHECKING:
    from gmsa.runs.folder import Run


def parser() -> cli.Parser:
    """Builds the parser of the command's arguments."""
    parser = cli.Parser(
        prog="python -m gmsa.predict",
        description="Write id, prediction, class probabilities and gate for every utterance of a file, labeled or not.",
    )
    parser.add_argument("--run", required=True, metavar="DIR", help="run folder of a finished training, or saved model")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--input",
        metavar="FILE",
        help="data file or feature store; labels may be absent; with --stream also -, for JSON lines on stdin",
    )
    what.add_argument(
        "--video",
        action="append",
        metavar="FILE",
        help="answer a video or sound file, along it and with its words; may be given several times (needs a run that "
        "was trained on what 'gmsa data extract' wrote)",
    )
    parser.add_argument(
        "--out",
        metavar="FILE",
        help="CSV file to write (may be left out beside the three below); with --video, a folder",
    )
    parser.add_argument(
        "--features", metavar="FILE.npz", help="also write the representations that the models predict from, by seed"
    )
    parser.add_argument(
        "--attention",
        metavar="FILE.npz",
        help="also write the attention weights of the last layer of each stream, of the first seed's model",
    )
    parser.add_argument(
        "--explain",
        metavar="FOLDER",
        help="also explain the predictions: what each modality and each token contributes; JSON, CSV, a figure and a "
        "page, explanations.html",
    )
    parser.add_argument(
        "--id", action="append", metavar="ID", help="explain this utterance; may be given several times (default: all)"
    )
    parser.add_argument("--limit", type=int, metavar="N", help="explain the first N utterances alone")
    parser.add_argument("--transcript", metavar="FILE", help="with one --video: text file of what is said in it")
    parser.add_argument(
        "--window", type=float, metavar="S", help="with --video: seconds of a window along it (default: 3)"
    )
    parser.add_argument(
        "--step", type=float, metavar="S", help="with --video: seconds between two windows (default: 0.5)"
    )
    parser.add_argument(
        "--cache", metavar="DIR", help="with --video: folder of extracted features (default: ~/.cache/gmsa/media)"
    )
    parser.add_argument(
        "--stream",
        action="store_true",
        help="answer one utterance after the other from what was said before in its dialogue, and print each row at "
        "once (needs a run with graph.future=0)",
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
    outputs = options.out or options.features or options.attention or options.explain
    if options.video:
        if options.stream or options.features or options.attention or options.explain or options.strict:
            command.error(
                "--video goes with --out, --transcript, --window, --step, --cache, --seeds and --device alone"
            )
        if options.transcript and len(options.video) > 1:
            command.error("--transcript is that of one video; give one --video")
    elif options.transcript or options.cache or options.window is not None or options.step is not None:
        command.error("--transcript, --window, --step and --cache go with --video; add it, or leave them out")
    if options.stream and outputs:
        command.error(
            "--stream prints its rows; leave out --out, --features, --attention and --explain, and redirect with >"
        )
    if not options.stream and not outputs:
        command.error("the following arguments are required: --out")
    if not options.explain and (options.id or options.limit is not None):
        command.error("--id and --limit choose what to explain; add --explain FOLDER")
    if options.input == "-" and not options.stream:
        command.error("--input - reads utterances as they are said; add --stream, or name a file")

    from gmsa.runs.folder import Run  # after parsing: --help need not wait for torch
    from gmsa.runs.predict import predict_file
    from gmsa.system.files import check_out_file, check_out_folder

    cli.load_plugins_of(options)
    run, seeds = Run(options.run), options.seeds
    if options.video:
        from gmsa.runs.video.command import answer_videos

        with cli.resumable(*command.prog.split(), *(sys.argv[1:] if arguments is None else arguments)):
            answer_videos(run, options)
        return
    if options.stream:
        _stream(run, options)
        return
    arrays = [Path(file) for file in (options.features, options.attention) if file]
    for file in arrays:  # before work that takes time
        check_out_file(file, (".npz",))
    if options.explain:
        check_out_folder(Path(options.explain))
    if options.out:
        count = predict_file(run, options.input, Path(options.out), seeds, options.device, options.strict)
        console().print(f"Wrote {count} prediction{'s' * (count != 1)} to {options.out}")
    if options.features:
        run.features(options.input, seeds, options.device).save(options.features)
        console().print(f"Wrote features to {options.features}")
    if options.attention:
        run.attention(options.input, None if seeds is None else seeds[0], options.device).save(options.attention)
        console().print(f"Wrote attention weights to {options.attention}")
    if options.explain:
        _explain(run, options)


def _explain(run: Run, options: argparse.Namespace) -> None:
    """Writes explanations, and says how many of them a check of their tokens finds faithful."""
    from gmsa.runs.states.explanation_files import PAGE, explain_file

    folder = Path(options.explain)
    found = explain_file(run, options.input, folder, options.id, options.seeds, options.device, options.limit)
    faithful = sum(item.words is not None and item.words.faithful for item in found)
    console().print(
        f"Wrote {len(found)} explanation{'s' * (len(found) != 1)} to {folder / PAGE}; those of the tokens are faithful "
        f"for {faithful}"
    )
    for identity, reason in found.reasons.items():
        console().print(f"not explained: {identity}: {reason}")


def _stream(run: Run, options: argparse.Namespace) -> None:
    """Prints a row of CSV for each utterance when it is there."""
    from gmsa.runs.live.rows import rows_of, turns_of_file, turns_of_lines

    stream = run.stream(options.seeds, options.device)  # all that can fail comes before the input
    if options.input == "-" and sys.stdin is None:
        raise DataError("stdin is closed; pipe JSON lines into it, or name a file with --input")
    turns = turns_of_lines(run, sys.stdin.buffer) if options.input == "-" else turns_of_file(run, options.input)
    for row in rows_of(stream, turns, options.strict):
        print(csv_text(row, []), end="", flush=True)


if __name__ == "__main__":
    cli.run(main, "predict")
