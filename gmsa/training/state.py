"""What changes while a stage is trained, and is saved so that it can go on from any step."""

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
    """A model with what trains it."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    average: MovingAverage | None

    def state_dict(self) -> dict[str, Any]:
        """What :meth:`load_state_dict` takes."""
        return {name: part.state_dict() for name, part in vars(self).items() if part is not None}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from an earlier state."""
        for name, part in vars(self).items():
            if part is not None:
                part.load_state_dict(state[name])


@dataclass
class StageProgress:
    """How far a stage has come: the epoch at hand, what of it is done, and the best weights so far."""

    epoch: int = 1
    step: int = 0
    """Steps of the epoch that are done."""
    losses: list[float] = field(default_factory=list)
    """Their losses."""
    seconds: float = 0.0
    """Seconds that they took, up to the last save."""
    random: list[list[Tensor]] | None = None
    """Random states of all processes after these steps; None at the start of an epoch, which seeds them."""
    best: float = math.nan
    """The best validation score so far."""
    best_epoch: int = 0
    weights: dict[str, Tensor] = field(default_factory=dict)
    """The weights that gave it, on the CPU."""

    def __post_init__(self) -> None:
        self._began = time.perf_counter() - self.seconds

    def spent(self) -> float:
        """Seconds that the epoch has taken, without pauses between runs."""
        return time.perf_counter() - self._began

    def next_epoch(self) -> None:
        """Goes to the start of the next epoch."""
        self.epoch, self.step, self.losses, self.random, self.seconds = self.epoch + 1, 0, [], None, 0.0
        self._began = time.perf_counter()

    def state_dict(self) -> dict[str, Any]:
        """The fields, as ``StageProgress(**state)`` takes them."""
        self.seconds = self.spent() if self.step else 0.0
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}


def random_state(device: torch.device) -> list[Tensor]:
    """The states of torch's random generators, of the CPU and of the device; gmsa draws from no other."""
    cuda = [torch.cuda.get_rng_state(device)] if device.type == "cuda" else []
    return [torch.get_rng_state(), *cuda]


def set_random_state(state: list[Tensor], device: torch.device) -> None:
    """Sets them."""
    torch.set_rng_state(state[0])
    if device.type == "cuda" and len(state) > 1:
        torch.cuda.set_rng_state(state[1], device)
