"""Small learnable files in MMSA's format, and runs that are trained on them in a second."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gmsa.config import from_dict
from gmsa.runs.train import train

COUNTS = {"train": 24, "valid": 12, "test": 12}
SHAPES = {"text": (5, 4), "audio": (17, 3), "vision": (3, 2)}
LABELS = np.float32([-2.8, -2, -1, 0, 1, 2, 2.8])


def tiny_content(
    prefix: str = "", labels: Sequence[Any] = tuple(LABELS), field: str = "regression_labels", **shapes: tuple[int, int]
) -> dict[str, dict[str, Any]]:
    """The content of a file: the features say which of ``labels`` each utterance has.

    Args:
        prefix: of the ids; the features depend on it too.
        shapes: steps and features of each modality; text, audio and vision by default.
    """
    rng = np.random.default_rng([len(prefix), *prefix.encode()])
    content: dict[str, Any] = {}
    for split, count in COUNTS.items():
        number = np.arange(count) % len(labels)
        columns: dict[str, Any] = {
            "id": [f"{prefix}{split}{i // 4}$_${i}" for i in range(count)],
            "raw_text": ["words"] * count,
            field: [labels[k] for k in number],
        }
        for modality, (length, dim) in (shapes or SHAPES).items():
            lengths = rng.integers(1, length + 1, count)
            features = rng.standard_normal((count, length, dim)).astype(np.float32) + number[:, None, None] / 2
            features[np.arange(length) >= lengths[:, None]] = 0
            columns[modality], columns[f"{modality}_lengths"] = features, lengths.tolist()
        content[split] = columns
    return content


def write_pickle(path: Path, content: Mapping[str, Any]) -> Path:
    """Writes a file's content."""
    path.write_bytes(pickle.dumps(content))
    return path


def tiny_run(folder: Path, file: Path, /, **groups: Mapping[str, Any]) -> Path:
    """Trains a run into ``folder``, unless it is there."""
    settings: dict[str, dict[str, Any]] = {
        "data": {"path": str(file), "name": file.stem},
        "model": {"channels": 16, "heads": 2},
        "optim": {"epochs": 1, "min_steps": 0, "batch_size": 8},
        "protocol": {"name": "supervised"},
        "run": {"seeds": [1, 2], "device": "cpu"},
    }
    for group, values in groups.items():
        settings[group] = settings.get(group, {}) | dict(values)
    if not folder.exists():
        train(from_dict(settings), folder.name, folder)
    return folder
