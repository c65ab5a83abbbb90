"""Tasks of training: the module, batches, loss and validation scores of a stage."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from gmsa.config import Config
from gmsa.config.presets import TEXT
from gmsa.data import Normalizer, Target, Utterance
from gmsa.data.lazy import steps_of, taken
from gmsa.errors import ConfigError
from gmsa.graph import GraphBatch
from gmsa.models import Model, Output, build_model
from gmsa.models.pretraining import PretrainingBatch, PretrainingModel
from gmsa.system.distributed import SINGLE_PROCESS, Group
from gmsa.training.batches import WHOLE, SampleGroups, Shard, training_batches
from gmsa.training.examples import Example, Targets, class_weights, plain_examples, utterances_of
from gmsa.training.losses import consistency, loss, reconstruction, unimodal_loss, with_states
from gmsa.training.masking import taught_modalities
from gmsa.training.optimization.recorded import records_steps
from gmsa.training.prefetch import prefetch
from gmsa.training.pretraining_batches import pretraining_batches
from gmsa.training.scoring import predict_utterances, quiet_metrics


class Task(Protocol):
    """What the trainer trains in a stage. A batch, or its first part, has ``ids``."""

    epochs: int
    """Passes over the utterances."""
    size: int
    """Utterances of an epoch, with those that are context alone."""
    per_epoch: int
    """Batches of an epoch."""
    select: str
    """The score that chooses the best epoch."""
    recorded: bool
    """Whether its steps are recorded on a GPU, and its batches rounded up for it."""

    def build_module(self) -> nn.Module:
        """A new module."""

    def batches(self, *key: int | str, shard: Shard = WHOLE) -> Iterator[Any]:
        """Batches of an epoch, or a shard of them: a pure function of ``key``; None where the shard of one is empty."""

    def loss(self, module: Any, batch: Any, teacher: Any, done: float, group: Group = SINGLE_PROCESS) -> Tensor:
        """Loss of a batch, a scalar; of several processes, this one's share of it, whose batch may be None.

        Args:
            teacher: the module's moving average, or None where there is none.
            done: share of the stage's steps that are finished.
        """

    def score(self, module: Any, group: Group = SINGLE_PROCESS) -> dict[str, float]:
        """Scores on the validation split, the same in all processes."""


@dataclass
class FineTuning:
    """Trains on examples; if ``consistent``, on agreement with the moving average of its own weights too.

    .. math:: L = L_{sup} + \\lambda_u(t)\\, L_u + \\lambda_r L_{rec} + \\lambda_m L_{uni} + \\lambda_a L_{alone}

    The teacher sees every modality and all words, the student what ``model.modality_dropout`` and ``text.dropout``
    leave. Where states are to be reconstructed, they are the moving average's too, or without one the model's own.
    :math:`\\lambda_u` rises linearly over the first ``consistency.ramp`` of the steps (SSLMM, stage 2; our design).
    """

    config: Config
    dims: Mapping[str, int]
    examples: Sequence[Example]
    context: Sequence[Utterance]
    valid: Sequence[Utterance]
    device: torch.device
    consistent: bool = False
    valid_context: Sequence[Utterance] = ()
    """Further utterances in the graphs of the validation split's dialogues; they are not scored."""

    def __post_init__(self) -> None:
        self.consistent = self.consistent and self.config.consistency.weight > 0
        self._groups, optim = SampleGroups(self.examples, self.config, self.context), self.config.optim
        self.size, self.per_epoch = self._groups.size, self._groups.per_epoch
        self.epochs = max(optim.epochs, -(-optim.min_steps // self.per_epoch))
        self.select: str = self.config.select
        self.recorded = not self.consistent and records_steps(self.config, self.device)
        balanced = self.config.loss.class_weights == "balanced"
        weights = class_weights(self.examples, Target.of(self.config.target)) if balanced else None
        self.class_weights = None if weights is None else weights.to(self.device)

    def build_module(self) -> Model:
        """A new model; the features that it reconstructs are standardized by all training utterances."""
        model = build_model(self.dims, self.config)
        if model.reconstruction is not None:
            utterances = self.context or utterances_of(self.examples)
            taught = taught_modalities(self.config, self.dims)  # whose states have no statistics that stay
            fixed = [m for m in self.dims if m not in taught]
            model.reconstruction.standardize.set_statistics(*_statistics(utterances, fixed))
        return model.to(self.device)

    def batches(self, *key: int | str, shard: Shard = WHOLE) -> Iterator[tuple[GraphBatch, Targets] | None]:
        """Batches of the examples."""
        return training_batches(
            self._groups,
            self.config,
            *key,
            full_view=self.consistent,
            shard=shard,
            rounded=self.recorded and shard.world == 1,
        )

    def loss(
        self,
        module: Model,
        batch: tuple[GraphBatch, Targets] | None,
        teacher: Model | None,
        done: float,
        group: Group = SINGLE_PROCESS,
    ) -> Tensor:
        """The weighted sum of the losses."""
        config = self.config
        output, targets = self._empty() if batch is None else (module(batch[0]), batch[1])
        settings, pseudo = config.loss, config.self_training.weight
        value = loss(output, targets, settings.value_weight, pseudo, group, self.class_weights)
        if config.graph.scope == "hierarchical" and settings.alone_weight:
            alone = loss(_alone(output), targets, settings.value_weight, pseudo, group, self.class_weights)
            value = value + settings.alone_weight * alone
        if settings.unimodal_weight:
            value = value + settings.unimodal_weight * unimodal_loss(output, targets, group)
        if config.reconstruction.weight:
            teaches = module if teacher is None else teacher
            encoded, hidden = config.reconstruction.of == "states", targets.hidden
            if taught := taught_modalities(config, self.dims):
                hidden = with_states(teaches, targets, taught, encoded, group)
            value = value + config.reconstruction.weight * reconstruction(module, output, hidden, group)
        if self.consistent:
            assert teacher is not None
            weights = config.consistency
            risen = min(1.0, done / weights.ramp) if weights.ramp else 1.0
            teachings = self._teachings(teacher, targets.full_view)
            distance = consistency(_taught(output), teachings, weights.confident_share, group)
            value = value + risen * weights.weight * distance
        return value

    def _teachings(self, teacher: Model, batch: GraphBatch | None) -> Tensor:
        """What the teacher predicts in P passes with dropout: intensities ``[P, B]`` or probabilities ``[P, B, K]``."""
        passes = range(self.config.consistency.passes)
        teacher.train()
        with torch.inference_mode():
            found = [_taught(self._empty()[0] if batch is None else teacher(batch)) for _ in passes]
        return torch.stack(found)  # outside, so that it can take part in what has a gradient

    def _empty(self) -> tuple[Output, Targets]:
        """Output and targets of a process without a share of the batch; its loss is 0, but it joins the collectives."""
        target = Target.of(self.config.target)
        value, classes = torch.zeros(0, device=self.device), torch.zeros(0, target.num_classes, device=self.device)
        predicted = None if target.is_classes else value, classes
        return Output(*predicted, None, classes, alone=predicted), Targets(value, classes)

    def score(self, module: Model, group: Group = SINGLE_PROCESS) -> dict[str, float]:
        """The metrics on the validation split."""
        predictions = predict_utterances(module, self.valid, self.config, self.device, self.valid_context, group)
        return quiet_metrics(predictions, self.config)


@dataclass
class Pretraining:
    """Trains on the features of utterances, without labels (SSLMM, stage 1)."""

    config: Config
    dims: Mapping[str, int]
    utterances: Sequence[Utterance]
    valid: Sequence[Utterance]
    device: torch.device

    def __post_init__(self) -> None:
        # There is nothing to learn from an utterance without any modality.
        self.utterances, self.valid = (taken(us, np.flatnonzero(steps_of(us))) for us in (self.utterances, self.valid))
        self.size, self.epochs, self.select = len(self.utterances), self.config.pretrain.epochs, "loss"
        self.recorded = False
        self.per_epoch = SampleGroups(plain_examples(self.utterances), self.config).per_epoch

    def build_module(self) -> PretrainingModel:
        """A new model in the module that pre-trains it."""
        module = PretrainingModel(build_model(self.dims, self.config), self.dims, self.config)
        fixed = [m for m in self.dims if m != TEXT or not self.config.trains_text_encoder]
        module.standardize.set_statistics(*_statistics(self.utterances, fixed))
        return module.to(self.device)

    def batches(self, *key: int | str, shard: Shard = WHOLE) -> Iterator[PretrainingBatch | None]:
        """Batches of the utterances, masked and in two views."""
        return pretraining_batches(self.utterances, self.config, *key, shard=shard)

    def loss(
        self,
        module: PretrainingModel,
        batch: PretrainingBatch | None,
        teacher: PretrainingModel | None,
        done: float,
        group: Group = SINGLE_PROCESS,
    ) -> Tensor:
        """The weighted sum of both losses."""
        batch = self._taught(module if teacher is None else teacher, batch, group)
        masked, contrast = module(batch, group)
        total: Tensor = masked + self.config.pretrain.contrast_weight * contrast
        return total

    @torch.no_grad()
    def _taught(
        self, teacher: PretrainingModel, batch: PretrainingBatch | None, group: Group = SINGLE_PROCESS
    ) -> PretrainingBatch | None:
        """The batch with the teacher's states as targets of masked texts, where whole texts are masked."""
        texts = TEXT in self.dims and self.config.trains_text_encoder and self.config.graph.has_dialogues
        return teacher.with_states(batch, group) if texts else batch

    def score(self, module: PretrainingModel, group: Group = SINGLE_PROCESS) -> dict[str, float]:
        """Both losses on the validation split, whose masks and subsets are the same in every epoch and run.

        Every process scores all of it.
        """
        training = module.training
        module.eval()
        with torch.inference_mode():
            batches = prefetch(pretraining_batches(self.valid, self.config, "valid", learning=False), self.device)
            taught = (self._taught(module, batch) for batch in batches)
            found = [(len(b.ids), torch.stack(module(b))) for b in taught if b is not None]
            losses = torch.stack([both for _, both in found]).tolist()
        module.train(training)
        masked, contrast = np.average(losses, axis=0, weights=[count for count, _ in found]).tolist()
        whole = masked + self.config.pretrain.contrast_weight * contrast
        return {"loss": whole, "mask": masked, "contrast": contrast}


def _alone(output: Output) -> Output:
    """What each utterance's own graph predicts."""
    if output.alone is None:
        raise ConfigError("'loss.alone_weight' needs 'Output.alone', which the model lacks; set it to 0")
    return output._replace(value=output.alone[0], logits=output.alone[1])


def _taught(output: Output) -> Tensor:
    """What a teacher teaches: the intensities ``[B]``, or the probabilities of the classes ``[B, K]``."""
    return output.logits.float().softmax(-1) if output.value is None else output.value


def _statistics(
    utterances: Sequence[Utterance], modalities: Iterable[str]
) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
    """Means and standard deviations of the features."""
    fitted = Normalizer.fit(utterances, modalities, float("inf"))
    return fitted.means, fitted.stds
