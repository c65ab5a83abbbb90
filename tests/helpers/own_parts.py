"""A plug-in as a user writes it: a folder with a module of parts of their own beside a config that names it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

MODULE = '''
import torch
from gmsa.metrics import metric
from gmsa.registry import EDGE_BUILDERS, METRICS


@EDGE_BUILDERS.register("first")
def first(source_length: int, target_length: int, count: int = 1):
    """Joins every step with the first ones."""
    targets, sources = torch.meshgrid(
        torch.arange(target_length), torch.arange(min(count, source_length)), indexing="ij"
    )
    return torch.stack([sources.flatten(), targets.flatten()])


@METRICS.register("within")
@metric(higher_is_better=True)
def within(prediction, truth, distance: float = 0.5) -> float:
    """Share of the predictions at most so far from the truth."""
    return float((abs(prediction - truth) <= distance).mean())
'''


def with_own_parts(config: Path, **run: Any) -> Path:
    """A config beside ``config`` that names a plug-in, and the plug-in."""
    (config.parent / "own_parts_of_a_user.py").write_text(MODULE)
    settings = yaml.safe_load(config.read_text())
    settings["plugins"] = ["own_parts_of_a_user"]
    settings["run"] |= {"metrics": ["within(distance=1)", "CCC"]} | run
    path = config.with_name("own.yaml")
    path.write_text(yaml.safe_dump(settings))
    return path
