"""Protocols: in which stages a model is trained, and on which utterances. The loop is the trainer's."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from torch import Tensor, nn

from gmsa.config import Config
from gmsa.config.components import build_component
from gmsa.data import Utterance
from gmsa.data.lazy import joined, labels_of
from gmsa.errors import ConfigError
from gmsa.registry import PROTOCOLS
from gmsa.training.examples import Example, plain_examples, utterances_of
from gmsa.training.pseudo_labels import hard_examples, most_confident, soft_examples
from gmsa.training.recombined import recombined
from gmsa.training.scoring import Predictions
from gmsa.training.trainer import Trainer


@dataclass
class TrainingData:
    """What a protocol may train on."""

    labeled: Sequence[Example]
    pool: Sequence[Utterance]
    """Utterances without labels."""
    pseudo_labels: list[dict[str, Any]] = field(default_factory=list)
    """The pseudo-labels that were kept, a row ``{"round", "id", "class", "confidence"}`` each."""

    def record(self, round_: int, predictions: Predictions, chosen: Sequence[int]) -> None:
        """Adds the pseudo-labels of a round."""
        for i in chosen:
            row = predictions.probabilities[i]
            best = int(np.argmax(row))
            self.pseudo_labels.append(
                {"round": round_, "id": predictions.ids[i], "class": best, "confidence": float(row[best])}
            )


def training_labels(data: TrainingData) -> np.ndarray:
    """The labels that are trained on, float64."""
    labels = labels_of(utterances_of(data.labeled))
    return labels[~np.isnan(labels)]


class Protocol:
    """Trains one seed's model in one or more stages.

    A protocol of your own is a class with ``__call__``; the parameters of its constructor are the user's:

    .. code-block:: python

        from gmsa.registry import PROTOCOLS
        from gmsa.training.protocols import Protocol

        @PROTOCOLS.register("easy_first")
        class EasyFirst(Protocol):
            def __init__(self, least: float = 2.0) -> None:
                self.least = least

            def __call__(self, trainer, data):
                easy = [e for e in data.labeled if abs(e.value) >= self.least]
                model = trainer.train_stage("easy", easy)
                return trainer.train_stage("all", data.labeled, start=model)

    ``plugins: [my_module]`` and ``protocol.name: easy_first(least=1.5)`` choose it. Every stage has a name of its own:
    a resumed run reads the weights of those that are finished. A protocol may draw random numbers only from
    :mod:`gmsa.rng`, with ``trainer.seed``.
    """

    predicts: ClassVar[bool] = True
    """Whether the model predicts; one that does not holds weights for other runs to start from."""

    def check(self, config: Config) -> None:
        """Checks that the protocol can train what the config asks for, before any data is read.

        Raises:
            ConfigError: names the setting that does not fit.
        """

    def check_data(self, config: Config, data: TrainingData) -> None:
        """Checks that the protocol can train on a seed's data, before any training.

        Raises:
            ConfigError: names the setting that does not fit.
        """

    def stages(self, config: Config) -> int:
        """How many stages of ``optim.epochs`` the protocol has at most."""
        return 1

    def __call__(self, trainer: Trainer, data: TrainingData) -> nn.Module:
        """Trains and returns the final model: the one that the last call of ``trainer.train_stage``, or of
        ``trainer.finish_stage``, returned."""
        raise NotImplementedError


class Supervised(Protocol):
    r"""Trains on the labeled utterances alone: Semi-IIN before its self-training.

    .. math::
        L = \lambda_1 L_v + (1 - \lambda_1) L_e
    """

    def __call__(self, trainer: Trainer, data: TrainingData) -> nn.Module:
        """Trains one stage."""
        return trainer.train_stage("supervised", data.labeled)


class SelfTraining(Protocol):
    r"""Trains :math:`\phi` on labels, then :math:`\phi'` from its weights on labels and pseudo-labels.

    .. math::
        \hat c_u = \arg\max_c p_\phi(c \mid u), \qquad
        \hat D = \bigcup_{c} \operatorname{top}_k \{u \in pool : \hat c_u = c\} \text{ by } p_\phi(c \mid u)

    Semi-IIN, Algorithm 1. In every round the model labels the pool, and the ``k`` most confident
    utterances per class join the labeled ones, with the class loss :math:`\lambda_2 L_e^u` alone. With k = 0 this is
    the control: the same further epochs without pseudo-labels. Without a pool it ends after its supervised stage, and
    says so.
    """

    def check_data(self, config: Config, data: TrainingData) -> None:
        """Refuses a ``self_training.k`` above the size of the pool."""
        k = config.self_training.k
        if data.pool and k != "all" and k > len(data.pool):
            raise ConfigError(
                f"'self_training.k' is {k}, but the unlabeled pool has {len(data.pool)} utterances; "
                "lower it, or set it to 'all'"
            )

    def stages(self, config: Config) -> int:
        """The supervised stage and one per round."""
        return 1 + config.self_training.rounds

    def __call__(self, trainer: Trainer, data: TrainingData) -> nn.Module:
        """Trains the supervised stage, then the rounds."""
        model: nn.Module = trainer.train_stage("supervised", data.labeled)
        if not _has_pool(trainer, data):
            return model
        settings = trainer.config.self_training
        for round_ in range(1, settings.rounds + 1):
            predictions = trainer.cached_predictions(f"pool_{round_}", model, data.pool)
            chosen = most_confident(predictions, settings)
            data.record(round_, predictions, chosen)
            examples = joined(data.labeled, hard_examples(data.pool, predictions, chosen))
            stage = "control" if settings.k == 0 else "self_training"
            model = trainer.train_stage(f"{stage}_{round_}", examples, start=model)
        return model


class Distillation(Protocol):
    r"""Trains several teachers on labels, then a new student on labels and on their predictions for a whole pool.

    .. math::
        \bar v_u = \frac{1}{T} \sum_t v_t(u), \qquad \bar p_u = \frac{1}{T} \sum_t p_t(\cdot \mid u)

    The student's targets on the pool are the teachers' mean intensity and mean class probabilities,
    with the supervised loss. Ours; after Hinton et al. 2015 (soft targets) and Xie et al. 2020 (a student
    that is noised more than its teachers, and starts from new weights).

    Without a pool the student learns what the teachers predict for utterances that are made of parts of the labeled
    ones, one of each (:func:`~gmsa.training.recombined.recombined`): one model then keeps part of what the mean of the
    teachers gains over one. On the labeled utterances themselves the teachers predict the labels that they learned.
    """

    def stages(self, config: Config) -> int:
        """The teachers and the student."""
        return 1 + config.distillation.teachers

    def __call__(self, trainer: Trainer, data: TrainingData) -> nn.Module:
        """Trains the teachers, then the student."""
        model, pool = trainer.train_stage("supervised", data.labeled), data.pool
        if not pool:
            pool = recombined(utterances_of(data.labeled), trainer.seed, "pool")
            trainer.callbacks.on_message(
                "No unlabeled pool (all labels are used and 'data.pool' names no file): the student learns from "
                f"{len(pool)} utterances that are made of parts of the labeled ones."
            )
        others = (
            trainer.train_stage(f"teacher_{i}", data.labeled)
            for i in range(2, trainer.config.distillation.teachers + 1)
        )
        teachers = [trainer.cached_predictions(f"pool_{i}", m, pool) for i, m in enumerate((model, *others), 1)]
        return trainer.train_stage("student", joined(data.labeled, soft_examples(pool, teachers)))


class Soup(Protocol):
    r"""Trains several models on labels from the same initial weights, and keeps one that has the mean of their weights.

    .. math::
        \bar\theta = \frac{1}{M} \sum_{m=1}^{M} \theta_m, \qquad \theta_m \text{ from } \theta_0
        \text{ by orders of batches and draws of dropout of its own}

    Wortsman et al.: Model soups: averaging weights of multiple fine-tuned models improves accuracy without increasing
    inference time. ICML 2022, arXiv 2203.05482: the uniform soup. There the members differ in their settings and have a
    pre-trained model in common; here the weights that are drawn are in common, too. Models that start from other draws
    cannot be mixed. It predicts at the cost of one model, and takes as many trainings as it has members. It looks at no
    pool.

    Args:
        members (int, default 3): Number of models M, 2 at least.
    """

    def __init__(self, members: int = 3) -> None:
        self.members = members

    def check(self, config: Config) -> None:
        """Refuses less than two members."""
        if self.members < 2:
            raise ConfigError(f"a soup of {self.members} models mixes nothing; set 'protocol.name: soup(members=3)'")

    def stages(self, config: Config) -> int:
        """One for each member; the soup itself trains nothing."""
        return self.members

    def __call__(self, trainer: Trainer, data: TrainingData) -> nn.Module:
        """Trains the members, then mixes them."""
        members = [trainer.train_stage("supervised", data.labeled)]
        members += [
            trainer.train_stage(f"member_{i}", data.labeled, begin_as="supervised") for i in range(2, self.members + 1)
        ]
        return trainer.finish_stage("soup", mixed(members))


class Consistency(Protocol):
    r"""Trains on labels and on agreement with the moving average of the model's own weights, for all utterances.

    .. math::
        L = L_{sup} + \lambda_u(t)\, L_u + \lambda_r L_{rec}

    SSLMM, stage 2 (our design): :class:`~gmsa.training.tasks.FineTuning`. It needs no pool: the average teaches on the
    labeled utterances too.
    """

    def check(self, config: Config) -> None:
        """Refuses ``optim.ema: 0``, without which there is no teacher."""
        if not config.optim.ema:
            raise ConfigError("'protocol.name: sslmm' has the moving average as its teacher; set 'optim.ema' above 0")

    def __call__(self, trainer: Trainer, data: TrainingData) -> nn.Module:
        """Trains one stage."""
        return trainer.train_stage("sslmm", joined(data.labeled, plain_examples(data.pool)), consistent=True)


class Pretrain(Protocol):
    """Pre-trains alone, for other runs to start from (``protocol.init_from``)."""

    predicts = False

    def check(self, config: Config) -> None:
        """Refuses ``pretrain.epochs: 0``."""
        if not config.pretrain.epochs:
            raise ConfigError("'protocol.name: pretrain' needs 'pretrain.epochs' above 0, for example 20")

    def __call__(self, trainer: Trainer, data: TrainingData) -> nn.Module:
        """Pre-trains."""
        return trainer.pretrain()


def mixed(models: Sequence[nn.Module]) -> nn.Module:
    """A model with the mean of the weights of several; what is no floating-point number is that of the first."""
    soup, (first, *others) = copy.deepcopy(models[0]), [model.state_dict() for model in models]

    def mean(name: str, weight: Tensor) -> Tensor:
        if not weight.is_floating_point():
            return weight
        total = weight.cpu().double()  # not every device has such numbers, or the room for them
        for state in others:
            total = total + state[name].cpu()
        return (total / len(models)).to(weight.dtype)

    soup.load_state_dict({name: mean(name, weight) for name, weight in first.items()})
    return soup


def build_protocol(config: Config) -> Protocol:
    """The protocol that ``protocol.name`` chooses, with its parameters.

    Raises:
        ConfigError: it is unknown, or does not take these parameters.
    """
    return build_component(config.protocol.name, PROTOCOLS, "protocol.name", Protocol)


def check_protocol(config: Config) -> None:
    """Checks that the config's protocol can train what the config asks for.

    Raises:
        ConfigError: names the setting that does not fit.
    """
    build_protocol(config).check(config)


def _has_pool(trainer: Trainer, data: TrainingData) -> bool:
    if not data.pool:
        trainer.callbacks.on_message(
            "No unlabeled pool (all labels are used and 'data.pool' names no file): ending after the supervised stage."
        )
    return bool(data.pool)
