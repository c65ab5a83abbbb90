"""What tests of studies need."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.studies import SPACE

from gmsa.ablation import ablate as ablation
from gmsa.ablation import comparison
from gmsa.ablation.cells import train_cell
from gmsa.reports.pages import html
from gmsa.runs import report as results
from gmsa.tuning import study as studies
from gmsa.tuning.workers import WorkerTask, run_trials


@pytest.fixture
def base(write_mmsa: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A config that trains in a second on a small file, and a space."""
    monkeypatch.delenv("GMSA_DATA", raising=False)
    monkeypatch.delenv("GMSA_STORAGE", raising=False)
    settings = {
        "data": {"path": str(write_mmsa()), "name": "tiny"},
        "model": {"channels": 16, "heads": 2},
        "optim": {"epochs": 2, "min_steps": 0},
        "protocol": {"name": "supervised"},
        "run": {"seeds": [1], "device": "cpu"},
    }
    path = tmp_path / "base.yaml"
    path.write_text(yaml.safe_dump(settings))
    (tmp_path / "spaces").mkdir()
    (tmp_path / "spaces" / "default.yaml").write_text(SPACE)
    return path


@pytest.fixture
def figures() -> None:
    """Asks for a study's figures."""


@pytest.fixture
def here(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Works, and trains the best one anew, in this process and without figures: each process takes seconds to start."""
    monkeypatch.setattr(results, "draw_run", lambda *a: None)
    monkeypatch.setattr(comparison, "figure_ablation", lambda *a: True)
    monkeypatch.setattr(comparison, "figure_costs", lambda *a: True)
    monkeypatch.setattr(html, "plotly_script", lambda: "")  # 5 MB
    if "figures" not in request.fixturenames:
        monkeypatch.setattr(studies, "draw_study", lambda *a: [])

    def run_workers(task: WorkerTask, jobs: int, look: Callable[[], int], say: Any) -> None:
        run_trials(task)
        look()

    monkeypatch.setattr(studies, "run_workers", run_workers)
    monkeypatch.setattr(ablation, "run_cells", lambda cells, jobs, ended: [ended(c, train_cell(c)) for c in cells])
