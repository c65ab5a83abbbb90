"""Inheritance of configs: ``base: mosi_graph`` in a file, and the file that each setting comes from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from gmsa.config.coerce import FORMER, one_for_all
from gmsa.config.groups.missing import MissingConfig
from gmsa.config.packaged import find
from gmsa.config.presets import OTHERS
from gmsa.config.strict_yaml import read_yaml
from gmsa.errors import ConfigError, cut, shown
from gmsa.registry import load_plugins
from gmsa.system.reading import expanded, is_file

MOST_LEVELS = 10
"""Maximum length of a chain of base files."""
BY_MODALITY = ("intra", "inter", "encoders", "modality_dropout", "layer")
"""Settings by modality, for all of which one value may stand."""


class Layered(NamedTuple):
    """Settings of a config merged with those of its base files."""

    settings: dict[str, Any]
    """Merged settings; the nearest file wins."""
    files: dict[str, str]
    """The base file of each dotted key that comes from one."""


def read_layers(path: str | Path) -> Layered:
    """Reads a config, a path or the name of a packaged one, and merges it over its base files.

    Imports the plug-ins of every file; the folder of the file is searched for them last.

    Raises:
        ConfigError: a file is missing or not YAML, the chain of base files is a circle or too long, or a plug-in cannot
            be imported.
    """
    own = find(path, "configs")
    return layers(_read(own, str(path)), str(path), own.parent, (own,))


def layers(
    settings: Mapping[str, Any], where: str, folder: Path | None = None, chain: tuple[Path, ...] = ()
) -> Layered:
    """Merges settings over those of their base files.

    Args:
        where: source of the settings, for errors.
        folder: folder to search first for ``base``, and last for plug-ins.
        chain: files that lead to these settings, outermost first.
    """
    settings = _present_names(settings)
    named = settings.pop("base", None)
    below = Layered({}, {})
    if named is not None:
        if not isinstance(named, str):
            raise ConfigError(f"{where}: 'base' must name a config or a file (got {shown(named)})")
        file = _base(named, where, folder)
        if any(file.samefile(other) for other in chain):
            raise ConfigError(f"{where}: 'base' leads in a circle: {_shown((*chain, file))}; leave one 'base' out")
        if len(chain) > MOST_LEVELS:
            raise ConfigError(
                f"{where}: 'base' leads through more than {MOST_LEVELS} files: {_shown((*chain, file))}; join some"
            )
        below = layers(_read(file, str(file)), str(file), file.parent, (*chain, file))
        below.files.update({key: str(file) for key in _leaves(below.settings) if key not in below.files})
    import_plugins(plugins := settings.get("plugins"), where, folder)
    if isinstance(plugins, list) and isinstance(more := below.settings.get("plugins"), list):
        settings["plugins"] = [*more, *(module for module in plugins if module not in more)]
    data, other = settings.get("data"), below.settings.get("data")
    if isinstance(data, Mapping) and "path" in data and isinstance(other, dict):
        for key in ("name", "if_missing"):  # they go with the other path
            other.pop(key, None)
    merged = merge(below.settings, settings)
    own = set(_leaves(settings))
    return Layered(merged, {key: file for key, file in below.files.items() if key not in own})


def import_plugins(named: Any, where: str, folder: Path | None) -> None:
    """Imports plug-ins; does nothing where ``named`` is not a list of names, which the schema refuses."""
    if isinstance(named, (list, tuple)) and all(isinstance(module, str) for module in named):
        try:
            load_plugins(named, folder)
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from None


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Merges nested settings; one value for a whole group is expanded to its fields where the other side is a group."""
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        if isinstance(value, Mapping) and key in BY_MODALITY:
            under = None if OTHERS in value else spread(key, under)  # it says all, or is merged
        elif isinstance(value, Mapping) != isinstance(under, Mapping) and key == "missing":
            value, under = (spread(key, one) for one in (value, under))
        if isinstance(value, Mapping) and isinstance(under, Mapping):
            merged[key] = merge(under, value)
        elif value is not None or not isinstance(under, Mapping):  # an empty group changes nothing
            merged[key] = value
    return merged


def spread(key: str, value: Any) -> Any:
    """A setting of several values, for all of which one stands, as a dict of them; any other as it is."""
    if key in BY_MODALITY and value is not None and not isinstance(value, Mapping):
        return {OTHERS: value}
    return dict.fromkeys(one_for_all(MissingConfig), value) if key == "missing" and isinstance(value, str) else value


def _present_names(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with former names as present ones; of both, the present one counts."""
    found = dict(settings)
    for former, present in FORMER.items():
        group, name = former.split(".")
        if not isinstance(found.get(group), Mapping) or name not in found[group]:
            continue
        found[group] = dict(found[group])
        value = found[group].pop(name)
        *parents, last = present.split(".")
        place: dict[str, Any] = found
        for parent in parents:
            below = spread(parent, place.get(parent)) or {}
            if not isinstance(below, Mapping):
                break  # the schema refuses it
            place[parent] = dict(below)
            place = place[parent]
        else:
            place.setdefault(last, value)
    return found


def _base(named: str, where: str, folder: Path | None) -> Path:
    beside = (folder or Path()) / expanded(named, ConfigError)
    if is_file(beside, ConfigError):
        return beside
    try:
        return find(named, "configs")
    except ConfigError as error:
        raise ConfigError(f"{where}: 'base': {error}") from None


def _read(path: Path, where: str) -> dict[str, Any]:
    settings = read_yaml(path)
    if settings is not None and not isinstance(settings, dict):
        raise ConfigError(f"{where}: expected 'key: value' pairs at the top (got {type(settings).__name__})")
    return settings or {}


def _leaves(settings: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Dotted keys of all values, and of the groups that hold them."""
    found = []
    for key, value in settings.items():
        found.append(f"{prefix}{key}")
        if isinstance(value, Mapping):
            found += _leaves(value, f"{prefix}{key}.")
    return found


def _shown(chain: tuple[Path, ...]) -> str:
    names = [cut(path) for path in chain]
    return " -> ".join(names if len(names) < 5 else [*names[:2], "...", *names[-2:]])
