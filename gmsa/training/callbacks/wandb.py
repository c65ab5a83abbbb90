"""Weights & Biases: losses, validation scores and the final scores of a run."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from gmsa.config import to_dict
from gmsa.training.callbacks.base import Callback, RunInfo, epoch_values, final_scores, kept_id, needed_module


class WeightsAndBiases(Callback):
    """Logs every epoch to a run of Weights & Biases; a resumed run continues the same one.

    Args:
        project: the project of the run.
        online: send the run to the server; otherwise it is kept in ``RUN/wandb``, for ``wandb sync``.
    """

    def __init__(self, project: str = "gmsa", online: bool = False) -> None:
        self._wandb = needed_module("wandb", "wandb", "wandb")
        self.project, self.online = project, online
        self._run: Any = None

    def on_start(self, run: RunInfo) -> None:
        """Begins, or resumes, the run."""
        self._run = self._wandb.init(
            project=self.project,
            name=run.name,
            id=kept_id(run.folder / "wandb" / "run-id", lambda: secrets.token_hex(4)),
            resume="allow" if self.online else None,  # offline, wandb ignores it with a warning
            dir=str(run.folder),
            config=to_dict(run.config),
            mode="online" if self.online else "offline",
        )

    def on_epoch_end(self, row: Mapping[str, Any], epochs: int) -> None:
        """Logs the epoch."""
        place = f"seed-{row['seed']}/{row['stage']}"
        values = {f"{place}/{name}": value for name, value in epoch_values(row).items()}
        self._run.log({f"{place}/epoch": row["epoch"], **values})

    def on_end(self, summary: Mapping[str, Any] | None) -> None:
        """Logs the final scores, and ends the run."""
        if self._run is None:
            return
        self._run.summary.update(final_scores(summary or {}))
        self._run.finish(exit_code=0 if summary is not None else 1)
