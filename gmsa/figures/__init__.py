"""Figures, as PNG files, and beside each as SVG.

Each function takes plain lists and dicts, writes its two files atomically and returns whether it did:
where there is nothing to show, none is written. All have the colours of one palette, which differ in
lightness. Matplotlib is imported when the first figure is drawn; its global state stays untouched.
"""

from gmsa.figures.ablation import figure_ablation
from gmsa.figures.costs import figure_costs
from gmsa.figures.explanations import figure_explanations
from gmsa.figures.robustness import figure_robustness
from gmsa.figures.run import (
    figure_calibration,
    figure_classes,
    figure_confusion,
    figure_curves,
    figure_gate,
    figure_pseudo_labels,
    figure_scatter,
)
from gmsa.figures.timeline import figure_timeline

__all__ = [
    "figure_ablation",
    "figure_calibration",
    "figure_classes",
    "figure_confusion",
    "figure_costs",
    "figure_curves",
    "figure_explanations",
    "figure_gate",
    "figure_pseudo_labels",
    "figure_robustness",
    "figure_scatter",
    "figure_timeline",
]
