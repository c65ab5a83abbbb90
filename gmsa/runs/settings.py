"""The settings of a run, read from a folder that may be a stranger's: no plug-in is imported for them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gmsa.config import Config, from_dict
from gmsa.config.strict_yaml import parse_yaml
from gmsa.errors import ConfigError, RunError
from gmsa.registry import loaded_plugins
from gmsa.system.reading import read_json, read_text


def read_config(folder: Path, name: str = "config.yaml") -> Config:
    """The settings that a run was started with. Its ``plugins`` are those that are imported already.

    A run folder may be a stranger's, so reading it imports none of the plug-ins that it names.

    Raises:
        RunError: the file is damaged, or it has parts of a plug-in that is not imported.
    """
    try:
        settings = parse_yaml(read_text(folder / name, inside=folder), name)
        if not isinstance(settings, dict):
            raise ValueError(f"{name} holds no settings")
        if "base" in settings:
            raise ValueError(f"{name} builds on another file, which that of a run never does")
        named = needed_plugins(folder, settings.pop("plugins", None))
        try:
            config = from_dict(settings, name)
        except ConfigError:
            if lacking := [module for module in named if module not in loaded_plugins()]:
                raise RunError(needs_plugins(folder, lacking)) from None
            raise
        return replace(config, plugins=tuple(module for module in named if module in loaded_plugins()))
    except ValueError as error:
        raise RunError(f"'{folder}' is damaged: {' '.join(str(error).split())}; train again") from None


def needed_plugins(folder: Path, configured: Any) -> list[str]:
    """The plug-in modules that a run was trained with: of its settings, and of ``environment.json``."""
    try:
        recorded = read_json(folder / "environment.json", inside=folder).get("plugins")
    except (RunError, AttributeError):
        recorded = None  # an older run, or a damaged one, of which others speak
    return names_of_modules(configured, recorded)


def names_of_modules(*recorded: Any) -> list[str]:
    """The names of modules in lists that a folder holds, each once; what is no name or no list is left out."""
    names = dict.fromkeys(str(name) for value in recorded if isinstance(value, list) for name in value)
    return [name for name in names if re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", name)]


def needs_plugins(folder: Path, modules: Sequence[str]) -> str:
    """An error's words: a run folder needs these plug-ins, and how to name them."""
    options = " ".join(f"--plugin {module}" for module in modules)
    return (
        f"'{folder}' needs the plug-in{'s' * (len(modules) > 1)} {', '.join(map(repr, modules))}, which a run folder "
        f"never makes gmsa import; name it with {options} (in Python: plugins={modules!r})"
    )
