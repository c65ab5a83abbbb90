"""Protocols: which utterances a model learns from, in which order. The loop is the trainer's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import nn

from gmsa.data import Utterance
from gmsa.training.examples import Example
from gmsa.training.pseudo_labels import hard_examples, most_confident, soft_examples
from gmsa.training.scoring import Predictions
from gmsa.training.trainer import Trainer


@dataclass
class TrainingData:
    """What a protocol may learn from."""

    labeled: Sequence[Example]
    pool: Sequence[Utterance]
    """Utterances without labels."""
    pseudo_labels: list[dict[str, Any]] = field(default_factory=list)
    """What was kept: a row ``{"round", "id", "class", "confidence"}`` per pseudo-label."""

    def record(self, round_: int, predictions: Predictions, places: Sequence[int]) -> None:
        """Notes the pseudo-labels of a round."""
        for i in places:
            row = predictions.probabilities[i]
            best = int(np.argmax(row))
            self.pseudo_labels.append(
                {"round": round_, "id": predictions.ids[i], "class": best, "confidence": float(row[best])}
            )


def supervised(trainer: Trainer, material: TrainingData) -> nn.Module:
    """Trains on the labeled utterances alone."""
    return trainer.fit("supervised", material.labeled)


def self_training(trainer: Trainer, material: TrainingData) -> nn.Module:
    r"""Trains :math:`\phi` on labels, then :math:`\phi'` from its weights on labels and pseudo-labels.

    Semi-IIN, Algorithm 1. In every round the model labels the pool, and the ``k`` most confident
    utterances per class join the labeled ones. With k = 0 this is the control: the same further
    epochs without pseudo-labels. Without a pool it ends after its supervised stage, and says so.
    """
    model = supervised(trainer, material)
    if not _has_pool(trainer, material):
        return model
    settings = trainer.config.self_training
    for round_ in range(1, settings.rounds + 1):
        predictions = trainer.cached_predictions(f"pool_{round_}", model, material.pool)
        places = most_confident(predictions, settings)
        material.record(round_, predictions, places)
        examples = [*material.labeled, *hard_examples(material.pool, predictions, places)]
        stage = "control" if settings.k == 0 else "self_training"
        model = trainer.fit(f"{stage}_{round_}", examples, start=model)
    return model


def distillation(trainer: Trainer, material: TrainingData) -> nn.Module:
    r"""Trains several teachers on labels, then a new student on labels and on what they say of the whole pool.

    The student's targets on the pool are the teachers' mean intensity and mean class probabilities,
    with the supervised loss. Ours; after Hinton et al. 2015 (soft targets) and Xie et al. 2020 (a student
    that is noised more than its teachers, and starts anew). Without a pool it ends after its first teacher,
    the supervised stage, and says so.
    """
    model = supervised(trainer, material)
    if not _has_pool(trainer, material):
        return model
    others = (trainer.fit(f"teacher_{i}", material.labeled) for i in range(2, trainer.config.distillation.teachers + 1))
    teachers = [trainer.cached_predictions(f"pool_{i}", m, material.pool) for i, m in enumerate((model, *others), 1)]
    examples = soft_examples(material.pool, teachers)
    return trainer.fit("student", [*material.labeled, *examples])


def sslmm(trainer: Trainer, material: TrainingData) -> nn.Module:
    """Trains on labels and, with all there is to learn from, on what the moving average of the weights says.

    SSLMM, stage 2 (our design): :class:`~gmsa.training.tasks.FineTuning`. It needs no pool: the labeled utterances are
    teacher_values too.
    """
    return trainer.fit("sslmm", [*material.labeled, *map(Example, material.pool)], consistent=True)


def pretrain(trainer: Trainer, material: TrainingData) -> nn.Module:
    """The pre-trained model alone, for other runs to start from (``protocol.init_from``)."""
    return trainer.pretrain()


def _has_pool(trainer: Trainer, material: TrainingData) -> bool:
    if not material.pool:
        trainer.progress.say(
            "No unlabeled pool (all labels are used and 'data.pool' names no file): ending after the supervised stage."
        )
    return bool(material.pool)


PROTOCOLS: dict[str, Callable[[Trainer, TrainingData], nn.Module]] = {
    "supervised": supervised,
    "self_training": self_training,
    "distillation": distillation,
    "sslmm": sslmm,
    "pretrain": pretrain,
}
"""Protocols by name."""
