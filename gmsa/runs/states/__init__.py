"""What the models of a run compute inside: the representations of utterances, and attention weights."""

from gmsa.runs.states.attention import Attention, StreamAttention, attention
from gmsa.runs.states.embeddings import Embeddings, embeddings

__all__ = ["Attention", "Embeddings", "StreamAttention", "attention", "embeddings"]
