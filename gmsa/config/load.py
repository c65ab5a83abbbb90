"""Reads settings from YAML, changes them by dotted keys, and turns them back into plain values."""

from __future__ import annotations

import dataclasses
import os
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from gmsa.config.coerce import build, one_for_all
from gmsa.config.packaged import find
from gmsa.config.schema import SHARED, Config
from gmsa.config.strict_yaml import read_yaml
from gmsa.errors import ConfigError
from gmsa.registry import load_plugins


def to_dict(config: Any) -> dict[str, Any]:
    """The settings as plain dicts, lists and scalars, ready for YAML or JSON."""

    def plain(value: Any) -> Any:
        if isinstance(value, tuple):
            return [plain(v) for v in value]
        return {k: plain(v) for k, v in value.items()} if isinstance(value, dict) else value

    return typing.cast("dict[str, Any]", plain(dataclasses.asdict(config)))


def from_dict(settings: Mapping[str, Any], where: str = "config", folder: Path | None = None) -> Config:
    """Builds a checked :class:`Config` from nested plain settings, and imports the ``plugins`` that they name.

    Args:
        where: what the settings came from, for errors.
        folder: where plug-ins are also looked for.

    Raises:
        ConfigError: an unknown key (with the nearest known one), a wrong type, a value out of range, or a plug-in that
            cannot be imported.
    """
    named = settings.get("plugins") if isinstance(settings, Mapping) else None
    if isinstance(named, (list, tuple)) and all(isinstance(module, str) for module in named):
        try:
            load_plugins(named, folder)
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from None
    return build(Config, settings, where)


def load_config(path: str | Path, overrides: Iterable[str] = (), environ: Mapping[str, str] = os.environ) -> Config:
    """Reads a YAML file, or a packaged config by name, over the defaults, then applies ``key=value`` overrides.

    Where the user names the data (``$GMSA_DATA`` or ``data.path=``), a missing file is an error
    even in a config that would else fall back to the synthetic corpus.

    Raises:
        ConfigError: the file is missing or not YAML, or a setting is wrong.
    """
    file = find(path, "configs")
    settings = read_yaml(file)
    settings = {} if settings is None else settings
    if not isinstance(settings, dict):
        raise ConfigError(f"{path}: expected 'key: value' pairs at the top (got {type(settings).__name__})")

    changes = dict(_split_override(item) for item in overrides)
    if "data.path" not in changes and environ.get("GMSA_DATA"):
        changes["data.path"] = environ["GMSA_DATA"]
    if "data.path" in changes:
        changes.setdefault("data.if_missing", "error")
    for key, value in changes.items():
        change(settings, key, value)
    return from_dict(settings, where=str(path), folder=file.parent)


def _split_override(item: str) -> tuple[str, Any]:
    key, equals, value = item.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set takes key=value, for example --set optim.lr=1e-3 (got '{item}')")
    try:
        return key.strip(), yaml.safe_load(value)
    except yaml.YAMLError:
        raise ConfigError(f"'{key}': value '{value}' is not valid YAML") from None


def change(settings: dict[str, Any], key: str, value: Any) -> None:
    """Sets a dotted key of nested settings, in place; a value that stands for a group's fields is spread over them."""
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
