"""Imports PyG without transformers, of which it would take one class for type hints, and a second for that."""

from __future__ import annotations

import sys

_OPTIONAL = "transformers"


def load() -> None:
    """Imports PyG; it takes what it tries to import and does not find for not installed."""
    if _OPTIONAL in sys.modules or "torch_geometric" in sys.modules:
        return
    sys.modules[_OPTIONAL] = None  # type: ignore[assignment]  # whoever imports it is told that it is not there
    try:
        import torch_geometric  # noqa: F401
    finally:
        del sys.modules[_OPTIONAL]


load()
