"""Graphs as PyG's HeteroData: from utterances, and back to the batch that a model takes."""
