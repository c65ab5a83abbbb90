"""From what others write to rows of a feature store."""

from __future__ import annotations

from pathlib import Path

from gmsa.data.importers.manifest import read_manifest_csv
from gmsa.data.importers.pickles import annotations_of, read_pickle, split_columns
from gmsa.data.importers.rows import Source
from gmsa.data.importers.semi_iin import read_semi_iin
from gmsa.data.importers.tables import Splits
from gmsa.errors import DataError

__all__ = ["FORMATS", "Source", "Splits", "annotations_of", "open_source", "split_columns"]

FORMATS = ("mmsa", "semi_iin", "manifest")


def open_source(path: Path, form: str = "auto", labels: str = "mosi", splits: Path | None = None) -> Source:
    """Finds out what ``path`` is, and checks what can be checked before its features are read.

    Args:
        form: one of :data:`FORMATS`, or ``auto``: a folder is Semi-IIN's, a ``.csv`` a manifest, other files MMSA's.
        labels: label scale, ``mosi`` or ``sims``.
        splits: a CSV that says which split each ``id`` or ``video`` goes to, whatever the source says.

    Raises:
        DataError: the source is missing, unsafe or wrong.
    """
    if not path.exists():
        raise DataError(f"'{path}' does not exist; check the path")
    if form == "auto":
        form = "semi_iin" if path.is_dir() else "manifest" if path.suffix.lower() == ".csv" else "mmsa"
    if path.is_dir() != (form == "semi_iin"):
        kind = "is a folder" if path.is_dir() else "is a file"
        raise DataError(f"'{path}' {kind}, which --format {form} does not read; name another, or leave --format out")
    chosen = None if splits is None else Splits.read(splits)
    if form == "semi_iin":
        return read_semi_iin(path, chosen)
    if form == "manifest":
        return read_manifest_csv(path, chosen)
    return read_pickle(path, labels, chosen)
