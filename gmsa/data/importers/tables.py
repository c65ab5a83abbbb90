"""Reads untrusted tables (CSV, TSV, JSON): finds columns by any of their usual names, and checks every value."""

from __future__ import annotations

import codecs
import csv
import io
import itertools
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from gmsa.data.opening import open_data
from gmsa.data.splits import SPLIT_NAMES
from gmsa.data.store.writer import NOT_ANNOTATED, Row
from gmsa.data.texts import check_count, hint
from gmsa.errors import DataError, cut, listed, short, shown
from gmsa.system.files import check_name, sha256_of
from gmsa.system.reading import parse_json, reason_of

_LONGEST_LINE = 1 << 20
MOST_COLUMNS = 1000
_MOST_JSON = 1 << 26
_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs"}
_ANNOTATIONS = {"negative": -1, "neutral": 0, "positive": 1}


def split_name(text: str) -> str:
    """Returns gmsa's name of a split for its usual synonyms; other names as they are."""
    return SPLIT_NAMES.get(text.lower(), text)


def annotation_of(value: object) -> int:
    """Returns -1, 0 or 1 for Negative, Neutral or Positive, and -128 for anything else."""
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    return _ANNOTATIONS.get(text.strip().lower(), NOT_ANNOTATED) if isinstance(text, str) else NOT_ANNOTATED


def assigned(rows: Sequence[Row], splits: Splits, where: str) -> Iterator[Row]:
    """Rows in the splits that the user assigns, split by split."""
    moved = [row._replace(split=splits.of(row.utterance.id, where, row.utterance.of_video)) for row in rows]
    names = dict.fromkeys(row.split for row in moved)
    check_count(names, where)
    for name in names:
        yield from (row for row in moved if row.split == name)


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
    """A table with a header; each pass over a CSV reads it again, so that memory does not grow with the file."""

    path: Path
    columns: tuple[str, ...]
    """Column names as written in the file."""
    dialect: _Dialect
    records: tuple[tuple[int, list[str]], ...] | None = None
    """Number and values of each row, if the file is JSON."""

    @classmethod
    def open(cls, path: Path) -> Table:
        """Reads the header of a CSV, a TSV (also with ``;``), or a JSON list or JSON lines of objects.

        Raises:
            DataError: the file is missing, empty, not a regular file, not text, or has a duplicate column.
        """
        columns, records = _read_json(path) if looks_like_json(path) else (None, None)
        return cls.from_csv(path) if columns is None else cls(path, _checked(columns, path), _Dialect(), records)

    @classmethod
    def from_csv(cls, path: Path) -> Table:
        """Reads the header of a CSV file; values may be separated by commas, semicolons or tabs.

        Raises:
            DataError: the file is missing, empty, not a regular file, not UTF-8, or has a duplicate column.
        """
        dialect = _Dialect.of(path)
        header = next(_lines(path, dialect), None)
        columns = tuple(name.strip() for name in header[1]) if header else ()
        return cls(path, _checked(columns, path), dialect)

    @property
    def decimal_comma(self) -> bool:
        """Whether ``0,5`` is a number: where commas do not separate, as Excel writes in half of the world."""
        return self.dialect.delimiter != ","

    def rows(self) -> Iterator[tuple[str, dict[str, str]]]:
        """Yields each row as ``FILE: row N``, numbered as in a spreadsheet, and its values by column.

        Raises:
            DataError: the number of values differs from the number of columns.
        """
        lines: Iterator[tuple[int, list[str]]] = iter(self.records or ())
        if self.records is None:
            lines = _lines(self.path, self.dialect)
            next(lines)
        for number, line in lines:
            if not line:
                continue
            where = f"{short(self.path)}: row {number}"
            if len(line) != len(self.columns):
                what = _DELIMITERS[self.dialect.delimiter]
                raise DataError(
                    f"{where} has {len(line)} values for {len(self.columns)} columns; quote values that contain {what}"
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


def as_number(text: str, decimal_comma: bool = False) -> float | None:
    """Returns a finite number that a text holds, or None."""
    if decimal_comma and text.count(",") == 1 and "." not in text:
        text = text.replace(",", ".")
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def number(text: str, where: str, what: str, decimal_comma: bool = False) -> float | None:
    """Parses a finite number; returns None for empty text.

    Raises:
        DataError: the text is not a finite number.
    """
    if not text:
        return None
    value = as_number(text, decimal_comma)
    if value is None:
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

    def of(self, identity: str, where: str, video: str = "") -> str:
        """Returns the split of an utterance.

        Args:
            identity: id of the utterance.
            where: where the source names it, for the error.
            video: its video, if the source says it (default: what comes before ``$_$`` in the id).

        Raises:
            DataError: the file assigns it to no split.
        """
        key = identity if self.by == "id" else video or identity.partition("$_$")[0]
        if key not in self.found:
            raise DataError(f"{where}: '{short(self.path)}' assigns no split to {self.by} {shown(key)}; add a row")
        return self.found[key]


@dataclass(frozen=True)
class _Dialect:
    """How the values of a CSV are written."""

    delimiter: str = ","
    encoding: str = "utf-8-sig"
    skipped: int = 0
    """Lines before the header: Excel may write ``sep=;`` there."""

    @classmethod
    def of(cls, path: Path) -> _Dialect:
        """Tells it from the first line: the separator that parts it into most names, and the byte order mark."""
        with open_data(path) as raw:
            start = raw.read(_LONGEST_LINE)
        encoding = "utf-16" if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
        lines = start.decode(encoding, "replace").splitlines()[:2] or [""]
        if lines[0].lower().startswith("sep=") and len(lines[0]) == 5 and lines[0][4] in _DELIMITERS:
            return cls(lines[0][4], encoding, 1)
        return cls(max(_DELIMITERS, key=lambda mark: len(_parted(lines[0], mark))), encoding)


def _parted(line: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error:
        return []


def _checked(columns: tuple[str, ...], path: Path) -> tuple[str, ...]:
    if not any(columns):
        raise DataError(f"{short(path)}: is empty; the first row must hold the column names")
    if len(columns) > MOST_COLUMNS:
        raise DataError(f"{short(path)}: has {len(columns):,} columns; at most {MOST_COLUMNS:,} are read")
    if len(set(columns)) != len(columns):
        repeated = next(name for name in columns if columns.count(name) > 1)
        raise DataError(f"{short(path)}: duplicate column {shown(repeated)}; rename one")
    return columns


def looks_like_json(path: Path) -> bool:
    """Whether a file begins as JSON, or as lines of JSON."""
    with open_data(path) as raw:
        return raw.read(64).removeprefix(codecs.BOM_UTF8).lstrip()[:1] in (b"{", b"[")


def _read_json(path: Path) -> tuple[tuple[str, ...], tuple[tuple[int, list[str]], ...]]:
    """Columns and rows of a list of objects, of one object per line, or of objects by id."""
    where = short(path)
    with open_data(path) as raw:
        if os.fstat(raw.fileno()).st_size > _MOST_JSON:
            raise DataError(f"{where}: is JSON of over {_MOST_JSON >> 20} MiB; save the table as CSV")
        text = raw.read(_MOST_JSON + 1).decode("utf-8-sig", "surrogateescape")
    try:
        content = parse_json(text, nan=True)
    except ValueError as error:
        lines = [line for line in text.splitlines() if line.strip()]
        try:
            content = [parse_json(line, nan=True) for line in lines] if len(lines) > 1 else None
        except ValueError:
            content = None
        if content is None:
            raise DataError(f"{where}: is damaged JSON: {cut(error)}; save it again, or as CSV") from None
    if isinstance(content, dict) and content and all(isinstance(value, dict) for value in content.values()):
        content = [{"id": key, **value} for key, value in content.items()]
    if not isinstance(content, list) or not content or not all(isinstance(row, dict) for row in content):
        keys = f" (its keys: {listed(content)})" if isinstance(content, dict) else ""
        raise DataError(
            f"{where}: is JSON, but no table{keys}; gmsa reads a list of objects, or one object per line, with 'id', "
            "'label' and the paths of arrays, as in a CSV"
        )
    columns = _keys_of(content, where)
    rows = [
        (i, [_json_text(row.get(c), f"{where}: row {i}: {shown(c)}") for c in columns])
        for i, row in enumerate(content, 1)
    ]
    return columns, tuple(rows)


def _keys_of(rows: Iterable[Mapping[str, Any]], where: str) -> tuple[str, ...]:
    """Returns the keys of rows, in the order in which they come.

    Raises:
        DataError: they are too many: each row may have keys of its own, and each key becomes a column of all rows.
    """
    found: dict[str, None] = {}
    for row in rows:
        found.update(dict.fromkeys(row))
        if len(found) > MOST_COLUMNS:
            raise DataError(f"{where}: has over {MOST_COLUMNS:,} columns; at most {MOST_COLUMNS:,} are read")
    return tuple(found)


def _json_text(value: Any, where: str) -> str:
    if isinstance(value, (dict, list)):
        raise DataError(f"{where} is a {type(value).__name__}; expected text or a number (arrays are named by path)")
    text = "" if value is None else value if isinstance(value, str) else json.dumps(value)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise DataError(f"{where} is not UTF-8; save the file as UTF-8") from None
    return text


def _lines(path: Path, dialect: _Dialect) -> Iterator[tuple[int, list[str]]]:
    # Symbolic links inside an imported folder were refused before; the user may pass one as the path itself.
    errors = "surrogateescape" if dialect.encoding == "utf-8-sig" else "strict"
    with open_data(path) as raw:
        pieces = _pieces(io.TextIOWrapper(raw, encoding=dialect.encoding, errors=errors, newline=""))
        reader = csv.reader(pieces, strict=True, delimiter=dialect.delimiter)
        try:
            for line in itertools.islice(reader, dialect.skipped, None):
                yield reader.line_num, line
        except UnicodeError:
            name = "UTF-8" if dialect.encoding == "utf-8-sig" else "UTF-16, though it begins so"
            raise DataError(f"{short(path)}: row {reader.line_num + 1} is not {name}; save the file as UTF-8") from None
        except csv.Error as error:
            row = f"{short(path)}: row {reader.line_num}"
            raise DataError(f"{row}: {cut(error)}; check its quotes and {_DELIMITERS[dialect.delimiter]}") from None
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
