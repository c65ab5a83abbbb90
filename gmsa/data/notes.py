"""Notes: one line each about data that is not used, or that looks wrong."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from gmsa.errors import DataWarning


class Doubt(str):
    """The text of a note about what makes scores worse or wrong; any other note is good to know."""


def note(text: str) -> None:
    """Tells the user of data that is not used or looks wrong; Python's warnings say the same note once.

    Args:
        text: what, where (file, split, key), and the setting to change; one line. A :class:`Doubt` is a warning of
            ``gmsa data check``, where any other text is a note.
    """
    warnings.warn(DataWarning(text), stacklevel=2)


@contextmanager
def collected() -> Iterator[list[str]]:
    """Collects the notes of a block instead of telling them.

    >>> with collected() as notes:
    ...     note("clips.pkl: 'eeg' is not used")
    >>> notes
    ["clips.pkl: 'eeg' is not used"]
    """
    notes: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield notes
    for warning in caught:
        if issubclass(warning.category, DataWarning):
            notes.append(warning.message.args[0])  # type: ignore[union-attr]
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
