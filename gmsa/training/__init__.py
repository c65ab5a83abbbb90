"""Training: losses, the one loop, protocols, checkpoints, run folders."""

from gmsa.training.run import train
from gmsa.training.runs import Run, open_run

__all__ = ["Run", "open_run", "train"]
