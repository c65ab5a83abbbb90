"""The cells of an ablation: one variant with one seed each, trained in a process of its own."""

from __future__ import annotations

import json
import multiprocessing
import signal
import sys
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from multiprocessing import connection, resource_tracker
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import torch

from gmsa.ablation.variants import Variant
from gmsa.config import Config
from gmsa.errors import GmsaError
from gmsa.registry import load_plugins, loaded_plugins
from gmsa.runs.resume import check_files, resumed
from gmsa.runs.train import train
from gmsa.system.device import set_up
from gmsa.system.files import write_json
from gmsa.system.processes import end_with_parent, interrupts_held, safe_path, speak_into

Record = dict[str, Any]
"""What ``cell.json`` holds: ``state`` is ``done``, or ``failed`` with a ``reason``."""


@dataclass(frozen=True)
class Cell:
    """A variant with a seed, and the run folder that it trains into."""

    variant: Variant
    seed: int
    folder: Path
    graph: dict[str, float] = field(default_factory=dict)
    """Mean ``nodes`` and ``edges`` of the variant's graphs."""

    @property
    def config(self) -> Config:
        """The variant with this seed alone."""
        return replace(self.variant.config, run=replace(self.variant.config.run, seeds=(self.seed,)))

    @property
    def predictions(self) -> Path:
        """The cell's ``predictions.csv``."""
        return self.folder / f"seed-{self.seed}" / "predictions.csv"

    @property
    def started(self) -> bool:
        """Whether the folder holds a run to resume."""
        return (self.folder / "config.yaml").exists()

    def record(self) -> Record | None:
        """The cell's record; None where it has not ended yet."""
        try:
            record = json.loads((self.folder / "cell.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):  # a damaged one is written again by training on
            return None
        return record if isinstance(record, dict) and record.get("state") in ("done", "failed") else None

    @property
    def done(self) -> bool:
        """Whether the cell was trained to its end."""
        return (self.record() or {}).get("state") == "done" and self.predictions.exists()

    def check(self, files: dict[str, str | None]) -> None:
        """Checks that the folder was made with these settings and this data.

        Args:
            files: SHA-256 of the data files, as ``describe_files`` gives them.

        Raises:
            RunError: names what differs.
        """
        if not self.started:
            return
        resumed(self.folder, self.config)
        check_files(self.folder, files)


def run_cells(cells: Sequence[Cell], jobs: int, ended: Callable[[Cell, Record], None]) -> None:
    """Trains cells, ``jobs`` at a time, each in a process of its own, and calls ``ended`` as each one ends.

    Separate processes measure the peak memory of each cell, and one that is killed leaves the others alone. An
    exception, Ctrl-C included, ends all of them.
    """
    context = multiprocessing.get_context("spawn")
    waiting = deque(cells)
    running: dict[Any, tuple[SpawnProcess, Cell]] = {}  # by what is ready when the process has ended
    with safe_path():
        resource_tracker.ensure_running()  # else the first start does it, and unblocks Ctrl-C meanwhile
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                cell = waiting.popleft()
                (cell.folder / "cell.json").unlink(missing_ok=True)
                process = context.Process(target=run_cell, args=(cell, loaded_plugins()), daemon=True)
                with interrupts_held(), safe_path():
                    process.start()
                    running[process.sentinel] = process, cell
            for sentinel in connection.wait(list(running)):
                process, cell = running.pop(sentinel)
                process.join()
                ended(cell, cell.record() or _killed(cell, process.exitcode))
    finally:
        for process, _ in running.values():
            process.kill()  # nothing is lost: all files are written whole or not at all
        for process, _ in running.values():
            process.join()


def run_cell(cell: Cell, plugins: Sequence[str] = ()) -> None:
    """Trains a cell in its process, with the output in ``log.txt``; the process ends with its parent.

    Args:
        plugins: modules that the parent has imported, beside those of the config: a spawned process knows no part that
            they register.
    """
    end_with_parent()
    cell.folder.mkdir(parents=True, exist_ok=True)
    speak_into(cell.folder / "log.txt")
    train_cell(cell, plugins)


def train_cell(cell: Cell, plugins: Sequence[str] = ()) -> Record:
    """Trains a cell, or resumes it; returns its record and writes it to ``cell.json``."""
    try:
        load_plugins([*cell.config.plugins, *plugins])
        record = {"state": "done"} | _train(cell)
    except Exception as error:  # whatever it is, the other cells are trained
        traceback.print_exc()
        first = str(error).strip().splitlines()[:1]
        reason = str(error) if isinstance(error, GmsaError) else ": ".join([type(error).__name__, *first])
        record = _failed(cell, reason)
    write_json(cell.folder / "cell.json", record)
    return record


def _train(cell: Cell) -> Record:
    for module in ("sklearn.metrics", "scipy.stats"):
        import_module(module)  # else its seconds would count as the first epoch's
    device = set_up(cell.config.run)
    summary = train(cell.config, cell.variant.name, cell.folder, resume=cell.started)
    history = (cell.folder / f"seed-{cell.seed}" / "history.jsonl").read_text(encoding="utf-8")
    seconds = [json.loads(line)["seconds"] for line in history.splitlines()]
    return {
        "setting": cell.variant.name,
        "seed": cell.seed,
        "device": device.type,
        "parameters": summary["parameters"],
        **cell.graph,
        "epochs": len(seconds),
        "train_seconds": sum(seconds),
        "seconds_per_epoch": sum(seconds) / len(seconds),
        "peak_memory_mb": peak_memory(device),
        "valid": {metric: spread["mean"] for metric, spread in summary["valid"].items()},
        "test": {metric: spread["mean"] for metric, spread in summary["test"].items()},
    }


def peak_memory(device: torch.device) -> float:
    """Most memory that this process had at once, in MB (10^6 bytes): of torch on CUDA, else all that was resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 1e6
    status = Path("/proc/self/status")
    if status.exists():
        # Not ru_maxrss: on Linux a new process inherits that of the one that started it.
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e6
    if sys.platform == "win32":
        import psutil

        return psutil.Process().memory_info().peak_wset / 1e6
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


def _failed(cell: Cell, reason: str) -> Record:
    return {"state": "failed", "reason": reason, "setting": cell.variant.name, "seed": cell.seed}


def _killed(cell: Cell, exit_code: int | None) -> Record:
    """Records a cell whose process exited without a record."""
    reason = f"its process ended with exit code {exit_code}; see {cell.folder / 'log.txt'}"
    if exit_code is not None and exit_code < 0:
        name = signal.Signals(-exit_code).name
        reason = f"its process was killed by {name}"
        reason += ", perhaps because memory ran out" if name == "SIGKILL" else ""
    record = _failed(cell, reason)
    cell.folder.mkdir(parents=True, exist_ok=True)
    write_json(cell.folder / "cell.json", record)
    return record
