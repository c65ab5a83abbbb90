"""Losses on labels and pseudo-labels."""

# B examples, K classes
from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from gmsa.config import LossConfig
from gmsa.models import Output
from gmsa.training.examples import Targets


def loss(output: Output, targets: Targets, config: LossConfig) -> Tensor:
    r"""Loss of a batch: :math:`\lambda_1 L_v + (1 - \lambda_1) L_e + \lambda_2 L_e^u`.

    :math:`L_v` is the mean squared error of the intensity and :math:`L_e` the cross-entropy of the
    classes over the examples that have both, :math:`L_e^u` the cross-entropy over those with classes
    alone: the paper's pseudo-labels (Semi-IIN, section "Training objective"). A mean over none is 0;
    an example whose class probabilities are all 0 is context and counts for nothing.

    Shapes:
        - output and targets of B examples; output: a scalar
    """
    whole = (~targets.value.isnan()).float()
    squared = F.mse_loss(output.value.float(), targets.value.nan_to_num(), reduction="none")
    entropy = F.cross_entropy(output.logits.float(), targets.classes, reduction="none")
    supervised = config.value_weight * squared + (1 - config.value_weight) * entropy
    pseudo = (1 - whole) * (targets.classes.sum(1) > 0)
    return _mean(supervised, whole) + config.pseudo_weight * _mean(entropy, pseudo)


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    return (values * weight).sum() / weight.sum().clamp(min=1)
