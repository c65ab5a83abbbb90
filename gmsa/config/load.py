"""Reads settings from YAML, changes them by dotted key, and converts them back to plain values."""

from __future__ import annotations

import dataclasses
import os
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gmsa.config.coerce import FORMER, build_dataclass
from gmsa.config.components import in_brackets
from gmsa.config.fields import ByModality
from gmsa.config.inherit import Layered, import_plugins, layers, read_layers, spread
from gmsa.config.schema import Config
from gmsa.config.strict_yaml import DEEPEST, parse_value
from gmsa.errors import ConfigError, cut, shown
from gmsa.registry import Registry
from gmsa.system.reading import expanded

PATHS = ("data.path", "data.pool", "protocol.init_from")
"""Settings that are paths of the user."""


def to_dict(config: Any) -> dict[str, Any]:
    """Converts settings to plain dicts, lists and scalars for YAML or JSON."""

    def plain(value: Any) -> Any:
        if isinstance(value, ByModality):
            return plain(value.plain)
        if isinstance(value, tuple):
            return [plain(v) for v in value]
        return {k: plain(v) for k, v in value.items()} if isinstance(value, dict) else value

    return typing.cast("dict[str, Any]", plain(dataclasses.asdict(config)))


def from_dict(settings: Mapping[str, Any], where: str = "config", folder: Path | None = None) -> Config:
    """Builds a checked :class:`Config` from nested plain settings, merged over their ``base``; imports their plug-ins.

    For settings that the user named: those of a stranger must have neither ``base`` nor ``plugins``.

    Args:
        where: source of the settings, for errors.
        folder: folder to search first for ``base``, and last for plug-ins.

    Raises:
        ConfigError: an unknown key (with the nearest known one), a wrong type, a value out of range, or a plug-in that
            cannot be imported.
    """
    if not isinstance(settings, Mapping):
        return build_dataclass(Config, settings, where)
    return _build(layers(settings, where, folder), where)


def load_config(path: str | Path, overrides: Iterable[str] = (), environ: Mapping[str, str] = os.environ) -> Config:
    """Reads a config over its ``base`` and the defaults, then applies overrides.

    Where the user names the data (``$GMSA_DATA`` or ``data.path=``), a missing file is an error even in a config that
    would else fall back to the synthetic corpus, and the data set is called after the file, unless by ``data.name=``.

    Args:
        path: a YAML file, or the name of a packaged config.
        overrides: ``key=value``, or ``key+=values`` to add to a list.

    Raises:
        ConfigError: a file is missing or not YAML, or a setting is wrong.
    """
    found = read_layers(path)
    changes = [(*split_override(item), f"--set {cut(item)}") for item in overrides]
    given = {FORMER.get(key, key) for key, *_ in changes}
    if "data.path" not in given and environ.get("GMSA_DATA"):
        changes.append(("data.path", environ["GMSA_DATA"], "$GMSA_DATA"))
        given.add("data.path")
    if "data.path" in given:
        changes += [(k, v, "") for k, v in (("data.if_missing", "error"), ("data.name", "")) if k not in given]
    for key, value, origin in changes:
        key = FORMER.get(key, key)
        made = _groups_to_make(found.settings, key)
        try:
            change(found.settings, key, value)
        except ConfigError as error:
            raise ConfigError(f"{origin}: {error}") from None
        key = key.removesuffix("+")
        found.files.update(dict.fromkeys(made, origin))
        for below in [other for other in found.files if other.startswith(f"{key}.")]:
            del found.files[below]
        found.files[key] = origin
    if given & {"plugins", "plugins+"}:
        import_plugins(found.settings["plugins"], str(path), Path())
    expand_paths(found.settings, lambda key: _origin(found, str(path), key))
    return _build(found, str(path))


def settings_of(overrides: Iterable[str], groups: Collection[str]) -> tuple[Config, frozenset[str]]:
    """The defaults changed by ``key=value``, and the keys that are changed, as ``data.split`` of ``data.split.valid``.

    Args:
        overrides: as of :func:`load_config`.
        groups: groups whose settings may be changed.

    Raises:
        ConfigError: a setting is wrong; the error names ``--set``.
    """
    settings: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for item in overrides:
        origin = f"--set {cut(item)}"
        try:
            key, value = split_override(item)
            key = FORMER.get(key, key)
            if key.partition(".")[0].removesuffix("+") not in groups:
                raise ConfigError(f"only settings of {' and '.join(groups)} can be changed here; leave it out")
            change(settings, key, value)
        except ConfigError as error:
            raise ConfigError(f"{origin}: {error}") from None
        origins[key.removesuffix("+")] = origin

    def where(key: str) -> str:
        near = (given for given in origins if f"{key}.".startswith(f"{given}.") or given.startswith(f"{key}."))
        return origins.get(next(near, ""), next(iter(origins.values()), "--set"))

    expand_paths(settings, where)
    try:
        config = build_dataclass(Config, settings, where)
    except ConfigError as error:
        named = (origin for key, origin in origins.items() if f"'{key}" in str(error) and "--set" not in str(error))
        said = next(named, None)
        raise ConfigError(f"{said}: {error}" if said else str(error)) from None
    return config, frozenset(".".join(key.split(".")[:2]) for key in origins)


def _groups_to_make(settings: Any, key: str) -> list[str]:
    """The groups that setting a dotted key adds to settings."""
    parts, found = key.split("."), []
    for count, part in enumerate(parts[:-1], 1):
        settings = settings.get(part) if isinstance(settings, dict) else None
        if settings is None:
            found.append(".".join(parts[:count]))
    return found


def _build(found: Layered, where: str) -> Config:
    return build_dataclass(Config, found.settings, lambda key: _origin(found, where, key))


def _origin(found: Layered, where: str, key: str) -> str:
    """Where a setting comes from: its own place, or that of the group that it was set with."""
    parts = key.split(".")
    groups = (".".join(parts[:count]) for count in range(len(parts), 0, -1))
    return next((found.files[group] for group in groups if group in found.files), where)


def expand_paths(settings: Mapping[str, Any], origin: Callable[[str], str]) -> None:
    """Expands ``~`` and ``$VARS`` in the settings that are paths, in place.

    Those of a run folder are not expanded again: they may be a stranger's.

    Raises:
        ConfigError: a variable is not set, or nobody has such a home.
    """
    for key in PATHS:
        group, name = key.split(".")
        values = settings.get(group)
        if isinstance(values, dict) and isinstance(value := values.get(name), str):
            try:
                values[name] = str(expanded(value, ConfigError))
            except ConfigError as error:
                raise ConfigError(f"{origin(key)}: '{key}': {error}") from None


def split_override(item: str) -> tuple[str, Any]:
    """The key and the value of ``key=value``.

    Raises:
        ConfigError: it is none, or the value is not YAML.
    """
    key, equals, value = item.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"settings are changed by key=value, for example optim.lr=1e-3 (got {shown(item)})")
    return key.strip(), parse_value(key.strip(), value)


def change(settings: dict[str, Any], key: str, value: Any) -> None:
    """Sets a dotted key of nested settings in place; one value for a whole group is first expanded to its fields.

    A key that ends with ``+`` adds to a list. A former name sets the present one.
    """
    key = FORMER.get(key, key)
    *parents, last = key.split(".")
    if len(parents) > DEEPEST:
        raise ConfigError(f"unknown key '{cut(key)}': it has more than {DEEPEST} dots")
    for place, parent in enumerate(parents, 1):
        below = settings.setdefault(parent, {})
        if below is None:
            below = settings[parent] = {}
        below = settings[parent] = spread(parent, below)
        if not isinstance(below, dict):
            registry = _registry_of(parents[:place])
            if registry is not None and isinstance(below, str):
                raise in_brackets(
                    {".".join([*parents[place:], last]): value}, below, registry, ".".join(parents[:place])
                )
            raise ConfigError(f"unknown key '{cut(key)}': '{cut(parent)}' is a value, not a group")
        settings = below
    if last.endswith("+"):
        last = last[:-1]
        value = _added(settings.get(last), value, key[:-1])
    settings[last] = value


def _registry_of(parts: Sequence[str]) -> Registry[Any] | None:
    """The registry whose parts the setting of a dotted key names; None where it names none."""
    cls: Any = Config
    for part in parts[:-1]:
        cls = typing.get_type_hints(cls).get(part) if dataclasses.is_dataclass(cls) else None
    fields = dataclasses.fields(cls) if dataclasses.is_dataclass(cls) else ()
    return next((f.metadata.get("registry") for f in fields if f.name == parts[-1]), None)


def _added(before: Any, more: Any, key: str) -> list[Any]:
    """A list with further values, each once."""
    if before is not None and not isinstance(before, (list, tuple)):
        raise ConfigError(f"'{cut(key)}' is no list, to which += could add; use = (got {shown(before)})")
    before, more = list(before or ()), more if isinstance(more, (list, tuple)) else [more]
    known = set(map(repr, before))
    return [*before, *(value for value in more if repr(value) not in known)]
