"""Label scales, and the seven classes of sentiment that the class head predicts."""

from __future__ import annotations

import torch
from torch import Tensor

NUM_CLASSES = 7
IGNORED = -100
"""Class of an unlabeled utterance: the ``ignore_index`` of PyTorch's cross-entropy."""

_LIMITS = {"mosi": 3.0, "sims": 1.0}
_EDGES = (-2.5, -1.5, -0.5, 0.5, 1.5, 2.5)
# Labels are stored as float32 (1/6 * 3 is then 0.50000001): a smaller distance to an edge counts as 0.
_DECIMALS = 6


def limit(label_scale: str) -> float:
    """Returns the largest intensity of a label scale: 3 for ``mosi``, 1 for ``sims``; labels lie in [-limit, limit]."""
    return _LIMITS[label_scale]


def to_class(labels: Tensor, label_scale: str = "mosi") -> Tensor:
    """Maps sentiment intensities to classes 0 ... 6, as Semi-IIN does: half-open bins of width one.

    The bins are [-3, -2.5), [-2.5, -1.5), ... [1.5, 2.5), [2.5, 3]; unlike Acc-7's rounding, 0.5 belongs to the upper
    bin. ``sims`` labels are scaled to [-3, 3] first. Labels are rounded to six decimals in float64, so that float32
    storage does not move a label off an edge. Labels beyond the scale fall into the outer bins, and NaN gives
    :data:`IGNORED`.

    Args:
        labels: intensities of any shape and float type; NaN if unlabeled.
        label_scale: ``mosi`` (default) or ``sims``.

    Returns:
        int64 classes of the same shape.
    """
    values = (labels.detach().double() * (3.0 / limit(label_scale))).round(decimals=_DECIMALS)
    edges = torch.tensor(_EDGES, dtype=torch.float64, device=labels.device)
    classes = torch.bucketize(values, edges, right=True)
    return classes.masked_fill(values.isnan(), IGNORED)
