"""Metrics of classes, such as emotions. N utterances, K classes, numbered 0 ... K-1."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Classes = NDArray[np.int64]


def class_metrics(prediction: ArrayLike, truth: ArrayLike, num_classes: int) -> dict[str, float]:
    r"""Scores predicted classes p against the true ones t, N of each.

    - ``accuracy``: share of right classes: :math:`\frac{1}{N} \sum_n [\, p_n = t_n \,]`.
    - ``weighted_F1``: F1 of each class, the mean over the classes weighted by their share of the labels:
      :math:`\sum_k \frac{N_k}{N} F_1(k)`; what the field reports for emotions.
    - ``macro_F1``: the plain mean of F1 over all K classes: :math:`\frac{1}{K} \sum_k F_1(k)`.
    - ``unweighted_accuracy``: the mean recall of the classes that occur in the truth:
      :math:`\frac{1}{|\{k : N_k > 0\}|} \sum_{k : N_k > 0} \frac{1}{N_k} \sum_{n : t_n = k} [\, p_n = k \,]`.

    All are shares in [0, 1]. A class that neither prediction nor truth has counts in ``macro_F1`` as 0. Where the truth
    has a single class, accuracy says nothing about telling classes apart: the values follow the definitions, with a
    warning.

    Args:
        prediction: class numbers, ``[N]``.
        truth: class numbers, ``[N]``.
        num_classes (int): K.

    Raises:
        ValueError: the input is empty, of unequal shapes, or has a number that is no class.

    Example:
        >>> scores = class_metrics([0, 2, 1, 1], [0, 2, 1, 2], num_classes=3)
        >>> {name: round(value, 4) for name, value in scores.items()}
        {'accuracy': 0.75, 'weighted_F1': 0.75, 'macro_F1': 0.7778, 'unweighted_accuracy': 0.8333}
    """
    p, t = as_classes(prediction, truth, num_classes)
    there = np.unique(t)
    if len(there) == 1:
        warnings.warn(
            f"the truth of all {len(t)} utterances is class {there[0]}: no metric says how well classes are told apart",
            stacklevel=2,
        )
    _, recall, f1, support = _shares(p, t, num_classes)
    return {
        "accuracy": float((p == t).mean()),
        "weighted_F1": float(np.average(f1, weights=support)),
        "macro_F1": float(f1.mean()),
        "unweighted_accuracy": float(recall[there].mean()),
    }


def per_class(prediction: ArrayLike, truth: ArrayLike, classes: Sequence[str]) -> list[dict[str, Any]]:
    r"""Precision, recall and F1 of each class.

    With :math:`n_{kk}` utterances of class k predicted as k: precision is their share of those predicted as k, recall
    their share of those that are k, and :math:`F_1 = 2 \, P R / (P + R)`. A share of nothing is 0.

    Args:
        prediction: class numbers, ``[N]``.
        truth: class numbers, ``[N]``.
        classes: names of the K classes.

    Returns:
        K rows with ``class``, ``precision``, ``recall``, ``F1`` and ``support``, the number of utterances of the class.

    Raises:
        ValueError: the input is empty, of unequal shapes, or has a number that is no class.

    Example:
        >>> rows = per_class([0, 1, 1], [0, 1, 0], ["joy", "anger"])
        >>> rows[1]
        {'class': 'anger', 'precision': 0.5, 'recall': 1.0, 'F1': 0.6666666666666666, 'support': 1}
    """
    p, t = as_classes(prediction, truth, len(classes))
    return [
        {"class": name, "precision": float(P), "recall": float(R), "F1": float(F1), "support": int(support)}
        for name, P, R, F1, support in zip(classes, *_shares(p, t, len(classes)), strict=True)
    ]


def _shares(p: Classes, t: Classes, num_classes: int) -> tuple[NDArray[Any], ...]:
    """Precision, recall, F1 and support of each class, ``[K]`` each."""
    # Here, because importing scikit-learn takes longer than all of gmsa.
    from sklearn.metrics import precision_recall_fscore_support  # type: ignore[import-untyped, unused-ignore]

    found: tuple[NDArray[Any], ...] = precision_recall_fscore_support(
        t, p, labels=np.arange(num_classes), zero_division=0
    )
    return found


def confusion(prediction: ArrayLike, truth: ArrayLike, num_classes: int) -> Classes:
    """Counts of utterances by true class (row) and predicted class (column): ``[K, K]``.

    Args:
        prediction: class numbers, ``[N]``.
        truth: class numbers, ``[N]``.
        num_classes (int): K.

    Raises:
        ValueError: the input is empty, of unequal shapes, or has a number that is no class.

    Example:
        >>> confusion([0, 1, 1], [0, 1, 0], num_classes=2).tolist()
        [[1, 1], [0, 1]]
    """
    p, t = as_classes(prediction, truth, num_classes)
    return np.bincount(t * num_classes + p, minlength=num_classes**2).reshape(num_classes, num_classes)


def as_classes(prediction: ArrayLike, truth: ArrayLike, num_classes: int) -> tuple[Classes, Classes]:
    """Both as flat int64 arrays of one shape.

    Raises:
        ValueError: the input is empty, of unequal shapes, or has a number that is no class.
    """
    p, t = np.asarray(prediction), np.asarray(truth)
    if p.shape != t.shape:
        raise ValueError(f"prediction and truth must have one shape (got {p.shape} and {t.shape})")
    if p.size == 0:
        raise ValueError("prediction and truth are empty")
    for name, values in (("prediction", p), ("truth", t)):
        wrong = values[~np.isin(values, np.arange(num_classes))]
        if wrong.size:
            raise ValueError(f"{name} must hold classes in 0 ... {num_classes - 1} (got {wrong[0]})")
    return p.reshape(-1).astype(np.int64), t.reshape(-1).astype(np.int64)
