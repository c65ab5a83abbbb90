"""What the benchmarks share: data, runs that are not repeated, time and memory of a step, tables."""

from __future__ import annotations

import argparse
import csv
import gc
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch_geometric
import yaml

from gmsa.config import Config, load_config
from gmsa.data import Utterance
from gmsa.runs.prepare import prepare
from gmsa.system.memory import keep_freed_memory

ROOT = Path(__file__).parents[1]
SEEDS = (1111, 1112, 1113, 1114, 1115)
QUICK = (
    *("data.path=synthetic", "data.name=synthetic", "optim.epochs=1", "optim.min_steps=0"),
    *("model.channels=16", "model.heads=2", "self_training.k=3", "distillation.teachers=2"),
)
"""Settings with which a training takes a few seconds: ``--quick``. Its scores mean nothing."""
MIB = 2**20


def find_data(name: str = "mosi_dev.pkl") -> Path:
    """Where a real data file is looked for: in ``$GMSA_REAL_DATA``, or in the working directory."""
    return Path(os.environ.get("GMSA_REAL_DATA") or ".") / name


def real_data(name: str = "mosi_dev.pkl") -> Path:
    """A real data file, which must be there."""
    path = find_data(name)
    if not path.is_file():
        sys.exit(f"{path} does not exist; point GMSA_REAL_DATA at the folder that holds {name}")
    return path


MOSI_DEV = {"text": 384, "audio": 73, "vision": 100}
PAPER = {"text": 1024, "audio": 1024, "vision": 256}
"""Dimensions of the features in Semi-IIN: RoBERTa-large, HuBERT, FAb-Net."""
LONGEST = {"mosi": (50, 500, 375), "mosei": (50, 500, 375), "sims": (39, 400, 55)}
"""Most steps of text, audio and vision in MMSA's unaligned files."""
UTTERANCES = {"mosi": (1284, 229, 686), "mosei": (16326, 1871, 4659), "sims": (1368, 456, 457)}
"""Utterances of their training, validation and test splits."""
ALIGNED = {"text": 768, "audio": 5, "vision": 20}


def training_utterances(kind: str, *overrides: str) -> tuple[list[Utterance], dict[str, int], Config, str]:
    """Utterances to time a model on, the dimensions of their features, its settings, and what the data is.

    Args:
        kind: ``mosi``: the training split of ``mosi_dev.pkl``, or made up with its lengths where it is absent;
            ``aligned``: made up, with as many steps of audio and vision as of text, as MMSA's ``aligned_50.pkl`` has.
        overrides: of ``configs/mosi_graph.yaml``.
    """
    config = load_config(ROOT / "configs" / "mosi_graph.yaml", ["data.path=synthetic", *overrides], {})
    path = find_data()
    if kind == "mosi" and path.is_file():
        config = load_config(ROOT / "configs" / "mosi_graph.yaml", [f"data.path={path}", *overrides], {})
        found = prepare(config)
        utterances = list(found.splits["train"])
        return utterances, dict(found.corpus.dims), config, f"{path.name}, training split"
    rng = np.random.default_rng(0)
    words = drawn_lengths(rng, 1045)
    if kind == "aligned":
        lengths, dims = np.stack([words] * 3, axis=1), ALIGNED
        what = "made up, text lengths drawn like CMU-MOSI's, audio and vision aligned with the words"
    else:
        lengths, dims = np.stack([words, np.ones_like(words), rng.random(len(words)) < 0.28], axis=1), MOSI_DEV
        what = "made up, lengths drawn like mosi_dev.pkl's"
    return made_up(lengths, dims), dims, config, what


def drawn_lengths(rng: np.random.Generator, count: int) -> np.ndarray:
    """Words of utterances like CMU-MOSI's: log-normal, median 12, quartiles 9 and 18 or so, 50 at most."""
    return np.clip(np.round(rng.lognormal(np.log(12), 0.52, count)), 1, 50).astype(int)


def paper_lengths(corpus: str, count: int) -> np.ndarray:
    """Steps ``[N, 3]`` of utterances like a corpus's: words as in CMU-MOSI, audio and vision in proportion to them."""
    words = drawn_lengths(np.random.default_rng(0), count)
    text, audio, vision = LONGEST[corpus]
    share = words / words.max()
    rows = [np.minimum(words, text), np.ceil(audio * share), np.ceil(vision * share)]
    return np.stack(rows, axis=1).astype(int)


def made_up(lengths: np.ndarray, dims: Mapping[str, int], first: int = 0) -> list[Utterance]:
    """Utterances of noise with ``lengths`` ``[N, 3]`` of text, audio and vision, ten clips to a video.

    Args:
        first: number of the first, from which ids are made.
    """
    torch.manual_seed(0)
    labels = torch.empty(len(lengths)).uniform_(-3, 3).tolist()
    return [
        Utterance(
            f"v{i // 10}$_${i % 10}", {m: torch.randn(int(n), dims[m]) for m, n in zip(dims, row, strict=True)}, label
        )
        for i, (row, label) in enumerate(zip(lengths.tolist(), labels, strict=True), start=first)
    ]


def add_quick(parser: argparse.ArgumentParser) -> None:
    """Adds ``--quick`` to a benchmark of trainings."""
    parser.add_argument("--quick", action="store_true", help="tiny trainings, to see that it runs: scores mean nothing")


def run(folder: Path, config: str, seeds: Sequence[int], overrides: Sequence[str]) -> dict[str, Any]:
    """Trains with the command, or goes on with a run that was stopped; returns its ``summary.json``."""
    if not (folder / "summary.json").exists():
        command = [sys.executable, "-m", "gmsa.train", "--config", str(ROOT / "configs" / config), "--out", str(folder)]
        command += ["--seeds", ",".join(map(str, seeds))]
        for override in overrides:
            command += ["--set", override]
        if (folder / "config.yaml").exists():
            command.append("--resume")
        print("$", " ".join(command[1:]), file=sys.stderr, flush=True)
        subprocess.run(command, check=True, stdout=sys.stderr)
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return summary


def text_settings() -> dict[str, Any]:
    """What the packaged config with a text encoder sets beside it, by dotted key."""
    groups = yaml.safe_load((ROOT / "configs" / "mosi_text.yaml").read_text())
    del groups["base"]
    settings = {f"{group}.{key}": value for group, chosen in groups.items() for key, value in chosen.items()}
    del settings["model.text_encoder"]
    return settings


def errors(folder: Path, seeds: Sequence[int], split: str) -> np.ndarray:
    """Absolute errors of a run's final models on a split: ``[seeds, utterances]``."""
    rows = []
    for seed in seeds:
        with open(folder / f"seed-{seed}" / "predictions.csv", newline="") as file:
            chosen = [row for row in csv.DictReader(file) if row["split"] == split]
        rows.append([abs(float(row["prediction"]) - float(row["label"])) for row in chosen])
    return np.array(rows)


def cell(values: dict[str, Any], scale: float = 1.0, digits: int = 3) -> str:
    """A metric of a summary as mean ± standard deviation."""
    return f"{values['mean'] * scale:.{digits}f} ± {values['std'] * scale:.{digits}f}"


def processor() -> str:
    """Model of the processor."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if "model name" in line:
                return line.split(":")[1].strip()
    return platform.processor() or platform.machine()


def versions() -> str:
    """Versions of Python and of what the numbers depend on most."""
    return (
        f"Python {platform.python_version()}, torch {torch.__version__}, torch_geometric {torch_geometric.__version__}"
    )


def commit() -> str:
    """The commit of the code, and whether there are changes beside it; new results are none."""
    git = ["git", "-C", str(ROOT)]
    found = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    if found.returncode:
        return "not recorded"
    paths = [".", ":!benchmarks/results"]
    changes = subprocess.run(
        [*git, "status", "--porcelain", "--untracked-files=no", "--", *paths],
        capture_output=True,
        text=True,
        check=False,
    )
    return found.stdout.strip() + (" with changes" if changes.stdout.strip() else "")


def machine(device: torch.device | None = None) -> str:
    """Processor, threads, versions and commit, for the line under a table."""
    name = processor()
    if device is not None and device.type == "cuda":
        name = f"{torch.cuda.get_device_name(device)}; {name}"
    return f"{name}, {torch.get_num_threads()} threads; {versions()}; commit {commit()}"


Step = Callable[[], Any]


def options(description: str | None) -> argparse.ArgumentParser:
    """The options that every benchmark of speed has."""
    first = (description or "").partition("\n")[0]
    parser = argparse.ArgumentParser(description=first, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to run")
    parser.add_argument("--threads", type=int, default=2, help="threads on the CPU")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it runs: times mean nothing")
    return parser


def begin(arguments: argparse.Namespace) -> torch.device:
    """Sets the threads, picks the device, and checks the measure of memory there."""
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()  # as gmsa's commands do
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler behind peak_memory talks at every start
    there = torch.cuda.is_available()
    if arguments.device == "cuda" and not there:
        sys.exit("no CUDA device is available; use --device cpu")
    device = torch.device("cuda" if there and arguments.device != "cpu" else "cpu")
    _check_peak_memory(device)
    return device


def synchronize(device: torch.device) -> None:
    """Waits for a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


CPU_SECONDS = time.process_time
"""A clock that stands while other processes have the core."""


def measure(
    steps: Mapping[str, Step],
    device: torch.device,
    quick: bool = False,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, np.ndarray]:
    """Milliseconds of each step ``[repeats]``.

    They take turns, so that a machine that gets busy slows all alike: a round to warm up, then at least 3 and at
    most 51 until they took two seconds; or 2 if it is to be quick.
    """
    least, most, seconds = (2, 2, 0.0) if quick else (3, 51, 2.0)
    times: dict[str, list[float]] = {name: [] for name in steps}
    began, rounds = clock(), 0
    while rounds <= least or (rounds <= most and clock() - began < seconds):
        for name, step in steps.items():
            synchronize(device)
            start = clock()
            step()
            synchronize(device)
            times[name].append(1e3 * (clock() - start))
        rounds += 1
        if rounds == 1:
            began = clock()
    return {name: np.array(found[1:]) for name, found in times.items()}


def peak_memory(step: Step, device: torch.device) -> int:
    """Most bytes that torch holds at any moment of a step, beyond what it held before.

    On a CPU, from each allocation and release that torch's profiler records. What a library allocates by itself
    (oneDNN's or MKL's own buffers) is not torch's and not seen; nor is it when what was held before is released, so
    a step should start without gradients.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step()
        torch.cuda.synchronize(device)
        return int(torch.cuda.max_memory_allocated(device) - before)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = np.cumsum([e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())])
    return int(max(0, held.max(initial=0)))


def _check_peak_memory(device: torch.device) -> None:
    """A MiB and 3 more at once, then 2 in the place of the 3, and a gradient: 4 MiB at most."""

    def step() -> None:
        first = torch.empty(MIB, dtype=torch.uint8, device=device)
        second = torch.empty(3 * MIB, dtype=torch.uint8, device=device)
        del second
        third = torch.zeros(MIB // 4, device=device, requires_grad=True)
        third.sum().backward()
        del first, third

    peak_memory(step, device)  # The profiler's own start holds memory once.
    found = peak_memory(step, device)
    assert found == 4 * MIB, f"the peak of 4 MiB is measured as {found / MIB} MiB"


def spread(values: np.ndarray, digits: int = 1) -> str:
    """Median and quartiles."""
    low, middle, high = np.percentile(values, [25, 50, 75])
    return f"{middle:.{digits}f} [{low:.{digits}f}–{high:.{digits}f}]"


def mib(size: float) -> str:
    """Bytes in MiB."""
    return f"{size / MIB:.1f}" if size < 100 * MIB else f"{size / MIB:.0f}"


def exponent(x: Sequence[float], y: Sequence[float]) -> float:
    """Of y as a power of x: the slope of a line through their logarithms."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def row(*cells: Any) -> None:
    """Prints a row of a Markdown table at once."""
    print(f"| {' | '.join(map(str, cells))} |", flush=True)


def header(title: str, *names: str) -> None:
    """Prints a title and the head of a Markdown table: its first column to the left, the others to the right."""
    print(f"\n{title}\n")
    row(*names)
    row(":--", *["--:"] * (len(names) - 1))


def outcome(asked: str, measured: str, met: bool) -> None:
    """Prints what was asked for beside what came out."""
    print(f"- asked: {asked}; measured: {measured}: {'met' if met else 'NOT MET'}")
