"""Graphs of utterances: edge builders, utterance -> HeteroData, collation, NetworkX view."""

from gmsa.graph.batch import GraphBatch, collate
from gmsa.graph.build import build, token_count
from gmsa.graph.edges import EDGE_BUILDERS, edge_builder
from gmsa.graph.schema import NODE_TYPES, READOUTS, STREAMS, relations

__all__ = [
    "EDGE_BUILDERS",
    "NODE_TYPES",
    "READOUTS",
    "STREAMS",
    "GraphBatch",
    "build",
    "collate",
    "edge_builder",
    "relations",
    "token_count",
]
