"""MMSA's pickle format."""

from gmsa.data.mmsa.file import MmsaFile, Reading, read_file
from gmsa.data.mmsa.keys import split_columns
from gmsa.data.mmsa.reader import feature_dims, from_mmsa, read_mmsa
from gmsa.data.mmsa.split import Split

__all__ = [
    "MmsaFile",
    "Reading",
    "Split",
    "feature_dims",
    "from_mmsa",
    "read_file",
    "read_mmsa",
    "split_columns",
]
