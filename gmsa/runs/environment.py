"""What a run depends on besides its settings."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import gmsa
from gmsa.config import Config
from gmsa.data import Corpus
from gmsa.data.loading import data_sha256

PACKAGES = ("gmsa", "torch", "torch-geometric", "torch-scatter", "numpy", "scikit-learn", "safetensors")


def describe_environment(config: Config, corpus: Corpus, device: torch.device) -> dict[str, Any]:
    """What a run depends on besides its config: versions, machine, git, data."""
    versions: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    return {
        "versions": versions,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
        "git": _git_commit(),
        **describe_files(config, corpus),
        "synthetic": corpus.synthetic,
        "dims": dict(corpus.dims),
    }


def describe_files(config: Config, corpus: Corpus) -> dict[str, str | None]:
    """SHA-256 of the data file and of the pool file, if there is one."""
    pool = None if corpus.synthetic or config.data.pool is None else data_sha256(config.data.pool)
    return {"data_sha256": corpus.sha256, "pool_sha256": pool}


def _git_commit() -> str | None:
    try:
        result = subprocess.run(
            ["git", "-C", str(Path(gmsa.__file__).parent), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip()
