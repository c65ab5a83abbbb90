"""z-normalization with the statistics of the training split."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice

import torch
from torch import Tensor

from gmsa.data.features import change_features
from gmsa.data.lazy import Utterances
from gmsa.data.notes import note
from gmsa.data.utterance import Utterance
from gmsa.errors import cut

_TOGETHER = 256
"""Utterances whose statistics are found together."""
_LOST = 1e-6
"""Standard deviations by which a rounded mean may be wrong."""
_MANY = 100_000
"""Utterances whose statistics take so long that a note tells why they are found."""


class Normalizer:
    r"""Scales each feature to mean 0 and standard deviation 1: :math:`\mathrm{clip}((x - \mu) / \sigma, \pm c)`.

    The statistics (float64) come from the observed steps of the fitted utterances, so padding and missing modalities
    do not count. A feature that is constant in them becomes 0 everywhere. They are applied in float32, which costs half
    as much: a stored sequence is normalized each time that it is read.

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
        most = torch.finfo(torch.float32).max
        self._scales = {m: (1 / std).clamp(max=most).float() for m, std in self.stds.items()}
        self._shifts = {m: mean.float() for m, mean in self.means.items()}
        # What float32 loses of a mean, where it is large beside the deviation.
        self._rests = {
            m: rest
            for m, mean in self.means.items()
            if ((rest := (mean - self._shifts[m]).float()) * self._scales[m]).abs().max() > _LOST
        }

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
            if isinstance(utterances, Utterances):
                found = _lazy_statistics(utterances, modality)
            else:
                having = [u for u in utterances if modality in u.features]
                found = _statistics(having, modality) if having else None
            if found is not None:
                means[modality], stds[modality] = found
        return cls(means, stds, clip)

    def apply(self, utterance: Utterance) -> Utterance:
        """Returns the utterance with float32 normalized features; modalities that were not fitted stay as they are."""
        features = change_features(utterance.features, self._scores)
        withheld = change_features(utterance.withheld, self._scores)
        return dataclasses.replace(utterance, features=features, withheld=withheld)

    def _scores(self, modality: str, sequence: Tensor) -> Tensor:
        if modality not in self.means:
            return sequence
        scores = sequence - self._shifts[modality]  # float32, also of 16 bits
        if modality in self._rests:
            scores.sub_(self._rests[modality])
        scores.mul_(self._scales[modality]).clamp_(-self.clip, self.clip)
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


def _lazy_statistics(utterances: Utterances, modality: str) -> tuple[Tensor, Tensor] | None:
    """As :func:`_statistics`, those that a store keeps where the utterances are those that it keeps them of."""
    if modality not in utterances.modalities:
        return None
    if (kept := utterances.statistics(modality)) is not None:
        return kept[0].clone(), kept[1].clone()
    if len(utterances) >= _MANY:
        note(
            f"the statistics of '{modality}' are of other utterances than the store keeps them of (its training split "
            f"without 'data.missing'): they are found anew in {len(utterances):,} utterances"
        )
    return _statistics(utterances, modality)


def _statistics(utterances: Sequence[Utterance], modality: str) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation [D] over all steps of a modality."""

    def pieces() -> Iterator[list[Tensor]]:
        rest = iter(utterances)
        while piece := list(islice(rest, _TOGETHER)):
            yield [u.features[modality] for u in piece if u.lengths[modality]]

    return statistics(pieces, utterances[0].features[modality].shape[1])


def statistics(pieces: Callable[[], Iterable[Sequence[Tensor]]], dim: int) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over all steps of sequences, float64 ``[D]``; 0 and 1 where there are none.

    In two passes that hold one piece at a time. How the sequences are cut into pieces changes no bit.

    Args:
        pieces: gives the sequences, float32 ``[L, D]`` with L > 0, piece by piece, for each pass.
        dim: D.
    """
    count, total, squares = 0, torch.zeros(dim, dtype=torch.float64), torch.zeros(dim, dtype=torch.float64)
    low, high = torch.full((dim,), torch.inf), torch.full((dim,), -torch.inf)
    for piece in pieces():
        sums = torch.zeros(1 + len(piece), dim, dtype=torch.float64)
        sums[0] = total
        for rows, stacked in _by_length(piece):
            sums[rows] = stacked.double().sum(1)
            low, high = torch.minimum(low, stacked.amin((0, 1))), torch.maximum(high, stacked.amax((0, 1)))
        total, count = sums.cumsum(0)[-1], count + sum(map(len, piece))
    if not count:
        return total, torch.ones(dim, dtype=torch.float64)
    mean = total / count
    for piece in pieces():
        sums = torch.zeros(1 + len(piece), dim, dtype=torch.float64)
        sums[0] = squares
        for rows, stacked in _by_length(piece):
            sums[rows] = (stacked.double() - mean).square().sum(1)
        squares = sums.cumsum(0)[-1]
    # Rounding may give a constant feature a tiny deviation; dividing by it would scale up the rounding error.
    return mean, torch.where(low == high, 0.0, (squares / count).sqrt())


def _by_length(piece: Sequence[Tensor]) -> Iterator[tuple[list[int], Tensor]]:
    """The sequences of each length ``[B, L, D]``, with their places after a first row: many are summed at once."""
    rows: dict[int, list[int]] = {}
    for row, sequence in enumerate(piece):
        rows.setdefault(len(sequence), []).append(row)
    for found in rows.values():
        yield [1 + row for row in found], torch.stack([piece[row] for row in found])
