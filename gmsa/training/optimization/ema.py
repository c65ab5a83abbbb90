"""A moving average of a model's weights."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class MovingAverage:
    r"""An exponential moving average of a model's weights, :math:`\bar w \gets d \bar w + (1 - d) w`.

    After t updates d is at most :math:`(1 + t) / (10 + t)`, so that the average forgets the initial weights.
    ``torch.optim.swa_utils.AveragedModel`` would give t as a tensor on the device, which a GPU must be waited for at
    every step; here it is counted on the host.

    Args:
        model: the model whose weights are averaged, in :attr:`model`, a copy; weights that are not trained stay, and
            buffers, such as the running statistics of a batch norm, are those of the model.
        decay: d, once it is below its bound.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model)
        self.decay, self.updates = decay, 0
        self._averaged: list[Tensor] = [p for p in self.model.parameters() if p.requires_grad]
        self._follow(model)
        self.model.requires_grad_(False)

    def _follow(self, model: nn.Module) -> None:
        """Finds what is averaged once: to walk through all modules at every step takes as long as to average."""
        self._followed = model
        self._weights = [p for p in model.parameters() if p.requires_grad]
        pairs = zip(self.model.modules(), model.modules(), strict=True)
        self._buffers = [(own._buffers, other._buffers) for own, other in pairs if own._buffers]

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Averages in the model's current weights; the first time, copies them."""
        if model is not self._followed:
            self._follow(model)
        t = self.updates
        decay = min(self.decay, (1 + t) / (10 + t)) if t else 0.0
        get_ema_multi_avg_fn(decay)(self._averaged, self._weights, t)
        for own, followed in self._buffers:
            for name, buffer in own.items():
                if buffer is not None and (current := followed[name]) is not None:
                    buffer.copy_(current)
        self.updates += 1

    def state_dict(self) -> dict[str, Any]:
        """The average and its number of updates, as :meth:`load_state_dict` takes them."""
        return {"model": self.model.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resumes from an earlier average."""
        self.model.load_state_dict(state["model"])
        self.updates = state["updates"]
