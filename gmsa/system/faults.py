"""What a command says of an error that gmsa did not foresee: one line, and a file with the traceback."""

from __future__ import annotations

import os
import tempfile
import traceback
from importlib.metadata import PackageNotFoundError, metadata

from gmsa.errors import cut

_MEMORY = ("allocate memory", "out of memory")


def describe_fault(error: BaseException) -> str:
    """One line about an unforeseen error: what it is, and what to do about it."""
    what = f"{type(error).__name__}: {cut(error)}" if str(error) else type(error).__name__
    if isinstance(error, MemoryError) or any(words in str(error).lower() for words in _MEMORY):
        return f"memory ran out ({what}); use a smaller model, smaller batches or less data"
    file = _save_traceback(error)
    attached = f" with '{file}', which says where it happened" if file else ""
    return f"{what}; this is a fault of gmsa, or of a plug-in; please report it {report_to()}{attached}"


def report_to() -> str:
    """Where faults are reported: the address that the package names, or else its maintainers."""
    try:
        urls = metadata("gmsa").get_all("Project-URL") or []
    except PackageNotFoundError:
        urls = []
    found = [url.partition(",")[2].strip() for url in urls if url.partition(",")[0].strip().lower() == "issues"]
    return f"at {found[0]}" if found else "to the maintainers of gmsa"


def _save_traceback(error: BaseException) -> str | None:
    """Writes the traceback into a temporary file, and returns its path; None where it cannot be written."""
    try:
        handle, path = tempfile.mkstemp(prefix="gmsa-fault-", suffix=".txt")
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            traceback.print_exception(error, file=file)
    except (OSError, RecursionError, MemoryError):
        return None
    return path
