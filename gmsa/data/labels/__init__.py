"""Labels: reads columns of numbers or words as intensities, or as numbers of classes."""

from gmsa.data.labels.columns import NO_CLASS, NO_NUMBER, Column, holds_labels, holds_words, is_column, read_column
from gmsa.data.labels.doubts import are_places, check_places, label_notes, place_note
from gmsa.data.labels.fields import CLASS_FIELDS, INTENSITY_FIELDS, NoSuchField, find_field
from gmsa.data.labels.values import FEWEST, read_labels, usual_range, values_of

__all__ = [
    "CLASS_FIELDS",
    "FEWEST",
    "INTENSITY_FIELDS",
    "NO_CLASS",
    "NO_NUMBER",
    "Column",
    "NoSuchField",
    "are_places",
    "check_places",
    "find_field",
    "holds_labels",
    "holds_words",
    "is_column",
    "label_notes",
    "place_note",
    "read_column",
    "read_labels",
    "usual_range",
    "values_of",
]
