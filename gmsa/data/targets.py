"""Label scales, and the seven classes that the class head predicts."""

from __future__ import annotations

import torch
from torch import Tensor

NUM_CLASSES = 7
IGNORED = -100
"""Class of an utterance without a label: PyTorch's cross-entropy leaves it out."""

_LIMITS = {"mosi": 3.0, "sims": 1.0}
_EDGES = (-2.5, -1.5, -0.5, 0.5, 1.5, 2.5)
# Labels are stored as float32 (1/6 * 3 is then 0.50000001): what differs from an edge by less is on it.
_DECIMALS = 6


def limit(label_scale: str) -> float:
    """Largest intensity of a label scale: 3 for ``mosi``, 1 for ``sims``; labels lie in [-limit, limit]."""
    return _LIMITS[label_scale]


def to_class(labels: Tensor, label_scale: str = "mosi") -> Tensor:
    """Classes 0 ... 6 of sentiment intensities, after Semi-IIN: half-open bins of width one.

    The bins are [-3, -2.5), [-2.5, -1.5), ... [1.5, 2.5), [2.5, 3]; unlike Acc-7's rounding, 0.5 belongs to
    the upper one. ``sims`` labels are stretched to [-3, 3] first. Labels are rounded to six decimals, in
    float64, so that a label that is on an edge but for its storage as float32 counts as on it. What lies
    beyond the scale falls into the outer bins, and NaN gives :data:`IGNORED`.

    Shapes:
        - labels, any shape and float type; output, the same shape, int64
    """
    values = (labels.detach().double() * (3.0 / limit(label_scale))).round(decimals=_DECIMALS)
    edges = torch.tensor(_EDGES, dtype=torch.float64, device=labels.device)
    classes = torch.bucketize(values, edges, right=True)
    return classes.masked_fill(values.isnan(), IGNORED)
