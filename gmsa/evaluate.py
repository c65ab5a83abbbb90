"""Scores a run: ``python -m gmsa.evaluate --run runs/mosi_graph``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gmsa.system import cli
from gmsa.system.console import console


def parser() -> cli.Parser:
    """Builds the parser of the command's arguments."""
    parser = cli.Parser(
        prog="python -m gmsa.evaluate",
        description="Score a run's models on its own splits again, on another labeled file, or with modalities masked.",
    )
    parser.add_argument(
        "--run",
        action="append",
        required=True,
        metavar="DIR",
        help="run folder of a finished training (may repeat: with --missing and --out, compares them)",
    )
    parser.add_argument("--data", metavar="FILE", help="another labeled file or feature store (default: the run's own)")
    parser.add_argument("--seeds", type=cli.seed_list, metavar="N,N,...", help="seeds to score (default: all)")
    parser.add_argument(
        "--missing",
        action="append",
        metavar="PROTOCOL:RATE,...",
        help="score the test split with modalities masked instead: eta:0,0.3,0.6, sample:..., frame:..., fixed:all or "
        "fixed:ta,v (may repeat)",
    )
    parser.add_argument(
        "--mask-seeds", type=cli.seed_list, metavar="N,N,...", help="for --missing: seeds of the masks (default: 0,1,2)"
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        help="folder to write tables and predictions into (default: none; with --missing, the run's own)",
    )
    cli.add_device_option(parser)
    cli.add_plugin_option(parser)
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command."""
    command = parser()
    options = command.parse_args(arguments)
    out = Path(options.out) if options.out else None
    if options.mask_seeds and not options.missing:
        command.error("--mask-seeds goes with --missing, as --missing eta:0,0.3,0.6")
    run, *more = options.run
    if more and not (options.missing and out):
        command.error("several --run are compared with modalities masked; add --missing eta:0,0.3,0.6 and --out DIR")

    from gmsa.runs.folder import Run  # after parsing: --help need not wait for torch
    from gmsa.runs.robustness import MASK_SEEDS, compare_robustness

    cli.load_plugins_of(options)
    if more and out:
        masks = options.mask_seeds or MASK_SEEDS
        scored = options.seeds, options.device, options.data
        console().print(compare_robustness(options.run, options.missing, out, masks, *scored))
        return
    run = Run(run)
    if options.missing and out is None:
        out = run.folder  # its own report
    scores = run.evaluate(options.data, options.missing, options.mask_seeds, options.seeds, options.device, out)
    console().print(str(scores))


if __name__ == "__main__":
    cli.run(main, "evaluate")
