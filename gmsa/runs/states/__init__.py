"""What the models of a run compute inside: the representations of utterances, attention weights, and why they predict
what they predict."""

from gmsa.runs.states.attention import Attention, StreamAttention, attention
from gmsa.runs.states.embeddings import Embeddings, embeddings
from gmsa.runs.states.explanations import explanations

__all__ = ["Attention", "Embeddings", "StreamAttention", "attention", "embeddings", "explanations"]
