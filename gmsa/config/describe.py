"""Describes all settings: type, default, limits and meaning, read from the schema itself."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import textwrap
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from gmsa.config.coerce import one_for_all
from gmsa.config.fields import ByModality
from gmsa.config.schema import Config
from gmsa.registry import Registry

_TYPES = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
_SIGNS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}


@dataclass(frozen=True)
class Setting:
    """A setting, or a group for all of whose settings one value may stand."""

    key: str
    """Dotted key, such as ``optim.lr``."""
    type: str
    """Type of its values, in words."""
    default: Any
    """Default, as a plain YAML value."""
    allowed: str
    """Limits (``>= 0, < 1``) or choices (``a | b``); empty where the type says it all."""
    meaning: str
    """Its docstring in the schema, as one line."""
    registry: Registry[Any] | None = None
    """Registry of the parts that it names, if any."""

    @property
    def group(self) -> str:
        """The key without its last part; empty for a key at the top."""
        return self.key.rpartition(".")[0]


@cache
def _schema() -> tuple[tuple[str, Any, Any, dataclasses.Field[Any], type], ...]:
    """Dotted key, type, default, field and class of every setting, in the order of the schema."""
    return tuple(_walk(Config, Config(), ""))


def describe_settings() -> list[Setting]:
    """Describes all settings in the order of the schema; choices include the parts of imported plug-ins."""
    return [_setting(*found) for found in _schema()]


def describe_group(key: str) -> str:
    """The docstring of a group of settings, or an empty text."""
    cls: Any = Config
    for part in key.split("."):
        cls = typing.get_type_hints(cls)[part]
    about = cls.__doc__ or ""
    return "" if about.startswith(f"{cls.__name__}(") else plain_text(about)  # else a dataclass's own signature


def _walk(cls: type, defaults: Any, prefix: str) -> Iterator[tuple[str, Any, Any, dataclasses.Field[Any], type]]:
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        key, hint, default = f"{prefix}{field.name}", hints[field.name], getattr(defaults, field.name)
        if not dataclasses.is_dataclass(hint):
            yield key, hint, default, field, cls
            continue
        if shared := one_for_all(hint):
            values = {getattr(default, name) for name in shared}
            yield key, hint, values.pop() if len(values) == 1 else default, field, cls
        yield from _walk(typing.cast(type, hint), default, f"{key}.")


def _setting(key: str, hint: Any, default: Any, field: dataclasses.Field[Any], cls: type) -> Setting:
    # An edge builder's parameters have defaults and limits in GraphConfig, which checks them, so its fields have no
    # registry of their own that would.
    registry = field.metadata.get("registry") or field.metadata.get("parts")
    meaning = docstrings(cls).get(field.name) or inspect.cleandoc(cls.__doc__ or "")
    if dataclasses.is_dataclass(hint):
        kind, allowed = f"{'text' if registry is None else 'a name'}, or a group", ""
    elif typing.get_origin(hint) is ByModality:
        inner = typing.get_args(hint)[0]
        kind = f"{'a name' if registry is not None else _type(inner)}, or one by {field.metadata.get('by', 'modality')}"
        allowed = _allowed(inner, field.metadata)
    else:
        kind = ("a list of names" if isinstance(default, tuple) else "a name") if registry is not None else _type(hint)
        allowed = _allowed(hint, field.metadata)
    if registry is not None:
        allowed = " | ".join(registry)
    return Setting(key, kind, _plain(default), allowed, plain_text(meaning), registry)


@cache
def docstrings(cls: type) -> dict[str, str]:
    """Reads the string literal below each field of a dataclass from its source."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
    assert isinstance(tree, ast.ClassDef)
    found = {}
    for field, following in zip(tree.body, tree.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(following, ast.Expr):
            text = getattr(following.value, "value", None)
            if isinstance(text, str):
                found[field.target.id] = inspect.cleandoc(text)
    return found


def plain_text(text: str) -> str:
    """Converts a docstring to one line, with roles and double backticks as single backticks."""
    return re.sub(r"(?::[\w:]+:)?(`{1,2})~?([^`]+)\1", r"`\2`", " ".join(text.split()))


def _type(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return "a name"
    if origin in (typing.Union, types.UnionType):
        return " or ".join("null" if a is type(None) else _words(a) for a in arguments)
    if origin is tuple:
        inner = arguments[0]
        if typing.get_origin(inner) is tuple:
            return f"a list of [{', '.join(['number'] * len(typing.get_args(inner)))}]"
        return {int: "a list of whole numbers", float: "a list of numbers"}.get(inner, "a list of names")
    return _TYPES.get(hint, str(hint))


def _words(hint: Any) -> str:
    return " or ".join(map(str, typing.get_args(hint))) if typing.get_origin(hint) is Literal else _type(hint)


def _allowed(hint: Any, metadata: Mapping[str, Any]) -> str:
    limits = ", ".join(f"{sign} {metadata[name]}" for name, sign in _SIGNS.items() if name in metadata)
    return " | ".join(part for part in (limits, *map(str, _choices(hint))) if part)


def _choices(hint: Any) -> tuple[Any, ...]:
    """Values of all ``Literal`` within a type."""
    if typing.get_origin(hint) is Literal:
        return typing.get_args(hint)
    return tuple(choice for argument in typing.get_args(hint) for choice in _choices(argument))


def _plain(value: Any) -> Any:
    """Converts a default to a plain YAML value."""
    if isinstance(value, ByModality):
        return _plain(value.plain)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, (tuple, list)) else value
