"""Errors that a user can cause. A command prints the message as one line and exits with code 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class GmsaError(Exception):
    """Base class: the user's input is invalid; the message says what is wrong, where, and how to fix it."""


class ConfigError(GmsaError, ValueError):
    """A setting is unknown, of the wrong type, or out of range."""


class DataError(GmsaError, ValueError):
    """A data file is missing, unsafe, or invalid for its format."""


class RunError(GmsaError, RuntimeError):
    """A run folder cannot be used, or training cannot continue."""


class WriteError(RunError, OSError):
    """A file cannot be written; its previous content is unchanged."""


class Terminated(KeyboardInterrupt):
    """The process received SIGTERM; handled like Ctrl-C (SIGINT)."""


def nearest(word: str, known: Iterable[str]) -> str:
    """Returns ``" (did you mean 'x'?)"`` for the known word closest to ``word``, else ``""``."""
    match = difflib.get_close_matches(str(word), list(known), n=1, cutoff=0.6)
    return f" (did you mean '{match[0]}'?)" if match else ""
