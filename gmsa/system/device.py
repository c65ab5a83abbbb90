"""Threads, determinism, and the device to run on."""

from __future__ import annotations

import os

import torch

from gmsa.config import RunConfig
from gmsa.errors import RunError


def set_up(config: RunConfig, device: str | None = None) -> torch.device:
    """Sets the number of threads and the determinism, and chooses where to run.

    That is ``device`` or, if it is None, the config's: ``auto``, ``cpu`` or ``cuda``.

    Raises:
        RunError: CUDA is asked for and not there.
    """
    torch.set_num_threads(config.threads)
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts
    torch.use_deterministic_algorithms(config.deterministic)
    torch.backends.cudnn.benchmark = False
    name, there = device or config.device, torch.cuda.is_available()
    if name == "cuda" and not there:
        raise RunError("no CUDA device is available; use --device cpu, or install a CUDA build of torch")
    return torch.device("cuda" if there and name != "cpu" else "cpu")
