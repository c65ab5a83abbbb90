"""Runs that the tests of predicting and evaluating share; they leave them as they are."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.tiny_data import tiny_content, tiny_run, write_pickle

from gmsa.runs import Run
from gmsa.runs import report as results


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data files and the runs ``intensity`` and ``emotion``, trained once."""
    folder = tmp_path_factory.mktemp("tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(results, "draw_run", lambda *_: None)
        own = write_pickle(folder / "own.pkl", tiny_content())
        write_pickle(folder / "other.pkl", tiny_content("o-"))
        tiny_run(folder / "intensity", own, model={"positions": 16})
        words = write_pickle(folder / "words.pkl", tiny_content("w-", ("joy", "anger", "fear"), "emotion"))
        tiny_run(folder / "emotion", words, target={"kind": "classes"}, run={"seeds": [1]})
    return folder


@pytest.fixture
def run(tiny: Path) -> Run:
    """A run that predicts an intensity."""
    return Run(tiny / "intensity")


@pytest.fixture
def emotion(tiny: Path) -> Run:
    """A run that predicts one of three emotions."""
    return Run(tiny / "emotion")
