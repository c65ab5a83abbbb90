"""Streams: stacks of interaction layers over the same edges, and quicker ways to compute them."""

from gmsa.nn.streams.stream import Stream, StreamLayer, call_layer

__all__ = ["Stream", "StreamLayer", "call_layer"]
