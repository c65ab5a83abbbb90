"""Errors that a user can cause. A command prints the message as one line and exits with code 2."""

from __future__ import annotations

import difflib
import os
import unicodedata
from collections.abc import Iterable
from itertools import islice
from typing import Any

LONGEST_VALUE = 80
"""Characters of a value that a message shows."""

LONGEST_LIST = 160
"""Characters of a list of names that a message shows."""

LONGEST_PATH = 120
"""Characters of a path that a message shows."""


class GmsaError(Exception):
    """Base class: the user's input is invalid; the message says what is wrong, where, and how to fix it."""


class ConfigError(GmsaError, ValueError):
    """A setting is unknown, of the wrong type, or out of range."""


class DataError(GmsaError, ValueError):
    """A data file is missing, unsafe, or invalid for its format."""


class DataWarning(UserWarning):
    """Data holds what gmsa does not use, or looks wrong; a command prints the message as one line and goes on."""


class RunError(GmsaError, RuntimeError):
    """A run folder cannot be used, or training cannot continue."""


class WriteError(RunError, OSError):
    """A file cannot be written; its previous content is unchanged."""


class Terminated(KeyboardInterrupt):
    """The process received SIGTERM; handled like Ctrl-C (SIGINT)."""


def shown(value: Any) -> str:
    """Returns ``repr(value)`` for a message, cut to :data:`LONGEST_VALUE` characters."""
    if isinstance(value, (str, bytes)):
        value = value[: LONGEST_VALUE + 1]  # cut before it is escaped: it may be large
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of more digits than Python writes, or nested too deeply
        text = f"a {type(value).__name__} too long to show"
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 1]}…"


def cut(text: object) -> str:
    """Returns ``str(text)`` in one printable line for a message, cut to :data:`LONGEST_VALUE` characters."""
    line = printable(" ".join(str(text)[: 10 * LONGEST_VALUE].split()))
    return line if len(line) <= LONGEST_VALUE else f"{line[: LONGEST_VALUE - 1]}…"


def short(path: str | os.PathLike[str]) -> str:
    """Returns a path in one printable line for a message; of a very long one, its end."""
    text = printable(os.fspath(path)).replace("\n", "\\n").replace("\t", "\\t")
    return text if len(text) <= LONGEST_PATH else f"…{text[1 - LONGEST_PATH :]}"


def listed(names: Iterable[object]) -> str:
    """Returns names for a message, as ``a, b, c``, or ``none``; the end of a long list is left out."""
    # Cut before they are joined: a file may have chosen names of any number and length.
    text = ", ".join(str(name)[: LONGEST_LIST + 1] for name in islice(names, LONGEST_LIST))
    line = printable(" ".join(text.split())) or "none"
    return line if len(line) <= LONGEST_LIST else f"{line[: LONGEST_LIST - 1]}…"


def printable(text: str) -> str:
    """Returns ``text`` with what would command or mislead a terminal escaped; newlines and tabs stay.

    That is control characters, lone surrogates, line separators, and marks that turn the direction of writing.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c in "\n\t" or not _commands(c) else c.encode("unicode_escape").decode() for c in text)


def _commands(character: str) -> bool:
    kind = unicodedata.category(character)
    return kind in ("Cc", "Cs", "Zl", "Zp") or (kind == "Cf" and unicodedata.bidirectional(character) != "BN")


def nearest(word: str, known: Iterable[str]) -> str:
    """Returns ``" (did you mean 'x'?)"`` for the known word closest to ``word``, else ``""``."""
    match = difflib.get_close_matches(str(word)[:LONGEST_VALUE], list(known), n=1, cutoff=0.6)
    return f" (did you mean '{match[0]}'?)" if match else ""
