"""Imports the packages of an extra, only where they are needed."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

from gmsa.errors import ConfigError


def load_package(name: str, key: str, extra: str = "text") -> Any:
    """A package of an extra, told to be quiet.

    Args:
        key: the setting that needs it, for the error.

    Raises:
        ConfigError: it is not installed.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # it would warn in every process that is forked
    try:
        module = import_module(name)
    except ModuleNotFoundError:
        raise ConfigError(
            f"'{key}' needs {name}, which is not installed; install gmsa with its extra (pip install 'gmsa[{extra}]')"
        ) from None
    if name == "transformers":
        module.logging.set_verbosity_error()
        module.logging.disable_progress_bar()
    return module
