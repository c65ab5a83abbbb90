"""From settings to a corpus, and from another file to utterances that fit a trained model."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from gmsa.config import SYNTHETIC, DataConfig
from gmsa.data import unpickle
from gmsa.data.mmsa import feature_dims, from_mmsa, read_mmsa
from gmsa.data.synthetic import synthetic_corpus
from gmsa.data.utterance import Corpus, Utterance
from gmsa.errors import DataError
from gmsa.files import sha256_of


def load_corpus(config: DataConfig) -> Corpus:
    """The corpus that the settings name, features as the file has them and all labels in place.

    Where the synthetic corpus takes the place of a missing file, it brings its own pool, and ``config.pool`` is
    not read.

    Raises:
        DataError: a file is missing or wrong, or the pool does not fit the corpus.
    """
    if config.path == SYNTHETIC:
        if config.pool is not None:
            raise DataError(f"data.pool '{config.pool}': the synthetic corpus brings its own pool; leave data.pool out")
        return synthetic_corpus(modalities=config.modalities, labels=config.labels)
    path = Path(config.path)
    if not path.exists():
        if config.if_missing == "synthetic":
            return synthetic_corpus(modalities=config.modalities, labels=config.labels)
        raise DataError(
            f"data file '{path}' does not exist; the README says where to get it. "
            "Set data.path or $GMSA_DATA, or use data.path=synthetic"
        )
    splits = read_mmsa(path, config.modalities, config.labels)
    dims = feature_dims(splits)
    pool = []
    if config.pool is not None:
        pool = load_utterances(config.pool, dims, config.modalities, config.labels, require_labels=False)
        _check_apart(pool, splits, config.pool)
    return Corpus(splits, dims, pool, sha256_of(path))


def load_utterances(
    path: str | Path, dims: Mapping[str, int | None], modalities: Sequence[str], labels: str, require_labels: bool
) -> list[Utterance]:
    """Utterances of another file for a model trained on ``dims``; modalities that the file lacks are missing.

    With ``require_labels``, those of the split ``test`` if the file has one, else of the whole file: a file that
    holds a training split is not scored on it. Without, those of the whole file, labels not read.

    Args:
        dims: features per step of each modality to read; None takes any number.

    Raises:
        DataError: the file is missing or wrong, or its features differ in dimension from the trained ones.
    """
    content = unpickle.load(path)
    splits = ("test",) if require_labels and isinstance(content, Mapping) and "test" in content else None
    wanted = [modality for modality in modalities if modality in dims]
    found = from_mmsa(content, str(path), wanted, labels, splits, require_labels)
    for modality, dim in feature_dims(found).items():
        if dims[modality] not in (None, dim):
            raise DataError(
                f"{path}: '{modality}' has {dim} features per step, training has {dims[modality]}; "
                "extract the features as for the training data"
            )
    lacking = {modality: torch.zeros(0, dims[modality] or 0) for modality in wanted}
    return [
        dataclasses.replace(utterance, features={**lacking, **utterance.features})
        for utterances in found.values()
        for utterance in utterances
    ]


def _check_apart(pool: Sequence[Utterance], splits: Mapping[str, Sequence[Utterance]], path: str) -> None:
    source = {utterance.id: name for name, utterances in splits.items() for utterance in utterances}
    for utterance in pool:
        if utterance.id in source:
            raise DataError(
                f"{path}: id '{utterance.id}' of the pool is also in split '{source[utterance.id]}' of the data file; "
                "take it out of one of them"
            )
