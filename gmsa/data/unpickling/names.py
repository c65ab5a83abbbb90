"""The names that a pickle may hold, and why one is not read."""

from __future__ import annotations

import enum
from typing import Any


class Refused(Exception):
    """The pickle asks for what is not admitted."""


class Damaged(Exception):
    """The pickle contradicts its format, or itself."""


class Cut(Exception):
    """The file ends before the pickle does."""


class Name(enum.Enum):
    """A name that a pickle may hold. It stands for nothing that could be called."""

    NDARRAY = enum.auto()
    DTYPE = enum.auto()
    RECONSTRUCT = enum.auto()
    SCALAR = enum.auto()
    FROMBUFFER = enum.auto()
    ENCODE = enum.auto()
    BYTES = enum.auto()


_ADMITTED = {
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


def find(module: str, name: str) -> Name:
    """The token of a name, looked up in a fixed table.

    Raises:
        Refused: it is not in there.
    """
    token = _ADMITTED.get((module, name))
    if token is None:
        raise Refused(f"the pickle asks for {f'{module}.{name}'[:200]!r}")
    return token


def described(value: Any) -> str:
    """A value in a few words, for messages: never its content, which could be endless."""
    if isinstance(value, Name):
        return f"the function '{value.name.lower()}'"
    if isinstance(value, str):
        return repr(value[:50])
    kind = type(value).__name__
    return f"an {kind}" if kind[0] in "aeio" else f"a {kind}"
