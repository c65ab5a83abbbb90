"""The state of a stage in training, saved so that it can be resumed from any step."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from gmsa.training.ema import MovingAverage


@dataclass
class TrainState:
    """A model with its optimizer, schedule and moving average."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    average: MovingAverage | None

    def state_dict(self) -> dict[str, Any]:
        """The states of all parts, as :meth:`load_state_dict` takes them."""
        return {name: part.state_dict() for name, part in vars(self).items() if part is not None}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resumes from an earlier state."""
        for name, part in vars(self).items():
            if part is not None:
                part.load_state_dict(state[name])


@dataclass
class StageProgress:
    """How far a stage has come: the current epoch, its finished steps, and the best weights so far."""

    epoch: int = 1
    step: int = 0
    """Finished steps of the epoch."""
    losses: list[float] = field(default_factory=list)
    """Their losses."""
    seconds: float = 0.0
    """Seconds they took, up to the last save."""
    random: list[list[Tensor]] | None = None
    """Random states of all processes after these steps; None at the start of an epoch, which seeds them."""
    best: float = math.nan
    """The best validation score so far."""
    best_epoch: int = 0
    weights: dict[str, Tensor] = field(default_factory=dict)
    """The weights of that epoch, on the CPU."""

    def __post_init__(self) -> None:
        self._started = time.perf_counter() - self.seconds

    def elapsed(self) -> float:
        """Seconds of the epoch, without pauses between runs."""
        return time.perf_counter() - self._started

    def next_epoch(self) -> None:
        """Starts the next epoch."""
        self.epoch, self.step, self.losses, self.random, self.seconds = self.epoch + 1, 0, [], None, 0.0
        self._started = time.perf_counter()

    def state_dict(self) -> dict[str, Any]:
        """The fields, as ``StageProgress(**state)`` takes them."""
        self.seconds = self.elapsed() if self.step else 0.0
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}


def random_state(device: torch.device) -> list[Tensor]:
    """The states of torch's global random generators, of the CPU and of the device; gmsa has no others with a state."""
    cuda = [torch.cuda.get_rng_state(device)] if device.type == "cuda" else []
    return [torch.get_rng_state(), *cuda]


def set_random_state(state: list[Tensor], device: torch.device) -> None:
    """Restores the states of :func:`random_state`."""
    torch.set_rng_state(state[0])
    if device.type == "cuda" and len(state) > 1:
        torch.cuda.set_rng_state(state[1], device)
