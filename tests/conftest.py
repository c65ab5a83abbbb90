"""What several tests need."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

DEFAULT_REAL_DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture
def real_data() -> Callable[[str], Path]:
    """Path of a real data file by name; the test skips where it is absent."""

    def find(name: str) -> Path:
        path = Path(os.environ.get("GMSA_REAL_DATA") or DEFAULT_REAL_DATA) / name
        if not path.is_file():
            pytest.skip(f"needs {name}, which is not in {path.parent} (see GMSA_REAL_DATA)")
        return path

    return find


@pytest.fixture
def mmsa_dict() -> dict[str, dict[str, Any]]:
    """A small valid file in MMSA's format: unaligned, with lengths, nothing missing."""
    rng = np.random.default_rng(0)
    content = {}
    for split, count in (("train", 6), ("valid", 3), ("test", 4)):
        columns: dict[str, Any] = {
            "id": [f"{split}$_${i}" for i in range(count)],
            "raw_text": [f"{split} words {i}" for i in range(count)],
            "regression_labels": np.linspace(-3, 3, count).astype(np.float32),
            "classification_labels": np.zeros(count),
            "annotations": ["Neutral"] * count,
        }
        for modality, length, dim in (("text", 5, 4), ("audio", 7, 3), ("vision", 6, 2)):
            lengths = rng.integers(1, length + 1, count)
            features = rng.standard_normal((count, length, dim)).astype(np.float32)
            features[np.arange(length) >= lengths[:, None]] = 0
            columns[modality] = features
            columns[f"{modality}_lengths"] = lengths.tolist()
        content[split] = columns
    return content
