"""Layers: they see tensors and edges, never batches or configs."""

import gmsa.system.late  # noqa: F401  # first: it decides how PyG is imported
from gmsa.nn.alternation import AlternatingBlock
from gmsa.nn.attention_weights import AttentionWeights
from gmsa.nn.dropout import Dropout
from gmsa.nn.edge_weights import AngularWeights, LearnedChoice
from gmsa.nn.edges import DenseEdges, Edges, NodePairs, SparseEdges, without_sources
from gmsa.nn.encoders import ConvEncoder
from gmsa.nn.fusion import Add, Concat, Dot, Gate, build_fusion
from gmsa.nn.heads import Heads
from gmsa.nn.layers.attention import Interaction
from gmsa.nn.layers.make import make_layer
from gmsa.nn.layers.mtag import MTAGLayer
from gmsa.nn.layers.pyg import PygLayer
from gmsa.nn.layers.weighted_rgcn import WeightedRGCN
from gmsa.nn.nodal_attention import NodalAttention
from gmsa.nn.propagation import Propagation
from gmsa.nn.readout import ModalityReadout
from gmsa.nn.reconstruction import PieceHead, Reconstruction, Standardize, standardize_by
from gmsa.nn.relations import Relations
from gmsa.nn.sequence import DialogueLSTM, DialogueTransformer, RecurrentEncoder, SequenceEncoder, WindowEncoder
from gmsa.nn.streams import Stream, StreamLayer
from gmsa.nn.unimodal import UnimodalHeads

__all__ = [
    "Add",
    "AlternatingBlock",
    "AngularWeights",
    "AttentionWeights",
    "Concat",
    "ConvEncoder",
    "DenseEdges",
    "DialogueLSTM",
    "DialogueTransformer",
    "Dot",
    "Dropout",
    "Edges",
    "Gate",
    "Heads",
    "Interaction",
    "LearnedChoice",
    "MTAGLayer",
    "ModalityReadout",
    "NodalAttention",
    "NodePairs",
    "PieceHead",
    "Propagation",
    "PygLayer",
    "Reconstruction",
    "RecurrentEncoder",
    "Relations",
    "SequenceEncoder",
    "SparseEdges",
    "Standardize",
    "Stream",
    "StreamLayer",
    "UnimodalHeads",
    "WeightedRGCN",
    "WindowEncoder",
    "build_fusion",
    "make_layer",
    "standardize_by",
    "without_sources",
]
