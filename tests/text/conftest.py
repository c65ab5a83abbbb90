"""What tests of runs with a text encoder share; they leave it as it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.text_encoders import FAMILIES, make_encoder, spoken_content
from helpers.tiny_data import write_pickle

from gmsa.config import Config, from_dict
from gmsa.runs import report as results


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No figures, which take most of a small run's time, and a cache of its own."""
    monkeypatch.setattr(results, "draw_run", lambda *_: None)
    monkeypatch.setenv("GMSA_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A small encoder of each family."""
    pytest.importorskip("transformers")
    return {family: make_encoder(tmp_path_factory.mktemp(family) / family, family) for family in FAMILIES}


@pytest.fixture(scope="session")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data file."""
    return write_pickle(tmp_path_factory.mktemp("data") / "spoken.pkl", spoken_content())


@pytest.fixture
def config_of(encoders: dict[str, Path], file: Path) -> Callable[..., Config]:
    """A config that trains an encoder in a second, and saves after every step."""

    def make(tuning: str = "full", encoder: Path | None = None, **groups: dict[str, Any]) -> Config:
        if tuning == "lora":
            pytest.importorskip("peft")
        settings: dict[str, dict[str, Any]] = {
            "data": {"path": str(file), "name": "spoken"},
            "model": {"channels": 16, "heads": 2, "text_encoder": str(encoder or encoders["bert"])},
            "text": {"tuning": tuning},
            "optim": {"epochs": 2, "min_steps": 0, "batch_size": 8},
            "protocol": {"name": "supervised"},
            "run": {"seeds": [1], "device": "cpu", "save_every": 1e-6},
        }
        for name, values in groups.items():
            settings[name] = settings.get(name, {}) | values
        return from_dict(settings)

    return make
