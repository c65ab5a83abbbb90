"""Reads untrusted CSV files: finds columns by any of their usual names, and checks every value."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gmsa.data.store.writer import NOT_ANNOTATED
from gmsa.errors import DataError, nearest
from gmsa.system.reading import open_regular

SPLIT_NAMES = {"val": "valid", "dev": "valid", "validation": "valid", "training": "train", "testing": "test"}
_ANNOTATIONS = {"negative": -1, "neutral": 0, "positive": 1}


def split_name(text: str) -> str:
    """Returns ``train``, ``valid`` or ``test`` for their usual synonyms; other names as they are."""
    return SPLIT_NAMES.get(text.lower(), text.lower() if text.lower() in ("train", "valid", "test") else text)


def annotation_of(text: object) -> int:
    """Returns -1, 0 or 1 for Negative, Neutral or Positive, and -128 for anything else."""
    return _ANNOTATIONS.get(str(text).strip().lower(), NOT_ANNOTATED)


@dataclass(frozen=True)
class Table:
    """A CSV file with a header; each pass reads it again, so that memory does not grow with the file."""

    path: Path
    columns: tuple[str, ...]
    """Column names as written in the file."""

    @classmethod
    def from_csv(cls, path: Path) -> Table:
        """Reads the header of a CSV file.

        Raises:
            DataError: the file is missing, empty, not a regular file, not UTF-8, or has a duplicate column.
        """
        header = next(_lines(path), None)
        columns = tuple(name.strip() for name in header[1]) if header else ()
        if not any(columns):
            raise DataError(f"{path}: is empty; the first row must hold the column names")
        if len(set(columns)) != len(columns):
            repeated = next(name for name in columns if columns.count(name) > 1)
            raise DataError(f"{path}: duplicate column '{repeated}'; rename one")
        return cls(path, columns)

    def rows(self) -> Iterator[tuple[str, dict[str, str]]]:
        """Yields each row as ``FILE: row N``, numbered as in a spreadsheet, and its values by column.

        Raises:
            DataError: the number of values differs from the number of columns.
        """
        lines = _lines(self.path)
        next(lines)
        for number, line in lines:
            if not line:
                continue
            where = f"{self.path}: row {number}"
            if len(line) != len(self.columns):
                raise DataError(
                    f"{where} has {len(line)} values for {len(self.columns)} columns; quote values that contain commas"
                )
            yield where, {name: value.strip() for name, value in zip(self.columns, line, strict=True)}

    def column(self, names: Sequence[str], purpose: str) -> str:
        """Returns the first of ``names`` that is a column, ignoring case.

        Args:
            purpose: what the column holds, for the error.

        Raises:
            DataError: none of them is a column.
        """
        found = self.find(names)
        if found is None:
            hint = nearest(names[0], self.columns)
            raise DataError(f"{self.path}: has no column '{names[0]}'{hint} for {purpose}; add it to the first row")
        return found

    def find(self, names: Sequence[str]) -> str | None:
        """Returns the first of ``names`` that is a column, ignoring case; None if there is none."""
        known = {column.lower(): column for column in self.columns}
        return next((known[name.lower()] for name in names if name.lower() in known), None)


def number(text: str, where: str, what: str) -> float | None:
    """Parses a finite number; returns None for empty text.

    Raises:
        DataError: the text is not a finite number.
    """
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"{where}: {what} is {text[:40]!r}, not a number; leave it empty if there is none")
    return value


@dataclass(frozen=True)
class Splits:
    """The user's assignment of utterances to splits, from a CSV."""

    path: Path
    by: str
    """``id`` or ``video``: what the assignment names."""
    found: Mapping[str, str]
    """Split of each id or video."""

    @classmethod
    def from_csv(cls, path: Path) -> Splits:
        """Reads a CSV with the columns ``id`` or ``video``, and ``split``.

        Raises:
            DataError: the file is invalid, or assigns an utterance to two splits.
        """
        table = Table.from_csv(path)
        by = "id" if table.find(["id"]) else "video"
        key = table.column(["id", "video", "video_id"], "the utterance")
        split = table.column(["split", "mode"], "its split")
        found: dict[str, str] = {}
        for where, row in table.rows():
            name = split_name(row[split])
            if not name or found.setdefault(row[key], name) != name:
                raise DataError(f"{where}: '{row[key]}' has no split or two splits; assign exactly one")
        return cls(path, by, found)

    def of(self, identity: str, where: str) -> str:
        """Returns the split of an utterance.

        Args:
            identity: id of the utterance.
            where: where the source names it, for the error.

        Raises:
            DataError: the file assigns it to no split.
        """
        key = identity if self.by == "id" else identity.partition("$_$")[0]
        if key not in self.found:
            raise DataError(f"{where}: '{self.path}' assigns no split to {self.by} '{key}'; add a row")
        return self.found[key]


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    # Symbolic links inside an imported folder were refused before; the user may pass one as the path itself.
    with open_regular(path, str(path), kind=DataError) as raw:
        reader = csv.reader(io.TextIOWrapper(raw, encoding="utf-8-sig", newline=""), strict=True)
        try:
            for line in reader:
                yield reader.line_num, line
        except UnicodeDecodeError:
            raise DataError(f"{path}: row {reader.line_num + 1} is not UTF-8; save the file as UTF-8") from None
        except csv.Error as error:
            raise DataError(f"{path}: row {reader.line_num}: {error}; check its quotes and commas") from None
