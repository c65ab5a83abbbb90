"""Parses the part that a setting names, with its parameters: ``window(radius=3)``."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from gmsa.config.coerce import coerce
from gmsa.config.strict_yaml import parse_value
from gmsa.errors import ConfigError, cut, listed, shown
from gmsa.registry import Registry

T = TypeVar("T")
_OPENING, _CLOSING = "([{", ")]}"


def component_name(spec: str) -> str:
    """The name in ``name`` or ``name(key=value, ...)``."""
    return spec.partition("(")[0].strip()


def split_component(spec: str, registry: Registry[Any], key: str) -> tuple[str, str]:
    """The name of a known part, and what its brackets hold.

    Raises:
        ConfigError: the part is unknown (with the known ones), or the brackets do not match.
    """
    before, bracket, after = spec.strip().partition("(")
    name, inside = before.rstrip(), after.rstrip()
    registry.check(name, key)
    if bracket and not inside.endswith(")"):
        raise ConfigError(f"'{key}': expected a name, or name(key=value, ...) (got {shown(spec)})")
    return name, inside.removesuffix(")").strip()


def parse_component(spec: str, registry: Registry[Any], key: str) -> tuple[str, dict[str, Any]]:
    """Parses ``name`` or ``name(key=value, ...)`` and checks it against the signature of the part.

    A part without parameters is not imported.

    Args:
        key: dotted key of the setting, for errors.

    Raises:
        ConfigError: an unknown part or parameter (with the known ones), a wrong value, or brackets that do not match.
    """
    name, inside = split_component(spec, registry, key)
    if not inside:
        return name, {}
    known, given = registry.parameters(name), dict[str, Any]()
    for part in split_commas(inside):
        parameter, equals, text = (x.strip() for x in part.partition("="))
        if parameter not in known:
            raise ConfigError(f"'{key}': '{name}' has no parameter '{cut(parameter)}' (it has: {listed(known)})")
        if parameter in given:
            raise ConfigError(f"'{key}': '{parameter}' is given twice")
        if not equals:
            raise ConfigError(f"'{key}': '{parameter}' needs a value, as {name}({parameter}=...)")
        given[parameter] = _value(text, known[parameter].annotation, f"{key}: {parameter}")
    return name, given


def in_brackets(value: Mapping[Any, Any], default: str, registry: Registry[Any], key: str) -> ConfigError:
    """The error about parameters of a part below its setting: ``{name: gatv2, heads: 4}``, ``{gatv2: {heads: 4}}``.

    Args:
        default: the part that has them where none is named.
        key: dotted key of the setting.
    """
    if len(value) == 1 and isinstance(inner := next(iter(value.values())), Mapping) and next(iter(value)) in registry:
        value = {"name": next(iter(value)), **inner}
    given = {str(name): one for name, one in value.items() if name != "name"}
    name = component_name(str(value.get("name", default)))
    if name not in registry or not given.keys() <= registry.parameters(name).keys():
        name = "NAME"
    spec = cut(f"{name}({', '.join(f'{parameter}={one}' for parameter, one in given.items())})" if given else name)
    return ConfigError(
        f"'{key}' takes parameters in brackets: write {key}={spec}, in YAML {key.rpartition('.')[2]}: {spec}"
    )


def build_component(spec: str, registry: Registry[Any], key: str, base: type[T]) -> T:
    """Makes the part that ``name`` or ``name(key=value, ...)`` chooses.

    Args:
        key: the setting that has the value, for errors.
        base: the class that the part must be derived from.

    Raises:
        ConfigError: as :func:`parse_component`, or a parameter that needs a value has none.
    """
    name, given = parse_component(spec, registry, key)
    cls = registry[name]
    if not (isinstance(cls, type) and issubclass(cls, base)):
        raise ConfigError(f"'{key}': '{name}' is not a class derived from {base.__module__}.{base.__name__}")
    registry.check_given(name, given, key)
    return cls(**given)


def split_commas(text: str) -> list[str]:
    """Splits at commas outside brackets."""
    parts, depth, start = [], 0, 0
    for place, character in enumerate(text):
        depth += (character in _OPENING) - (character in _CLOSING)
        if character == "," and depth == 0:
            parts.append(text[start:place])
            start = place + 1
    return [*parts, text[start:]]


def _value(text: str, hint: Any, key: str) -> Any:
    value = parse_value(key, text)
    return coerce(value, hint, key) if _has_known_type(hint) else value


def _has_known_type(hint: Any) -> bool:
    """Whether :func:`coerce` knows an annotation; what it does not know, the part itself must check."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (tuple, typing.Union, types.UnionType):
        return all(argument is Ellipsis or _has_known_type(argument) for argument in arguments)
    return origin is typing.Literal or hint in (bool, int, float, str, type(None))
