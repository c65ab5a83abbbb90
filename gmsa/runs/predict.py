"""Predictions of a finished run for other utterances."""

# N utterances, K classes
from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import nn

from gmsa.config import Config
from gmsa.data import Target, Utterance
from gmsa.data.notes import note
from gmsa.errors import RunError, shown
from gmsa.runs.folder import Run, as_run
from gmsa.runs.inputs import Input, Inputs, read_inputs
from gmsa.runs.scoring.windows import predict_whole
from gmsa.system.csv_text import csv_text
from gmsa.system.device import set_up
from gmsa.system.files import check_out_file, write_text
from gmsa.system.reading import exists
from gmsa.training.scoring import Predictions, readouts

MOST_REASONS = 10
"""Utterances that cannot be predicted of which a line tells; the others are counted."""


@dataclass(frozen=True, eq=False, repr=False)
class Answers:
    """What a run predicts for N utterances, in their order: the mean over its seeds.

    The rows of an utterance that could not be predicted hold NaN; ``reasons`` says why.
    """

    ids: list[str]
    values: np.ndarray | None
    """Intensity, float32 ``[N]``; None where the run predicts classes."""
    probabilities: np.ndarray
    """Of the K classes, float32 ``[N, K]``."""
    gate: np.ndarray | None
    """Mean share of the inter view at ``val`` and ``cls``, float32 ``[N, 2]`` (of classes at ``cls`` alone); None where
    the model has no gate."""
    target: Target = field(default_factory=Target)
    """What is predicted."""
    splits: Sequence[str] = ()
    """Split of each utterance, ``input`` where the input has none."""
    labels: np.ndarray = field(default_factory=lambda: np.zeros(0))
    """Labels where the input has them: intensities or class numbers, float32 ``[N]``; NaN where it has none."""
    reasons: Mapping[str, str] = field(default_factory=dict)
    """Why an utterance could not be predicted, by its id."""

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        n, k = self.probabilities.shape
        spread = ""
        if self.values is not None and not np.isnan(self.values).all():
            spread = f", values {np.nanmin(self.values):.3f} to {np.nanmax(self.values):.3f}"
        failed = f", {len(self.reasons)} not predicted" if self.reasons else ""
        return f"Answers({n} utterance{'s' * (n != 1)}, {k} classes{spread}{failed})"

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the K classes; of an intensity, the numbers of its bins."""
        return self.target.class_names

    @property
    def predicted(self) -> np.ndarray:
        """The intensities ``[N]``, or the names of the likeliest classes ``[N]``, empty where there is none."""
        if self.values is not None:
            return self.values
        names = np.array([*self.classes, ""], dtype=object)
        unknown = np.isnan(self.probabilities).any(1)
        return names[np.where(unknown, len(self.classes), np.nan_to_num(self.probabilities).argmax(1))]

    def columns(self) -> dict[str, list[Any]]:
        """The columns of the CSV but for split, id and label, by name; None where an utterance was not predicted."""
        found: dict[str, np.ndarray] = {} if self.values is None else {"prediction": self.values}
        names = [f"p_{name}" for name in self.classes] if self.target.is_classes else [f"p{c}" for c in self.classes]
        found |= dict(zip(names, self.probabilities.T, strict=True))
        if self.gate is not None:
            found |= {f"gate_{readout}": g for readout, g in zip(readouts(self.target), self.gate.T, strict=True)}
        table = {name: [None if np.isnan(x) else x for x in values] for name, values in found.items()}
        if self.values is None:
            return {"prediction": [name or None for name in self.predicted], **table}
        return table

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Writes a row per utterance, as ``gmsa predict`` does: split, id, label, prediction, probabilities, gate.

        Where an utterance could not be predicted, a column ``reason`` says why.

        Raises:
            RunError: the file cannot be written.
        """
        check_out_file(Path(path), (".csv",))
        header, *rows = self.table(bool(self.reasons))
        write_text(Path(path), csv_text(header, rows))

    def table(self, with_reasons: bool) -> list[list[str]]:
        """The cells of the CSV: its header, and a row per utterance."""
        columns = self.columns()
        if self.gate is None:
            columns |= {f"gate_{readout}": [None] * len(self) for readout in readouts(self.target)}
        splits, labels = self.splits or ["input"] * len(self), self.labels if len(self.labels) else [np.nan] * len(self)
        label = ["" if np.isnan(x) else self.target.name_of(float(x)) for x in labels]
        rows = [
            [split, name, known, *("" if x is None else x if isinstance(x, str) else f"{x:.9g}" for x in cells)]
            + ([self.reasons.get(name, "")] if with_reasons else [])
            for split, name, known, *cells in zip(splits, self.ids, label, *columns.values(), strict=True)
        ]
        return [["split", "id", "label", *columns, *(["reason"] if with_reasons else [])], *rows]

    def to_frame(self) -> Any:
        """The answers as a pandas ``DataFrame``, a row per utterance, the id as its index.

        Raises:
            RunError: pandas is not installed.
        """
        try:
            pandas = import_module("pandas")
        except ModuleNotFoundError:
            raise RunError("to_frame needs pandas; install it (pip install pandas), or use to_csv") from None
        columns = {name: np.array(values, dtype=_dtype(values)) for name, values in self.columns().items()}
        return pandas.DataFrame(columns, index=pandas.Index(self.ids, name="id"))


def _dtype(values: Sequence[Any]) -> Any:
    return object if any(isinstance(value, str) for value in values) else np.float32


def predict_with(
    run: Run,
    x: Input,
    seeds: int | Sequence[int] | None = None,
    device: str | None = None,
    strict: bool = False,
) -> Answers:
    """Predicts with the models of a run; see :meth:`Run.predict`."""
    where = set_up(run.config.run, device)
    chosen = run.chosen_seeds(seeds)
    models = [run.load_model(seed, where) for seed in chosen]  # all that can fail comes before the work
    inputs = read_inputs(x, run.dims, run.config, run.extraction)
    if strict:
        inputs.check_all()
    utterances = [run.normalizer.apply(u) for u in inputs.utterances]
    found: list[Predictions] = []
    overflown: dict[str, str] = {}
    for model in models:
        found.append(_predict_all(model, utterances, run.config, where, None if strict else overflown))
    answers = answers_of(inputs, found, Target.of(run.config.target), overflown)
    tell(answers.reasons)
    return answers


def tell(reasons: Mapping[str, str]) -> None:
    """Tells of utterances that could not be predicted, and why; of many, the first ones and their number."""
    for identity, reason in list(reasons.items())[:MOST_REASONS]:
        note(f"not predicted: {shown(identity)}: {reason}")
    if len(reasons) > MOST_REASONS:
        note(f"not predicted: {len(reasons) - MOST_REASONS} more utterances; the column 'reason' of the CSV has all")


def _predict_all(
    model: nn.Module,
    utterances: Sequence[Utterance],
    config: Config,
    device: torch.device,
    overflown: dict[str, str] | None,
) -> Predictions:
    """Predictions for all utterances; NaN for those whose prediction is not finite, which ``overflown`` gets."""
    try:
        return predict_whole(model, utterances, config, device)
    except RunError as error:
        if overflown is None or config.graph.has_dialogues:
            raise
        if len(utterances) == 1:
            nothing = _nothing(model, utterances[0], config, device)  # fails where the fault is the model's
            overflown[utterances[0].id] = str(error)
            return nothing
    middle = len(utterances) // 2
    halves = [
        _predict_all(model, half, config, device, overflown) for half in (utterances[:middle], utterances[middle:])
    ]
    return _concatenated(halves)


def _nothing(model: nn.Module, utterance: Utterance, config: Config, device: torch.device) -> Predictions:
    """Predictions of NaN, of the shapes that the model's have."""
    zeros = {m: x.new_zeros(min(1, len(x)), x.shape[1]) for m, x in utterance.features.items()}
    found = predict_whole(model, [replace(utterance, features=zeros)], config, device)
    nothing: dict[str, Any] = {key: x * np.nan for key, x in _arrays(found).items()}
    return replace(found, **nothing)


def _arrays(found: Predictions) -> dict[str, np.ndarray]:
    parts = {key: getattr(found, key) for key in ("value", "probabilities", "gate")}
    return {key: x for key, x in parts.items() if x is not None}


def _concatenated(parts: Sequence[Predictions]) -> Predictions:
    arrays: dict[str, Any] = {key: np.concatenate([_arrays(part)[key] for part in parts]) for key in _arrays(parts[0])}
    labels = np.concatenate([part.labels for part in parts])
    return replace(parts[0], ids=[i for part in parts for i in part.ids], labels=labels, **arrays)


def answers_of(
    inputs: Inputs, found: Sequence[Predictions], target: Target, overflown: Mapping[str, str] = MappingProxyType({})
) -> Answers:
    """The mean over seeds, with a row of NaN for what could not be predicted at its place in the input."""
    means = {key: np.mean([_arrays(one)[key] for one in found], axis=0) for key in _arrays(found[0])}
    gone = {refused.place: refused for refused in inputs.refused}
    left = [place for place in range(len(inputs)) if place not in gone]
    rows: list[tuple[str, str, float | None]] = [("", "", None)] * len(inputs)
    for place, utterance, split in zip(left, inputs.utterances, inputs.splits, strict=True):
        rows[place] = (utterance.id, split, utterance.label)
    for place, refused in gone.items():
        rows[place] = (refused.id, refused.split, refused.label)

    def spaced(x: np.ndarray) -> np.ndarray:
        table = np.full((len(inputs), *x.shape[1:]), np.nan, dtype=np.float32)
        table[left] = x
        return table

    arrays = {key: spaced(x) if gone else x for key, x in means.items()}
    reasons = {r.id: r.reason for r in inputs.refused} | dict(overflown)
    return Answers(
        [identity for identity, _, _ in rows],
        arrays.get("value"),
        arrays["probabilities"],
        arrays.get("gate"),
        target,
        [split for _, split, _ in rows],
        np.array([np.nan if label is None else label for _, _, label in rows], dtype=np.float32),
        {identity: reasons[identity] for identity, _, _ in rows if identity in reasons},
    )


def predict_file(
    run: Run | str | Path,
    file: str | Path,
    out: Path,
    seeds: int | Sequence[int] | None = None,
    device: str | None = None,
    strict: bool = False,
) -> int:
    """Writes predictions for every utterance of a file as CSV. Returns how many could be predicted.

    Args:
        strict: whether an utterance that cannot be predicted stops the others.

    Raises:
        RunError: the folder is not a run, or ``out`` cannot be written.
        DataError: the file is missing, unsafe, or does not fit the run.
    """
    check_out_file(out, (".csv",))  # before work that takes time
    if exists(out) and exists(file) and out.samefile(file):
        raise RunError(f"--out '{out}' is the input, which would be lost; name another file")
    answers = predict_with(as_run(run), file, seeds, device, strict)
    answers.to_csv(out)
    return len(answers) - len(answers.reasons)
