"""Reads untrusted CSV files: finds columns by any of their usual names, and checks every value."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from gmsa.data.opening import open_data
from gmsa.data.store.writer import NOT_ANNOTATED
from gmsa.data.texts import hint
from gmsa.errors import DataError, cut, short, shown
from gmsa.system.files import check_name, sha256_of
from gmsa.system.reading import reason_of

SPLIT_NAMES = {"val": "valid", "dev": "valid", "validation": "valid", "training": "train", "testing": "test"}
_LONGEST_LINE = 1 << 20
_MOST_COLUMNS = 1000
_ANNOTATIONS = {"negative": -1, "neutral": 0, "positive": 1}


def split_name(text: str) -> str:
    """Returns ``train``, ``valid`` or ``test`` for their usual synonyms; other names as they are."""
    return SPLIT_NAMES.get(text.lower(), text.lower() if text.lower() in ("train", "valid", "test") else text)


def annotation_of(value: object) -> int:
    """Returns -1, 0 or 1 for Negative, Neutral or Positive, and -128 for anything else."""
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    return _ANNOTATIONS.get(text.strip().lower(), NOT_ANNOTATED) if isinstance(text, str) else NOT_ANNOTATED


def about_files(importer: str, paths: Sequence[Path], splits: Splits | None) -> dict[str, Any]:
    """Returns the provenance that a store keeps: the importer, and its files, the user's splits among them.

    Raises:
        DataError: a file cannot be read, or its name is not UTF-8.
    """
    files = [*paths, *([splits.path] if splits else [])]
    for path in files:
        check_name(path, DataError)
    about = [{"name": path.name, "sha256": sha256_of(path, DataError)} for path in files]
    return {"importer": importer, "files": about}


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
            raise DataError(f"{short(path)}: is empty; the first row must hold the column names")
        if len(columns) > _MOST_COLUMNS:
            raise DataError(f"{short(path)}: has {len(columns):,} columns; at most {_MOST_COLUMNS:,} are read")
        if len(set(columns)) != len(columns):
            repeated = next(name for name in columns if columns.count(name) > 1)
            raise DataError(f"{short(path)}: duplicate column {shown(repeated)}; rename one")
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
            where = f"{short(self.path)}: row {number}"
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
            near = hint(names[0], self.columns)
            raise DataError(
                f"{short(self.path)}: has no column '{names[0]}'{near} for {purpose}; add it to the first row"
            )
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
        raise DataError(f"{where}: {what} is {shown(text)}, not a number; leave it empty if there is none")
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
                raise DataError(f"{where}: {shown(row[key])} has no split or two splits; assign exactly one")
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
            raise DataError(f"{where}: '{short(self.path)}' assigns no split to {self.by} {shown(key)}; add a row")
        return self.found[key]


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    # Symbolic links inside an imported folder were refused before; the user may pass one as the path itself.
    with open_data(path) as raw:
        reader = csv.reader(
            _pieces(io.TextIOWrapper(raw, encoding="utf-8-sig", errors="surrogateescape", newline="")), strict=True
        )
        try:
            for line in reader:
                yield reader.line_num, line
        except UnicodeEncodeError:
            raise DataError(f"{short(path)}: row {reader.line_num + 1} is not UTF-8; save the file as UTF-8") from None
        except csv.Error as error:
            row = f"{short(path)}: row {reader.line_num}"
            raise DataError(f"{row}: {cut(error)}; check its quotes and commas") from None
        except OSError as error:
            raise DataError(f"{short(path)}: cannot be read: {reason_of(error)}; check the disk") from None


def _pieces(file: TextIO) -> Iterator[str]:
    """The lines of a file; a line without end must not fill the memory.

    Raises:
        csv.Error: a line is too long.
        UnicodeEncodeError: a line was not UTF-8.
    """
    while line := file.readline(_LONGEST_LINE):
        if len(line) == _LONGEST_LINE and line[-1] not in "\r\n":
            raise csv.Error(f"a line has more than {_LONGEST_LINE:,} characters")
        if not line.isascii():
            line.encode("utf-8")  # fails for the surrogates that stand for other bytes
        yield line
