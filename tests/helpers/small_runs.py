"""A config that trains in a second."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from gmsa.config import Config, from_dict

SMALL: dict[str, dict[str, Any]] = {
    "model": {"channels": 16, "heads": 2},
    "optim": {"epochs": 2, "min_steps": 0, "batch_size": 8},
    "self_training": {"k": 2},
    "run": {"seeds": [1, 2], "device": "cpu"},
}


def small(write_mmsa: Callable[[], Path], **groups: dict[str, Any]) -> Config:
    """A config that trains in a second on the file that the fixture ``write_mmsa`` writes."""
    settings = {name: SMALL.get(name, {}) | groups.get(name, {}) for name in {*SMALL, *groups, "data"}}
    settings["data"] = {"path": str(write_mmsa()), "name": "tiny"} | settings["data"]
    return from_dict(settings)
