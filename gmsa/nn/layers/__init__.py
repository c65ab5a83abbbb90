"""Layers of message passing, one per file."""
