"""Labels: reads columns of numbers or words as intensities, or as numbers of classes."""

from gmsa.data.labels.columns import Column, holds_labels, holds_words, is_column, read_column
from gmsa.data.labels.doubts import label_notes
from gmsa.data.labels.fields import CLASS_FIELDS, INTENSITY_FIELDS, find_field
from gmsa.data.labels.values import FEWEST, read_labels, usual_range

__all__ = [
    "CLASS_FIELDS",
    "FEWEST",
    "INTENSITY_FIELDS",
    "Column",
    "find_field",
    "holds_labels",
    "holds_words",
    "is_column",
    "label_notes",
    "read_column",
    "read_labels",
    "usual_range",
]
