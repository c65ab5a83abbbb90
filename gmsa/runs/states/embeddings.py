"""The representations of utterances from which a run's models predict."""

# N utterances, C channels
from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from gmsa.config import Config
from gmsa.data import Utterance
from gmsa.runs.folder import Run
from gmsa.runs.inputs import Input
from gmsa.runs.scoring.windows import Arrays, in_windows
from gmsa.runs.states.common import batches, read, save_arrays
from gmsa.system.device import set_up


@dataclass(frozen=True, eq=False, repr=False)
class Embeddings:
    """Representations of N utterances, from which the models predict."""

    ids: list[str]
    splits: list[str]
    """Split of each utterance."""
    labels: np.ndarray
    """``[N]``; NaN where there is none."""
    values: Mapping[int, np.ndarray]
    """By seed, float32 ``[N, C]``."""

    def __repr__(self) -> str:
        first = next(iter(self.values.values()))
        return f"Embeddings({len(self.ids)} utterances of {first.shape[1]} features, seeds {[*self.values]})"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes arrays ``ids``, ``splits``, ``labels`` and ``seed_1`` and so on, as NumPy's ``.npz``.

        Raises:
            RunError: the file cannot be written.
        """
        named = {f"seed_{seed}": values for seed, values in self.values.items()}
        save_arrays(Path(path), ids=np.array(self.ids), splits=np.array(self.splits), labels=self.labels, **named)


def embeddings(run: Run, x: Input, seeds: int | Sequence[int] | None = None, device: str | None = None) -> Embeddings:
    """The representations of utterances; see :meth:`Run.features`."""
    where = set_up(run.config.run, device)
    models = {seed: run.load_model(seed, where) for seed in run.chosen_seeds(seeds)}
    inputs = read(run, x)
    utterances = [run.normalizer.apply(u) for u in inputs.utterances]
    values = {}
    for seed, model in models.items():

        def work(some: Sequence[Utterance], settings: Config, model: nn.Module = model) -> Arrays:
            found: list[np.ndarray] = [np.zeros(0)] * len(some)
            with torch.inference_mode():
                for places, batch in batches(some, settings, where):
                    for place, row in zip(places, model(batch).features.float().cpu().numpy(), strict=True):
                        found[place] = row
            return [np.stack(found)]

        (table,) = in_windows(utterances, run.config, work)
        assert table is not None
        values[seed] = table.astype(np.float32)
    labels = np.array([np.nan if u.label is None else u.label for u in utterances], dtype=np.float32)
    return Embeddings([u.id for u in utterances], inputs.splits, labels, values)
