"""Loads the corpus of a config, and the utterances of another file for a trained model."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from gmsa.config import MODALITIES, SYNTHETIC, DataConfig, TargetConfig
from gmsa.data.corpus import Corpus
from gmsa.data.mmsa import SPLITS, feature_dims, from_mmsa, read_mmsa
from gmsa.data.opening import open_data
from gmsa.data.store.files import MANIFEST
from gmsa.data.store.store import Store, StoredUtterances, is_store
from gmsa.data.synthetic import synthetic_corpus
from gmsa.data.targets import Target
from gmsa.data.unpickling import load_pickle
from gmsa.data.utterance import Utterance
from gmsa.errors import DataError, short, shown
from gmsa.system.files import sha256_of
from gmsa.system.reading import exists


def load_corpus(config: DataConfig, target: TargetConfig | None = None) -> Corpus:
    """Loads the corpus that a config names, before normalization, masking and label ratio.

    The features of a feature store are read on access; its training split may be partly labeled. If the synthetic
    corpus replaces a missing file, its own pool replaces ``config.pool`` too.

    Args:
        config: the group ``data`` of a config.
        target: the group ``target`` (default: its defaults).

    Raises:
        DataError: a file is missing or invalid, or the pool does not match the corpus.

    >>> from gmsa.config import DataConfig
    >>> corpus = load_corpus(DataConfig(path="synthetic"))
    >>> corpus.synthetic, list(corpus.splits), len(corpus.splits["test"])
    (True, ['train', 'valid', 'test'], 160)
    """
    wanted = Target.of(TargetConfig() if target is None else target)
    if config.path == SYNTHETIC:
        if config.pool is not None:
            raise DataError(f"data.pool '{config.pool}': the synthetic corpus brings its own pool; leave data.pool out")
        return synthetic_corpus(modalities=_named(config), target=wanted)
    path = Path(config.path)
    if not exists(path, DataError):
        if config.if_missing == "synthetic":
            return synthetic_corpus(modalities=_named(config), target=wanted)
        raise DataError(
            f"data file '{short(path)}' does not exist; the README says where to get it. "
            "Name another by data.path (or $GMSA_DATA), or use data.path=synthetic"
        )
    splits: Mapping[str, Sequence[Utterance]]
    if is_store(path):
        splits, dims, sha256 = _read_store(path, config, wanted)
    else:
        found = read_mmsa(path, _named(config), wanted)
        splits, dims, sha256 = found, feature_dims(found), sha256_of(path, DataError)
    pool: Sequence[Utterance] = []
    if config.pool is not None:
        pool = load_utterances(config.pool, dims, _named(config), wanted, require_labels=False)
        _check_apart(pool, splits, config.pool)
    return Corpus(splits, dims, pool, sha256, wanted)


def load_utterances(
    path: str | Path, dims: Mapping[str, int | None], modalities: Sequence[str], target: Target, require_labels: bool
) -> Sequence[Utterance]:
    """Loads the utterances of another file or feature store for a trained model.

    Args:
        path: pickle in MMSA's format, or feature store.
        dims: features per step of each modality of the model; None accepts any number. Modalities that the file does
            not have are missing.
        modalities: modalities to read, in order.
        target: what the labels are.
        require_labels: if True, loads the labeled split ``test``, or the whole file if it has no such split; if
            False, loads the whole file without labels.

    Raises:
        DataError: the file is missing or invalid, or the dimensions of its features differ from ``dims``.
    """
    if is_store(path):
        return _other_store(Path(path), dims, modalities, target, require_labels)
    content = load_pickle(path)
    splits = ("test",) if require_labels and isinstance(content, Mapping) and "test" in content else None
    wanted = [modality for modality in modalities if modality in dims]
    found = from_mmsa(content, short(path), wanted, target, splits, require_labels)
    _check_dims(feature_dims(found), dims, path)
    missing = {modality: torch.zeros(0, dims[modality] or 0) for modality in wanted}
    return [
        dataclasses.replace(utterance, features={**missing, **utterance.features})
        for utterances in found.values()
        for utterance in utterances
    ]


def data_sha256(path: str | Path) -> str:
    """Returns the SHA-256 of a data file, or of a feature store's manifest, which has the SHA-256 of each file."""
    path = Path(path) / MANIFEST if is_store(path) else Path(path)
    open_data(path).close()
    return sha256_of(path, DataError)


def _named(config: DataConfig) -> tuple[str, ...]:
    return config.modalities if isinstance(config.modalities, tuple) else MODALITIES


def _read_store(
    path: Path, config: DataConfig, target: Target
) -> tuple[dict[str, StoredUtterances], dict[str, int], str]:
    store = Store(path)
    _check_scale(store, target)
    dims: dict[str, int] = {m: store.dims[m] for m in _named(config) if m in store.dims}
    if not dims:
        raise DataError(
            f"{short(path)}: has none of the modalities {', '.join(_named(config))}, only {', '.join(store.dims)}; "
            "check data.modalities"
        )
    splits = {name: store.split(name, dims) for name in SPLITS}
    for name, utterances in splits.items():
        if not any(store.lengths(m, utterances.rows).any() for m in dims):
            where = f"{short(path)}: split {shown(name)}"
            raise DataError(
                f"{where}: no utterance has {', '.join(dims) or 'any modality'}; choose other data.modalities"
            )
        if name == "train" and store.manifest.splits[name].labeled:
            continue  # its unlabeled utterances join the pool
        _check_labeled(utterances)
    return splits, dims, store.sha256


def _other_store(
    path: Path, dims: Mapping[str, int | None], modalities: Sequence[str], target: Target, require_labels: bool
) -> StoredUtterances:
    store = Store(path)
    _check_dims(store.dims, dims, path)
    wanted = {m: store.dims.get(m) or dims[m] or 0 for m in modalities if m in dims}
    if not any(m in store.dims for m in wanted):
        raise DataError(
            f"{short(path)}: has none of the modalities {', '.join(wanted)}, only {', '.join(store.dims)}; "
            "use the modalities of the training data"
        )
    if not require_labels:
        return store.utterances(dims=wanted, labels=False)
    _check_scale(store, target)
    found = store.split("test", wanted) if "test" in store.manifest.splits else store.utterances(dims=wanted)
    _check_labeled(found)
    return found


def _check_scale(store: Store, target: Target) -> None:
    labels = {"mosi": "mosi", "sims": "sims"}.get(target.metrics, target.metrics)
    if store.manifest.labels != labels:
        raise DataError(
            f"{short(store.path)}: was imported with --labels {store.manifest.labels}, but the target's is '{labels}'; "
            "set target.preset to the store's, or import the data again"
        )


def _check_labeled(utterances: StoredUtterances) -> None:
    unlabeled = np.flatnonzero(np.isnan(utterances.labels))
    if len(unlabeled):
        first = utterances[int(unlabeled[0])].id
        raise DataError(
            f"{short(utterances.store.path)}: {shown(first)} and {len(unlabeled) - 1} others have no label; "
            "training and scoring need labels"
        )


def _check_dims(found: Mapping[str, int], dims: Mapping[str, int | None], path: str | Path) -> None:
    for modality, dim in found.items():
        if dims.get(modality) not in (None, dim):
            raise DataError(
                f"{short(path)}: '{modality}' has {dim} features per step, training has {dims[modality]}; "
                "extract the features as for the training data"
            )


def _ids(utterances: Sequence[Utterance]) -> list[str]:
    return utterances.ids if isinstance(utterances, StoredUtterances) else [u.id for u in utterances]


def _check_apart(pool: Sequence[Utterance], splits: Mapping[str, Sequence[Utterance]], path: str) -> None:
    source = {identity: name for name, utterances in splits.items() for identity in _ids(utterances)}
    for identity in _ids(pool):
        if identity in source:
            raise DataError(
                f"{short(path)}: id {shown(identity)} of the pool is also in split {shown(source[identity])} "
                "of the data file; take it out of one of them"
            )
