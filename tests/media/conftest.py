"""Made clips that the tests of the extraction share, and the models, which are loaded once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from helpers.model_weights import weights
from helpers.talking_head import GOOD, make

from gmsa.media.cache import Cache
from gmsa.media.jobs.workers import Done, Task, Work, make_answer
from gmsa.media.pipeline import Pipeline
from gmsa.media.settings import ExtractConfig


@pytest.fixture(scope="session")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a good clip, and one of each kind that lacks something."""
    for name in ("whisper-tiny.en", "minilm"):
        weights(name)
    folder = tmp_path_factory.mktemp("media")
    make(folder / "good.mp4", GOOD, smile=1.0)
    make(folder / "gap.mp4", GOOD, voice="rms", hide=((0.9, 1.7),))
    make(folder / "faceless.mp4", "this is bad", hide=((0.0, 9.0),))
    make(folder / "mute.mp4", audio=False, pad=1.0)
    make(folder / "silent.mp4", pad=1.0)
    make(folder / "noise.mp4", pad=1.5, noise=0.1)
    make(folder / "heard.m4a", "this is bad", video=False)
    return folder


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return Cache(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def pipeline(cache: Cache) -> Pipeline:
    """The default extraction, its models loaded once."""
    return Pipeline(ExtractConfig(), cache)


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process itself does the work of the workers, which need seconds to start."""

    def run_tasks(work: Work, tasks: Iterable[Task], count: int) -> Iterator[Done]:
        answer = make_answer(work)
        for task in tasks:
            kind, value = answer(task)
            yield Done(task, value) if kind == "ok" else Done(task, reason=value)

    monkeypatch.setattr("gmsa.media.jobs.extract.run_tasks", run_tasks)
