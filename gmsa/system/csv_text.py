"""Tables as CSV text."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any


def csv_text(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table as CSV: a header, then a line per row, ended by a newline on every system."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    quoting = csv.writer(stream, lineterminator="\n", quoting=csv.QUOTE_ALL)
    for row in chain([header], rows):  # Python before 3.13 does not quote a carriage return, which ends a row when read
        (quoting if any(isinstance(cell, str) and "\r" in cell for cell in row) else writer).writerow(row)
    return stream.getvalue()


def csv_dicts(rows: Iterable[Mapping[str, Any]], header: Sequence[str] | None = None) -> str:
    """Rows by column as CSV, as :func:`csv_text` writes it; a column that a row lacks is empty there.

    Args:
        header: the columns; by default all that a row has, in the order in which they first appear.

    Raises:
        ValueError: a row has a column that ``header`` lacks.
    """
    table = list(rows)
    found = dict.fromkeys(column for row in table for column in row)
    columns = list(found) if header is None else list(header)
    unknown = [column for column in found if column not in columns]
    if unknown:
        raise ValueError(f"the header lacks the columns {', '.join(unknown)}")
    return csv_text(columns, ([row.get(column, "") for column in columns] for row in table))
