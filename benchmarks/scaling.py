"""Several processes on one machine: what a step costs, and how batch size and rate follow.

    python benchmarks/scaling.py --out runs/scaling

One process and two (gloo, one thread each) take a training step in turns: with the same batch (strong scaling), and
with twice the batch (weak scaling). Seconds of a core per process count what a process computes, waiting not included;
seconds of the clock depend on what else the machine does, so its load is told. Then trainings with twice the batch and
several rates, scored on validation. One that is there already is not repeated.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import (
    QUICK,
    ROOT,
    SEEDS,
    add_quick,
    cell,
    header,
    machine,
    real_data,
    row,
    run,
    spread,
    training_utterances,
)
from roofline import SETTINGS, utterances_of

from gmsa.config import load_config
from gmsa.data import Target
from gmsa.models import build_model
from gmsa.system.distributed import join
from gmsa.system.memory import keep_freed_memory
from gmsa.training.batches import Shard
from gmsa.training.examples import labeled_examples
from gmsa.training.optimization.ema import MovingAverage
from gmsa.training.optimization.optimizer import build_optimizer, build_schedule
from gmsa.training.state import TrainState
from gmsa.training.step import training_step
from gmsa.training.tasks import FineTuning

BATCH = 32
CASES = {"one": (1, BATCH), "strong": (2, BATCH), "weak": (2, 2 * BATCH)}
"""Processes, and utterances of a step of the whole job."""
ROWS = {
    "one": "one process",
    "strong": "two processes, the same batch (strong)",
    "weak": "two processes, twice the batch (weak)",
}
RATES = {"the same": 1.0, "times 1.41": 2**0.5, "times 2": 2.0}
"""Rates of a batch of twice the size, as multiples of that of one."""


def work(data: str, batch: int, count: int) -> None:
    """A process of a job: takes as many steps as it reads, and says what they cost."""
    torch.set_num_threads(1)
    keep_freed_memory()
    overrides = [f"optim.batch_size={batch}"]
    if data == "mosi":
        found, dims, config, _ = training_utterances("mosi", *overrides)
        utterances = found[:count]
    else:
        utterances, dims, config = utterances_of(SETTINGS[-1], count, *overrides)
    group, device = join(torch.device("cpu"))
    task = FineTuning(config, dims, labeled_examples(utterances, Target()), (), (), device)
    torch.manual_seed(0)
    model = build_model(dims, config).train()
    optimizer = build_optimizer(model, config.optim)
    state = TrainState(
        model, optimizer, build_schedule(optimizer, 10**6, config.optim), MovingAverage(model, config.optim.ema)
    )
    torch.manual_seed(group.rank)
    epoch, batches = 0, iter(())
    print("ready", flush=True)
    for line in sys.stdin:
        laps = []
        for _ in range(int(line)):
            began, wall = time.process_time(), time.perf_counter()
            share = next(batches, None)
            if share is None:
                epoch += 1
                batches = iter(task.batches(0, epoch, shard=Shard(rank=group.rank, world=group.world)))
                share = next(batches)
            training_step(task, state, share, 0.0, config.optim, group)
            laps.append((time.process_time() - began, time.perf_counter() - wall))
        print(json.dumps(laps), flush=True)
    group.close()


class Job:
    """The processes of a case, each of which waits to be told how many steps to take."""

    def __init__(self, case: str, data: str, count: int) -> None:
        world, self.batch = CASES[case]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        given = {"WORLD_SIZE": world, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": 1}
        self.processes = []
        for rank in range(world):
            environment = (
                os.environ | {k: str(v) for k, v in given.items()} | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            )
            environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), environment.get("PYTHONPATH", "")])
            command = [sys.executable, __file__, "--worker", data, str(self.batch), str(count)]
            pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
            self.processes.append(subprocess.Popen(command, env=environment, **pipes))
        for process in self.processes:
            self._read(process)

    def _read(self, process: subprocess.Popen[str]) -> str:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise SystemExit(f"a process ended with exit code {process.wait()}")
        return line

    def take(self, steps: int) -> np.ndarray:
        """Seconds of the core and of the clock of each step of each process ``[processes, steps, 2]``."""
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.write(f"{steps}\n")
            process.stdin.flush()
        return np.array([json.loads(self._read(process)) for process in self.processes])

    def end(self) -> None:
        """Lets the processes end."""
        for process in self.processes:
            process.communicate()


def steps(data: str, title: str, quick: bool) -> None:
    """Prints what a step costs in each case."""
    count, rounds, each = (64, 1, 1) if quick else (512, 8, 6)
    began = os.getloadavg()[0]
    jobs = {case: Job(case, data, count) for case in CASES}
    found: dict[str, list[np.ndarray]] = {case: [] for case in CASES}
    for turn in range(rounds + 1):
        for case, job in jobs.items():
            laps = job.take(each)
            if turn:
                found[case].append(laps)
    for job in jobs.values():
        job.end()
    header(
        f"{title}. Medians [quartiles]; load of the machine {began:.1f} before, {os.getloadavg()[0]:.1f} after",
        *("", "utterances per step", "CPU ms per step and process", "CPU ms per utterance, all processes"),
        *("efficiency in CPU time", "ms of the clock per step"),
    )
    alone = 0.0
    for case, parts in found.items():
        batch = CASES[case][1]
        laps = 1e3 * np.concatenate(parts, axis=1)
        per_utterance = float(np.median(laps[..., 0].sum(0))) / batch
        alone = alone or per_utterance
        clock = spread(laps[..., 1].max(0))
        row(
            ROWS[case],
            batch,
            spread(laps[..., 0].ravel()),
            f"{per_utterance:.2f}",
            f"{alone / per_utterance:.0%}",
            clock,
        )


def rates(out: Path, quick: bool) -> None:
    """Prints the validation MAE with twice the batch, by rate."""
    given = [*QUICK] if quick else [f"data.path={real_data()}"]
    given += ["protocol.name=supervised"]
    seeds = SEEDS[:1] if quick else SEEDS[:3]
    rate = load_config(ROOT / "configs" / "mosi_graph.yaml", ["data.path=synthetic"], {}).optim.lr
    header(
        f"Semi-IIN on labels alone, {len(seeds)} seeds, by batch and rate:", "batch", "rate", "valid MAE", "test MAE"
    )
    variants = {(BATCH, "the same"): 1.0} | {(2 * BATCH, name): factor for name, factor in RATES.items()}
    for place, ((batch, name), factor) in enumerate(variants.items()):
        if quick and place:
            continue
        settings = [*given, f"optim.batch_size={batch}", f"optim.lr={rate * factor:.6g}"]
        scores = run(out / f"{batch}-{place}", "mosi_graph.yaml", seeds, settings)
        row(batch, f"{name}: {rate * factor:.2g}", cell(scores["valid"]["MAE"]), cell(scores["test"]["MAE"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/scaling"))
    parser.add_argument("--part", choices=("steps", "rates"), help="one part alone")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    add_quick(parser)
    options = parser.parse_args()
    if options.worker:
        data, batch, count = options.worker
        work(data, int(batch), int(count))
        return
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    if options.part != "rates":
        steps("mosi", "A step on mosi_dev.pkl, or made-up data like it", options.quick)
        if not options.quick:
            steps("mosei", "A step on made-up arrays of CMU-MOSEI's dimensions", options.quick)
    if options.part != "steps":
        rates(options.out, options.quick)
    print(f"\n{machine()}")


if __name__ == "__main__":
    main()
