"""The target: what is predicted, an intensity on a range or one of K classes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from gmsa.config import AUTO, TargetConfig
from gmsa.errors import listed

INTENSITY_CLASSES = 7
"""Classes of an intensity: Semi-IIN's bins."""
IGNORED = -100
"""Class of an unlabeled utterance: the ``ignore_index`` of PyTorch's cross-entropy."""

_EDGES = (-2.5, -1.5, -0.5, 0.5, 1.5, 2.5)
# Labels are stored as float32 (1/6 * 3 is then 0.50000001): a smaller distance to an edge counts as 0.
_DECIMALS = 6


@dataclass(frozen=True)
class Target:
    """What is predicted.

    >>> Target.of(TargetConfig())
    Target(kind='intensity', low=-3.0, high=3.0, classes=(), metrics='mosi')
    >>> emotion = Target("classes", classes=("anger", "joy", "neutral"), metrics="classes")
    >>> emotion.num_classes, emotion.name_of(1)
    (3, 'joy')
    """

    kind: str = "intensity"
    """``intensity``, or ``classes``."""
    low: float = -3.0
    """Least intensity."""
    high: float = 3.0
    """Largest intensity."""
    classes: tuple[str, ...] = ()
    """Names of the K classes, in the order of their numbers; none for an intensity."""
    metrics: str = "mosi"
    """Metrics to report: ``mosi``, ``sims``, ``intensity`` or ``classes``."""

    @classmethod
    def of(cls, settings: TargetConfig) -> Target:
        """The target of settings; where only the file says the classes, it has none yet."""
        low, high = settings.chosen_range
        return cls(settings.chosen_kind, low, high, settings.chosen_classes, settings.chosen_metrics)

    def settings(self, before: TargetConfig, field: str = AUTO) -> TargetConfig:
        """The settings that say the target without the file: those ``before``, with nothing left to find.

        Args:
            field: key of the file that held the labels (default: unknown); of classes it is the field from then on,
                since another may number them in another order, and the file may lack the one of ``target.preset``.
        """
        found: dict[str, Any] = {"kind": self.kind, "metrics": self.metrics}
        found |= {"classes": self.classes} if self.is_classes else {"range": (self.low, self.high)}
        if self.is_classes and field != AUTO:
            found["field"] = field
        return replace(before, **found)

    @property
    def is_classes(self) -> bool:
        """Whether the target is one of K classes."""
        return self.kind == "classes"

    @property
    def num_classes(self) -> int:
        """K; of an intensity, the 7 bins that the class head predicts."""
        return len(self.classes) if self.is_classes else INTENSITY_CLASSES

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the K classes; of an intensity, the numbers of its bins."""
        return self.classes if self.is_classes else tuple(map(str, range(INTENSITY_CLASSES)))

    @property
    def scale(self) -> tuple[float, float]:
        """Center and unit of the intensities that a model predicts, in labels.

        A model predicts intensities centered at 0 whose range ends between 1 and 3: those of [-3, 3] and [-1, 1] as
        they are, of [1, 5] less 3, of [0, 100] less 50 and divided by 50 / 3. Losses then have the usual size.
        """
        half = (self.high - self.low) / 2
        return (self.low + self.high) / 2, half / min(max(half, 1.0), 3.0)

    def to_model(self, labels: Any) -> Any:
        """Intensities, as a float, an array or a tensor, on the scale that a model predicts."""
        center, unit = self.scale
        return labels if (center, unit) == (0, 1) else (labels - center) / unit  # -0.0 stays as it is

    def from_model(self, values: Any) -> Any:
        """Intensities on the scale that a model predicts as labels: the inverse of :meth:`to_model`."""
        center, unit = self.scale
        return values if (center, unit) == (0, 1) else values * unit + center

    def name_of(self, label: float) -> str:
        """A label in words: the name of its class, or the intensity."""
        return self.classes[int(label)] if self.is_classes else f"{label:.9g}"

    def holds(self, label: float) -> bool:
        """Whether a label is one: a number of a class, or an intensity in the range but for rounding."""
        if self.is_classes:
            return label in range(len(self.classes))
        return self.low - 1e-6 <= label <= self.high + 1e-6

    def to_class(self, labels: Tensor) -> Tensor:
        """Maps labels to classes: the numbers of classes as they are, intensities to 0 ... 6 by half-open bins.

        As Semi-IIN does: intensities, scaled linearly to [-3, 3], fall into the bins [-3, -2.5), [-2.5, -1.5), ...
        [1.5, 2.5), [2.5, 3]; unlike Acc-7's rounding, 0.5 belongs to the upper bin. They are rounded to six decimals in
        float64 first, so that float32 storage does not move a label off an edge. Intensities beyond the range fall into
        the outer bins. NaN gives :data:`IGNORED`.

        Args:
            labels: of any shape and float type; NaN if unlabeled.

        Returns:
            int64 classes of the same shape.
        """
        values = labels.detach().double()
        if self.is_classes:
            return values.nan_to_num(IGNORED).long()
        middle, scale = (self.low + self.high) / 2, 6.0 / (self.high - self.low)
        scaled = ((values - middle) * scale).round(decimals=_DECIMALS)
        classes = torch.bucketize(scaled, torch.tensor(_EDGES, dtype=torch.float64, device=labels.device), right=True)
        return classes.masked_fill(scaled.isnan(), IGNORED)


def describe_target(target: Target) -> str:
    """The target in words, for tables: ``intensity in [-3, 3]``, or ``3 classes: negative, neutral, positive``."""
    if not target.is_classes:
        return f"intensity in [{target.low:g}, {target.high:g}]"
    return f"{target.num_classes} classes: {listed(target.classes)}"
