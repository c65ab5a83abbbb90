"""Predictions of a finished run for other utterances."""

# N utterances, K classes
from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from gmsa.errors import RunError
from gmsa.graph import READOUTS
from gmsa.runs.folder import Run, as_run
from gmsa.runs.inputs import Input
from gmsa.system.device import set_up
from gmsa.system.files import check_out_file, write_text
from gmsa.system.reading import exists
from gmsa.training.scoring import Predictions, predict_utterances, predictions_csv


@dataclass(frozen=True, eq=False, repr=False)
class Answers:
    """What a run predicts for N utterances, in their order: the mean over its seeds."""

    ids: list[str]
    values: np.ndarray
    """Sentiment intensity, float32 ``[N]``."""
    probabilities: np.ndarray
    """Of the K classes, float32 ``[N, K]``."""
    gate: np.ndarray | None
    """Mean share of the inter view at ``val`` and ``cls``, float32 ``[N, 2]``; None where the model has no gate."""

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        n, k = self.probabilities.shape
        spread = f", values {self.values.min():.3f} to {self.values.max():.3f}" if n else ""
        return f"Answers({n} utterance{'s' * (n != 1)}, {k} classes{spread})"

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Writes id, prediction, class probabilities and gate of every utterance, as ``gmsa predict`` does.

        Raises:
            RunError: the file cannot be written.
        """
        check_out_file(Path(path), (".csv",))
        unlabeled = np.full(len(self), np.nan, dtype=np.float32)
        table = Predictions(self.ids, unlabeled, self.values, self.probabilities, self.gate)
        write_text(Path(path), predictions_csv([("input", table)]))

    def to_frame(self) -> Any:
        """The answers as a pandas ``DataFrame``, a row per utterance, the id as its index.

        Raises:
            RunError: pandas is not installed.
        """
        try:
            pandas = import_module("pandas")
        except ModuleNotFoundError:
            raise RunError("to_frame needs pandas; install it (pip install pandas), or use to_csv") from None
        columns = {"prediction": self.values} | {f"p{c}": p for c, p in enumerate(self.probabilities.T)}
        if self.gate is not None:
            columns |= {f"gate_{readout}": g for readout, g in zip(READOUTS, self.gate.T, strict=True)}
        return pandas.DataFrame(columns, index=pandas.Index(self.ids, name="id"))


def predict_with(run: Run, x: Input, seeds: int | Sequence[int] | None = None, device: str | None = None) -> Answers:
    """Predicts with the models of a run; see :meth:`Run.predict`."""
    where = set_up(run.config.run, device)
    chosen = run.chosen_seeds(seeds)
    models = [run.load_model(seed, where) for seed in chosen]  # all that can fail comes before the work
    utterances = run.prepare(x)
    found = [predict_utterances(model, utterances, run.config, where) for model in models]
    gates = [p.gate for p in found if p.gate is not None]
    return Answers(
        found[0].ids,
        np.mean([p.value for p in found], axis=0),
        np.mean([p.probabilities for p in found], axis=0),
        np.mean(gates, axis=0) if gates else None,
    )


def predict_file(
    run: Run | str | Path,
    file: str | Path,
    out: Path,
    seeds: int | Sequence[int] | None = None,
    device: str | None = None,
) -> int:
    """Writes predictions for every utterance of a file as CSV. Returns their number.

    Raises:
        RunError: the folder is not a run, or ``out`` cannot be written.
        DataError: the file is missing, unsafe, or does not fit the run.
    """
    check_out_file(out, (".csv",))  # before work that takes time
    if exists(out) and exists(file) and out.samefile(file):
        raise RunError(f"--out '{out}' is the input, which would be lost; name another file")
    answers = predict_with(as_run(run), file, seeds, device)
    answers.to_csv(out)
    return len(answers)
