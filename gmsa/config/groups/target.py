"""Settings of the target: what is predicted, an intensity on a range or one of several classes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final, Literal

from gmsa.config.presets import TARGETS
from gmsa.errors import ConfigError, printable, shown

AUTO: Final = "auto"
"""What only the data, or another setting, says."""
MOST_CLASSES = 1000
"""Classes, at most."""
LONGEST_CLASS = 200
"""Characters of the name of a class, at most."""
SELECTED = {"mosi": "MAE", "sims": "MAE", "intensity": "MAE", "classes": "weighted_F1"}
"""The metric that ``run.select: auto`` stands for, by ``target.metrics``."""
SELECTABLE = {
    "mosi": ("MAE", "Corr"),
    "sims": ("MAE", "Corr"),
    "intensity": ("MAE", "RMSE", "Corr", "CCC"),
    "classes": ("weighted_F1", "accuracy", "macro_F1", "unweighted_accuracy"),
}
"""The metrics that may select a checkpoint, by ``target.metrics``."""


@dataclass(frozen=True)
class TargetConfig:
    """What is predicted: an intensity on a range, or one of K classes; by default, what the preset says."""

    preset: Literal["mosi", "mosei", "sims", "simsv2", "meld", "meld_sentiment", "iemocap4", "iemocap6", "mer"] = "mosi"
    """Data set whose kind, field, range, classes and metrics hold where the other settings are ``auto``."""
    kind: Literal["auto", "intensity", "classes"] = AUTO
    """What is predicted: an ``intensity``, or one of K ``classes``."""
    field: str = AUTO
    """Key of the file that holds the labels; ``auto`` takes ``regression_labels``, ``labels``, ``label`` and the like,
    for classes first ``classification_labels``, ``emotion`` and the like."""
    column: int | None = None
    """Column of the labels, counted from 0, where the field holds several numbers per utterance."""
    range: tuple[float, ...] | Literal["auto"] = AUTO
    """Least and largest intensity, as [-3, 3]."""
    classes: tuple[str, ...] | Literal["auto"] = AUTO
    """Names of the classes, in the order of their numbers; ``auto`` takes those of the file."""
    metrics: Literal["auto", "mosi", "sims", "intensity", "classes"] = AUTO
    """Metrics to report: MMSA's for ``mosi`` or ``sims``, MAE, RMSE, Corr and CCC for an ``intensity`` on another
    range, accuracy and F1 for ``classes``."""

    def __post_init__(self) -> None:
        if isinstance(bounds := self.range, tuple) and not _is_range(bounds):
            raise ConfigError(
                f"'target.range' must be the least and the largest intensity, such as [-3, 3] "
                f"(got {shown(list(bounds))})"
            )
        if isinstance(self.classes, tuple):
            if len(set(self.classes)) != len(self.classes):
                raise ConfigError(f"'target.classes' lists a class twice (got {shown(list(self.classes))})")
            if not 2 <= len(self.classes) <= MOST_CLASSES:
                raise ConfigError(
                    f"'target.classes' must name 2 to {MOST_CLASSES:,} classes (got {len(self.classes)}); "
                    "leave it out to take those of the file"
                )
            for name in self.classes:
                if not is_class_name(name) or name != name.strip():
                    raise ConfigError(
                        f"'target.classes': a class is one line of 1 to {LONGEST_CLASS} printable characters without "
                        f"spaces around it (got {shown(name)})"
                    )
        if self.column is not None and self.column < 0:
            raise ConfigError(f"'target.column' counts from 0 (got {self.column})")
        for key, kind in (("range", "intensity"), ("classes", "classes")):
            if getattr(self, key) != AUTO and self.is_classes != (kind == "classes"):
                raise ConfigError(f"'target.{key}' is of {_KINDS[kind]}; set 'target.kind: {kind}', or leave it out")
        if self.metrics != AUTO and self.is_classes != (self.metrics == "classes"):
            kind = "classes" if self.is_classes else "intensity"
            raise ConfigError(f"'target.metrics: {self.metrics}' does not score {_KINDS[kind]}; leave it out")

    def _preset(self, key: str) -> Any:
        """What the preset says, if it is of the same kind."""
        preset = TARGETS[self.preset]
        return preset.get(key) if preset["kind"] == self.chosen_kind else None

    @property
    def chosen_kind(self) -> str:
        """``intensity`` or ``classes``."""
        return TARGETS[self.preset]["kind"] if self.kind == AUTO else self.kind

    @property
    def is_classes(self) -> bool:
        """Whether the target is one of K classes."""
        return self.chosen_kind == "classes"

    @property
    def chosen_field(self) -> str:
        """The field that holds the labels, or ``auto``."""
        return (self._preset("field") or AUTO) if self.field == AUTO else self.field

    @property
    def chosen_range(self) -> tuple[float, float]:
        """Least and largest intensity; [-3, 3] where nothing says another."""
        found: Any = self._preset("range") if self.range == AUTO else self.range
        low, high = found or (-3.0, 3.0)
        return float(low), float(high)

    @property
    def chosen_classes(self) -> tuple[str, ...]:
        """The names of the classes; none where the file says them."""
        found: Any = self._preset("classes") if self.classes == AUTO else self.classes
        return tuple(found or ())

    @property
    def chosen_metrics(self) -> str:
        """The metrics that fit: of an intensity those of the data sets that have its range."""
        if self.metrics != AUTO:
            return self.metrics
        if self.is_classes:
            return "classes"
        return next((p["metrics"] for p in TARGETS.values() if p.get("range") == self.chosen_range), "intensity")


def is_class_name(name: str) -> bool:
    """Whether a text can be the name of a class: one line, not long, without control characters.

    >>> is_class_name("joy"), is_class_name(" "), is_class_name("a\\nb")
    (True, False, False)
    """
    return (
        bool(name.strip()) and len(name) <= LONGEST_CLASS and printable(name) == name and not {"\n", "\t"} & set(name)
    )


_KINDS = {"intensity": "an intensity", "classes": "classes"}


def _is_range(bounds: tuple[float, ...]) -> bool:
    return len(bounds) == 2 and all(math.isfinite(b) for b in bounds) and bounds[0] < bounds[1]
