"""gmsa: multimodal sentiment analysis on graphs.

Importing the package alone is cheap: the rooms below it load torch when they are first used.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "Config": "gmsa.config",
    "load_config": "gmsa.config",
    "Corpus": "gmsa.data",
    "Utterance": "gmsa.data",
    "load_corpus": "gmsa.data",
    "GraphBatch": "gmsa.graph",
    "collate": "gmsa.graph",
    "build_model": "gmsa.models",
    "open_run": "gmsa.runs",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'gmsa' has no attribute '{name}'")
    home = importlib.import_module(_HOMES[name])
    return getattr(home, name)
