"""A moving average of a model's weights."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn


class MovingAverage:
    r"""An exponential average of a model's weights, :math:`\bar w \gets d \bar w + (1 - d) w`.

    In its first t updates d is at most :math:`(1 + t) / (10 + t)`: the average forgets the initial weights.
    ``torch.optim.swa_utils.AveragedModel`` counts its updates on the device; to look there at every step makes a
    GPU wait for the host.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).requires_grad_(False)
        self.decay, self.updates = decay, 0
        self._averaged: list[Tensor] = list(self.model.parameters())

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Takes in the model's current weights; the first time, as they are."""
        t = self.updates
        share = 1.0 if t == 0 else 1 - min(self.decay, (1 + t) / (10 + t))
        torch._foreach_lerp_(self._averaged, [p.detach() for p in model.parameters()], share)
        self.updates += 1

    def state_dict(self) -> dict[str, Any]:
        """What :meth:`load_state_dict` takes."""
        return {"model": self.model.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from an earlier average."""
        self.model.load_state_dict(state["model"])
        self.updates = state["updates"]
