"""Reads settings from YAML, changes them by dotted key, and converts them back to plain values."""

from __future__ import annotations

import dataclasses
import os
import sys
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from gmsa.config.coerce import build, one_for_all
from gmsa.config.inherit import Layered, import_plugins, layers, read_layers
from gmsa.config.schema import SHARED, Config
from gmsa.errors import ConfigError
from gmsa.registry import load_entry_points, loaded_plugins


def to_dict(config: Any) -> dict[str, Any]:
    """Converts settings to plain dicts, lists and scalars for YAML or JSON."""

    def plain(value: Any) -> Any:
        if isinstance(value, tuple):
            return [plain(v) for v in value]
        return {k: plain(v) for k, v in value.items()} if isinstance(value, dict) else value

    return typing.cast("dict[str, Any]", plain(dataclasses.asdict(config)))


def from_dict(
    settings: Mapping[str, Any], where: str = "config", folder: Path | None = None, trusted: bool = True
) -> Config:
    """Builds a checked :class:`Config` from nested plain settings, over those of the config that their ``base`` names.

    Args:
        where: source of the settings, for errors.
        folder: folder to search first for ``base``, and last for plug-ins.
        trusted: whether the user named these settings. Those of a run folder may be a stranger's: they have no
            ``base``, and no plug-in is imported for them.

    Raises:
        ConfigError: an unknown key (with the nearest known one), a wrong type, a value out of range, or a plug-in that
            cannot be imported or, where the settings are not the user's, is not.
    """
    if not isinstance(settings, Mapping):
        return build(Config, settings, where)
    if not trusted:
        _check_plugins(settings.get("plugins"), where)
        return build(Config, settings, where)
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
    changes = [_split_override(item) for item in overrides]
    given = {key for key, _ in changes}
    if "data.path" not in given and environ.get("GMSA_DATA"):
        changes.append(("data.path", environ["GMSA_DATA"]))
        given.add("data.path")
    if "data.path" in given:
        changes += [(k, v) for k, v in (("data.if_missing", "error"), ("data.name", "")) if k not in given]
    for key, value in changes:
        key, adds = key.removesuffix("+"), key.endswith("+")
        change(found.settings, key, _added(found.settings, key, value) if adds else value)
        found.files.pop(key, None)
    if given & {"plugins", "plugins+"}:
        import_plugins(found.settings["plugins"], str(path), Path.cwd())
    return _build(found, str(path))


def _build(found: Layered, where: str) -> Config:
    return build(Config, found.settings, lambda key: found.files.get(key, where))


def _check_plugins(named: Any, where: str) -> None:
    """Refuses settings that need a plug-in which nobody has imported."""
    if not isinstance(named, list) or not named:
        return
    load_entry_points()
    missing = [module for module in named if module not in loaded_plugins() and module not in sys.modules]
    if missing:
        raise ConfigError(
            f"{where}: needs the plug-in '{missing[0]}', and no run folder may import one by itself; if you trust it, "
            f"add --plugin {missing[0]}"
        )


def _split_override(item: str) -> tuple[str, Any]:
    key, equals, value = item.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set takes key=value, for example --set optim.lr=1e-3 (got '{item}')")
    try:
        return key.strip(), yaml.safe_load(value)
    except yaml.YAMLError:
        raise ConfigError(f"'{key}': value '{value}' is not valid YAML") from None


def _added(settings: Mapping[str, Any], key: str, value: Any) -> list[Any]:
    """The list at a dotted key with further values, each once."""
    before: Any = settings
    for part in key.split("."):
        before = before.get(part) if isinstance(before, Mapping) else None
    if before is not None and not isinstance(before, list):
        raise ConfigError(f"'{key}' is no list, to which += could add; use = (got {before!r})")
    more = value if isinstance(value, list) else [value]
    return [*(before or ()), *(v for v in more if v not in (before or ()))]


def change(settings: dict[str, Any], key: str, value: Any) -> None:
    """Sets a dotted key of nested settings in place; one value for a whole group is first expanded to its fields."""
    *parents, last = key.split(".")
    for parent in parents:
        below = settings.setdefault(parent, {})
        if below is None:
            below = settings[parent] = {}
        if parent in SHARED and isinstance(below, str):
            below = settings[parent] = dict.fromkeys(one_for_all(SHARED[parent]), below)
        if not isinstance(below, dict):
            raise ConfigError(f"unknown key '{key}': '{parent}' is a value, not a group")
        settings = below
    settings[last] = value
