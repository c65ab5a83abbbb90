"""What a user gives a trained run to predict, as utterances that fit its models."""

# N utterances, L steps, D features
from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gmsa.config import Config
from gmsa.data import Store, StoredUtterances, Target, Utterance, from_mmsa, load_utterances
from gmsa.data.features import LazyFeatures, select
from gmsa.errors import DataError, nearest
from gmsa.system.reading import expanded

Input = str | os.PathLike[str] | Store | Utterance | Iterable[Utterance] | Mapping[str, Any]
"""A file, a feature store, utterances, or arrays by modality."""
_TARGETS = ("regression_labels", "classification_labels", "annotations", "label")
"""How the keys begin that hold targets, which a prediction does not read."""
_BESIDE = ("id", "raw_text", "text_bert")
"""Keys of a dict of arrays beside those of modalities."""


def read_inputs(x: Input, dims: Mapping[str, int], config: Config) -> Sequence[Utterance]:
    """The utterances of ``x``, without labels; a modality of the run that they do not have is missing.

    Args:
        x: path of a file or of a feature store; a store, or some rows of one; utterances; or a dict of arrays
            ``{"text": [N, L, D], "audio": ..., "id": [N], "raw_text": [N], "text_lengths": [N]}``, in which a list of
            ``[L_i, D]`` may stand for an array, and only the modalities are needed. A dict is read as a file is:
            :func:`gmsa.data.from_mmsa` says where padding is cut. Ids that it does not give are numbers.
        dims: D of each modality of the run.
        config: the settings of the run, resolved.

    Raises:
        DataError: the input is of another kind, names a modality that the run does not know, or its counts or
            dimensions do not fit.
    """
    wanted: dict[str, int] = {m: dims[m] for m in config.data.modalities if m in dims}
    if isinstance(x, (str, os.PathLike)):
        path = expanded(x, DataError)
        return load_utterances(path, dims, config.data.modalities, Target.of(config.target), require_labels=False)
    if isinstance(x, Store):
        x = x.utterances()
    if isinstance(x, StoredUtterances):
        return _from_store(x, wanted)
    if isinstance(x, Mapping):
        return _from_arrays(x, wanted, config)
    if isinstance(x, Utterance):
        x = [x]
    if not isinstance(x, Iterable):
        raise DataError(
            f"expected a path, a feature store, utterances or a dict of arrays to predict (got a {type(x).__name__})"
        )
    return _from_utterances(list(x), wanted, config)


def _from_store(x: StoredUtterances, wanted: Mapping[str, int]) -> Sequence[Utterance]:
    where, held = str(x.store.path), x.store.dims
    if not len(x):
        raise DataError(f"{where}: no utterance is chosen; give at least one")
    if not any(m in held for m in wanted):
        raise DataError(f"{where}: holds none of {', '.join(wanted)} (it has {', '.join(held)})")
    for modality in wanted.keys() & held.keys():
        _check_dim(where, modality, held[modality], wanted[modality])
    return x.store.utterances(x.rows, wanted, labels=False)


def _from_utterances(x: list[Any], wanted: Mapping[str, int], config: Config) -> list[Utterance]:
    found: dict[str, Utterance] = {}
    for utterance in x:
        if not isinstance(utterance, Utterance):
            raise DataError(f"expected gmsa.Utterance objects to predict (got a {type(utterance).__name__})")
        where = f"utterance '{utterance.id}'"
        for modality in utterance.features:
            if modality not in config.data.modalities:
                raise DataError(f"{where}: {_unknown(modality, config.data.modalities)}")
        if utterance.id in found:
            raise DataError(f"{where}: is given twice; ids must be unique")
        found[utterance.id] = Utterance(utterance.id, _features(utterance, wanted, where), text=utterance.text)
    if not found:
        raise DataError("no utterance to predict; give at least one")
    if not any(length for utterance in found.values() for length in utterance.lengths.values()):
        raise DataError(f"every utterance to predict lacks {', '.join(wanted)}; give at least one of them")
    return list(found.values())


def _features(utterance: Utterance, wanted: Mapping[str, int], where: str) -> Mapping[str, Tensor]:
    given = utterance.features
    if isinstance(given, LazyFeatures) and wanted.keys() <= given.lengths.keys():
        for modality, dim in wanted.items():
            _check_dim(where, modality, given[modality].shape[1], dim)
        return select(given, wanted)  # read again batch by batch: memory need not hold all
    features = {}
    for modality, dim in wanted.items():
        sequence = given[modality] if modality in given else torch.zeros(0, dim)
        sequence = torch.as_tensor(sequence).detach().cpu().float()
        if sequence.ndim != 2:
            raise DataError(f"{where}: '{modality}' must be [steps, features] (got {list(sequence.shape)})")
        if len(sequence):
            _check_dim(where, modality, sequence.shape[1], dim)
        if not torch.isfinite(sequence).all():
            raise DataError(f"{where}: '{modality}' holds NaN or infinity; extract it anew, or leave it out")
        features[modality] = sequence if len(sequence) else torch.zeros(0, dim)
    return features


def _from_arrays(x: Mapping[str, Any], wanted: Mapping[str, int], config: Config) -> list[Utterance]:
    where = "the arrays to predict"
    if x and all(isinstance(columns, Mapping) for columns in x.values()):  # what a whole file holds, split by split
        content: dict[str, Any] = {split: _columns(columns, config, where) for split, columns in x.items()}
    else:
        content = _columns(x, config, where)
        if "id" not in content:
            counts = [len(content[m]) for m in config.data.modalities if m in content]
            content["id"] = [str(i) for i in range(max(counts, default=0))]
    splits = from_mmsa(content, where, list(wanted), Target.of(config.target), None, require_labels=False)
    found = [utterance for utterances in splits.values() for utterance in utterances]
    return _from_utterances(found, wanted, config)


def _columns(x: Mapping[str, Any], config: Config, where: str) -> dict[str, Any]:
    """The columns that are read, as NumPy arrays and lists of them."""
    known = [*config.data.modalities, *_BESIDE, *(f"{m}_lengths" for m in config.data.modalities)]
    for key in x:
        if key not in known and not str(key).startswith(_TARGETS):
            raise DataError(f"{where}: {_unknown(str(key), known)}")
    return {key: _plain(x[key]) for key in x if key in known and x[key] is not None}


def _plain(column: Any) -> Any:
    if isinstance(column, Tensor):
        return column.detach().cpu().numpy()
    if isinstance(column, np.ndarray) and column.dtype != object:
        return column
    return [_plain(item) if isinstance(item, Tensor) else item for item in column] if _listed(column) else column


def _listed(column: Any) -> bool:
    return isinstance(column, Iterable) and not isinstance(column, (str, bytes, Mapping))


def _check_dim(where: str, modality: str, found: int, dim: int) -> None:
    if found != dim:
        raise DataError(
            f"{where}: '{modality}' has {found} features per step, training has {dim}; "
            "extract the features as for the training data"
        )


def _unknown(key: str, known: Sequence[str]) -> str:
    return f"'{key}' is nothing that the run knows{nearest(key, known)}; it reads {', '.join(known)}; leave it out"
