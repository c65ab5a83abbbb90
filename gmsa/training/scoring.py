"""Prediction: runs a model over utterances, collects its outputs and scores them."""

# N utterances, K classes
from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from gmsa.config import Config
from gmsa.data import Target, Utterance
from gmsa.data.lazy import ids_of, labels_of
from gmsa.errors import RunError, cut
from gmsa.graph import READOUTS
from gmsa.metrics import metrics
from gmsa.system.csv_text import csv_text
from gmsa.system.distributed import SINGLE_PROCESS, Group
from gmsa.training.batches import MOST_NODES, MOST_NODES_ON_GPU, Shard, scoring_batches
from gmsa.training.prefetch import prefetch

HUGE = 1e6
"""Features beyond this are no model's fault: in training they are a few, normalized or from a language model."""


@dataclass(frozen=True, eq=False)
class Predictions:
    """Predictions for N utterances, in their order."""

    ids: list[str]
    labels: np.ndarray
    """Intensities, or numbers of classes ``[N]``; NaN where unlabeled."""
    value: np.ndarray | None
    """Intensity ``[N]``; None where the target is one of K classes."""
    probabilities: np.ndarray
    """Of the K classes ``[N, K]``."""
    gate: np.ndarray | None
    """Mean share of the inter view at each readout node ``[N, R]``; None where the model has no gate."""
    target: Target = field(default_factory=Target)
    """What is predicted."""

    @property
    def predicted(self) -> np.ndarray:
        """The intensity, or the number of the likeliest class ``[N]``."""
        return self.probabilities.argmax(1) if self.value is None else self.value

    def metrics(self, config: Config) -> dict[str, float]:
        """The target's metrics over the labeled utterances, then those that ``run.metrics`` adds."""
        known = ~np.isnan(self.labels)
        predicted, labels, count = self.predicted[known], self.labels[known], self.target.num_classes
        return metrics(config.target.chosen_metrics, predicted, labels, config.run.metrics, count)


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
        context: further utterances in the graphs of the same dialogues; they are not scored.

    Raises:
        RunError: a prediction is not finite.
    """
    target = Target.of(config.target)
    value = None if target.is_classes else np.zeros(len(utterances), dtype=np.float32)
    probabilities = np.zeros((len(utterances), target.num_classes), dtype=np.float32)
    gate: np.ndarray | None = None
    tables: list[Tensor] = []
    kept: list[int] = []
    order: list[int] = []
    count, training = 0, model.training
    model.eval()
    with torch.inference_mode():
        shard = Shard(rank=group.rank, world=group.world)
        most = MOST_NODES if device.type == "cpu" else MOST_NODES_ON_GPU
        for rows, places, batch in prefetch(scoring_batches(utterances, config, context, shard, most), device):
            output = model(batch)
            columns = [] if value is None else [output.value[:, None]]
            columns += (
                [output.logits.softmax(-1)]
                if output.gate is None
                else [output.logits.softmax(-1), output.gate.mean(-1)]
            )
            kept += [count + row for row in rows]
            order, count = order + places, count + len(batch)
            tables.append(torch.cat([column.float() for column in columns], dim=1))
        if tables:  # read from the device once
            table = torch.cat(tables).cpu().numpy()[kept]
            ends = np.cumsum([value is not None, target.num_classes])
            if value is not None:
                value[order] = table[:, 0]
            probabilities[order] = table[:, ends[0] : ends[1]]
            if table.shape[1] > ends[1]:
                gate = np.zeros((len(utterances), table.shape[1] - ends[1]), np.float32)
                gate[order] = table[:, ends[1] :]
    model.train(training)
    if group.world > 1:
        value, probabilities, gate = _join(group, device, value, probabilities, gate, len(readouts(target)))
    finite = np.isfinite(probabilities).all(1)
    bad = np.flatnonzero(~finite if value is None else ~np.isfinite(value) | ~finite)
    if len(bad):
        raise RunError(why_not_finite(utterances[bad[0]]))
    labels = labels_of(utterances).astype(np.float32)
    if value is not None:
        value = target.from_model(value)
    return Predictions([*ids_of(utterances)], labels, value, probabilities, gate, target)


def readouts(target: Target) -> tuple[str, ...]:
    """The readout nodes of a target: classes have none for an intensity."""
    return tuple(r for r in READOUTS if r != "val" or not target.is_classes)


def why_not_finite(utterance: Utterance) -> str:
    """What is said of an utterance whose prediction is not finite."""
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
    group: Group,
    device: torch.device,
    value: np.ndarray | None,
    probabilities: np.ndarray,
    gate: np.ndarray | None,
    nodes: int,
) -> tuple[np.ndarray | None, np.ndarray, np.ndarray | None]:
    """Joins the rows of all processes: each has zeros in those of the others, and maybe no gate of ``nodes``."""
    count, K = probabilities.shape
    gates = np.zeros((count, nodes), dtype=np.float32) if gate is None else gate
    there = np.full((count, 1), gate is not None, dtype=np.float32)
    values = np.zeros((count, 1), dtype=np.float32) if value is None else value[:, None]
    table = np.concatenate([values, probabilities, gates, there], axis=1)
    table = group.all_reduce(torch.from_numpy(table).to(device)).cpu().numpy()
    values, probabilities, gates, there = np.split(table, [1, 1 + K, table.shape[1] - 1], axis=1)
    return None if value is None else values[:, 0], probabilities, gates if there.any() else None


def quiet_metrics(predictions: Predictions, config: Config) -> dict[str, float]:
    """Metrics without the warning that a constant prediction has no correlation: early epochs give many."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return predictions.metrics(config)


def predictions_csv(parts: Iterable[tuple[str, Predictions]]) -> str:
    """Predictions of named splits of one target as CSV: split, id, label, prediction, class probabilities, gate.

    Classes have their names, also in the columns of their probabilities, ``p_joy``; of an intensity these are ``p0`` to
    ``p6``. Numbers have nine significant digits, enough to give a float32 again exactly.
    """
    parts = list(parts)
    target = parts[-1][1].target if parts else Target()
    classes = [f"p_{name}" if target.is_classes else f"p{name}" for name in target.class_names]
    header = ["split", "id", "label", "prediction", *classes, *(f"gate_{r}" for r in readouts(target))]
    return csv_text(header, (row for split, predictions in parts for row in _rows(split, predictions)))


def _rows(split: str, predictions: Predictions) -> Iterator[list[str]]:
    target, predicted, nodes = predictions.target, predictions.predicted, len(readouts(predictions.target))
    for i, name in enumerate(predictions.ids):
        label = predictions.labels[i]
        gate = [""] * nodes if predictions.gate is None else [f"{g:.9g}" for g in predictions.gate[i]]
        words = ["" if np.isnan(label) else target.name_of(label), target.name_of(predicted[i])]
        yield [split, name, *words, *(f"{p:.9g}" for p in predictions.probabilities[i]), *gate]
