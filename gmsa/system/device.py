"""Threads, determinism, and the device to run on."""

from __future__ import annotations

import os
import typing

import torch

from gmsa.config import RunConfig
from gmsa.errors import ConfigError, RunError, nearest
from gmsa.system.memory import keep_freed_memory

# What deterministic products on CUDA need. torch reads it once, at the first product there, which may come long before
# a run asks for them.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

DEVICES: tuple[str, ...] = typing.get_args(typing.get_type_hints(RunConfig)["device"])
"""Kinds of devices that a setting may name."""


def use_deterministic(deterministic: bool, warn_only: bool = False) -> None:
    """Sets whether only deterministic operations run; torch imports its compiler for it, even where nothing changes."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    if before != (deterministic, warn_only):
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)


def set_up(config: RunConfig, device: str | None = None) -> torch.device:
    """Sets the number of threads, the determinism and how freed memory is kept, and chooses where to run.

    That is ``device`` or, if it is None, the config's: ``auto`` (CUDA where it is available, else the CPU), ``cpu``,
    ``cuda`` or ``mps``. ``auto`` never chooses ``mps`` (Apple's GPUs): gmsa is not tested on it, and a run resumed
    there may differ from one that was not interrupted.

    Raises:
        ConfigError: the device is of another kind.
        RunError: CUDA or MPS is asked for and not available.
    """
    torch.set_num_threads(config.threads)
    keep_freed_memory()
    use_deterministic(config.deterministic)
    torch.backends.cudnn.benchmark = False
    name = device or config.device
    kind = str(name).partition(":")[0]  # cuda:1 is one of several
    if kind not in DEVICES:
        raise ConfigError(f"the device must be one of {', '.join(DEVICES)} (got '{name}'){nearest(kind, DEVICES)}")
    if kind == "cuda" and not torch.cuda.is_available():
        raise RunError("no CUDA device is available; use --device cpu, or install a CUDA build of torch")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise RunError("no MPS device is available; use --device cpu, or run on macOS with an Apple GPU")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def has_bf16_instructions() -> bool:
    """Whether torch finds instructions for products in bfloat16 in this processor; without them they are slow."""
    known = (getattr(torch.cpu, f"_is_{name}_supported", None) for name in ("avx512_bf16", "amx_tile"))
    return any(is_there() for is_there in known if is_there is not None)
