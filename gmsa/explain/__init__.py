"""Explanations of predictions: what each modality and each token contributes, and whether that can be believed."""

from gmsa.explain.deletion import DeletionCheck, check_deletion
from gmsa.explain.explanation import Explanation, Explanations, Words
from gmsa.explain.gradients import integrated_gradients, path_gradients
from gmsa.explain.occlusion import occlusion
from gmsa.explain.predictions import explain
from gmsa.explain.score import Predictor, Score
from gmsa.explain.shapley import shapley_values, subset_values
from gmsa.explain.views import NEIGHBORS, View, views_of

__all__ = [
    "NEIGHBORS",
    "DeletionCheck",
    "Explanation",
    "Explanations",
    "Predictor",
    "Score",
    "View",
    "Words",
    "check_deletion",
    "explain",
    "integrated_gradients",
    "occlusion",
    "path_gradients",
    "shapley_values",
    "subset_values",
    "views_of",
]
