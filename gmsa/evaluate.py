"""Scores runs, or another system's answers: ``python -m gmsa.evaluate --run runs/mosi_graph``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gmsa.system import cli
from gmsa.system.console import console


def parser() -> cli.Parser:
    """Builds the parser of the command's arguments."""
    parser = cli.Parser(
        prog="python -m gmsa.evaluate",
        description="Score a run's models on its own splits again, on another labeled file, with modalities masked or "
        "noise on the features; several runs on several files; or another system's answers.",
    )
    parser.add_argument(
        "--run",
        action="append",
        default=[],
        metavar="DIR",
        help="run folder of a finished training (may repeat: with --data, a table of runs by files; with --missing or "
        "--noise, and --out, a comparison)",
    )
    parser.add_argument(
        "--data",
        action="append",
        default=[],
        metavar="FILE",
        help="another labeled file or feature store (default: the run's own; may repeat: a table of runs by files)",
    )
    parser.add_argument(
        "--split", metavar="NAME", help="split of the file to score, or all (default: test, else all but train)"
    )
    parser.add_argument(
        "--include-training",
        action="store_true",
        help="also score utterances that the run was trained on, as the split 'train'",
    )
    parser.add_argument("--seeds", type=cli.seed_list, metavar="N,N,...", help="seeds to score (default: all)")
    parser.add_argument(
        "--missing",
        action="append",
        default=[],
        metavar="PROTOCOL:RATE,...",
        help="score the test split with modalities masked instead: eta:0,0.3,0.6, sample:..., frame:..., fixed:all or "
        "fixed:ta,v or fixed:text+eeg (may repeat)",
    )
    parser.add_argument(
        "--noise",
        action="append",
        default=[],
        metavar="MODALITY:dB,...",
        help="score the test split with white noise on the features: audio:20dB,10dB,0dB, text+audio:10dB, all:10dB "
        "(may repeat)",
    )
    parser.add_argument(
        "--context",
        nargs="?",
        const="all",
        default="",
        choices=("all", "past"),
        help="also score predictions with linear context: corrected by those for other utterances of the dialogue "
        "(all, or past ones), with weights that are fitted on the run's validation split",
    )
    parser.add_argument(
        "--mask-seeds",
        type=cli.seed_list,
        metavar="N,N,...",
        help="for --missing and --noise: seeds of the masks and of the noise (default: 0,1,2)",
    )
    parser.add_argument(
        "--metric", action="append", default=[], metavar="NAME", help="for runs by files: metric to show (may repeat)"
    )
    parser.add_argument(
        "--predictions",
        metavar="FILE.csv",
        help="score another system's answers instead (columns id, prediction); with --run, beside the run's",
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        help="folder to write tables and predictions into (default: none; with --missing or --noise, the run's own)",
    )
    cli.add_set_option(parser)
    cli.add_device_option(parser)
    cli.add_plugin_option(parser)
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command."""
    command = parser()
    options = command.parse_args(arguments)
    if problem := _problem(options):
        command.error(problem)
    cli.load_plugins_of(options)
    console().print(str(_scores(options)))


def _problem(options: argparse.Namespace) -> str:
    """What does not go together; nothing where all does."""
    masked = options.missing or options.noise
    if options.context and (masked or options.predictions or len(options.run) > 1 or len(options.data) > 1):
        return "--context takes one --run and at most one --data, without --missing, --noise and --predictions"
    if options.predictions:
        if masked or len(options.run) > 1 or len(options.data) > 1:
            return "--predictions takes one --data and at most one --run, without --missing and --noise"
        return "" if options.data or options.run else "--predictions needs --data FILE, whose labels to score against"
    if not options.run:
        return "the following arguments are required: --run"
    if options.overrides:
        return "--set goes with --predictions, where it says the target; a run knows its own"
    if options.mask_seeds and not masked:
        return "--mask-seeds goes with --missing, as --missing eta:0,0.3,0.6, or with --noise"
    if masked and len(options.data) > 1:
        return "--missing and --noise take one --data; evaluate the files one by one"
    if masked and len(options.run) > 1 and not options.out:
        return "several --run are compared with modalities masked or noise; add --out DIR"
    if not masked and len(options.run) > 1 and not options.data:
        return (
            "several --run are scored on files, as --data FILE, or compared with modalities masked, as "
            "--missing eta:0,0.3,0.6 --out DIR"
        )
    if options.metric and (masked or len(options.run) * len(options.data) <= 1):
        return "--metric goes with several --run or --data; other tables have all metrics"
    return ""


def _scores(options: argparse.Namespace) -> Any:
    """The scores that are asked for, which print as their table."""
    from gmsa.runs.folder import Run  # after parsing: --help need not wait for torch
    from gmsa.runs.robustness import MASK_SEEDS, compare_robustness

    out = Path(options.out) if options.out else None
    data = options.data[0] if options.data else None
    chosen: dict[str, Any] = {"split": options.split, "include_training": options.include_training}
    scored: dict[str, Any] = {"seeds": options.seeds, "device": options.device, **chosen}
    if options.predictions:
        from gmsa.config.override import override
        from gmsa.runs.scoring.answers import evaluate_answers

        run = options.run[0] if options.run else None
        return evaluate_answers(options.predictions, data, run, override({}, options.overrides), out=out, **scored)
    masks = options.mask_seeds or MASK_SEEDS
    missing, noise = options.missing or None, options.noise or None
    if missing or noise:
        if len(options.run) > 1 and out:
            scored |= {"data": data, "noise": options.noise}
            return compare_robustness(options.run, options.missing, out, masks, **scored)
    elif len(options.run) > 1 or len(options.data) > 1:
        from gmsa.runs.scoring.matrix import evaluate_matrix

        return evaluate_matrix(options.run, options.data, options.metric, out=out, **scored)
    run = Run(options.run[0])
    if (missing or noise) and out is None:
        out = run.folder  # its own report
    scored["context"] = options.context
    return run.evaluate(data, missing, options.mask_seeds, out=out, noise=noise, **scored)


if __name__ == "__main__":
    cli.run(main, "evaluate")
