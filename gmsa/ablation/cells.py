"""The cells of an ablation: one variant with one seed, on one fold, each trained in a process of its own."""

from __future__ import annotations

import csv
import io
import math
import multiprocessing
import signal
import sys
import traceback
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from multiprocessing import connection, resource_tracker
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gmsa.ablation.variants import Variant
from gmsa.config import Config
from gmsa.config.components import component_name
from gmsa.errors import GmsaError
from gmsa.metrics import COLUMNS
from gmsa.registry import load_plugins, loaded_plugins
from gmsa.reports.summary import SCORED_SPLITS
from gmsa.runs.folder import Run
from gmsa.runs.resume import check_files, check_parts, resumed
from gmsa.runs.train import train
from gmsa.system.device import set_up
from gmsa.system.files import check_log, check_out_parts, make_folder, remove, write_json
from gmsa.system.processes import end_with_parent, interrupts_held, safe_path, speak_into
from gmsa.system.reading import MOST_TEXT, exists, is_folder, parse_json, read_bytes, read_text

COSTS = ("nodes", "edges", "seconds_per_epoch", "peak_memory_mb")
"""Entries of a record that a comparison averages over the seeds."""
NUMBERS = ("parameters", *COSTS, "epochs", "train_seconds")
"""Entries of a record that are numbers."""
MOST_STREAMS = 100
"""Streams of a model, at most."""
LARGEST = 1e300
"""Above all numbers of a record; Python's whole numbers have no end."""
LOG = "log.txt"
"""Name of the file that a cell's process speaks into."""
MOST_TABLE = 1 << 30
"""Bytes of a cell's predictions, at most: ten million utterances."""
Record = dict[str, Any]
"""What ``cell.json`` holds: ``state`` is ``done``, or ``failed`` with a ``reason``."""
NOT_RUN = "not run"
"""State of a cell that was left out and is not done; no file has it."""
CellKey = tuple[str, int | None, int]
"""Name of the variant, fold (None without cross-validation) and seed of a cell."""


@dataclass(frozen=True)
class Cell:
    """A variant with a seed, on a fold of cross-validation if there is any, and the run folder that it trains into."""

    variant: Variant
    seed: int
    folder: Path
    graph: dict[str, Any] = field(default_factory=dict)
    """Mean ``nodes`` and ``edges`` of the variant's graphs, and ``stream_edges``, by stream."""
    fold: int | None = None
    """The part that is the test split, or None without cross-validation."""

    @property
    def config(self) -> Config:
        """The variant with this seed alone, on this fold."""
        config = replace(self.variant.config, run=replace(self.variant.config.run, seeds=(self.seed,)))
        if self.fold is None:
            return config
        return replace(config, data=replace(config.data, split=replace(config.data.split, fold=self.fold)))

    @property
    def key(self) -> CellKey:
        """Name of the variant, fold and seed, which tell the cell from the others."""
        return self.variant.name, self.fold, self.seed

    @property
    def place(self) -> str:
        """Which of the variant's cells it is, in words."""
        return f"seed {self.seed}" if self.fold is None else f"fold {self.fold}, seed {self.seed}"

    @property
    def head(self) -> Record:
        """The entries of its record that say which cell it is."""
        fold = {} if self.fold is None else {"fold": self.fold}
        return {"setting": self.variant.name, **fold, "seed": self.seed}

    @property
    def predictions(self) -> Path:
        """The cell's ``predictions.csv``."""
        return self.folder / f"seed-{self.seed}" / "predictions.csv"

    @property
    def started(self) -> bool:
        """Whether the folder holds a run to resume."""
        return exists(self.folder / "config.yaml")

    def record(self) -> Record | None:
        """The cell's record; None where it has not ended yet, or is damaged: resuming the cell writes it anew.

        Raises:
            RunError: there is one that cannot be read.
        """
        path = self.folder / "cell.json"
        if not exists(path):
            return None
        content = read_bytes(path, MOST_TEXT, inside=self.folder)
        try:
            record = parse_json(content.decode("utf-8"))
        except ValueError:
            return None
        return record if isinstance(record, dict) and self._fits(record) else None

    def not_run(self) -> Record:
        """The record of a cell that is left out and not done: where it failed before, that of its failure."""
        record = self.record()
        return record if record is not None and record["state"] == "failed" else {"state": NOT_RUN, **self.head}

    def _fits(self, record: Record) -> bool:
        """Whether a record is of this cell, and holds all that a comparison reads."""
        if (record.get("setting"), record.get("fold"), record.get("seed")) != self.key:
            return False
        if record.get("state") == "failed":
            return isinstance(record.get("reason"), str)
        metrics = {*COLUMNS[self.config.target.chosen_metrics], *map(component_name, self.config.run.metrics)}
        if record.get("state") != "done" or not isinstance(record.get("device"), str):
            return False
        streams = record.get("stream_edges", {})  # an earlier gmsa has none
        if not isinstance(streams, dict) or len(streams) > MOST_STREAMS:
            return False
        numbers = [*map(record.get, NUMBERS), *streams.values()]
        for split in SCORED_SPLITS:
            scores = record.get(split)
            if not isinstance(scores, dict) or scores.keys() != metrics:
                return False
            numbers += scores.values()
        return all(isinstance(n, (int, float)) and not isinstance(n, bool) and abs(n) < LARGEST for n in numbers)

    @property
    def done(self) -> bool:
        """Whether the cell was trained to its end, and its record and its predictions are whole and agree.

        Raises:
            RunError: they cannot be read.
        """
        record = self.record()
        if record is None or record["state"] != "done" or not exists(self.predictions):
            return False
        try:
            return all(
                math.isclose(self.errors(split).mean(), _mean_error(record[split]), rel_tol=1e-4, abs_tol=1e-9)
                for split in SCORED_SPLITS
            )
        except ValueError:
            return False

    def errors(self, split: str) -> np.ndarray:
        """Errors for the split's N utterances, of ``predictions.csv``.

        Of an intensity absolute ones, as the target's MAE counts them; of classes, 1 where the prediction is wrong.

        Raises:
            RunError: the file cannot be read.
            ValueError: it is damaged.
        """
        predictions, labels = self.answers(split)
        if self.config.target.is_classes:
            return (predictions != labels).astype(np.float64)
        if self.config.target.chosen_metrics == "sims":
            predictions, labels = predictions.clip(-1, 1), labels.clip(-1, 1)
        return np.abs(predictions - labels)

    def answers(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Predictions and labels of the split's N utterances, of ``predictions.csv``: intensities, or names of classes.

        Raises:
            RunError: the file cannot be read.
            ValueError: it is damaged.
        """
        pairs = [(prediction, label) for _, prediction, label in self._rows(split)]
        if not pairs or any(None in pair for pair in pairs):
            raise ValueError(f"values of the split '{split}' are missing")
        is_classes = self.config.target.is_classes
        values = np.array(pairs, dtype=object if is_classes else np.float64)
        if not is_classes and not np.isfinite(values).all():
            raise ValueError("a value is not finite")
        return values[:, 0], values[:, 1]

    def ids(self, split: str) -> list[str]:
        """Ids of the utterances of :meth:`errors`; it raises the same."""
        return [identity for identity, _, _ in self._rows(split)]

    def _rows(self, split: str) -> list[tuple[str, str, str]]:
        """Id, prediction and label of each utterance of a split."""
        table = io.StringIO(read_text(self.predictions, MOST_TABLE, inside=self.folder), newline="")
        try:
            rows = [row for row in csv.DictReader(table) if row["split"] == split]
            return [(row.get("id", ""), row["prediction"], row["label"]) for row in rows]
        except (csv.Error, KeyError) as error:
            raise ValueError(f"not predictions: {error}") from None

    def check_out(self) -> None:
        """Checks that the cell's folder and all that is in it already can be written.

        Raises:
            RunError: names what cannot.
        """
        above = self.folder.parents[: 1 if self.fold is None else 2]  # below the folder of all cells
        for part in (*reversed(above), self.folder):
            check_out_parts(part.parent, part.name)
        check_parts(self.folder)
        if is_folder(self.folder):
            check_log(self.folder / LOG)

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
        check_files(Run(self.folder), files)


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
                remove(cell.folder / "cell.json")
                process = context.Process(target=run_cell, args=(cell, loaded_plugins()))
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
    make_folder(cell.folder)
    speak_into(cell.folder / LOG)
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
    history = Run(cell.folder).history
    seconds = [row["seconds"] for row in history if not math.isnan(row["loss"])]  # not of stages that train nothing
    return cell.head | {
        "device": device.type,
        "parameters": summary["parameters"],
        **cell.graph,
        "epochs": len(seconds),
        "train_seconds": sum(row["seconds"] for row in history),
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


def _mean_error(scores: Mapping[str, float]) -> float:
    """The mean of a cell's errors, by its metrics: MAE, or the share of wrong classes."""
    return scores["MAE"] if "MAE" in scores else 1 - scores["accuracy"]


def _failed(cell: Cell, reason: str) -> Record:
    return {"state": "failed", "reason": reason, **cell.head}


def _killed(cell: Cell, exit_code: int | None) -> Record:
    """Records a cell whose process exited without a record."""
    reason = f"its process ended with exit code {exit_code}; see {cell.folder / LOG}"
    if exit_code is not None and exit_code < 0:
        name = signal.Signals(-exit_code).name
        reason = f"its process was killed by {name}"
        reason += ", perhaps because memory ran out" if name == "SIGKILL" else ""
    record = _failed(cell, reason)
    write_json(make_folder(cell.folder) / "cell.json", record)
    return record
