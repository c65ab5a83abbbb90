"""Cost: what a training of SSLMM takes beside a supervised one with the same labels.

    python benchmarks/cost.py

CPU seconds of the process, on one thread, with half of the labels of CMU-MOSI, nothing missing and ``eta:0.5``. An
epoch of each stage takes its turn, so that a machine that gets busy slows all alike. A whole training is the epochs of
its stages, each with its validation. ``former default`` is SSLMM with two passes of the teacher instead of one, and
twice the epochs of pre-training, whose contrast has two random subsets for its views.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from common import QUICK, ROOT, begin, find_data, header, machine, options, outcome, row

from gmsa.config import Config, load_config
from gmsa.runs.prepare import prepare
from gmsa.training.examples import Example
from gmsa.training.optimization.ema import MovingAverage
from gmsa.training.optimization.optimizer import build_optimizer, build_schedule
from gmsa.training.state import TrainState
from gmsa.training.step import training_step
from gmsa.training.tasks import FineTuning, Pretraining, Task

SEED = 1111
SEMI_IIN = ("model.name=semi_iin", "protocol.name=supervised", "pretrain.epochs=0", "reconstruction.weight=0")
FORMER = ("consistency.passes=2", "pretrain.epochs=10", "pretrain.contrast=subsets")
WARM = 2
"""Steps of each stage before any is timed, and a validation."""
CONDITIONS = {"nothing missing": "none", "eta 0.5": "eta:0.5"}
MOST = 5.0
"""Times a supervised training that SSLMM may take."""


class Stage(NamedTuple):
    """A stage of a training."""

    name: str
    task: Task
    state: TrainState
    config: Config


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--rounds", type=int, default=2, help="epochs of each stage that are timed")
    arguments = parser.parse_args()
    arguments.threads, arguments.device = 1, "cpu"
    device, real = begin(arguments), find_data()
    data = f"data.path={real if real.is_file() else 'synthetic'}"
    given = [*QUICK, "pretrain.epochs=1"] if arguments.quick else [data]
    conditions = dict(list(CONDITIONS.items())[: 1 if arguments.quick else None])
    for condition, missing in conditions.items():
        here = [*given, f"data.missing={missing}"]
        trainings = {
            "semi_iin, supervised": stages([*here, "optim.ema=0.99", *SEMI_IIN], device),
            "sslmm": stages(here, device),
            "sslmm, former default": stages([*FORMER, *here], device),
        }
        seconds = timed([s for of in trainings.values() for s in of], 1 if arguments.quick else arguments.rounds)
        header(f"{condition}:", "", "epochs", "steps each", "ms per step", "validation, s", "CPU seconds", "ratio")
        base, ratios = 0.0, {}
        for name, of in trainings.items():
            wholes = []
            for stage in of:
                task, (step, score) = stage.task, np.median(seconds.pop(0), axis=0)
                wholes.append(task.epochs * (task.per_epoch * step + score))
                cells = [task.epochs, task.per_epoch, f"{1e3 * step:.1f}", f"{score:.2f}", f"{wholes[-1]:.1f}"]
                row(f"{name}: {stage.name}", *cells, f"{wholes[-1] / (base or wholes[-1]):.2f}")
            base, ratios[name] = base or sum(wholes), sum(wholes) / (base or sum(wholes))
            if len(of) > 1:
                row(f"**{name}**", "", "", "", "", f"{sum(wholes):.1f}", f"**{ratios[name]:.2f}**")
        print()
        for name in list(trainings)[1:]:
            outcome(f"{name} at most {MOST:g} times supervised", f"{ratios[name]:.2f} times", ratios[name] <= MOST)
    print(f"\n{'Made up' if arguments.quick or not real.is_file() else real.name}.\n\n{machine()}")


def stages(overrides: Sequence[str], device: torch.device) -> list[Stage]:
    """The stages of a training of ``mosi_sslmm``, ready for their first step."""
    prepared = prepare(load_config(ROOT / "configs" / "mosi_sslmm.yaml", list(overrides), {}))
    config, dims = prepared.config, dict(prepared.corpus.dims)
    data, valid, context = prepared.training_data(config, SEED), prepared.splits["valid"], prepared.training_utterances
    found = []
    tasks: dict[str, Task] = {}
    if config.pretrain.epochs:
        tasks["pre-training"] = Pretraining(config, dims, context, valid, device)
    consistent = config.protocol.name == "sslmm"
    examples = [*data.labeled, *map(Example, data.pool if consistent else ())]
    tasks["fine-tuning"] = FineTuning(config, dims, examples, context, valid, device, consistent)
    for name, task in tasks.items():
        torch.manual_seed(SEED)
        model = task.build_module().train()
        optimizer = build_optimizer(model, config.optim)
        schedule = build_schedule(optimizer, task.epochs * task.per_epoch, config.optim)
        found.append(
            Stage(name, task, TrainState(model, optimizer, schedule, MovingAverage(model, config.optim.ema)), config)
        )
    return found


def timed(of: Sequence[Stage], rounds: int) -> list[list[tuple[float, float]]]:
    """Of each stage, in each round, the CPU seconds of a step with its data, and of scoring the validation split."""
    found: list[list[tuple[float, float]]] = [[] for _ in of]
    for name, task, state, config in of:
        for batch in islice(task.batches(SEED, name, 0), WARM):
            training_step(task, state, batch, 0.5, config.optim)
        task.score(state.model)
    for epoch in range(1, rounds + 1):
        for place, (name, task, state, config) in enumerate(of):
            began = time.process_time()
            for batch in task.batches(SEED, name, epoch):
                training_step(task, state, batch, 0.5, config.optim)
            trained = time.process_time()
            task.score(state.model)
            found[place].append(((trained - began) / task.per_epoch, time.process_time() - trained))
    return found


if __name__ == "__main__":
    main()
