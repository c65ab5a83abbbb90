r"""The linear context baseline: a model's predictions, corrected by those for the other utterances of a dialogue.

N utterances, K classes, F features: an utterance's own prediction, and means of the predictions around it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
REACHES = {"all": ("own", "before", "after", "rest"), "past": ("own", "before", "rest")}
"""Features by reach: context is ``all`` other utterances of a dialogue, or the ``past`` ones alone."""
NEIGHBOURS = 3
"""Utterances on each side that are neighbours."""
LEAST = 8
"""Labeled utterances with context that a fit needs."""
PARTS = 20
"""Parts of :func:`cross_fitted`, at most."""
SMALLEST = 1e-6
"""Probabilities below this count as this, as 0 has no logarithm."""
_STEPS = 100


def context_features(
    prediction: ArrayLike, dialogues: Sequence[str], order: Sequence[Any], reach: str = "all"
) -> tuple[Array, NDArray[np.bool_]]:
    r"""Each utterance's own prediction, and the means of the predictions around it.

    With the utterances of a dialogue in their order, the features of utterance i are

    - ``own``, :math:`y_i`;
    - ``before``, the mean of :math:`y_{i-3}, y_{i-2}, y_{i-1}`;
    - ``after``, the mean of :math:`y_{i+1}, y_{i+2}, y_{i+3}`;
    - ``rest``, the mean of all other utterances of the dialogue.

    With the reach ``past`` there is no ``after``, and ``rest`` is the mean of those before i - 3. Near an end of the
    dialogue a mean is over those that there are; a mean over none is :math:`y_i`.

    Args:
        prediction: intensities ``[N]``, or scores of classes ``[N, K]``.
        dialogues: the dialogue of each utterance, ``[N]``.
        order: what the utterances of a dialogue are sorted by, ``[N]``; those of a dialogue must differ.
        reach (str, default all): ``all`` or ``past``.

    Returns:
        The features, ``[N, F]`` or ``[N, K, F]``, and whether each utterance has any context, ``[N]``.

    Raises:
        ValueError: the lengths differ, or the reach is unknown.

    Example:
        >>> features, there = context_features([1, 2, 3, 4, 5, 9], ["a"] * 5 + ["b"], range(6))
        >>> features[0].tolist(), features[4].tolist()
        ([1.0, 1.0, 3.0, 5.0], [5.0, 3.0, 5.0, 1.0])
        >>> there.tolist()
        [True, True, True, True, True, False]
    """
    y = np.asarray(prediction, dtype=np.float64)
    if y.ndim not in (1, 2) or not len(y) == len(dialogues) == len(order):
        raise ValueError(
            "expected predictions [N] or [N, K], and a dialogue and a place for each "
            f"(got {y.shape}, {len(dialogues)} and {len(order)})"
        )
    if reach not in REACHES:
        raise ValueError(f"unknown reach {reach!r}: expected one of {', '.join(REACHES)}")
    features, there = np.empty((*y.shape, len(REACHES[reach]))), np.zeros(len(y), dtype=bool)
    members: dict[str, list[int]] = {}
    for n in sorted(range(len(y)), key=lambda n: order[n]):
        members.setdefault(dialogues[n], []).append(n)
    for rows in members.values():
        features[rows], there[rows] = _of_dialogue(y[rows], reach)
    return features, there


def _of_dialogue(y: Array, reach: str) -> tuple[Array, NDArray[np.bool_]]:
    """The features of a dialogue whose utterances are in their order, and whether each has context."""
    count = len(y)
    i = np.arange(count)
    sums = np.concatenate([np.zeros_like(y[:1]), y.cumsum(axis=0)])  # sums[i]: of the utterances before i, none later
    first, last = np.maximum(i - NEIGHBOURS, 0), np.minimum(i + 1 + NEIGHBOURS, count)

    def mean(total: Array, counted: NDArray[np.int64]) -> Array:
        divisor = counted.reshape(-1, *[1] * (y.ndim - 1))
        return np.where(divisor > 0, total / np.maximum(divisor, 1), y)

    before, farther = mean(sums[i] - sums[first], i - first), sums[first]
    if reach == "past":
        return np.stack([y, before, mean(farther, first)], axis=-1), i > 0
    after = mean(sums[last] - sums[i + 1], last - i - 1)
    rest = mean(farther + (sums[-1] - sums[last]), first + count - last)
    return np.stack([y, before, after, rest], axis=-1), np.full(count, count > 1)


@dataclass(frozen=True, eq=False)
class LinearContext:
    r"""Weights of :func:`context_features`, fitted on labeled utterances that the model was not trained on.

    With the features :math:`x_i`, an intensity is :math:`w^\top x_i + b`, fitted by least squares. Of classes the
    features are those of their log-probabilities, and the weights are shared by all classes,

    .. math::
        p_{ik} \propto \exp(w^\top x_{ik}),

    fitted by :math:`\min_w -\sum_i \log p_{i t_i} + \tfrac{1}{2} \lVert w - w_0 \rVert^2`, where :math:`w_0` takes the
    model's own prediction and no context. Utterances without context keep the prediction that they have, and are not
    fitted on.

    Example:
        >>> predictions, video = [2.0, 0.0, 1.0, 1.5, -2.0, 0.0, 0.0, -1.5], ["a"] * 4 + ["b"] * 4
        >>> labels = [1, 1, 1, 1, -1, -1, -1, -1]
        >>> found = LinearContext.fit(predictions, labels, video, range(8))
        >>> found.apply(predictions, video, range(8)).round().tolist()
        [1.0, 1.0, 1.0, 1.0, -1.0, -1.0, -1.0, -1.0]
    """

    weights: Array
    """Of the features, ``[F]``."""
    intercept: float
    """b; 0 of classes."""
    reach: str = "all"
    """``all`` or ``past``."""

    @property
    def named(self) -> dict[str, float]:
        """The weights by feature, and the intercept of an intensity."""
        return {**dict(zip(REACHES[self.reach], self.weights.tolist(), strict=True)), "intercept": self.intercept}

    @classmethod
    def fit(
        cls,
        prediction: ArrayLike,
        labels: ArrayLike,
        dialogues: Sequence[str],
        order: Sequence[Any],
        reach: str = "all",
    ) -> LinearContext:
        """Fits the weights. The order of the utterances does not matter, nor do dialogues of one utterance.

        Args:
            prediction: intensities ``[N]``, or probabilities of classes ``[N, K]``.
            labels: intensities or numbers of classes, ``[N]``; NaN where there is none. Unlabeled utterances are
                context of the others.
            dialogues, order, reach: as :func:`context_features` has them.

        Raises:
            ValueError: fewer than :data:`LEAST` labeled utterances have context, or as :func:`context_features`.
        """
        return _fitted(_Rows.of(prediction, labels, dialogues, order, reach), reach)

    def apply(self, prediction: ArrayLike, dialogues: Sequence[str], order: Sequence[Any]) -> Array:
        """Predictions with context, of the form of those without: intensities ``[N]``, or probabilities ``[N, K]``.

        Args:
            prediction, dialogues, order: as :meth:`fit` has them.
        """
        y = np.asarray(prediction, dtype=np.float64)
        features, there = context_features(_linear(y), dialogues, order, self.reach)
        return self._of_features(y, features, there)

    def _of_features(self, y: Array, features: Array, there: NDArray[np.bool_]) -> Array:
        scores = (features * self.weights).sum(axis=-1) + self.intercept
        return np.where(there.reshape(-1, *[1] * (y.ndim - 1)), scores if y.ndim == 1 else _softmax(scores), y)


def cross_fitted(
    prediction: ArrayLike, labels: ArrayLike, dialogues: Sequence[str], order: Sequence[Any], reach: str = "all"
) -> Array:
    """Predictions with context for the utterances that weights are fitted on: each by weights of other dialogues.

    The dialogues are dealt to at most :data:`PARTS` parts; weights fitted on all other parts are applied to each.

    Args:
        prediction, labels, dialogues, order, reach: as :meth:`LinearContext.fit` has them.

    Returns:
        As :meth:`LinearContext.apply`.

    Raises:
        ValueError: fewer than :data:`LEAST` labeled utterances with context are left without a part.
    """
    rows = _Rows.of(prediction, labels, dialogues, order, reach)
    names = sorted({dialogue for dialogue, there in zip(dialogues, rows.there, strict=True) if there})
    place = {name: i for i, name in enumerate(names)}
    part = np.array([place.get(name, 0) % PARTS for name in dialogues])
    found = rows.prediction.copy()
    for k in range(min(PARTS, len(place))):
        of = part == k
        found[of] = _fitted(rows, reach, ~of)._of_features(rows.prediction[of], rows.features[of], rows.there[of])
    return found


@dataclass(frozen=True, eq=False)
class _Rows:
    prediction: Array
    features: Array
    there: NDArray[np.bool_]
    labels: Array
    order: NDArray[np.int64]
    """The rows by dialogue and place: sums in this order are the same for any order of the utterances."""

    @classmethod
    def of(
        cls, prediction: ArrayLike, labels: ArrayLike, dialogues: Sequence[str], order: Sequence[Any], reach: str
    ) -> _Rows:
        y, t = np.asarray(prediction, dtype=np.float64), np.asarray(labels, dtype=np.float64)
        features, there = context_features(_linear(y), dialogues, order, reach)
        if t.shape != y.shape[:1]:
            raise ValueError(f"expected a label for each of the {len(y)} predictions (got {t.shape})")
        rows = sorted(range(len(y)), key=lambda n: (dialogues[n], order[n]))
        return cls(y, features, there, t, np.array(rows, dtype=np.int64))


def _fitted(rows: _Rows, reach: str, among: NDArray[np.bool_] | None = None) -> LinearContext:
    """The weights that are fitted on the labeled rows with context, or on those of them that are ``among`` some."""
    chosen = rows.there & ~np.isnan(rows.labels)
    if among is not None:
        chosen &= among
    at = rows.order[chosen[rows.order]]
    if len(at) < LEAST:
        raise ValueError(f"needs at least {LEAST} labeled utterances with others in their dialogue (got {len(at)})")
    x, t = rows.features[at], rows.labels[at]
    if rows.prediction.ndim == 2:
        return LinearContext(_multinomial(x, t.astype(np.int64)), 0.0, reach)
    found = np.linalg.lstsq(np.column_stack([x, np.ones(len(x))]), t, rcond=None)[0].astype(np.float64)
    return LinearContext(found[:-1], float(found[-1]), reach)


def _multinomial(x: Array, truth: NDArray[np.int64]) -> Array:
    """The weights of least penalized logistic loss, by Newton's method with halved steps; the loss is convex.

    Args:
        x: features of each class, ``[n, K, F]``.
        truth: true classes, ``[n]``.
    """
    n, _, F = x.shape
    start: Array = np.eye(F, dtype=np.float64)[0]
    right = x[np.arange(n), truth]

    def loss(w: Array) -> float:
        scores = x @ w
        highest = scores.max(axis=1)
        total = highest + np.log(np.exp(scores - highest[:, None]).sum(axis=1))
        return float((total - right @ w).sum() + ((w - start) ** 2).sum() / 2)

    w: Array = start
    for _ in range(_STEPS):
        p = _softmax(x @ w)
        mean = np.einsum("nk,nkf->nf", p, x)
        gradient = (mean - right).sum(axis=0) + w - start
        hessian = np.einsum("nk,nkf,nkg->fg", p, x, x, optimize=True) - mean.T @ mean + np.eye(F)
        step = np.linalg.solve(hessian, gradient)
        decrement = float(gradient @ step)
        if decrement < 1e-12:
            break
        size, now = 1.0, loss(w)
        while size > 1e-6 and loss(w - size * step) > now - size * decrement / 4:
            size /= 2
        w = w - size * step
    return w


def _linear(y: Array) -> Array:
    """What features are means of: intensities as they are, probabilities by their logarithms."""
    return y if y.ndim == 1 else np.log(np.maximum(y, SMALLEST))


def _softmax(scores: Array) -> Array:
    raised = np.exp(scores - scores.max(axis=-1, keepdims=True))
    found: Array = raised / raised.sum(axis=-1, keepdims=True)
    return found
