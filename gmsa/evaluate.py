"""Scores a run: ``python -m gmsa.evaluate --run runs/mosi_graph``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gmsa import cli


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command."""
    parser = cli.Parser(
        prog="python -m gmsa.evaluate",
        description="Score a run's models on its own splits again, or on another labeled file.",
    )
    parser.add_argument("--run", required=True, metavar="DIR", help="run folder that gmsa.train wrote")
    parser.add_argument("--data", metavar="FILE", help="another labeled file in MMSA's format (default: the run's own)")
    parser.add_argument("--seeds", type=cli.seed_list, metavar="N,N,...", help="seeds to use (default: all)")
    parser.add_argument("--out", metavar="DIR", help="also write summary and predictions into this folder")
    cli.add_device_option(parser)
    options = parser.parse_args(arguments)

    from gmsa.training.evaluation import evaluate  # after parsing: --help need not wait for torch

    print(evaluate(options.run, options.data, options.seeds, options.device, options.out and Path(options.out)))


if __name__ == "__main__":
    cli.run(main, "evaluate")
