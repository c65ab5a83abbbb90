"""Pictures of graphs, models and runs, each with what it shows in words on the console."""

from gmsa.runs.pictures.attention import picture_attention
from gmsa.runs.pictures.graph import picture_graph
from gmsa.runs.pictures.model import picture_model
from gmsa.runs.pictures.predictions import picture_predictions

__all__ = ["picture_attention", "picture_graph", "picture_model", "picture_predictions"]
