"""Ids, transcripts and names of splits: what gmsa takes."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from itertools import islice
from typing import NoReturn

from gmsa.errors import LONGEST_VALUE, DataError, listed, nearest, printable, shown

LONGEST_ID = 1024
"""Bytes of an id, in UTF-8."""
LONGEST_TEXT = 1 << 20
"""Bytes of a transcript, in UTF-8."""
LONGEST_SPLIT = 200
"""Bytes of the name of a split, in UTF-8."""
MOST_SPLITS = 100
_MOST_NAMES = 1000


def check_id(identity: str, where: str) -> bytes:
    """Returns an id as UTF-8.

    Raises:
        DataError: it is empty, too long, or no valid text.
    """
    return _encode(identity, LONGEST_ID, f"{where} has an id", "rename it") or _refuse_empty(where, "id")


def check_text(text: str, where: str) -> bytes:
    """Returns a transcript, which may be empty, as UTF-8; errors as :func:`check_id`."""
    return _encode(text, LONGEST_TEXT, f"{where} has a transcript", "repair it")


def check_column(value: str, column: str, where: str) -> bytes:
    """Returns the ``speaker``, ``video`` or ``fold`` of an utterance as UTF-8; errors as :func:`check_id`."""
    return _encode(value, LONGEST_ID, f"{where} has a {column}", "rename it")


def check_split(name: str, where: str) -> bytes:
    """Returns the name of a split as UTF-8; errors as :func:`check_id`."""
    return _encode(name, LONGEST_SPLIT, f"{where} has a split", "rename it") or _refuse_empty(where, "name of a split")


def check_count(splits: Collection[str], where: str) -> None:
    """Checks the number of splits: some work takes a pass over the data for each.

    Raises:
        DataError: there are too many.
    """
    if len(splits) > MOST_SPLITS:
        what = f"has {len(splits):,} splits ({listed(splits)})"
        raise DataError(f"{where}: {what}; at most {MOST_SPLITS} are read, such as train, valid and test")


def hint(name: str, known: Collection[str]) -> str:
    """As :func:`~gmsa.errors.nearest`, for known names that a file chose: of any number and content."""
    return printable(nearest(name, (other for other in islice(known, _MOST_NAMES) if len(other) <= LONGEST_VALUE)))


def few(names: Iterable[object]) -> str:
    """As :func:`~gmsa.errors.listed`, for a message that lists others too: at most 80 characters."""
    line = listed(names)
    return line if len(line) <= LONGEST_VALUE else f"{line[: LONGEST_VALUE - 1]}…"


def _encode(text: str, most: int, what: str, remedy: str) -> bytes:
    try:
        raw = text.encode("utf-8")
    except UnicodeEncodeError as error:
        found = f"{text[error.start]!r} at character {error.start + 1:,}"
        raise DataError(f"{what} that cannot be encoded as UTF-8 ({found}); {remedy}") from None
    if len(raw) > most:
        raise DataError(f"{what} of {len(raw):,} bytes ({shown(text)}); the limit is {most:,}; {remedy}")
    return raw


def _refuse_empty(where: str, what: str) -> NoReturn:
    raise DataError(f"{where} has an empty {what}; every one needs one")
