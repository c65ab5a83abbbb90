"""z-normalization with the statistics of the training split."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from gmsa.data.features import change_features
from gmsa.data.utterance import Utterance
from gmsa.errors import cut


class Normalizer:
    r"""Scales each feature to mean 0 and standard deviation 1: :math:`\mathrm{clip}((x - \mu) / \sigma, \pm c)`.

    The statistics (float64) come from the observed steps of the fitted utterances, so padding and missing modalities
    do not count. A feature that is constant in them becomes 0 everywhere.

    Args:
        means: per modality, means ``[D_m]``.
        stds: per modality, standard deviations ``[D_m]``; 0 for a constant feature.
        clip: bound on the normalized values, in standard deviations.

    >>> import torch
    >>> from gmsa.data import Utterance
    >>> train = [Utterance("v$_$0", {"audio": torch.tensor([[1.0, 5.0], [3.0, 5.0]])})]
    >>> normalizer = Normalizer.fit(train, ["audio"], clip=10.0)
    >>> normalizer.apply(train[0]).features["audio"]
    tensor([[-1.,  0.],
            [ 1.,  0.]])
    """

    def __init__(self, means: Mapping[str, Tensor], stds: Mapping[str, Tensor], clip: float) -> None:
        self.means, self.stds, self.clip = dict(means), dict(stds), clip
        self._constant = {m: found for m, std in self.stds.items() if len(found := (std <= 0).nonzero()[:, 0])}

    @classmethod
    def fit(cls, utterances: Sequence[Utterance], modalities: Iterable[str], clip: float) -> Normalizer:
        """Computes the statistics of the utterances.

        Args:
            utterances: the training split.
            modalities: what to normalize; others stay as they are. A modality that is missing from all utterances
                gets mean 0 and standard deviation 1.
            clip: bound on the normalized values, in standard deviations.
        """
        means, stds = {}, {}
        for modality in modalities:
            having = [u for u in utterances if modality in u.features]
            if having:
                means[modality], stds[modality] = _statistics(having, modality)
        return cls(means, stds, clip)

    def apply(self, utterance: Utterance) -> Utterance:
        """Returns the utterance with float32 normalized features; modalities that were not fitted stay as they are."""
        features = change_features(utterance.features, self._scores)
        withheld = change_features(utterance.withheld, self._scores)
        return dataclasses.replace(utterance, features=features, withheld=withheld)

    def _scores(self, modality: str, sequence: Tensor) -> Tensor:
        if modality not in self.means:
            return sequence
        scores = sequence.double()
        if scores is sequence:
            scores = sequence.clone()
        # In place: a stored sequence is normalized anew each time that it is read.
        scores.sub_(self.means[modality]).div_(self.stds[modality]).clamp_(-self.clip, self.clip)
        if modality in self._constant:
            scores[:, self._constant[modality]] = 0.0
        return scores.float()

    def state(self) -> dict[str, Tensor]:
        """Returns the statistics as float64 tensors, for safetensors and :meth:`from_state`."""
        tensors = {"clip": torch.tensor(self.clip, dtype=torch.float64)}
        for modality in self.means:
            tensors[f"{modality}.mean"] = self.means[modality]
            tensors[f"{modality}.std"] = self.stds[modality]
        return tensors

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor], dims: Mapping[str, int]) -> Normalizer:
        """Restores a normalizer from :meth:`state`; its results are bitwise the same.

        Args:
            state: what may be a stranger's.
            dims: D of each modality that there is.

        Raises:
            ValueError: names the tensor that is missing, or not what it must be.
        """
        modalities = [m for m in dims if f"{m}.mean" in state or f"{m}.std" in state]
        shapes: dict[str, tuple[int, ...]] = {"clip": ()}
        shapes |= {f"{m}.{part}": (dims[m],) for m in modalities for part in ("mean", "std")}
        for name in sorted(shapes.keys() | state.keys()):
            if name not in shapes:
                raise ValueError(f"'{cut(name)}' is of no modality that the run has")
            if name not in state:
                raise ValueError(f"it has no '{name}'")
            found = state[name]
            if found.dtype != torch.float64 or found.shape != shapes[name]:
                got = f"{found.dtype} {list(found.shape)}"
                raise ValueError(f"'{name}' must be torch.float64 {list(shapes[name])} (got {got})")
            if not torch.isfinite(found).all() or (not name.endswith(".mean") and (found < 0).any()):
                raise ValueError(f"'{name}' must be finite{'' if name.endswith('.mean') else ' and not negative'}")
        if not state["clip"] > 0:
            raise ValueError("'clip' must be above 0")
        means, stds = ({m: state[f"{m}.{part}"] for m in modalities} for part in ("mean", "std"))
        return cls(means, stds, state["clip"].item())


def _statistics(utterances: Sequence[Utterance], modality: str) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation [D] over all steps of a modality, in two passes that hold one sequence at a time."""
    dim = utterances[0].features[modality].shape[1]
    observed = [u for u in utterances if u.lengths[modality]]
    if not observed:
        return torch.zeros(dim, dtype=torch.float64), torch.ones(dim, dtype=torch.float64)
    count = sum(u.lengths[modality] for u in observed)
    total, squares = torch.zeros(dim, dtype=torch.float64), torch.zeros(dim, dtype=torch.float64)
    low, high = torch.full((dim,), torch.inf), torch.full((dim,), -torch.inf)
    for utterance in observed:
        sequence = utterance.features[modality]
        total += sequence.double().sum(0)
        low, high = torch.minimum(low, sequence.amin(0)), torch.maximum(high, sequence.amax(0))
    mean = total / count
    for utterance in observed:
        squares += (utterance.features[modality].double() - mean).square().sum(0)
    # Rounding may give a constant feature a tiny deviation; dividing by it would scale up the rounding error.
    return mean, torch.where(low == high, 0.0, (squares / count).sqrt())
