"""Sequences of utterances that are made when they are read, and what is asked of all of them, as arrays."""

from gmsa.data.lazy.columns import (
    ids_of,
    labels_of,
    lengths_of,
    names_of,
    own_labels_of,
    shards_of,
    steps_of,
    videos_of,
)
from gmsa.data.lazy.joined import joined
from gmsa.data.lazy.sequences import Lazy, Utterances, changed, taken

__all__ = [
    "Lazy",
    "Utterances",
    "changed",
    "ids_of",
    "joined",
    "labels_of",
    "lengths_of",
    "names_of",
    "own_labels_of",
    "shards_of",
    "steps_of",
    "taken",
    "videos_of",
]
