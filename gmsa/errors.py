"""The errors that a user can cause. Commands print them as one line and exit with 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class GmsaError(Exception):
    """Something the user gave is wrong: the message says what, where, and the remedy."""


class ConfigError(GmsaError, ValueError):
    """A setting is unknown, of the wrong type, or out of its range."""


class DataError(GmsaError, ValueError):
    """A data file is missing, unsafe, or not what its format promises."""


class RunError(GmsaError, RuntimeError):
    """A run folder cannot be used, or training cannot go on."""


class WriteError(RunError, OSError):
    """A file cannot be written; what stood there before is as it was."""


class Terminated(KeyboardInterrupt):
    """The process was asked to end by SIGTERM, as Ctrl-C asks by SIGINT."""


def nearest(word: str, known: Iterable[str]) -> str:
    """Returns ``" (did you mean 'x'?)"`` for the known word closest to ``word``, else ``""``."""
    match = difflib.get_close_matches(str(word), list(known), n=1, cutoff=0.6)
    return f" (did you mean '{match[0]}'?)" if match else ""
