"""Metrics of sentiment regression, a paired comparison of two systems, and calibration.

A label scale has metrics of its own, with MMSA's names and definitions. ``run.metrics`` adds registered ones, such as
:func:`rmse`, :func:`ccc` and a user's:

.. code-block:: python

    from gmsa.metrics import metric
    from gmsa.registry import METRICS

    @METRICS.register("within")
    @metric(higher_is_better=True)
    def within(prediction, truth, distance: float = 0.5) -> float:
        return float((abs(prediction - truth) <= distance).mean())

and a config then names it: ``run.metrics: [CCC, within(distance=1)]``.
"""

from gmsa.metrics.bootstrap import Bootstrap, paired_bootstrap
from gmsa.metrics.regression import COLUMNS, ccc, metric, mosi_metrics, rmse, sims_metrics
from gmsa.metrics.reliability import Bin, Calibration, calibration
from gmsa.metrics.scores import higher_is_better, is_better, metrics, read_metrics

__all__ = [
    "COLUMNS",
    "Bin",
    "Bootstrap",
    "Calibration",
    "calibration",
    "ccc",
    "higher_is_better",
    "is_better",
    "metric",
    "metrics",
    "mosi_metrics",
    "paired_bootstrap",
    "read_metrics",
    "rmse",
    "sims_metrics",
]
