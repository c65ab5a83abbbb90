"""Checks the form of records that gmsa reads back, such as a run's: they may be damaged, or a stranger's."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gmsa.errors import cut, shown

LARGEST = 1e300
"""Numbers are smaller than this: they become floats, and are scaled for tables."""
_SHOWN = (str, int, float, bool, type(None))


@dataclass(frozen=True)
class Kind:
    """A single value."""

    words: str
    """What it must be, for errors."""
    holds: Callable[[Any], bool]


@dataclass(frozen=True)
class Fields:
    """A mapping of known keys; others may be there."""

    forms: Mapping[str, Any]
    """What it must hold."""
    optional: Mapping[str, Any] | None = None
    """What it may lack, as records of earlier versions do."""


@dataclass(frozen=True)
class Map:
    """A mapping whose keys are text."""

    form: Any
    """Of its values."""
    keys: Kind | None = None


@dataclass(frozen=True)
class Items:
    """A list."""

    form: Any
    most: int = 10_000_000


@dataclass(frozen=True)
class Maybe:
    """A value, or none."""

    form: Any


def whole(least: int = 0, most: int = 2**63 - 1) -> Kind:
    """A whole number within limits."""
    bounds = f"from {least:,} to {most:,}" if most < 2**62 else f"of at least {least}"
    return Kind(f"a whole number {bounds}", lambda value: type(value) is int and least <= value <= most)


def one_of(*choices: str) -> Kind:
    """One of several words."""
    return Kind(f"one of {', '.join(choices)}", lambda value: isinstance(value, str) and value in choices)


def is_finite(value: Any) -> bool:
    """Whether a value is a number that is finite as a float too."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -LARGEST < value < LARGEST


ANY = Kind("anything", lambda value: True)
TEXT = Kind("text", lambda value: isinstance(value, str))
FLAG = Kind("true or false", lambda value: isinstance(value, bool))
NUMBER = Kind("a finite number", is_finite)
SCORE = Kind("a number", lambda value: is_finite(value) or (isinstance(value, float) and math.isnan(value)))
SECONDS = Kind("a number of seconds", lambda value: is_finite(value) and value >= 0)
SHA256 = Kind("64 hex digits", lambda value: isinstance(value, str) and bool(re.fullmatch("[0-9a-f]{64}", value)))


def check_form(value: Any, form: Any, where: str = "") -> None:
    """Checks that a value has a form.

    Args:
        form: a :class:`Kind`, :class:`Fields`, :class:`Map`, :class:`Items` or :class:`Maybe`.
        where: what errors call the value.

    Raises:
        ValueError: names the part that has not.
    """
    if isinstance(form, Maybe):
        if value is not None:
            check_form(value, form.form, where)
    elif isinstance(form, Kind):
        if not form.holds(value):
            _refuse(value, form.words, where)
    elif isinstance(form, Items):
        if not isinstance(value, (list, tuple)) or len(value) > form.most:
            _refuse(value, f"a list of at most {form.most:,}", where)
        for place, item in enumerate(value):
            check_form(item, form.form, f"{where}[{place}]")
    else:
        if not isinstance(value, Mapping):
            _refuse(value, "a mapping", where)
        prefix = f"{where}." if where else ""
        if isinstance(form, Map):
            for key, item in value.items():
                if not isinstance(key, str):
                    _refuse(key, "text as its keys", where)
                if form.keys is not None and not form.keys.holds(key):
                    _refuse(key, f"keyed by {form.keys.words}", where)
                check_form(item, form.form, f"{prefix}{key}")
            return
        for key, part in form.forms.items():
            if key not in value:
                raise ValueError(f"it has no '{cut(prefix + key)}'")
            check_form(value[key], part, f"{prefix}{key}")
        for key, part in (form.optional or {}).items():
            if key in value:
                check_form(value[key], part, f"{prefix}{key}")


def _refuse(value: Any, words: str, where: str) -> None:
    # A collection is not shown: one that was unpickled may be endless in print.
    got = shown(value) if isinstance(value, _SHOWN) else f"a {type(value).__name__}"
    raise ValueError(f"{f'{cut(where)!r}' if where else 'it'} must be {words} (got {got})")
