"""Kinds of settings: numbers with limits, parts of a registry, and values by modality."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import field
from typing import Any, NoReturn, TypeVar

from gmsa.config.presets import OTHERS
from gmsa.registry import Registry

T = TypeVar("T")


class ByModality(dict[str, T]):
    """A value for each modality or pair of modalities that is named, and for all others the one under ``others``.

    It cannot be changed and can be hashed. Where every value is that of the others, it holds that one alone.

    >>> rates = ByModality({"vision": 0.5, "others": 0.2})
    >>> rates.of("vision"), rates.of("eeg")
    (0.5, 0.2)
    >>> ByModality({"text": 0.2, "others": 0.2})
    {'others': 0.2}
    """

    def __init__(self, values: Mapping[str, T] | Iterable[tuple[str, T]]) -> None:
        found = dict(values)
        others = found[OTHERS]
        super().__init__({OTHERS: others} if all(value == others for value in found.values()) else found)

    @classmethod
    def for_all(cls, value: T) -> ByModality[T]:
        """One value for all."""
        return cls({OTHERS: value})

    def of(self, name: str) -> T:
        """The value of a modality, or of a pair of them."""
        return self[name] if name in self else self[OTHERS]

    @property
    def named(self) -> tuple[str, ...]:
        """The names that have a value of their own."""
        return tuple(name for name in self if name != OTHERS)

    @property
    def plain(self) -> Any:
        """The one value where it holds for all, else a dict of them."""
        return self[OTHERS] if len(self) == 1 else dict(self)

    def __reduce__(self) -> tuple[type, tuple[dict[str, T]]]:
        return ByModality, (dict(self),)  # a pickle would set items

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self.items()))

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError("settings cannot be changed; make others")

    __setitem__ = __delitem__ = update = pop = popitem = clear = setdefault = __ior__ = _refuse


def number(default: Any, **limits: float) -> Any:
    """A numeric field with limits ``ge``, ``gt``, ``le`` or ``lt``."""
    return field(default=default, metadata=limits)


def component(default: Any, registry: Registry[Any]) -> Any:
    """A field that names one or several parts of a registry, as ``name`` or ``name(key=value)``."""
    return field(default=default, metadata={"registry": registry})


def by_modality(
    default: Mapping[str, Any], registry: Registry[Any] | None = None, by: str = "modality", **limits: float
) -> Any:
    """A field with a value for each modality; what a user names is merged over the default.

    Args:
        by: what has a value each, where that is something else.
    """
    metadata: dict[str, Any] = {"parts": registry, "by": by} if registry else dict(limits)
    return field(default_factory=lambda: ByModality(default), metadata=metadata)
