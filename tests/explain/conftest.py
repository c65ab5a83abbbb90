"""Runs that the tests of explanations share; they leave them as they are."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.tiny_data import tiny_content, tiny_run, write_pickle

from gmsa.runs import Run
from gmsa.runs import report as results


@pytest.fixture(scope="session")
def explained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data files and the runs ``intensity``, ``emotion`` and ``dialogue``, trained once.

    Transcripts look like markup, and have a word per step but for the last one of each split.
    """
    folder = tmp_path_factory.mktemp("explained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(results, "draw_run", lambda *_: None)
        content = tiny_content()
        for columns in content.values():
            texts = [" ".join(f"<b>w{k}</b>" for k in range(count)) for count in columns["text_lengths"]]
            columns["raw_text"] = [*texts[:-1], f"{texts[-1]} more"]
        own = write_pickle(folder / "own.pkl", content)
        tiny_run(folder / "intensity", own)
        tiny_run(folder / "dialogue", own, graph={"scope": "hierarchical"}, run={"seeds": [1]})
        words = write_pickle(folder / "words.pkl", tiny_content("w-", ("joy", "anger", "fear"), "emotion"))
        tiny_run(folder / "emotion", words, target={"kind": "classes"}, run={"seeds": [1]})
    return folder


@pytest.fixture
def run(explained: Path) -> Run:
    """A run that predicts an intensity."""
    return Run(explained / "intensity")
