"""What the benchmarks share: runs that are not repeated, errors per utterance, the machine's name."""

from __future__ import annotations

import csv
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).parents[1]
SEEDS = (1111, 1112, 1113, 1114, 1115)


def real_data(name: str = "mosi_dev.pkl") -> Path:
    """A real data file, from ``$GMSA_REAL_DATA`` or ``../shared/data``."""
    path = Path(os.environ.get("GMSA_REAL_DATA") or ROOT.parent / "shared" / "data") / name
    if not path.is_file():
        sys.exit(f"{path} does not exist; point GMSA_REAL_DATA at the folder that holds {name}")
    return path


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


def machine() -> str:
    """Processor, threads and versions, for the line under a table."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        name = next(
            (line.split(":")[1].strip() for line in info.read_text().splitlines() if "model name" in line), name
        )
    return f"{name}, {torch.get_num_threads()} threads; Python {platform.python_version()}, torch {torch.__version__}"
