"""TensorBoard: losses and validation scores as curves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gmsa.training.callbacks.base import Callback, RunInfo, epoch_values, needed_module


class TensorBoard(Callback):
    """Writes every epoch to ``RUN/tensorboard``, a folder per seed; ``tensorboard --logdir RUN`` shows them."""

    def __init__(self) -> None:
        self._writer_class = needed_module("torch.utils.tensorboard", "tensorboard", "tensorboard").SummaryWriter
        self._writers: dict[int, Any] = {}

    def on_start(self, run: RunInfo) -> None:
        """Notes the folder."""
        self._folder = run.folder / "tensorboard"

    def on_epoch_end(self, row: Mapping[str, Any], epochs: int) -> None:
        """Adds a point to each curve."""
        seed, stage = row["seed"], row["stage"]
        if seed not in self._writers:
            self._writers[seed] = self._writer_class(str(self._folder / f"seed-{seed}"))
        writer = self._writers[seed]
        for name, value in epoch_values(row).items():
            writer.add_scalar(f"{stage}/{name}", value, row["epoch"])
        writer.flush()

    def on_end(self, summary: Mapping[str, Any] | None) -> None:
        """Closes the files."""
        for writer in self._writers.values():
            writer.close()
