"""The names that a pickle may contain, and the reasons to reject a pickle."""

from __future__ import annotations

import enum
from typing import Any


class Refused(Exception):
    """The pickle asks for something that is not allowed."""


class Damaged(Exception):
    """The pickle violates its format."""


class Cut(Exception):
    """The file is truncated."""


class Name(enum.Enum):
    """A token for a name that a pickle may contain; it cannot be called."""

    NDARRAY = enum.auto()
    DTYPE = enum.auto()
    RECONSTRUCT = enum.auto()
    SCALAR = enum.auto()
    FROMBUFFER = enum.auto()
    ENCODE = enum.auto()
    BYTES = enum.auto()


_ALLOWED = {
    ("numpy", "ndarray"): Name.NDARRAY,
    ("numpy", "dtype"): Name.DTYPE,
    ("_codecs", "encode"): Name.ENCODE,
    ("builtins", "bytes"): Name.BYTES,
    ("__builtin__", "bytes"): Name.BYTES,
    **{
        (f"numpy.{core}.{module}", name): token
        for core in ("core", "_core")
        for module, name, token in (
            ("multiarray", "_reconstruct", Name.RECONSTRUCT),
            ("multiarray", "scalar", Name.SCALAR),
            ("numeric", "_frombuffer", Name.FROMBUFFER),
        )
    },
}


def find_name(module: str, name: str) -> Name:
    """Returns the token of a name from a fixed table.

    Raises:
        Refused: the name is not in the table.
    """
    token = _ALLOWED.get((module, name))
    if token is None:
        raise Refused(f"the pickle asks for {f'{module}.{name}'[:200]!r}")
    return token


def described(value: Any) -> str:
    """Describes a value in a few words for errors, without its content, which could be huge."""
    if isinstance(value, Name):
        return f"the function '{value.name.lower()}'"
    if isinstance(value, str):
        return repr(value[:50])
    kind = type(value).__name__
    return f"an {kind}" if kind[0] in "aeio" else f"a {kind}"
