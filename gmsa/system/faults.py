"""What a command says of an error that gmsa did not foresee: one line, and a file with the traceback."""

from __future__ import annotations

import errno
import os
import tempfile
import traceback
from importlib.metadata import PackageNotFoundError, metadata

from gmsa.errors import cut
from gmsa.registry import loaded_plugins

_MEMORY = ("allocate memory", "out of memory", "bad_alloc")
_REMEDIES = {
    errno.ENOSPC: "free space there",
    errno.EDQUOT: "free space there",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "close other programs",
    errno.EIO: "check the disk",
    errno.ESTALE: "check the network file system",
    errno.EROFS: "make it writable",
}
"""What to do about errors of the system that are nobody's fault in a program."""


def describe_fault(error: BaseException) -> str:
    """One line about an unforeseen error: what it is, and what to do about it."""
    kind, text = type(error).__name__, _text(error)
    what = f"{kind}: {text}" if text else kind
    if isinstance(error, MemoryError) or any(words in _text(error, whole=True).lower() for words in _MEMORY):
        return f"memory ran out ({what}); use a smaller model, smaller batches or less data"
    if isinstance(error, OSError) and error.errno in _REMEDIES:
        return f"the system failed ({text}); {_REMEDIES[error.errno]}, and run the same again"
    file = _save_traceback(error)
    attached = f" with '{file}', which says where it happened" if file else ""
    plugin = plugin_of(error)
    if plugin is not None:
        return f"{what}; this is a fault of the plug-in '{plugin}'; please report it to its authors{attached}"
    return f"{what}; this is a fault of gmsa; please report it {report_to()}{attached}"


def plugin_of(error: BaseException) -> str | None:
    """The plug-in in which an error arose, or from which other packages were called; None where that is gmsa."""
    names = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)]
    for name in reversed(names):
        for plugin in loaded_plugins():
            if name.partition(".")[0] == plugin.partition(".")[0]:
                return plugin
        if name.partition(".")[0] == "gmsa":
            return None
    return None


def report_to() -> str:
    """Where faults are reported: the address that the package names, or else its maintainers."""
    try:
        urls = metadata("gmsa").get_all("Project-URL") or []
    except (PackageNotFoundError, OSError, ValueError):
        urls = []
    named = {label.strip().lower(): url.strip() for label, _, url in (entry.partition(",") for entry in urls)}
    found = [named[label] for label in ("issues", "bug tracker", "repository", "homepage") if label in named]
    return f"at {found[0]}" if found else "to the maintainers of gmsa"


def _text(error: BaseException, whole: bool = False) -> str:
    try:
        return str(error) if whole else cut(error)
    except Exception:  # a plug-in's error may fail to say what it is
        return ""


def _save_traceback(error: BaseException) -> str | None:
    """Writes the traceback into a temporary file, and returns its path; None where it cannot be written."""
    try:
        handle, path = tempfile.mkstemp(prefix="gmsa-fault-", suffix=".txt")
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            traceback.print_exception(error, file=file)
    except Exception:  # no room, no memory, an error that fails to say what it is: the line itself must come
        return None
    return path
