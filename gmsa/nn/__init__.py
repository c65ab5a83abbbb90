"""Layers: they see tensors and edges, never batches or configs."""

from gmsa.nn.dropout import Dropout
from gmsa.nn.encoder import ConvEncoder
from gmsa.nn.fusion import Add, Concat, Dot, Gate, build_fusion
from gmsa.nn.heads import Heads
from gmsa.nn.interaction import Dense, Interaction, Sparse
from gmsa.nn.stream import Stream, StreamLayer

__all__ = [
    "Add",
    "Concat",
    "ConvEncoder",
    "Dense",
    "Dot",
    "Dropout",
    "Gate",
    "Heads",
    "Interaction",
    "Sparse",
    "Stream",
    "StreamLayer",
    "build_fusion",
]
