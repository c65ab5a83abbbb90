"""Converts plain YAML values to typed dataclasses; every error names its key."""

from __future__ import annotations

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar

from gmsa.config.fields import ByModality
from gmsa.config.presets import OTHERS
from gmsa.errors import ConfigError, cut, nearest, shown

T = TypeVar("T")
LARGEST = 2**64
"""Whole numbers are smaller than this; seeds may be of 64 bits."""
MOST_VALUES = 1000
"""Values of a list, at most."""
LONGEST_TEXT = 4096
"""Characters of a text, at most; as many as a path has."""
_BOOLEANS = {"yes": True, "on": True, "no": False, "off": False}
RENAMED = {
    "loss.pseudo_weight": "self_training.weight",
    "loss.consistency_weight": "consistency.weight",
    "loss.ramp": "consistency.ramp",
    "loss.certain": "consistency.confident_share",
    "loss.reconstruction_weight": "reconstruction.weight",
    "loss.recon_target": "reconstruction.target",
    "protocol.passes": "consistency.passes",
    "protocol.rounds": "self_training.rounds",
    "protocol.k": "self_training.k",
    "protocol.threshold": "self_training.threshold",
    "protocol.teachers": "distillation.teachers",
}
"""Former names of settings that are refused, and their present names."""
FORMER = {
    "data.labels": "target.preset",
    "model.text_convs": "model.encoders.text",
    "model.audio_convs": "model.encoders.audio",
    "model.vision_convs": "model.encoders.vision",
}
"""Former names of settings that are still read, and their present names."""
FORMER_VALUES = {("graph.scope", "video"): "dialogue"}
"""Former values of settings that are still read, and their present ones."""


_type_hints = functools.cache(typing.get_type_hints)


def build_dataclass(cls: type[T], settings: Any, where: str | Callable[[str], str], prefix: str = "") -> T:
    """Builds the dataclass ``cls`` from plain nested settings; omitted fields have their defaults.

    The metadata of a field holds its limits (``ge``, ``gt``, ``le``, ``lt``) or the registry whose parts it names.
    Where ``cls`` has ``one_for_all``, one value stands for all of its fields, or for those that it lists. Of a field by
    modality, one value stands for all, and names without ``others`` are merged over the default.

    Args:
        where: source of the settings, for errors; or a function from a dotted key to its source.
        prefix: dotted path of ``cls`` within the settings, for errors.

    Raises:
        ConfigError: an unknown key (with the nearest known one), a wrong type, a value out of range.
    """
    origin = where if callable(where) else lambda _: where
    if settings is None:
        settings = {}
    if (shared := one_for_all(cls)) and not isinstance(settings, Mapping):
        settings = dict.fromkeys(shared, settings)
    if not isinstance(settings, Mapping):
        group = prefix.rstrip(".")
        raise ConfigError(f"{origin(group)}: '{group}' must hold 'key: value' pairs (got {shown(settings)})")
    hints = _type_hints(typing.cast(Any, cls))
    fields = {f.name: f for f in dataclasses.fields(typing.cast(Any, cls))}
    values: dict[str, Any] = {}
    for name, value in settings.items():
        key = f"{prefix}{name}"
        if name not in fields:
            hint = f"; it is now '{RENAMED[key]}'" if key in RENAMED else nearest(str(name), fields)
            raise ConfigError(f"{origin(key)}: unknown key '{cut(key)}'{hint}")
        if dataclasses.is_dataclass(hints[name]):
            values[name] = build_dataclass(typing.cast(type, hints[name]), value, where, f"{key}.")
        else:
            try:
                _refuse_parameters(value, fields[name], key)
                if typing.get_origin(hints[name]) is ByModality:
                    values[name] = _by_modality(value, hints[name], fields[name], key)
                else:
                    values[name] = coerce(value, hints[name], key)
                    _check(values[name], fields[name].metadata, key)
            except ConfigError as error:
                raise ConfigError(f"{origin(key)}: {error}") from None
    return cls(**values)


def _refuse_parameters(value: Any, field: dataclasses.Field[Any], key: str) -> None:
    """Refuses parameters of a part that stand below its setting, and says how they are written."""
    registry = field.metadata.get("registry") or field.metadata.get("parts")
    if registry is None:
        return
    from gmsa.config.components import component_name, in_brackets  # it needs this module

    if "registry" in field.metadata:
        for one in value if isinstance(value, (list, tuple)) else (value,):
            if isinstance(one, Mapping):
                raise in_brackets(one, str(field.default), registry, key)
    elif isinstance(value, Mapping):
        assert callable(field.default_factory)
        default = str(value.get(OTHERS, field.default_factory()[OTHERS]))
        for name, one in value.items():
            if isinstance(one, Mapping) and name in registry:
                raise in_brackets({name: one}, default, registry, key)
            if isinstance(one, Mapping):
                raise in_brackets(one, default, registry, f"{key}.{name}")
        part = component_name(str(value.get("name", default)))
        known = registry.parameters(part) if len(value) > 1 and part in registry else {}
        beside = {
            k: x for k, x in value.items() if k == "name" or k in known or isinstance(x, (bool, int, float, list))
        }
        if beside:
            raise in_brackets(beside, default, registry, key)


def _by_modality(value: Any, hint: Any, field: dataclasses.Field[Any], key: str) -> ByModality[Any]:
    """A value for all modalities, or by name."""
    assert callable(field.default_factory)
    inner, default = typing.get_args(hint)[0], typing.cast("ByModality[Any]", field.default_factory())
    if value is None:
        return default
    given = value if isinstance(value, Mapping) else {OTHERS: value}
    found = {}
    for name, one in given.items():
        own = f"{key}.{name}" if isinstance(value, Mapping) else key
        if not isinstance(name, str):
            raise ConfigError(f"'{key}' needs names of modalities as keys (got {shown(name)})")
        found[name] = coerce(one, inner, own)
        check_limits(found[name], field.metadata, own)
    return ByModality(found if OTHERS in found else {**default, **found})


def _check(value: Any, metadata: Mapping[str, Any], key: str) -> None:
    """Checks a value against the limits or the registry of its field."""
    if "registry" in metadata:
        from gmsa.config.components import parse_component  # it needs this module

        for spec in (value,) if isinstance(value, str) else value:
            parse_component(spec, metadata["registry"], key)
    else:
        check_limits(value, metadata, key)


def one_for_all(cls: Any) -> tuple[str, ...]:
    """The fields of ``cls`` that one value may stand for: those in its ``one_for_all``, or all if that is true."""
    asked = getattr(cls, "one_for_all", ())
    return tuple(f.name for f in dataclasses.fields(cls)) if asked is True else tuple(asked)


def coerce(value: Any, hint: Any, key: str) -> Any:
    """Converts a YAML value to the type of its field.

    Raises:
        ConfigError: the value does not fit; names ``key``.
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        value = FORMER_VALUES.get((key, value), value) if isinstance(value, str) else value
        if value not in arguments or isinstance(value, bool):
            choices = ", ".join(map(str, arguments))
            raise ConfigError(
                f"'{key}' must be one of {choices} (got {shown(value)}){nearest(str(value), map(str, arguments))}"
            )
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        options = [a for a in arguments if a is not type(None)]
        for option in options:
            try:
                return coerce(value, option, key)
            except ConfigError:
                continue
        raise ConfigError(f"'{key}' must be {' or '.join(map(_describe, options))} (got {shown(value)})")
    if origin is tuple:
        if isinstance(value, str) or not isinstance(value, (list, tuple)):
            example = _describe(arguments[0])
            raise ConfigError(f"'{key}' must be a list, for example [{example}, ...] (got {shown(value)})")
        if arguments[-1] is Ellipsis:
            if len(value) > MOST_VALUES:
                raise ConfigError(f"'{key}' may list at most {MOST_VALUES:,} values (got {len(value):,})")
            return tuple(coerce(v, arguments[0], key) for v in value)
        if len(value) != len(arguments):
            raise ConfigError(f"'{key}' needs {len(arguments)} values in each entry (got {shown(list(value))})")
        return tuple(coerce(v, a, key) for v, a in zip(value, arguments, strict=True))
    if hint is bool and isinstance(value, bool):
        return value
    if hint is bool and isinstance(value, str) and value.lower() in _BOOLEANS:
        return _BOOLEANS[value.lower()]
    if hint is str and isinstance(value, str):
        check_text(value, key)
        return value
    if hint in (int, float) and isinstance(value, (int, float, str)) and not isinstance(value, bool):
        number = _number(value, hint)
        if number is not None:
            return number
        if hint is int and isinstance(value, int):
            raise ConfigError(f"'{key}' must be a whole number of at most 64 bits (got {shown(value)})")
    raise ConfigError(f"'{key}' must be {_describe(hint)} (got {shown(value)})")


def _number(value: float | str, kind: type) -> float | None:
    """The value as a finite number of a kind, int or float; None where it is none. Text counts: YAML reads 1e-3 so."""
    if kind is int:  # not through float, which has 53 bits
        try:
            whole = int(value) if isinstance(value, (int, str)) else None
        except ValueError:
            whole = None
        if whole is not None:
            return whole if abs(whole) < LARGEST else None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    if not math.isfinite(number) or (kind is int and (number != int(number) or abs(number) > 2**53)):
        return None
    return kind(number)


def check_text(value: str, key: str) -> None:
    """Refuses text that no file of a run could hold.

    Raises:
        ConfigError: it is too long, or has a lone surrogate, which is not UTF-8.
    """
    if len(value) > LONGEST_TEXT:
        raise ConfigError(f"'{key}' may have at most {LONGEST_TEXT:,} characters (got {len(value):,})")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise ConfigError(f"'{key}' is not text in UTF-8 (got {shown(value)}); write it anew") from None


def _describe(hint: Any) -> str:
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    if typing.get_origin(hint) is Literal:
        return " or ".join(f"'{a}'" for a in typing.get_args(hint))
    return names.get(hint, "a list of texts" if hint == tuple[str, ...] else "a list")


def check_limits(value: Any, limits: Mapping[str, float], key: str) -> None:
    """Checks a number against its limits ``ge``, ``gt``, ``le`` and ``lt``."""
    if not isinstance(value, (int, float)):
        return
    tests = {
        "ge": ("at least", lambda a, b: a >= b),
        "gt": ("greater than", lambda a, b: a > b),
        "le": ("at most", lambda a, b: a <= b),
        "lt": ("less than", lambda a, b: a < b),
    }
    for name, limit in limits.items():
        words, holds = tests[name]
        if not holds(value, limit):
            raise ConfigError(f"'{key}' must be {words} {limit} (got {shown(value)})")
