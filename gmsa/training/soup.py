"""A soup of models: one whose weights are the mean of those of several."""

from __future__ import annotations

import copy
from collections.abc import Sequence

from torch import Tensor, nn

from gmsa.config import Config
from gmsa.errors import ConfigError
from gmsa.training.protocols import Protocol, TrainingData
from gmsa.training.trainer import Trainer

FIRST = "supervised"
"""The stage whose initial weights all members have."""


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
        members = [trainer.train_stage(FIRST, data.labeled)]
        members += [
            trainer.train_stage(f"member_{i}", data.labeled, begin_as=FIRST) for i in range(2, self.members + 1)
        ]
        return trainer.finish_stage("soup", mixed(members))


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
