"""From settings to a corpus, and from another file to utterances that fit a trained model."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from gmsa.config import SYNTHETIC, DataConfig
from gmsa.data.corpus import Corpus
from gmsa.data.mmsa import SPLITS, feature_dims, from_mmsa, read_mmsa
from gmsa.data.store.files import MANIFEST
from gmsa.data.store.store import Store, StoredUtterances, is_store
from gmsa.data.synthetic import synthetic_corpus
from gmsa.data.unpickling import reader as unpickle
from gmsa.data.utterance import Utterance
from gmsa.errors import DataError
from gmsa.system.files import sha256_of


def load_corpus(config: DataConfig) -> Corpus:
    """The corpus that the settings name, features as the file has them and all labels in place.

    Of a feature store, no features are read before they are asked for; its training split may be labeled in part.

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
    splits: Mapping[str, Sequence[Utterance]]
    if is_store(path):
        splits, dims, sha256 = _read_store(path, config)
    else:
        found = read_mmsa(path, config.modalities, config.labels)
        splits, dims, sha256 = found, feature_dims(found), sha256_of(path)
    pool: Sequence[Utterance] = []
    if config.pool is not None:
        pool = load_utterances(config.pool, dims, config.modalities, config.labels, require_labels=False)
        _check_apart(pool, splits, config.pool)
    return Corpus(splits, dims, pool, sha256)


def load_utterances(
    path: str | Path, dims: Mapping[str, int | None], modalities: Sequence[str], labels: str, require_labels: bool
) -> Sequence[Utterance]:
    """Utterances of another file or feature store for a model trained on ``dims``; what it lacks of them is missing.

    With ``require_labels``, those of the split ``test`` if the file has one, else of the whole file: a file that
    holds a training split is not scored on it. Without, those of the whole file, labels not read.

    Args:
        dims: features per step of each modality to read; None takes any number.

    Raises:
        DataError: the file is missing or wrong, or its features differ in dimension from the trained ones.
    """
    if is_store(path):
        return _other_store(Path(path), dims, modalities, labels, require_labels)
    content = unpickle.load(path)
    splits = ("test",) if require_labels and isinstance(content, Mapping) and "test" in content else None
    wanted = [modality for modality in modalities if modality in dims]
    found = from_mmsa(content, str(path), wanted, labels, splits, require_labels)
    _check_dims(feature_dims(found), dims, path)
    lacking = {modality: torch.zeros(0, dims[modality] or 0) for modality in wanted}
    return [
        dataclasses.replace(utterance, features={**lacking, **utterance.features})
        for utterances in found.values()
        for utterance in utterances
    ]


def data_sha256(path: str | Path) -> str:
    """The SHA-256 of a data file; of a feature store, that of its manifest, which holds those of its files."""
    return sha256_of(Path(path) / MANIFEST if is_store(path) else path)


def _read_store(path: Path, config: DataConfig) -> tuple[dict[str, StoredUtterances], dict[str, int], str]:
    store = Store(path)
    _check_scale(store, config.labels)
    dims: dict[str, int] = {m: store.dims[m] for m in config.modalities if m in store.dims}
    if not dims:
        held = ", ".join(store.dims)
        raise DataError(f"{path}: holds none of {', '.join(config.modalities)} (it has {held}); check data.modalities")
    splits = {name: store.split(name, dims) for name in SPLITS}
    for name, utterances in splits.items():
        if not any(store.lengths(m, utterances.rows).any() for m in dims):
            where = f"{path}: split '{name}'"
            raise DataError(f"{where}: every utterance lacks {', '.join(dims)}; choose other data.modalities")
        if name == "train" and store.manifest.splits[name].labeled:
            continue  # the others join the unlabeled pool
        _check_labeled(utterances)
    return splits, dims, store.sha256


def _other_store(
    path: Path, dims: Mapping[str, int | None], modalities: Sequence[str], labels: str, require_labels: bool
) -> StoredUtterances:
    store = Store(path)
    _check_dims(store.dims, dims, path)
    wanted = {m: store.dims.get(m) or dims[m] or 0 for m in modalities if m in dims}
    if not any(m in store.dims for m in wanted):
        raise DataError(f"{path}: holds none of {', '.join(wanted)} (it has {', '.join(store.dims)})")
    if not require_labels:
        return store.utterances(dims=wanted, labels=False)
    _check_scale(store, labels)
    found = store.split("test", wanted) if "test" in store.manifest.splits else store.utterances(dims=wanted)
    _check_labeled(found)
    return found


def _check_scale(store: Store, labels: str) -> None:
    if store.manifest.labels != labels:
        raise DataError(
            f"{store.path}: was imported with --labels {store.manifest.labels}, but data.labels is '{labels}'; "
            "set it to the store's, or import the data again"
        )


def _check_labeled(utterances: StoredUtterances) -> None:
    missing = np.flatnonzero(np.isnan(utterances.labels))
    if len(missing):
        raise DataError(
            f"{utterances.store.path}: '{utterances[int(missing[0])].id}' and {len(missing) - 1} others have no label; "
            "training and scoring need labels"
        )


def _check_dims(found: Mapping[str, int], dims: Mapping[str, int | None], path: str | Path) -> None:
    for modality, dim in found.items():
        if dims.get(modality) not in (None, dim):
            raise DataError(
                f"{path}: '{modality}' has {dim} features per step, training has {dims[modality]}; "
                "extract the features as for the training data"
            )


def _ids(utterances: Sequence[Utterance]) -> list[str]:
    return utterances.ids if isinstance(utterances, StoredUtterances) else [u.id for u in utterances]


def _check_apart(pool: Sequence[Utterance], splits: Mapping[str, Sequence[Utterance]], path: str) -> None:
    source = {identity: name for name, utterances in splits.items() for identity in _ids(utterances)}
    for identity in _ids(pool):
        if identity in source:
            raise DataError(
                f"{path}: id '{identity}' of the pool is also in split '{source[identity]}' of the data file; "
                "take it out of one of them"
            )
