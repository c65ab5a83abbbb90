"""Graphs of utterances: edge builders, utterance to HeteroData, collation to GraphBatch, NetworkX view."""

from gmsa.graph.batch import GraphBatch, check_builders, check_positions, collate
from gmsa.graph.build import build_graph, build_video_graph, node_features, token_count
from gmsa.graph.edges import edge_builder, looks_at_features
from gmsa.graph.schema import READOUTS, STREAMS, Schema, schema
from gmsa.graph.spec import GraphSpec
from gmsa.registry import EDGE_BUILDERS

__all__ = [
    "EDGE_BUILDERS",
    "READOUTS",
    "STREAMS",
    "GraphBatch",
    "GraphSpec",
    "Schema",
    "build_graph",
    "build_video_graph",
    "check_builders",
    "check_positions",
    "collate",
    "edge_builder",
    "looks_at_features",
    "node_features",
    "schema",
    "token_count",
]
