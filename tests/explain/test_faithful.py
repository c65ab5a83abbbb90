"""Whether the tokens that are named matter: on the made-up corpus, and on CMU-MOSI where it is there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gmsa.config import from_dict
from gmsa.explain import Explanations
from gmsa.runs import Run
from gmsa.runs import report as results
from gmsa.runs.prepare import prepare
from gmsa.runs.train import train


@pytest.fixture
def explained_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Explanations]:
    """Trains a small model for a short time on labels alone and explains test utterances."""
    monkeypatch.setattr(results, "draw_run", lambda *_: None)

    def of(data: str, epochs: int, count: int) -> Explanations:
        groups = {
            "data": {"path": data, "name": "data"},
            "model": {"channels": 32, "heads": 2, "layers": 1},
            "optim": {"epochs": epochs},
            "protocol": {"name": "supervised"},
            "run": {"seeds": [1], "device": "cpu"},
        }
        train(from_dict(groups), "run", tmp_path / "run")
        run = Run(tmp_path / "run")
        return run.explain(list(prepare(run.config).corpus.splits["test"])[:count])

    return of


def check(found: Explanations, share: float) -> None:
    checks = [item.words.check for item in found if item.words is not None]
    assert len(checks) == len(found)
    fall, random = (np.mean([getattr(c, part) for c in checks]) for part in ("fall", "random"))
    assert fall > 0.05
    assert fall > 2 * random
    assert np.mean([c.faithful for c in checks]) > share
    methods = {item.words.method for item in found if item.words is not None}
    assert methods <= {"integrated gradients", "occlusion"}


@pytest.mark.slow
def test_named_tokens_matter_on_the_made_up_corpus(small_synthetic: None, explained_after) -> None:
    check(explained_after("synthetic", 5, 20), 0.5)


def test_named_tokens_matter_on_mosi(real_data, explained_after) -> None:
    check(explained_after(str(real_data("mosi_dev.pkl")), 3, 40), 0.6)
