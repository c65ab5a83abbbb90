"""Made clips that the tests of the extraction share, and the models, which are loaded once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.model_weights import weights
from helpers.talking_head import GOOD, make
from helpers.tiny_data import LABELS, tiny_run

from gmsa.config import TargetConfig
from gmsa.data import Row, Utterance, write_store
from gmsa.media.cache import Cache
from gmsa.media.clips import Clip
from gmsa.media.jobs.workers import Done, Task, Work, make_answer
from gmsa.media.pipeline import Pipeline
from gmsa.media.settings import ExtractConfig
from gmsa.runs import report as results

CLASSES = ("anger", "joy", "none")


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


@pytest.fixture(scope="session")
def runs(media: Path, pipeline: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs on a store of two extracted clips, which are given noise and labels: what they say is no matter here."""
    folder = tmp_path_factory.mktemp("runs")
    found = [pipeline(Clip("v$_$1", media / name)).sequences for name in ("good.mp4", "gap.mp4")]
    rng = np.random.default_rng(0)

    def rows(classes: bool) -> list[Row]:
        made = []
        for split, count in (("train", 24), ("valid", 8), ("test", 8)):
            for i in range(count):
                label = float(i % 3) if classes else float(LABELS[i % len(LABELS)])
                features = {
                    m: torch.from_numpy(np.float32(x + rng.normal(0, 0.1, x.shape) + label / 10))
                    for m, (x, _) in found[i % 2].items()
                }
                named = CLASSES[i % 3] if classes else ""
                u = Utterance(f"{split}{i // 4}$_${i % 4}", features, None if classes else label, text="so it is")
                made.append(Row(split, u, named=named))
        return made

    about = {"importer": "media", "files": [], "extraction": pipeline.provenance()}
    write_store(folder / "intensity", rows(False), source=about)
    write_store(folder / "classes", rows(True), labels=TargetConfig(kind="classes"), source=about)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(results, "draw_run", lambda *_: None)
        tiny_run(folder / "run", folder / "intensity")
        tiny_run(folder / "late", folder / "intensity", model={"name": "late_fusion"}, run={"seeds": [1]})
        tiny_run(folder / "of-classes", folder / "classes", target={"kind": "classes"}, run={"seeds": [1]})
        tiny_run(folder / "of-videos", folder / "intensity", graph={"scope": "video"}, run={"seeds": [1]})
    return folder


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process itself does the work of the workers, which need seconds to start."""

    def run_tasks(work: Work, tasks: Iterable[Task], count: int) -> Iterator[Done]:
        answer = make_answer(work)
        for task in tasks:
            kind, value = answer(task)
            yield Done(task, value) if kind == "ok" else Done(task, reason=value)

    monkeypatch.setattr("gmsa.media.jobs.extract.run_tasks", run_tasks)
