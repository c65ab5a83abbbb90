"""What several tests need."""

from __future__ import annotations

import gc
import os
import pickle
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import settings

from gmsa import registry
from gmsa.data import Utterance, synthetic
from gmsa.data.dialogues import synthetic as dialogues
from gmsa.rng import seed_for

gc.disable()  # until all tests are collected, which makes objects and no garbage
os.fsync = lambda handle: None  # no test cuts the power, and a small run would wait for the disk most of the time

settings.register_profile("gmsa", deadline=None)  # a machine that is busy fails no test
settings.load_profile("gmsa")

DEFAULT_REAL_DATA = Path(__file__).parents[2] / "shared" / "data"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest test begins first: begun last, it would keep one process busy alone."""
    items.sort(key=lambda item: item.path.name != "test_pages.py")


def pytest_collection_finish() -> None:
    """What is loaded stays: the collector of garbage need not look at two million objects again and again."""
    gc.collect()
    gc.freeze()
    gc.unfreeze = lambda: None  # a loader that starts workers would call it
    gc.set_threshold(10_000, 10, 50)  # little of a test's garbage is in cycles
    gc.enable()


@pytest.fixture(autouse=True)
def _plugins_of_one_test_alone() -> Iterator[None]:
    """Forgets the plug-ins and parts of a test: processes that later tests start would look for them in vain."""
    loaded, parts = dict(registry._loaded), {name: dict(r._parts) for name, r in registry.REGISTRIES.items()}
    yield
    registry._loaded.clear()
    registry._loaded.update(loaded)
    for name, known in parts.items():
        registry.REGISTRIES[name]._parts = known


@pytest.fixture
def rendered() -> None:
    """Asks for figures as a user gets them."""


@pytest.fixture(autouse=True)
def unrendered(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are drawn as ever, but their files are empty: to render one takes half a second."""
    if "rendered" in request.fixturenames:
        return

    def write(_: object, path: Path) -> None:
        for kind in (".png", ".svg"):
            path.with_suffix(kind).write_bytes(b"")

    monkeypatch.setattr("gmsa.figures.canvas.write_figure", write)


@pytest.fixture
def small_synthetic(monkeypatch: pytest.MonkeyPatch) -> None:
    """The made-up corpora have few utterances."""
    for name, count in {"train": 64, "valid": 32, "test": 32, "pool": 32}.items():
        monkeypatch.setitem(synthetic.SIZES, name, count)
    for name in dialogues.SIZES:
        monkeypatch.setitem(dialogues.SIZES, name, 6)


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


@pytest.fixture
def make_utterance() -> Callable[..., Utterance]:
    """Makes an utterance with lengths (text, audio, vision) and dimensions 6, 4, 5, a function of its id."""

    def make(name: str, lengths: tuple[int, int, int], label: float | None = 0.5) -> Utterance:
        g = torch.Generator().manual_seed(seed_for(name))
        sizes = zip(("text", "audio", "vision"), lengths, (6, 4, 5), strict=True)
        return Utterance(name, {m: torch.randn(n, d, generator=g) for m, n, d in sizes}, label)

    return make


@pytest.fixture
def write_mmsa(tmp_path: Path) -> Callable[..., Path]:
    """Writes a learnable file in MMSA's format (24 / 12 / 12 utterances) and returns its path."""

    def write(name: str = "tiny.pkl", change: Callable[[dict[str, Any]], None] | None = None, prefix: str = "") -> Path:
        rng = np.random.default_rng(0)
        content: dict[str, Any] = {}
        for split, count in (("train", 24), ("valid", 12), ("test", 12)):
            labels = np.tile(np.float32([-2.8, -2, -1, 0, 1, 2, 2.8]), 4)[:count]
            columns: dict[str, Any] = {
                "id": [f"{prefix}{split}{i // 4}$_${i}" for i in range(count)],
                "raw_text": ["words"] * count,
                "regression_labels": labels.copy(),
            }
            for modality, length, dim in (("text", 5, 4), ("audio", 17, 3), ("vision", 3, 2)):
                lengths = rng.integers(1, length + 1, count)
                features = rng.standard_normal((count, length, dim)).astype(np.float32) + labels[:, None, None] / 2
                if modality == "vision":
                    lengths[::3] = 0
                features[np.arange(length) >= lengths[:, None]] = 0
                columns[modality], columns[f"{modality}_lengths"] = features, lengths.tolist()
            content[split] = columns
        if change is not None:
            change(content)
        path = tmp_path / name
        path.write_bytes(pickle.dumps(content))
        return path

    return write


LENGTHS = [(5, 9, 3), (5, 0, 0), (0, 9, 0), (0, 0, 3), (5, 9, 0), (0, 17, 3), (1, 0, 1), (0, 0, 0), (3, 1, 1)]


@pytest.fixture
def utterances(make_utterance) -> list[Utterance]:
    """Three videos; every modality is missing somewhere, and once all of them."""
    found = [make_utterance(f"v{i // 3}$_${i % 3}", lengths, i / 3 - 1) for i, lengths in enumerate(LENGTHS)]
    return [replace(u, features={m: x.double() for m, x in u.features.items()}) for u in found]
