"""Writes pages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from gmsa.figures.canvas import spared
from gmsa.system.files import remove, write_text


def write_page(path: Path, make: Callable[[], str]) -> bool:
    """Writes a page and returns whether it could be made; if not, that of an earlier report is deleted.

    Args:
        make: returns the content; what it raises is one line on the console.

    Raises:
        WriteError: the file cannot be written.
    """
    content = None
    with spared(path, "page"):
        content = make()
    if content is None:
        remove(path)
        return False
    write_text(path, content)
    return True
