"""Metrics of intensities and of classes, tests of systems, conformal prediction, calibration, and linear context.

A target has metrics of its own (:data:`COLUMNS`); those of ``mosi`` and ``sims`` have MMSA's names and definitions.
``run.metrics`` adds registered ones, such as :func:`rmse`, :func:`ccc` and a user's:

.. code-block:: python

    from gmsa.metrics import metric
    from gmsa.registry import METRICS

    @METRICS.register("within")
    @metric(higher_is_better=True)
    def within(prediction, truth, distance: float = 0.5) -> float:
        return float((abs(prediction - truth) <= distance).mean())

and a config then names it: ``run.metrics: [CCC, within(distance=1)]``.
"""

from gmsa.metrics.bootstrap import Bootstrap, PairedTest, paired_bootstrap, paired_test
from gmsa.metrics.classes import class_metrics, confusion, per_class
from gmsa.metrics.conformal import Conformal, binomial_interval, conformal_sets, coverage, coverage_interval
from gmsa.metrics.context import LinearContext, context_features, cross_fitted
from gmsa.metrics.multiple import holm
from gmsa.metrics.regression import COLUMNS, ccc, intensity_metrics, metric, mosi_metrics, rmse, sims_metrics
from gmsa.metrics.reliability import Bin, Calibration, calibration
from gmsa.metrics.scores import higher_is_better, is_better, metrics, read_metrics

__all__ = [
    "COLUMNS",
    "Bin",
    "Bootstrap",
    "Calibration",
    "Conformal",
    "LinearContext",
    "PairedTest",
    "binomial_interval",
    "calibration",
    "ccc",
    "class_metrics",
    "conformal_sets",
    "confusion",
    "context_features",
    "coverage",
    "coverage_interval",
    "cross_fitted",
    "higher_is_better",
    "holm",
    "intensity_metrics",
    "is_better",
    "metric",
    "metrics",
    "mosi_metrics",
    "paired_bootstrap",
    "paired_test",
    "per_class",
    "read_metrics",
    "rmse",
    "sims_metrics",
]
