"""One training step: forward, loss, backward, and the update of the weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from gmsa.config import OptimConfig
from gmsa.system.distributed import SINGLE_PROCESS, Group
from gmsa.training.optimization.gradients import GradientSum
from gmsa.training.optimization.optimizer import autocast
from gmsa.training.optimization.recorded import StepRecorder
from gmsa.training.state import TrainState
from gmsa.training.tasks import Task


def training_step(
    task: Task,
    state: TrainState,
    batch: Any,
    done: float,
    optim: OptimConfig,
    group: Group = SINGLE_PROCESS,
    flags: Callable[[], tuple[bool, ...]] = tuple,
    recorder: StepRecorder | None = None,
) -> tuple[Tensor, tuple[bool, ...]]:
    """Trains ``state`` on a batch, on the device of its weights; nothing in it waits for the device.

    Args:
        done: share of the stage's steps that are finished.
        flags: read after the backward pass, such as whether training is asked to stop.
        recorder: runs both passes, where what they do is decided by the shapes of the batch.

    Returns:
        The loss, a scalar without gradient, and for each flag whether it is true in any process.
    """
    model, teacher = state.model, None if state.average is None else state.average.model
    parameters = [p for group in state.optimizer.param_groups for p in group["params"] if p.requires_grad]
    gradients = GradientSum(parameters, group)

    def compute(batch: Any) -> Tensor:
        with autocast(optim, parameters[0].device):
            loss = task.loss(model, batch, teacher, done, group)
        state.optimizer.zero_grad(set_to_none=True)
        with gradients:
            if loss.requires_grad:  # not where this process has no share of the batch
                loss.backward()
        return loss.detach()

    loss = compute(batch) if recorder is None else recorder(compute, batch)
    raised = gradients.finish(*flags())
    if optim.clip_norm:
        nn.utils.clip_grad_norm_(parameters, optim.clip_norm)
    state.optimizer.step()
    state.schedule.step()
    if state.average is not None:
        state.average.update(model)
    return loss, raised
