"""Prediction: runs a model over utterances, collects its outputs and scores them."""

# N utterances, K classes
from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from gmsa.config import Config
from gmsa.data import INTENSITY_CLASSES, Utterance
from gmsa.errors import RunError, cut
from gmsa.graph import READOUTS
from gmsa.metrics import metrics
from gmsa.system.csv_text import csv_text
from gmsa.system.distributed import SINGLE_PROCESS, Group
from gmsa.training.batches import Shard, scoring_batches
from gmsa.training.prefetch import prefetch

HUGE = 1e6
"""Features beyond this are no model's fault: in training they are a few, normalized or from a language model."""


@dataclass(frozen=True, eq=False)
class Predictions:
    """Predictions for N utterances, in their order."""

    ids: list[str]
    labels: np.ndarray
    """``[N]``; NaN where unlabeled."""
    value: np.ndarray
    """Sentiment intensity ``[N]``."""
    probabilities: np.ndarray
    """Of the 7 classes ``[N, K]``."""
    gate: np.ndarray | None
    """Mean share of the inter view at val and cls ``[N, 2]``; None where the model has no gate."""

    def metrics(self, config: Config) -> dict[str, float]:
        """MMSA's metrics over the labeled utterances, then those that ``run.metrics`` adds."""
        known = ~np.isnan(self.labels)
        return metrics(config.target.chosen_metrics, self.value[known], self.labels[known], config.run.metrics)


def predict_utterances(
    model: nn.Module,
    utterances: Sequence[Utterance],
    config: Config,
    device: torch.device,
    context: Sequence[Utterance] = (),
    group: Group = SINGLE_PROCESS,
) -> Predictions:
    """Runs ``model`` in evaluation mode over ``utterances``.

    Several processes share the batches, and all get the whole.

    Args:
        context: further utterances in the graphs of the same videos (video graphs); they are not scored.

    Raises:
        RunError: a prediction is not finite.
    """
    value = np.zeros(len(utterances), dtype=np.float32)
    probabilities = np.zeros((len(utterances), INTENSITY_CLASSES), dtype=np.float32)
    gate: np.ndarray | None = None
    training = model.training
    model.eval()
    with torch.inference_mode():
        shard = Shard(rank=group.rank, world=group.world)
        for rows, places, batch in prefetch(scoring_batches(utterances, config, context, shard), device):
            output = model(batch)
            value[places] = output.value.cpu().numpy()[rows]
            probabilities[places] = output.logits.softmax(-1).cpu().numpy()[rows]
            if output.gate is not None:
                gate = np.zeros((len(utterances), len(READOUTS)), dtype=np.float32) if gate is None else gate
                gate[places] = output.gate.mean(-1).cpu().numpy()[rows]
    model.train(training)
    if group.world > 1:
        value, probabilities, gate = _join(group, device, value, probabilities, gate)
    bad = np.flatnonzero(~np.isfinite(value) | ~np.isfinite(probabilities).all(1))
    if len(bad):
        raise RunError(_why_not_finite(utterances[bad[0]]))
    labels = np.array([np.nan if u.label is None else u.label for u in utterances], dtype=np.float32)
    return Predictions([u.id for u in utterances], labels, value, probabilities, gate)


def _why_not_finite(utterance: Utterance) -> str:
    largest = {m: float(x.abs().max()) for m, x in utterance.features.items() if x.numel()}
    modality = max(largest, key=lambda m: largest[m], default="")
    what = f"the prediction for '{cut(utterance.id)}' is not finite"
    if largest.get(modality, 0.0) > HUGE:
        return (
            f"{what}: its '{modality}' features reach {largest[modality]:.3g}; extract them as those of the training "
            "data, or leave the utterance out"
        )
    return f"{what}; lower 'optim.lr' and train again"


def _join(
    group: Group, device: torch.device, value: np.ndarray, probabilities: np.ndarray, gate: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Joins the rows of all processes: each has zeros in those of the others."""
    known = gate is not None
    gates = gate if gate is not None else np.zeros((len(value), len(READOUTS)), dtype=np.float32)
    there = np.full((len(value), 1), known, dtype=np.float32)
    table = np.concatenate([value[:, None], probabilities, gates, there], axis=1)
    table = group.all_reduce(torch.from_numpy(table).to(device)).cpu().numpy()
    value, probabilities, gates, there = np.split(table, [1, 1 + INTENSITY_CLASSES, table.shape[1] - 1], axis=1)
    return value[:, 0], probabilities, gates if there.any() else None


def quiet_metrics(predictions: Predictions, config: Config) -> dict[str, float]:
    """Metrics without the warning that a constant prediction has no correlation: early epochs give many."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return predictions.metrics(config)


def predictions_csv(parts: Iterable[tuple[str, Predictions]]) -> str:
    """Predictions of named splits as CSV: split, id, label, prediction, class probabilities, gate.

    Numbers have nine significant digits, enough to give a float32 again exactly.
    """
    header = ["split", "id", "label", "prediction", *(f"p{c}" for c in range(INTENSITY_CLASSES))]
    rows = []
    for split, predictions in parts:
        for i, name in enumerate(predictions.ids):
            label = predictions.labels[i]
            gate = [""] * len(READOUTS) if predictions.gate is None else [f"{g:.9g}" for g in predictions.gate[i]]
            numbers = [f"{x:.9g}" for x in (predictions.value[i], *predictions.probabilities[i])]
            rows.append([split, name, "" if np.isnan(label) else f"{label:.9g}", *numbers, *gate])
    return csv_text([*header, *(f"gate_{r}" for r in READOUTS)], rows)
