"""What is asked of a model for utterances: batches in, arrays out."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from gmsa.config import Config
from gmsa.data import Utterance
from gmsa.graph import GraphBatch
from gmsa.runs.folder import Run
from gmsa.runs.inputs import Input, Inputs, read_inputs
from gmsa.runs.predict import tell
from gmsa.system.files import check_out_file, write_bytes
from gmsa.training.batches import scoring_batches


def read(run: Run, x: Input) -> Inputs:
    """Reads utterances for a run and says which are left out."""
    inputs = read_inputs(x, run.dims, run.config, run.extraction)
    tell({refused.id: refused.reason for refused in inputs.refused})
    return inputs


def batches(
    utterances: Sequence[Utterance], config: Config, device: torch.device
) -> Iterator[tuple[list[int], GraphBatch]]:
    """Batches of utterances, and which of them each has."""
    for _, places, batch in scoring_batches(utterances, config):
        yield places, batch.to(device)


def save_arrays(path: Path, **arrays: np.ndarray) -> None:
    """Writes arrays as NumPy's ``.npz``.

    Raises:
        RunError: the file cannot be written.
    """
    check_out_file(path, (".npz",))
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]  # its stubs know files alone
    write_bytes(path, buffer.getvalue())
