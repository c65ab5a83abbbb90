"""Graphs of utterances: edge builders, utterance to HeteroData, collation to GraphBatch, NetworkX view."""

import gmsa.system.late  # noqa: F401  # first: it decides how PyG is imported
from gmsa.graph.batch import GraphBatch, check_builders, check_positions, collate, dialogues_of
from gmsa.graph.build import build_dialogue_graph, build_graph
from gmsa.graph.connect import edge_types
from gmsa.graph.context import context_builder
from gmsa.graph.dataset import GraphDataset, as_dataset
from gmsa.graph.edges import edge_builder, looks_at_features, looks_at_times
from gmsa.graph.hetero.batch import from_hetero
from gmsa.graph.hetero.graphs import as_hetero
from gmsa.graph.nodes import check_times, node_features, token_count
from gmsa.graph.relations import relations_of
from gmsa.graph.schema import DIALOGUE, READOUTS, STREAMS, UTTERANCE, Relation, Schema, schema
from gmsa.graph.spec import GraphSpec
from gmsa.graph.view import from_networkx, to_networkx
from gmsa.registry import CONTEXT_BUILDERS, EDGE_BUILDERS

__all__ = [
    "CONTEXT_BUILDERS",
    "DIALOGUE",
    "EDGE_BUILDERS",
    "READOUTS",
    "STREAMS",
    "UTTERANCE",
    "GraphBatch",
    "GraphDataset",
    "GraphSpec",
    "Relation",
    "Schema",
    "as_dataset",
    "as_hetero",
    "build_dialogue_graph",
    "build_graph",
    "check_builders",
    "check_positions",
    "check_times",
    "collate",
    "context_builder",
    "dialogues_of",
    "edge_builder",
    "edge_types",
    "from_hetero",
    "from_networkx",
    "looks_at_features",
    "looks_at_times",
    "node_features",
    "relations_of",
    "schema",
    "to_networkx",
    "token_count",
]
