"""Changes settings that are in memory by dotted keys."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from numbers import Integral
from pathlib import Path
from typing import Any

from gmsa.config.load import change, expand_paths, from_dict, load_config, split_override, to_dict
from gmsa.config.schema import Config
from gmsa.config.strict_yaml import parse_yaml
from gmsa.errors import ConfigError, shown

Overrides = Mapping[str, Any] | Iterable[str]
"""``{"optim.lr": 1e-3}`` or ``["optim.lr=1e-3"]``."""


def as_items(overrides: Overrides) -> list[str]:
    """Overrides as a list of ``key=value``, the form that ``--set`` takes."""
    if isinstance(overrides, str):
        return [overrides]
    if isinstance(overrides, Mapping):
        return [f"{key}={as_yaml(value)}" for key, value in overrides.items()]
    return list(overrides)


def as_yaml(value: Any) -> str:
    """A value as YAML in one line; text that YAML reads as itself stays as it is."""
    if isinstance(value, str):
        try:
            if value == value.strip() and parse_yaml(value, "value") == value:
                return value
        except ConfigError:
            pass
    try:
        return json.dumps(value, ensure_ascii=False, default=str)  # JSON is YAML
    except (ValueError, RecursionError):  # a number of 5,000 digits, or nested too deeply
        raise ConfigError(f"no setting takes such a value (got {shown(value)})") from None


def as_seeds(seeds: int | Iterable[int]) -> tuple[int, ...]:
    """One seed, or several, as a tuple.

    Raises:
        ConfigError: there is none, or one is not a whole number.
    """
    found = tuple(seeds) if isinstance(seeds, Iterable) else (seeds,)
    if not found or not all(isinstance(seed, Integral) and not isinstance(seed, bool) for seed in found):
        raise ConfigError(f"seeds are whole numbers, at least one, such as [1, 2, 3] (got {shown(seeds)})")
    return tuple(int(seed) for seed in found)


def override(settings: Config | Mapping[str, Any], overrides: Iterable[str] = ()) -> Config:
    """The settings with ``key=value`` overrides applied, checked.

    Args:
        settings: a config, or a dict of settings, nested or with dotted keys; it is not changed.

    Raises:
        ConfigError: a key is unknown, or a value is wrong.
    """
    plain: dict[str, Any] = {}
    imported: tuple[str, ...] = ()
    if isinstance(settings, Config):
        # Its parts are known already. Importing what it lists is for those who name it: it may be of a stranger's run.
        plain, imported = to_dict(settings), settings.plugins
        del plain["plugins"]
    else:
        for key, value in settings.items():
            change(plain, str(key), copy.deepcopy(value))
    changes = [split_override(item) for item in overrides]
    if "data.path" in (given := {key for key, _ in changes}):
        # It has the name of other data, and a file that the user names must be there.
        changes += [(k, v) for k, v in (("data.name", ""), ("data.if_missing", "error")) if k not in given]
    for key, value in changes:
        change(plain, key, value)
    expand_paths(plain, lambda key: f"--set {key}" if key in given else "settings")
    return with_plugins(from_dict(plain), imported)


def changed(base: str | Path | Config, overrides: Iterable[str] = ()) -> Config:
    """The config of a file, or one in memory, with ``key=value`` overrides applied.

    Raises:
        ConfigError: the file is missing or not YAML, a key is unknown, or a value is wrong.
    """
    return override(base, overrides) if isinstance(base, Config) else load_config(base, overrides)


def with_plugins(config: Config, modules: Iterable[str]) -> Config:
    """The config with further plug-in modules, each once."""
    return replace(config, plugins=tuple(dict.fromkeys((*modules, *config.plugins))))
