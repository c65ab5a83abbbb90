"""Layers: they see tensors and edges, never batches or configs."""

from gmsa.nn.alternation import AlternatingBlock
from gmsa.nn.dropout import Dropout
from gmsa.nn.edges import DenseEdges, Edges, SparseEdges, without_sources
from gmsa.nn.encoders import ConvEncoder
from gmsa.nn.fusion import Add, Concat, Dot, Gate, build_fusion
from gmsa.nn.heads import Heads
from gmsa.nn.layers.attention import Interaction
from gmsa.nn.readout import ModalityReadout
from gmsa.nn.reconstruction import Reconstruction, Standardize
from gmsa.nn.streams import Stream, StreamLayer
from gmsa.nn.unimodal import UnimodalHeads

__all__ = [
    "Add",
    "AlternatingBlock",
    "Concat",
    "ConvEncoder",
    "DenseEdges",
    "Dot",
    "Dropout",
    "Edges",
    "Gate",
    "Heads",
    "Interaction",
    "ModalityReadout",
    "Reconstruction",
    "SparseEdges",
    "Standardize",
    "Stream",
    "StreamLayer",
    "UnimodalHeads",
    "build_fusion",
    "without_sources",
]
