"""Searches settings: ``python -m gmsa.tune --config configs/mosi_graph.yaml --trials 50``."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Sequence

from gmsa.config.packaged import find
from gmsa.system import cli
from gmsa.system.reading import is_file


def parser() -> cli.Parser:
    """Builds the parser of the command's arguments."""
    parser = cli.Parser(
        prog="python -m gmsa.tune",
        description="Search a space of settings on the validation split with Optuna; the best trial is trained anew "
        "and tested once. Run the same command again to resume, or to add workers, here or on other machines.",
    )
    cli.add_config_options(parser)
    cli.add_data_option(parser)
    parser.add_argument(
        "--space",
        metavar="FILE",
        help="search space: a YAML file, or the name of a packaged one (default: spaces/default.yaml beside the "
        "config, else default)",
    )
    parser.add_argument("--trials", type=int, required=True, metavar="N", help="number of trials of the study, in all")
    parser.add_argument(
        "--objective",
        action="append",
        metavar="NAME",
        help="a metric that run.select takes, such as MAE or Corr, of classes weighted_F1 or accuracy; one of "
        "run.metrics, seconds or parameters (default: run.select of the config; may repeat: the Pareto front)",
    )
    parser.add_argument("--sampler", default="tpe", metavar="NAME", help="tpe, gp, random or qmc (default: tpe)")
    parser.add_argument(
        "--pruner", metavar="NAME", help="median, hyperband or off (default: median; off for several objectives)"
    )
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="number of worker processes (default: 1)")
    parser.add_argument(
        "--timeout",
        type=float,
        default=math.inf,
        metavar="S",
        help="start no trial after S seconds (default: no limit)",
    )
    parser.add_argument(
        "--trial-seeds",
        type=cli.seed_list,
        metavar="N,N,...",
        help="seeds that every trial trains (default: the config's first)",
    )
    parser.add_argument(
        "--seeds",
        type=cli.seed_list,
        metavar="N,N,...",
        help="seeds of the final training and test (default: the config's)",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the sampler (default: 0)")
    parser.add_argument("--study", metavar="NAME", help="name of the study (default: that of the config and the space)")
    parser.add_argument("--out", metavar="DIR", help="folder to write (default: runs/study- and the name of the study)")
    parser.add_argument(
        "--storage",
        metavar="URL",
        default=os.environ.get("GMSA_STORAGE") or None,
        help="URL of a PostgreSQL server for many machines (default: $GMSA_STORAGE, else a journal in the folder)",
    )
    parser.add_argument(
        "--heartbeat",
        type=int,
        default=60,
        metavar="S",
        help="seconds between a worker's signs of life on a server (default: 60)",
    )
    parser.add_argument(
        "--salvage",
        action="store_true",
        help="if the study's journal is damaged, resume with its intact lines, and say what is left out",
    )
    cli.add_device_option(parser)
    cli.add_plugin_option(parser)
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command."""
    options = parser().parse_args(arguments)

    from gmsa.api import search

    cli.load_plugins_of(options)
    beside = find(options.config, "configs").parent / "spaces" / "default.yaml"
    study = search(
        options.config,
        options.space or (beside if is_file(beside) else "default"),
        options.trials,
        objectives=options.objective,
        sampler=options.sampler,
        pruner=options.pruner,
        jobs=options.jobs,
        timeout=options.timeout,
        trial_seeds=options.trial_seeds,
        seeds=options.seeds,
        seed=options.seed,
        name=options.study,
        out=options.out,
        storage=options.storage,
        data=options.data,
        heartbeat=options.heartbeat,
        salvage=options.salvage,
        overrides=options.overrides,
        device=options.device,
        plugins=options.plugins,
    )
    if not study.complete:
        sys.exit(1)


if __name__ == "__main__":
    cli.run(main, "tune")
