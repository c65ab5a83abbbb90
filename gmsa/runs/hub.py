"""Trained models of others: from a folder, or from the Hugging Face Hub."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path

from gmsa.errors import RunError
from gmsa.runs.folder import Run
from gmsa.system.reading import exists, expanded

_ID = re.compile(r"[\w.-]+/[\w.-]+")
_FILES = ["*.json", "*.yaml", "*.safetensors", "README.md"]


def open_model(model: str | os.PathLike[str], revision: str | None, plugins: Iterable[str]) -> Run:
    """Opens a folder, or else downloads the model ``user/name``; see :func:`gmsa.load`."""
    folder = expanded(model)
    if not exists(folder) and _ID.fullmatch(str(model)):
        folder = _download(str(model), revision)
    elif revision is not None:
        raise RunError(f"'{model}' is a folder, which has no revision '{revision}'; leave that out")
    return Run(folder, plugins)


def _download(model: str, revision: str | None) -> Path:
    try:
        hub = import_module("huggingface_hub")
    except ModuleNotFoundError:
        raise RunError(
            f"there is no folder '{model}', and loading it from the Hugging Face Hub needs huggingface_hub; install "
            "it (in the clone: pip install '.[hub]'), or name a folder"
        ) from None
    try:
        return Path(hub.snapshot_download(repo_id=model, revision=revision, allow_patterns=_FILES))
    except Exception as error:  # huggingface_hub's own, those of its HTTP library, and the system's
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise RunError(
            f"there is no folder '{model}', and the Hugging Face Hub does not give it ({reason}); check the id and the "
            "network, or name a folder"
        ) from None
