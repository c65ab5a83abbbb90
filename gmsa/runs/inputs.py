"""What a user gives a trained run to predict, as utterances that fit its models."""

# N utterances, L steps, D features
from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gmsa.config import Config, TargetConfig
from gmsa.data import Store, StoredUtterances, Target, Utterance, from_mmsa
from gmsa.data.features import LazyFeatures, select
from gmsa.data.loading import load_other
from gmsa.data.mmsa.keys import WORDS
from gmsa.data.mmsa.split import TEXT_BERT
from gmsa.data.notes import note
from gmsa.data.sources import target_of_store
from gmsa.data.splits import UNSPLIT
from gmsa.data.store.extraction import Extraction, check_extraction
from gmsa.errors import DataError, listed, nearest, short, shown
from gmsa.graph import check_times
from gmsa.models import graph_spec
from gmsa.system.reading import exists, expanded
from gmsa.text import Texts, read_dims, texts_of
from gmsa.training.scoring import HUGE

Input = str | os.PathLike[str] | Store | Utterance | Iterable[Utterance] | Iterable[str] | Mapping[str, Any]
"""A file, a feature store, utterances, transcripts, or arrays by modality."""
INPUT = "input"
"""Split of what comes without splits."""
_TARGETS = ("regression_labels", "classification_labels", "annotations", "label")
"""How the keys begin that hold targets."""
_BESIDE = ("id", *WORDS)
"""Keys of a dict of arrays beside those of modalities."""


@dataclass(frozen=True)
class Refused:
    """An utterance that cannot be predicted."""

    place: int
    """Its place among all of the input."""
    id: str
    split: str
    label: float | None
    reason: str


@dataclass(eq=False)
class Inputs:
    """The utterances of an input, in its order: those to predict, and those that cannot be."""

    utterances: list[Utterance] = field(default_factory=list)
    """With the modalities of the run, and their labels where the input has them."""
    splits: list[str] = field(default_factory=list)
    """Split of each of ``utterances``."""
    refused: list[Refused] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.utterances) + len(self.refused)

    def refuse(self, utterance: Utterance, split: str, reason: str) -> None:
        """Adds an utterance that cannot be predicted."""
        self.refused.append(Refused(len(self), utterance.id, split, utterance.label, reason))

    def without_labels(self) -> list[Utterance]:
        """The utterances to predict, without labels.

        Raises:
            DataError: an utterance cannot be predicted.
        """
        self.check_all()
        return [replace(u, label=None, unimodal={}) for u in self.utterances]

    def check_all(self) -> None:
        """Checks that every utterance can be predicted.

        Raises:
            DataError: the first cannot.
        """
        if not self.refused:
            return
        first = self.refused[0]
        what = f"none of {len(self)} utterances can be predicted; " if len(self.refused) == len(self) > 1 else ""
        raise DataError(f"{what}utterance {shown(first.id)}: {first.reason}")


def read_inputs(x: Input, dims: Mapping[str, int], config: Config, extraction: Extraction | None = None) -> Inputs:
    """The utterances of ``x``; a modality of the run that they do not have is missing.

    Args:
        x: path of a file or of a feature store; a store, or some rows of one; utterances; transcripts, for a run with
            a text encoder, whose ids are numbers; or a dict of arrays
            ``{"text": [N, L, D], "audio": ..., "id": [N], "raw_text": [N], "text_lengths": [N]}``, in which a list of
            ``[L_i, D]`` may stand for an array, and only the modalities are needed (of text its transcripts, where an
            encoder reads them). A dict is read as a file is: :func:`gmsa.data.from_mmsa` says where padding is cut. Ids
            that it does not give are numbers. An array ``[L, D]`` beside one id is one clip of L steps, beside L ids L
            clips of one step.
        dims: D of each modality of the run.
        config: the settings of the run, resolved.
        extraction: how the features of its training were extracted, where that is known (default: it is not).

    Raises:
        DataError: the input is of another kind, was extracted otherwise than the data of the training, has no modality
            that the run knows, its counts do not fit, or no utterance of it can be predicted.
    """
    wanted: dict[str, int] = {m: dims[m] for m in config.data.modalities if m in dims}
    unread: Mapping[str, str] = {}
    texts = texts_of(config)
    given = read_dims(wanted, texts)
    held = given if texts is None else {m: dim for m, dim in given.items() if m != texts.modality}
    if isinstance(x, (str, os.PathLike)):
        path = expanded(x, DataError)
        if texts is not None and not exists(path, DataError):
            raise DataError(f"'{short(path)}' does not exist; check the path (a transcript goes into a list: ['...'])")
        other = load_other(path, given, config.data, config.target, require_labels=False, strict=False, texts=texts)
        check_extraction(extraction, other.extraction, held, short(path))
        pairs, unread = _by_split(other.splits), other.left_out
    elif isinstance(x, (Store, StoredUtterances)):
        store = x if isinstance(x, Store) else x.store
        check_extraction(extraction, store.extraction, held, short(store.path))
        pairs = _from_store(x.utterances() if isinstance(x, Store) else x, held, config.target, texts is not None)
    elif isinstance(x, Mapping):
        pairs = _by_split(_from_arrays(x, wanted, config, texts))
    elif isinstance(x, Utterance):
        pairs = [(INPUT, x)]
    elif isinstance(x, Iterable):
        pairs = [(INPUT, _utterance(item, i, texts)) for i, item in enumerate(x)]
    else:
        raise DataError(
            f"expected a path, a feature store, utterances or a dict of arrays to predict (got a {type(x).__name__})"
        )
    if texts is not None and not isinstance(x, (str, os.PathLike)):
        read = texts([u for _, u in pairs], [*wanted], "the input")
        pairs = [(split, u) for (split, _), u in zip(pairs, read, strict=True)]
    if config.graph.has_dialogues and isinstance(x, (str, os.PathLike, Store, StoredUtterances)):
        pairs = _parted(pairs)
    found = check_utterances(pairs, wanted, config)
    for identity, reason in unread.items():
        found.refused.append(Refused(len(found), identity, "", None, reason))
    if not len(found):
        raise DataError("no utterance to predict; give at least one")
    if not found.utterances:
        found.check_all()
    if not isinstance(x, (str, os.PathLike)):  # of a file, its reader says so
        for modality in wanted:
            if not any(u.lengths[modality] for u in found.utterances):
                note(f"no utterance to predict has '{modality}', which the run was trained with")
    return found


def _utterance(item: Any, place: int, texts: Texts | None) -> Any:
    """An item of the input; a transcript as an utterance whose id is its place."""
    if isinstance(item, Utterance):
        return item
    if not isinstance(item, str):
        what = "gmsa.Utterance objects" if texts is None else "transcripts or gmsa.Utterance objects"
        raise DataError(f"expected {what} to predict (got a {type(item).__name__})")
    if texts is None:
        raise DataError(
            f"the run has no text encoder to read the transcript {shown(item)}; give utterances or arrays of features, "
            "or train with 'model.text_encoder'"
        )
    return Utterance(str(place), {}, text=item)


def _by_split(splits: Mapping[str, Sequence[Utterance]]) -> list[tuple[str, Utterance]]:
    return [(INPUT if name == UNSPLIT else name, u) for name, utterances in splits.items() for u in utterances]


def _parted(pairs: list[tuple[str, Utterance]]) -> list[tuple[str, Utterance]]:
    """The same, a dialogue of several splits as one of each: context ends at the split, as in training."""
    splits: dict[str, set[str]] = {}
    for split, utterance in pairs:
        splits.setdefault(utterance.video, set()).add(split)
    return [(s, replace(u, of_video=f"{u.video} ({s})") if len(splits[u.video]) > 1 else u) for s, u in pairs]


def check_utterances(
    pairs: Iterable[tuple[str, Any]], wanted: Mapping[str, int], config: Config, known: Collection[str] = ()
) -> Inputs:
    """Checks every utterance by itself: one that is wrong does not stop the others.

    Args:
        pairs: split and utterance.
        wanted: D of each modality of the run.
        known: dialogues from whose other utterances one without features can be predicted.
    """
    pairs, spec = list(pairs), graph_spec(config)
    found, seen = Inputs(), set()
    unknown: dict[str, str] = {}
    huge: dict[str, list[str]] = {}
    in_video = {*known}
    for _, utterance in pairs:
        if not isinstance(utterance, Utterance):
            raise DataError(f"expected gmsa.Utterance objects to predict (got a {type(utterance).__name__})")
        if utterance.id in seen:
            raise DataError(f"utterance {shown(utterance.id)}: is given twice; ids must be unique")
        seen.add(utterance.id)
        if config.graph.has_dialogues and any(utterance.lengths.get(m, 0) for m in wanted):
            in_video.add(utterance.video)  # its other utterances can be predicted from this one
    for split, utterance in pairs:
        unknown |= {m: utterance.id for m in utterance.features if m not in config.data.modalities}
        try:
            features = _features(utterance, wanted)
            check_times(utterance, spec)
        except DataError as error:
            found.refuse(utterance, split, str(error))
            continue
        kept = replace(utterance, features=features, withheld={})
        if not kept.steps and kept.video not in in_video:
            found.refuse(utterance, split, _lacks(utterance, wanted))
            continue
        for modality in () if isinstance(features, LazyFeatures) else features:
            if len(features[modality]) and float(features[modality].abs().max()) > HUGE:
                huge.setdefault(modality, []).append(utterance.id)
        found.utterances.append(kept)
        found.splits.append(split)
    for modality, identity in unknown.items():
        known = list(config.data.modalities)
        note(
            f"utterance {shown(identity)}: {shown(modality)} is no modality that the run knows"
            f"{nearest(modality, known)}; it is not read"
        )
    for modality, ids in huge.items():
        note(
            f"the '{modality}' features of {shown(ids[0])}{f' and {len(ids) - 1} others' if ids[1:] else ''} are "
            f"beyond {HUGE:g}, which those of a training hardly are; extract them as those of the training data"
        )
    return found


def _lacks(utterance: Utterance, wanted: Mapping[str, int]) -> str:
    others = [m for m in utterance.features if m not in wanted]
    more = f" (it has {listed(others)})" if others else ""
    remedy = "at least one of them" if len(wanted) > 1 else "it"
    return f"has no {' or '.join(wanted)} to predict from{more}; give {remedy}"


def _from_store(
    x: StoredUtterances, wanted: Mapping[str, int | None], target: TargetConfig, words: bool = False
) -> list[tuple[str, Utterance]]:
    where, held = str(x.store.path), x.store.dims
    if not len(x):
        raise DataError(f"{where}: no utterance is chosen; give at least one")
    if not words and not any(m in held for m in wanted):
        raise DataError(f"{where}: holds none of {', '.join(wanted)} (it has {', '.join(held)})")
    for modality in wanted.keys() & held.keys():
        if problem := _other_dim(modality, held[modality], wanted[modality]):
            raise DataError(f"{where}: {problem}")
    found = target_of_store(x.store, target)
    fits = x.with_labels and isinstance(found, Target)
    if isinstance(found, str) and x.with_labels and not np.isnan(x.labels).all():
        note(f"{found} (its labels are not read)")
    spans = {name: range(split.start, split.stop) for name, split in x.store.manifest.splits.items()}
    names = [next((name for name, span in spans.items() if row in span), INPUT) for row in x.rows]
    dims = {m: held.get(m, 0) if dim is None else dim for m, dim in wanted.items()}
    return list(zip(names, x.store.utterances(x.rows, dims, labels=fits), strict=True))


def _features(utterance: Utterance, wanted: Mapping[str, int]) -> Mapping[str, Tensor]:
    given = utterance.features
    if isinstance(given, LazyFeatures) and wanted.keys() <= given.lengths.keys():
        for modality, dim in wanted.items():
            if given.lengths[modality] and (problem := _other_dim(modality, given[modality].shape[1], dim)):
                raise DataError(problem)
        return select(given, wanted)  # read again batch by batch: memory need not hold all
    features = {}
    for modality, dim in wanted.items():
        sequence = given[modality] if modality in given else torch.zeros(0, dim)
        sequence = torch.as_tensor(sequence).detach().cpu().float()
        if sequence.ndim != 2:
            raise DataError(f"'{modality}' must be [steps, features] (got {list(sequence.shape)})")
        if len(sequence) and (problem := _other_dim(modality, sequence.shape[1], dim)):
            raise DataError(problem)
        if not torch.isfinite(sequence).all():
            raise DataError(f"'{modality}' holds NaN or infinity; extract it anew, or leave it out")
        features[modality] = sequence if len(sequence) else torch.zeros(0, dim)
    return features


def _from_arrays(
    x: Mapping[str, Any], wanted: Mapping[str, int], config: Config, texts: Texts | None
) -> Mapping[str, Sequence[Utterance]]:
    where = "the arrays to predict"
    if x and all(isinstance(columns, Mapping) for columns in x.values()):  # what a whole file holds, split by split
        content: dict[str, Any] = {split: _columns(columns, config, texts, where) for split, columns in x.items()}
    else:
        content = _with_ids(_columns(x, config, texts, where), config, texts, where)
    words = None if texts is None else texts.source
    return from_mmsa(content, where, list(wanted), Target.of(config.target), None, require_labels=False, words=words)


def _words_of(texts: Texts | None) -> Sequence[str]:
    """Keys of what a text encoder reads: ``text_bert``, where the run reads that, and transcripts."""
    if texts is None:
        return ()
    return WORDS if texts.source == TEXT_BERT else (texts.source,)


def _columns(x: Mapping[str, Any], config: Config, texts: Texts | None, where: str) -> dict[str, Any]:
    """The columns that are read, as NumPy arrays and lists of them."""
    needed = [*config.data.modalities, *_words_of(texts)]
    known = [*config.data.modalities, *_BESIDE, *(f"{m}_lengths" for m in config.data.modalities)]
    columns = {key: _plain(x[key]) for key in x if key in known and x[key] is not None}
    for key in x:
        if key not in known and not str(key).startswith(_TARGETS):
            what = f"{where}: {shown(str(key))} is nothing that the run knows{nearest(str(key), known)}"
            if not any(m in columns for m in needed):
                raise DataError(f"{what}; it reads {listed(known)}; leave it out")
            note(f"{what}; it is not read")
    if texts is not None and _are_texts(columns.get(texts.modality)):
        columns.setdefault("raw_text", columns.pop(texts.modality))
    for key in ("id", "raw_text"):
        if isinstance(columns.get(key), (str, bytes)):
            columns[key] = [columns[key]]
    return columns


def _with_ids(columns: dict[str, Any], config: Config, texts: Texts | None, where: str) -> dict[str, Any]:
    """The columns with ids, and arrays ``[L, D]`` of one clip as ``[1, L, D]``.

    Raises:
        DataError: there is no modality, or whether arrays of two axes hold one clip, nobody can tell.
    """
    known = _words_of(texts)
    words = [key for key in known if key in columns]
    given = [m for m in config.data.modalities if m in columns and (texts is None or m != texts.modality)]
    if not given and not words:
        needed = [m for m in config.data.modalities if texts is None or m != texts.modality]
        needed += known
        what = "the modalities " if texts is None else ""
        raise DataError(
            f"{where}: has none of {what}{', '.join(needed)} (its keys: {listed(columns)}); give at least one"
        )
    flat = {m: len(columns[m]) for m in given if _axes(columns[m]) == 2}
    count = len(columns["id"]) if "id" in columns else None
    if count is None and words:
        count = len(columns[words[0]])
        columns["id"] = [str(i) for i in range(count)]
    if given and len(flat) == len(given) and set(flat.values()) != {1}:
        lengths = set(flat.values())
        if count is None and len(lengths) == 1:
            modality, steps = next(iter(flat.items()))
            raise DataError(
                f"{where}: '{modality}' has two axes, so it holds {steps} clips of one step or one clip of {steps} "
                f"steps; give 'id' with {steps} ids or with one, or arrays [clips, steps, features]"
            )
        if count in (None, 1):
            columns |= {m: [columns[m]] for m in flat}
    if count is None:
        columns["id"] = [str(i) for i in range(max(len(columns[m]) for m in given))]
    return columns


def _are_texts(column: Any) -> bool:
    return isinstance(column, str) or (_listed(column) and len(column) > 0 and isinstance(column[0], str))


def _axes(column: Any) -> int:
    """Axes of an array; 3 for a list of sequences."""
    if isinstance(column, np.ndarray):
        return 3 if column.dtype == object else column.ndim
    first = column[0] if isinstance(column, list) and column else None
    if isinstance(first, np.ndarray):
        return first.ndim + 1
    return 2 if isinstance(first, (list, tuple)) and not _listed(next(iter(first), ())) else 3


def _plain(column: Any) -> Any:
    if isinstance(column, Tensor):
        return column.detach().cpu().numpy()
    if isinstance(column, np.ndarray) and column.dtype != object:
        return column
    return [_plain(item) if isinstance(item, Tensor) else item for item in column] if _listed(column) else column


def _listed(column: Any) -> bool:
    return isinstance(column, Iterable) and not isinstance(column, (str, bytes, Mapping))


def _other_dim(modality: str, found: int, dim: int | None) -> str:
    """What is wrong with a dimension; nothing where it is the training's, or any is taken."""
    if dim in (None, found):
        return ""
    return (
        f"'{modality}' has {found} features per step, training has {dim}; extract the features as for the training data"
    )
