"""MMSA's pickle format."""

from gmsa.data.mmsa.reader import SPLITS, Split, feature_dims, from_mmsa, read_mmsa, split_columns

__all__ = ["SPLITS", "Split", "feature_dims", "from_mmsa", "read_mmsa", "split_columns"]
