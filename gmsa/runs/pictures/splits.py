"""The utterances among which a picture of a run finds what it is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gmsa.data import Utterance
from gmsa.data.loading import load_other
from gmsa.errors import DataError
from gmsa.runs.folder import Run
from gmsa.runs.scoring.splits import masked, own_corpus
from gmsa.system.reading import expanded
from gmsa.text import read_dims, texts_of

Splits = Mapping[str, Sequence[Utterance]]


def splits_of(run: Run, data: str | Path | None) -> tuple[Splits, object]:
    """The splits of the run's own file, masked as in training, or of another; and the file."""
    texts = texts_of(run.config)
    path: Any = data or run.config.data.path
    if data:
        path = expanded(data, DataError)
        settings = run.config.data, run.config.target
        dims = read_dims(run.dims, texts)
        splits: Splits = load_other(path, dims, *settings, require_labels=False, strict=False, texts=texts).splits
    else:
        splits = masked(run, own_corpus(run))[0].with_context
        if texts is not None:  # its transcript would bring back what is masked
            splits = {name: [texts.without_masked(u) for u in members] for name, members in splits.items()}
    return splits, path
