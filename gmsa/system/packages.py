"""Imports packages of gmsa's extras, only where they are needed."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from gmsa.errors import ConfigError


def load_package(name: str, needed_by: str, extra: str) -> Any:
    """A package that an extra of gmsa installs.

    Args:
        needed_by: what needs it, for the error: a setting in quotes, or a task.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return import_module(name)
    except ModuleNotFoundError:
        raise ConfigError(
            f"{needed_by} needs {name}, which is not installed; install gmsa with its extra "
            f"(pip install 'gmsa[{extra}]')"
        ) from None
