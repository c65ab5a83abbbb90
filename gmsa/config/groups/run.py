"""Settings of a run as such."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gmsa.config.fields import component, number
from gmsa.config.groups.target import AUTO
from gmsa.registry import CALLBACKS, METRICS


@dataclass(frozen=True)
class RunConfig:
    """Seeds, device, output folder and metrics of a run."""

    seeds: tuple[int, ...] = (1111,)
    """Random seeds, one training each; results are the mean and standard deviation over seeds."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to train; ``auto`` is CUDA where it is available, else the CPU."""
    threads: int = number(1, ge=1, le=256)
    """CPU threads; more are hardly faster for small models, and each number rounds differently."""
    workers: int = number(0, ge=0, le=256)
    """Processes that prefetch training batches; 0 builds them in the training process (on CUDA, in a thread)."""
    save_every: float = number(300.0, gt=0)
    """Seconds between saves of the state within an epoch; it is also saved after each epoch."""
    deterministic: bool = False
    """Whether to use only deterministic operations on CUDA, which are slower; on a CPU all are deterministic."""
    cuda_graphs: bool = False
    """Whether a GPU records training steps and replays them, where the shapes of a batch alone decide what a step does.

    A step on a batch that is there is up to eight times as fast then; batches are rounded up to few shapes. New: of the
    trainings that were tried on a GPU, one failed.
    """
    compile: bool = False
    """Whether to compile the model with ``torch.compile``, which takes minutes at first and rounds differently."""
    out: str = "runs/{name}"
    """Run folder; ``{name}`` stands for the name of the config file."""
    select: str = AUTO
    """Validation metric that selects the checkpoint: ``auto`` is MAE, for classes weighted_F1; MAE, Corr, for classes
    accuracy, weighted_F1, macro_F1, unweighted_accuracy; or one of ``metrics``."""
    metrics: tuple[str, ...] = component((), METRICS)
    """Metrics to report beside those of the target."""
    callbacks: tuple[str, ...] = component((), CALLBACKS)
    """Training callbacks, such as ``tensorboard`` or ``wandb(project=mine)``."""
