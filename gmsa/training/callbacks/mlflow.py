"""MLflow: settings, losses, validation scores and the final scores of a run."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from typing import Any

from gmsa.config import to_dict
from gmsa.config.trained import flat
from gmsa.system.files import make_subfolder
from gmsa.training.callbacks.base import Callback, RunInfo, epoch_values, final_scores, kept_id, needed_module

_LONGEST = 500
"""Characters of a parameter's value that every version of MLflow takes."""
_PARAMETERS = 100
"""Parameters that a server takes at once."""


class MLflow(Callback):
    """Logs every epoch to a run of MLflow; a resumed run continues the same one.

    Args:
        experiment: the experiment of the run.
        uri: of the tracking server; by default ``MLFLOW_TRACKING_URI``, or else the file ``RUN/mlflow/mlflow.db``.
    """

    def __init__(self, experiment: str = "gmsa", uri: str = "") -> None:
        self._mlflow = needed_module("mlflow", "mlflow", "mlflow-skinny")
        self._entities = needed_module("mlflow.entities", "mlflow", "mlflow-skinny")
        self.experiment, self.uri = experiment, uri or os.environ.get("MLFLOW_TRACKING_URI", "")
        self._client: Any = None
        self._run = ""

    def on_start(self, run: RunInfo) -> None:
        """Begins, or resumes, the run."""
        folder = make_subfolder(run.folder.resolve(), "mlflow")
        self._client = self._mlflow.MlflowClient(self.uri or f"sqlite:///{folder / 'mlflow.db'}")

        def begin() -> str:
            known = self._client.get_experiment_by_name(self.experiment)
            place = None if self.uri else (folder / "artifacts").as_uri()
            experiment = known.experiment_id if known else self._client.create_experiment(self.experiment, place)
            return str(self._client.create_run(experiment, run_name=run.name).info.run_id)

        self._run = kept_id(folder / "run-id", begin)
        self._client.set_terminated(self._run, "RUNNING")  # of a resumed run, the state of before
        settings = [self._entities.Param(k, str(v)[:_LONGEST]) for k, v in flat(to_dict(run.config)).items()]
        for start in range(0, len(settings), _PARAMETERS):
            self._client.log_batch(self._run, params=settings[start : start + _PARAMETERS])

    def on_epoch_end(self, row: Mapping[str, Any], epochs: int) -> None:
        """Logs the epoch."""
        place = f"seed-{row['seed']}/{row['stage']}"
        self._log({f"{place}/{name}": value for name, value in epoch_values(row).items()}, row["epoch"])

    def on_end(self, summary: Mapping[str, Any] | None) -> None:
        """Logs the final scores, and ends the run."""
        if not self._run:
            return
        self._log(final_scores(summary or {}), 0)
        self._client.set_terminated(self._run, "FINISHED" if summary is not None else "FAILED")

    def _log(self, values: Mapping[str, float], step: int) -> None:
        now = int(time.time() * 1000)
        metrics = [
            self._entities.Metric(re.sub(r"[^\w./ -]", "_", name), float(value), now, step)
            for name, value in values.items()
        ]
        self._client.log_batch(self._run, metrics=metrics)
