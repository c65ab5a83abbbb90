"""Imports the packages of the extra ``text``, only where they are needed."""

from __future__ import annotations

import os
from typing import Any

from gmsa.system import packages


def load_package(name: str, key: str) -> Any:
    """A package of the extra ``text``, told to be quiet.

    Args:
        key: the setting that needs it, for the error.

    Raises:
        ConfigError: it is not installed.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # it would warn in every process that is forked
    module = packages.load_package(name, f"'{key}'", "text")
    if name == "transformers":
        module.logging.set_verbosity_error()
        module.logging.disable_progress_bar()
    return module
