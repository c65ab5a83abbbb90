"""One unattended run on a machine with a GPU: CUDA tests, epochs, predict, determinism, step, layer.

    python benchmarks/gpu.py
    python benchmarks/gpu.py --device cpu --quick
    python benchmarks/gpu.py --parts step,epochs

It takes twelve minutes at most (``--minutes``), with whatever torch is there: a part that would not end in time is
left out, and said.
Features are made up in the sizes of CMU-MOSI, CMU-MOSEI and CH-SIMS (utterances, and most steps in MMSA's unaligned
files) with the paper's dimensions. The tables go to the terminal and to ``benchmarks/results/gpu.md`` (``--out``).
"""

from __future__ import annotations

import io
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import PAPER, ROOT, UTTERANCES, begin, header, machine, made_up, options, outcome, paper_lengths, row

import gmsa
from gmsa.data import Row, Utterance, write_store

QUICK = {"optim.epochs": 1, "optim.min_steps": 0, "model.channels": 16, "model.heads": 2, "self_training.k": 3}
PARTS = ("tests", "epochs", "stages", "predict", "determinism", "step", "layer")
STAGES = {
    "semi_iin: supervised, then self-training": ("mosi_graph", {"data.label_ratio": 0.5}),
    "sslmm: pre-training, then fine-tuning": ("mosi_sslmm", {"data.missing": "eta:0.5"}),
}


class Clock:
    """What is left of the time."""

    def __init__(self, seconds: float) -> None:
        self.ends = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds."""
        return max(0.0, self.ends - time.monotonic())


def tests(device: torch.device, clock: Clock) -> None:
    """Runs the tests that need a GPU."""
    header("Tests that need a GPU", "", "result")
    if device.type != "cuda":
        row("CUDA tests", "left out: no GPU")
        return
    command = [sys.executable, "-m", "pytest", "-q", "-m", "cuda", "-p", "no:cacheprovider", str(ROOT / "tests")]
    command += ["--ignore", str(ROOT / "tests" / "media")]  # none there needs a GPU, and all need further packages
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=min(240, clock.left), cwd=ROOT
        )
        row("CUDA tests", (done.stdout.strip().splitlines() or [done.stderr.strip()[-200:]])[-1].strip("= "))
    except subprocess.TimeoutExpired:
        row("CUDA tests", "left out: they took too long")


def other(name: str, device: torch.device, quick: bool, clock: Clock, seconds: float, *arguments: str) -> None:
    """Prints what another benchmark prints, if it takes that long at most."""
    command = [sys.executable, str(ROOT / "benchmarks" / f"{name}.py"), "--device", device.type, *arguments]
    command += ["--threads", str(torch.get_num_threads())]
    command += ["--quick"] if quick else []
    print(f"\n`python benchmarks/{name}.py {' '.join(command[2:])}`:")
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=min(seconds, clock.left))
    except subprocess.TimeoutExpired:
        print("\nleft out: it took too long")
        return
    last = (done.stderr.strip().splitlines() or [""])[-1]
    print(done.stdout if done.returncode == 0 else f"\nFAILED: {last}")


def corpus(name: str, folder: Path, quick: bool) -> Path:
    """A made-up corpus of that size, as a feature store."""
    counts = (48, 16, 16) if quick else UTTERANCES[name]
    if name == "mosei" and not quick:
        counts = (4096, 512, 512)  # a quarter, timed per step; its epoch is that times the number of steps

    def rows() -> Iterator[Row]:
        first = 0
        for split, count in zip(("train", "valid", "test"), counts, strict=True):
            for utterance in made_up(paper_lengths(name, count), PAPER, first):
                yield Row(split, utterance)
            first += 10 * count

    path = folder / name
    write_store(path, rows(), dict.fromkeys(PAPER, "float16"), "mosi", {}, "made up")
    return path


def train(config: str, data: Path, out: Path, device: torch.device, quick: bool, **changes: Any) -> gmsa.Run:
    """Trains one seed."""
    settings = {"optim.epochs": 2, "optim.min_steps": 0, "pretrain.epochs": 0} | (QUICK if quick else {}) | changes
    with redirect_stdout(io.StringIO()):
        return gmsa.fit(config, data=data, out=out, seeds=[1], device=device.type, overrides=settings)


def epochs(stores: dict[str, Path], folder: Path, device: torch.device, quick: bool, clock: Clock) -> None:
    """Times the last epoch of Semi-IIN on each corpus; the first one warms up. And on the CPU, at the size of MOSI."""
    header(
        "An epoch of Semi-IIN, 32 utterances a step, 128 channels, the paper's dimensions (the last epoch)",
        *("corpus", "on", "utterances", "steps", "s per epoch", "ms per step", "utterances per s"),
        "published epoch size",
    )
    for name, store in stores.items():
        recorded = {"run.cuda_graphs": True}
        ways: dict[str, tuple[torch.device, dict[str, Any]]] = {device.type: (device, {})}
        if device.type == "cuda":
            ways["cuda, steps recorded"] = device, recorded
            ways["cuda, steps recorded, batches built by 4 processes"] = device, recorded | {"run.workers": 4}
            if name == "mosi":
                threads = min(8, os.cpu_count() or 1)
                ways[f"the same machine's CPU, {threads} threads"] = torch.device("cpu"), {"run.threads": threads}
        for place, (way, (where, changes)) in enumerate(ways.items()):
            if clock.left < 90:
                row(name, way, *["left out: no time"] + [""] * 5)
                continue
            out = folder / f"epoch-{name}-{place}"
            run = train("mosi_graph", store, out, where, quick, **{"protocol.name": "supervised"} | changes)
            count = len(gmsa.data.Store(store).split("train"))
            steps = -(-count // run.config.optim.batch_size)
            seconds = run.history[-1]["seconds"]
            row(name, way, count, steps, f"{seconds:.2f}", f"{1e3 * seconds / steps:.2f}", f"{count / seconds:.0f}",
                UTTERANCES[name][0])  # fmt: skip


def stages(store: Path, folder: Path, device: torch.device, quick: bool, clock: Clock) -> None:
    """Times both stages of both systems at the size of CMU-MOSI."""
    header("Both stages at the size of CMU-MOSI, two epochs of each", "", "stage", "epochs", "s per epoch")
    for place, (title, (config, changes)) in enumerate(STAGES.items()):
        if clock.left < 90:
            row(title, "left out: no time", "", "")
            continue
        both = {"pretrain.epochs": 2} if "pre-training" in title else {}
        run = train(config, store, folder / f"stages-{place}", device, quick, **changes, **both)
        found: dict[str, list[float]] = {}
        for line in run.history:
            found.setdefault(line["stage"], []).append(line["seconds"])
        for stage, seconds in found.items():
            row(title, stage, len(seconds), f"{np.median(seconds):.2f}")


def predict(store: Path, folder: Path, device: torch.device, quick: bool) -> None:
    """Times prediction, reading and batching included; the first pass warms up."""
    run = train("mosi_graph", store, folder / "predict", device, quick, **{"protocol.name": "supervised"})
    utterances: list[Utterance] = list(gmsa.data.Store(store).split("train"))
    run.predict(utterances[:64], device=device.type)
    began = time.perf_counter()
    answers = run.predict(utterances, device=device.type)
    seconds = time.perf_counter() - began
    header("Prediction with one model", "utterances", "s", "utterances per s")
    row(len(answers), f"{seconds:.2f}", f"{len(answers) / seconds:.0f}")


def determinism(store: Path, folder: Path, device: torch.device, quick: bool, clock: Clock) -> None:
    """Trains twice with ``run.deterministic``, and twice without."""
    header("Two trainings with the same seed", "run.deterministic", "predictions equal to the byte", "s per epoch")
    for deterministic in (True, False):
        if clock.left < 120:
            row(deterministic, "left out: no time", "")
            continue
        runs = [
            train(
                "mosi_graph", store, folder / f"twice-{deterministic}-{i}", device, quick,
                **{"run.deterministic": deterministic, "protocol.name": "supervised"},
            )
            for i in range(2)
        ]  # fmt: skip
        same = len({(run.folder / "seed-1" / "predictions.csv").read_bytes() for run in runs}) == 1
        row(deterministic, same, f"{runs[1].history[-1]['seconds']:.2f}")
        if deterministic:
            outcome("equal bytes with run.deterministic", str(same), same)


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--minutes", type=float, default=12, help="longest run")
    parser.add_argument("--parts", default=",".join(PARTS), help="what to measure, by default all")
    parser.add_argument(
        "--out", type=Path, help="file for the tables (default: results/gpu.md; none with --quick or --parts)"
    )
    arguments = parser.parse_args()
    wanted: list[str] = arguments.parts.split(",")
    if unknown := [name for name in wanted if name not in PARTS]:
        parser.error(f"--parts: '{unknown[0]}' is none of {', '.join(PARTS)}")
    device, clock = begin(arguments), Clock(60 * arguments.minutes)
    quick: bool = arguments.quick
    printed: list[str] = []
    began = time.monotonic()
    out = arguments.out or (None if quick or len(wanted) < len(PARTS) else ROOT / "benchmarks" / "results" / "gpu.md")
    flags = json.dumps(" ".join(sys.argv[1:]))
    versions = f"{machine(device)}; {platform.platform()}; CUDA {torch.version.cuda}"

    def part(act: Callable[..., None], *given: Any) -> None:
        stream, start = io.StringIO(), time.monotonic()
        with redirect_stdout(stream):
            act(*given)
        print(f"{act.__name__}: {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
        printed.append(stream.getvalue())
        print(stream.getvalue(), end="", flush=True)
        if out is not None:  # after each part, so that a run that is stopped leaves what it measured
            tables = "".join(printed)
            last = f"{versions}; {time.monotonic() - began:.0f} s"
            out.write_text(f"# On a GPU\n\n`python benchmarks/gpu.py`, arguments {flags}.\n{tables}\n{last}\n")

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        stores: dict[str, Path] = {}
        if {*wanted} & {"epochs", "stages", "predict", "determinism"}:
            stores = {corpus_name: corpus(corpus_name, folder, quick) for corpus_name in UTTERANCES}
        given: dict[str, tuple[Callable[..., None], tuple[Any, ...]]] = {
            "tests": (tests, (device, clock)),
            "epochs": (epochs, (stores, folder, device, quick, clock)),
            "stages": (stages, (stores.get("mosi"), folder, device, quick, clock)),
            "predict": (predict, (stores.get("mosi"), folder, device, quick)),
            "determinism": (determinism, (stores.get("mosi"), folder, device, quick, clock)),
            "step": (other, ("step", device, quick, clock, 150)),
            "layer": (other, ("layer", device, quick, clock, 240)),
        }
        for name in wanted:
            act, values = given[name]
            part(act, *values)
    if out is not None:
        print(f"Wrote {out}")


if __name__ == "__main__":
    main()
