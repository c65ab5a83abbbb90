"""Tables as CSV text."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def csv_text(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table as CSV: a header, then a line per row, ended by a newline on every system."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
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
