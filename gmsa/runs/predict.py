"""Predictions of a finished run for another file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from gmsa.runs.folder import finished_seeds, open_run
from gmsa.system.device import set_up
from gmsa.system.files import check_out_file, write_text
from gmsa.training.scoring import predict, predictions_csv


def predict_file(
    folder: str | Path, file: str | Path, out: Path, seeds: Sequence[int] | None = None, device: str | None = None
) -> int:
    """Writes predictions for every utterance of a file, averaged over the run's seeds. Returns their number.

    Raises:
        RunError: the folder is not a run, or ``out`` cannot be written.
        DataError: the file is missing, unsafe, or its dimensions are not those of the run.
    """
    check_out_file(out)
    run = open_run(folder)
    where = set_up(run.config.run, device)
    utterances = run.read(file, require_labels=False)
    found = [predict(run.model(s, where), utterances, run.config, where) for s in finished_seeds(run, seeds)]
    gates = [p.gate for p in found if p.gate is not None]
    mean = replace(
        found[0],
        value=np.mean([p.value for p in found], axis=0),
        probabilities=np.mean([p.probabilities for p in found], axis=0),
        gate=np.mean(gates, axis=0) if gates else None,
    )
    write_text(out, predictions_csv([("input", mean)]))
    return len(utterances)
