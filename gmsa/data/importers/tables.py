"""Reads CSV files that strangers made: columns by any of their usual names, every value checked."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gmsa.data.store.files import open_regular
from gmsa.data.store.writer import NOT_ANNOTATED
from gmsa.errors import DataError, nearest

SPLIT_NAMES = {"val": "valid", "dev": "valid", "validation": "valid", "training": "train", "testing": "test"}
_ANNOTATIONS = {"negative": -1, "neutral": 0, "positive": 1}


def split_name(text: str) -> str:
    """``train``, ``valid`` or ``test`` by whatever name; other names as they are."""
    return SPLIT_NAMES.get(text.lower(), text.lower() if text.lower() in ("train", "valid", "test") else text)


def annotation_of(text: object) -> int:
    """-1, 0 or 1 for Negative, Neutral or Positive; -128 for anything else."""
    return _ANNOTATIONS.get(str(text).strip().lower(), NOT_ANNOTATED)


@dataclass(frozen=True)
class Table:
    """A CSV file with a header; it is read anew for each pass, so that memory does not grow with it."""

    path: Path
    columns: tuple[str, ...]
    """As the file has them."""

    @classmethod
    def open(cls, path: Path) -> Table:
        """Reads the header.

        Raises:
            DataError: the file is missing, a link, empty, not UTF-8, or names a column twice.
        """
        header = next(_lines(path), None)
        columns = tuple(name.strip() for name in header[1]) if header else ()
        if not any(columns):
            raise DataError(f"{path}: is empty; its first row must name the columns")
        if len(set(columns)) != len(columns):
            twice = next(name for name in columns if columns.count(name) > 1)
            raise DataError(f"{path}: names the column '{twice}' twice; rename one")
        return cls(path, columns)

    def rows(self) -> Iterator[tuple[str, dict[str, str]]]:
        """Each row as ``FILE: row N``, counted as a spreadsheet does, and its values by column.

        Raises:
            DataError: a row has more or fewer values than there are columns.
        """
        lines = _lines(self.path)
        next(lines)
        for number, line in lines:
            if not line:
                continue
            where = f"{self.path}: row {number}"
            if len(line) != len(self.columns):
                raise DataError(
                    f"{where} has {len(line)} values for {len(self.columns)} columns; quote what has commas"
                )
            yield where, {name: value.strip() for name, value in zip(self.columns, line, strict=True)}

    def column(self, names: Sequence[str], purpose: str) -> str:
        """The first of ``names`` that the file has, upper or lower case.

        Raises:
            DataError: it has none.
        """
        found = self.find(names)
        if found is None:
            hint = nearest(names[0], self.columns)
            raise DataError(f"{self.path}: has no column '{names[0]}'{hint} for {purpose}; add it to the first row")
        return found

    def find(self, names: Sequence[str]) -> str | None:
        """The first of ``names`` that the file has, upper or lower case."""
        known = {column.lower(): column for column in self.columns}
        return next((known[name.lower()] for name in names if name.lower() in known), None)


def number(text: str, where: str, what: str) -> float | None:
    """A finite number, or None where there is none.

    Raises:
        DataError: the text is something else.
    """
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"{where}: {what} is {text[:40]!r}, not a number; leave it empty where there is none")
    return value


@dataclass(frozen=True)
class Splits:
    """Which split each utterance goes to, by a file of one's own."""

    path: Path
    by: str
    """``id`` or ``video``."""
    found: Mapping[str, str]

    @classmethod
    def read(cls, path: Path) -> Splits:
        """Reads a CSV with the columns ``id`` or ``video``, and ``split``.

        Raises:
            DataError: the file is wrong, or says two things of one utterance.
        """
        table = Table.open(path)
        by = "id" if table.find(["id"]) else "video"
        key, split = table.column(["id", "video", "video_id"], "the utterance"), table.column(["split", "mode"], "it")
        found: dict[str, str] = {}
        for where, row in table.rows():
            name = split_name(row[split])
            if not name or found.setdefault(row[key], name) != name:
                raise DataError(f"{where}: '{row[key]}' has no split, or two; give it one")
        return cls(path, by, found)

    def of(self, identity: str, where: str) -> str:
        """The split of an utterance.

        Raises:
            DataError: the file does not say.
        """
        key = identity if self.by == "id" else identity.partition("$_$")[0]
        if key not in self.found:
            raise DataError(f"{where}: {self.path} has no split for {self.by} '{key}'; add a row")
        return self.found[key]


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    # Links within a folder were refused before; one that the user names is the user's.
    with open_regular(path, str(path), follow=True) as raw:
        reader = csv.reader(io.TextIOWrapper(raw, encoding="utf-8-sig", newline=""), strict=True)
        try:
            for line in reader:
                yield reader.line_num, line
        except UnicodeDecodeError:
            raise DataError(f"{path}: row {reader.line_num + 1} is not UTF-8; save the file as UTF-8") from None
        except csv.Error as error:
            raise DataError(f"{path}: row {reader.line_num}: {error}; check its quotes and commas") from None
