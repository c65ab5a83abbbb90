"""Losses on labels, pseudo-labels, a teacher's predictions and missing modalities.

Each is a mean over a batch. Of several processes, each computes its share of the sum, divided by the number in the
whole batch: their losses add up to the loss of a single process.
"""

# B examples, K classes, D_m features of modality m
from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from gmsa.models import Model, Output
from gmsa.nn import standardize_by
from gmsa.system.distributed import SINGLE_PROCESS, Group
from gmsa.training.examples import Targets


def loss(
    output: Output,
    targets: Targets,
    value_weight: float,
    pseudo_weight: float,
    group: Group = SINGLE_PROCESS,
    class_weights: Tensor | None = None,
) -> Tensor:
    r"""Loss of a batch.

    .. math::
        L = \lambda_1 L_v + (1 - \lambda_1) L_e + \lambda_2 L_e^u

    :math:`L_v` is the mean squared error of the intensity and :math:`L_e` the cross-entropy of the
    classes over the examples that have both, :math:`L_e^u` the cross-entropy over those with classes
    alone: the paper's pseudo-labels (Semi-IIN, section "Training objective"). A mean over none is 0;
    an example whose class probabilities are all 0 is context and has no loss.

    Where the target is one of K classes, there is no intensity: :math:`L = L_e + \lambda_2 L_e^u`. With class weights,
    :math:`L_e` is the mean of :math:`-\sum_c w_c\, t_c \log p_c`; pseudo-labels are not weighted, as they are chosen
    class by class.

    Args:
        value_weight: :math:`\lambda_1`.
        pseudo_weight: :math:`\lambda_2`.
        class_weights: of :func:`~gmsa.training.examples.class_weights`, ``[K]``; None: 1 each.

    Shapes:
        - output and targets of B examples; output: a scalar
    """
    entropy = F.cross_entropy(output.logits.float(), targets.classes, reduction="none")
    weighted = entropy
    if class_weights is not None:
        weighted = F.cross_entropy(output.logits.float(), targets.classes, class_weights, reduction="none")
    known = targets.classes.sum(1) > 0
    if output.value is None:
        supervised = weighted
        whole = (known if targets.pseudo is None else known & ~targets.pseudo).float()
    else:
        whole = (~targets.value.isnan()).float()
        squared = F.mse_loss(output.value.float(), targets.value.nan_to_num(), reduction="none")
        supervised = value_weight * squared + (1 - value_weight) * weighted
    return _mean(supervised, whole, group) + pseudo_weight * _mean(entropy, (1 - whole) * known, group)


def unimodal_loss(output: Output, targets: Targets, group: Group = SINGLE_PROCESS) -> Tensor:
    """Loss of the heads of single modalities on the labels of their own, such as CH-SIMS has.

    The mean over all (example, modality) pairs with a label and the modality: of the squared error of an intensity, or
    of the cross-entropy of classes. 0 where there is none.

    Shapes:
        - output and targets of B examples; output: a scalar
    """
    errors = [output.logits.new_zeros(0, dtype=torch.float32)]
    for modality, labels in targets.unimodal.items():
        predicted = (output.unimodal or {}).get(modality)
        if predicted is None:  # a modality that the training data lack
            continue
        rows = (~labels.isnan()).nonzero().squeeze(1)
        found, wanted = predicted.index_select(0, rows).float(), labels.index_select(0, rows)
        if found.dim() == 1:
            errors.append((found - wanted).square())
        else:
            errors.append(F.cross_entropy(found, wanted.long(), reduction="none"))
    every = torch.cat(errors)
    return _mean(every, torch.ones_like(every), group)


def consistency(predicted: Tensor, teacher: Tensor, confident_share: float, group: Group = SINGLE_PROCESS) -> Tensor:
    r"""Distance to a teacher.

    .. math::
        L_u = \frac{1}{|S|} \sum_{i \in S} e^{-\sigma^2_i}\, \mathrm{Huber}(v_i - \mu_i), \qquad
        \mathrm{Huber}(d) = \begin{cases} d^2 / 2 & |d| \le 1 \\ |d| - 1/2 & \text{else} \end{cases}

    :math:`\mu` and :math:`\sigma^2` are the mean and the variance (with P - 1) of the teacher's intensities over P
    passes with dropout, S the share ``confident_share`` of the batch with the least variance. Of a single pass
    :math:`\sigma^2` is the variance of it and of the student's own prediction, whose pass has dropout too. A teacher
    that averages weights is that of Tarvainen and Valpola (Mean teachers, NeurIPS 2017); distance, weights and S are
    our design.

    Of K classes the distance is theirs, the squared one between the probabilities, summed over the classes, and so is
    :math:`\sigma^2`:

    .. math::
        L_u = \frac{1}{|S|} \sum_{i \in S} e^{-\sigma^2_i}\, \lVert p_i - \mu_i \rVert^2, \qquad
        \sigma^2_i = \sum_c \sigma^2_{i,c}

    Shapes:
        - predicted :math:`(B)`, teacher :math:`(P, B)`; of classes :math:`(B, K)` and :math:`(P, B, K)`; output: a
          scalar
    """
    mean = teacher.float().mean(0)
    passes = teacher if len(teacher) > 1 else torch.cat([teacher, predicted.detach()[None]])
    variance = passes.float().var(0)
    if mean.dim() == 1:
        distance = F.huber_loss(predicted.float(), mean, reduction="none")
    else:
        variance, distance = variance.sum(1), (predicted.float() - mean).square().sum(1)
    kept = (variance <= torch.quantile(group.gather(variance)[0], confident_share)).float()
    return _mean(distance * torch.exp(-variance), kept, group)


def reconstruction(
    model: Model, output: Output, hidden: Mapping[str, tuple[Tensor, Tensor]], group: Group = SINGLE_PROCESS
) -> Tensor:
    r"""Squared error of reconstructed features: mean over their dimensions, then over all R (example, modality) pairs.

    .. math::
        L_{rec} = \frac{1}{R} \sum_{(i, m)} \frac{1}{D_m} \lVert \hat x_{i,m} - x_{i,m} \rVert^2

    x is the standardized mean over the steps, or a teacher's state, standardized over the batch. 0 where there is
    nothing to reconstruct. Our design.

    Args:
        hidden: as :class:`~gmsa.training.examples.Targets` has it, with the states in their place
            (:func:`with_states`).
    """
    assert model.reconstruction is not None
    errors = [output.logits.new_zeros(0, dtype=torch.float32)]
    for modality, (rows, features) in hidden.items():
        predicted = model.reconstruct(output, modality, rows).float()
        wanted = model.reconstruction.standardize(features, modality)
        errors.append((predicted - wanted).square().mean(1))
    every = torch.cat(errors)
    return _mean(every, torch.ones_like(every), group)


@torch.no_grad()
def with_states(
    teacher: Model, targets: Targets, taught: Sequence[str], encoded: bool, group: Group = SINGLE_PROCESS
) -> Mapping[str, tuple[Tensor, Tensor]]:
    """:attr:`Targets.hidden` with the teacher's states of hidden modalities, without gradient and without dropout.

    A state is the mean over an utterance's tokens, or over the features of its steps, of this modality alone: what the
    teacher makes of the others is not in it. It is standardized over all utterances of the batch, of all processes,
    that have the modality (:func:`~gmsa.nn.standardize_by`).

    Args:
        taught: the modalities whose states are targets, the same in all processes.
        encoded: of tokens, not of features.
    """
    hidden = dict(targets.hidden)
    assert teacher.reconstruction is not None
    training = teacher.training
    teacher.eval()
    for modality in taught:
        if group.world == 1 and modality not in hidden:
            continue  # of several processes, all join in
        device = targets.value.device
        states, there = torch.zeros(0, teacher.reconstruction.out[modality].out_features, device=device), None
        if targets.uncovered is not None:
            # Not under mixed precision: it would keep weights without gradient for what is computed after.
            with torch.autocast(device.type, enabled=False):
                states = teacher.embedding.summary(targets.uncovered, modality, encoded).float()
            there = targets.uncovered.lengths[modality].index_select(0, targets.uncovered.utterance_order) > 0
        every = group.gather(states if there is None else states[there])[0]
        if modality in hidden:
            rows = hidden[modality][0]
            hidden[modality] = rows, standardize_by(states.index_select(0, rows), every)
    teacher.train(training)
    return hidden


def _mean(values: Tensor, weight: Tensor, group: Group) -> Tensor:
    return (values * weight).sum() / group.all_reduce(weight.sum()).clamp(min=1)
