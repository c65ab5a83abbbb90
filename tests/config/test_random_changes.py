"""Whatever users write: a config, override, search space or settings file is taken rightly or refused in one line."""

from __future__ import annotations

import ast
import itertools
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from helpers import random_changes
from helpers.counts import Recorder, tell
from helpers.random_changes import Change, changes, judge, prepare_folder

LEAST = {"refused": 60, "accepted": 12}
"""Of 120 changes: more would be trivial, fewer would test nothing."""


@pytest.fixture
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    prepare_folder()


@pytest.mark.usefixtures("_in_a_folder_of_its_own")
def test_random_changes(record_property: Recorder) -> None:
    counts: Counter[str] = Counter()
    for number, change in enumerate(itertools.islice(changes(1), 120)):
        try:
            found = judge(change)
        except Exception as error:
            raise AssertionError(f"change {number}, {str(change)[:2000]}") from error
        counts[found] += 1
    tell(record_property, "random changes of settings", counts["refused"], counts["accepted"])
    assert all(counts[found] >= least for found, least in LEAST.items()), counts


@pytest.mark.usefixtures("_in_a_folder_of_its_own")
def test_the_judge_finds_faults(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise KeyError("a fault")

    with monkeypatch.context() as patch:
        patch.setattr(random_changes, "load_config", fail)
        with pytest.raises(KeyError):
            judge(Change("config", b""))
    monkeypatch.setattr(random_changes, "LONGEST", 20)
    with pytest.raises(AssertionError, match="characters: gmsa"):
        judge(Change("config", b"optm: 1"))


@pytest.mark.slow
def test_20000_random_changes(record_property: Recorder) -> None:
    """Each in 5 s of computing and 1 GB more of memory: the helper ends itself above that."""
    command = [sys.executable, "-m", "helpers.random_changes"]
    running = [
        subprocess.Popen([*command, seed, "10000"], cwd=Path(__file__).parents[1], stdout=subprocess.PIPE, text=True)
        for seed in ("2", "3")
    ]
    try:
        said = [process.communicate(timeout=3600)[0] for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0, 0]
    assert not any("other" in text for text in said), said
    counts = sum((Counter(ast.literal_eval(text)) for text in said), Counter[str]())
    assert counts["refused"] + counts["accepted"] == 20_000
    tell(record_property, "random changes of settings", counts["refused"], counts["accepted"])
