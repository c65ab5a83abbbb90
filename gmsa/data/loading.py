"""Loads the corpus of a config, and the utterances of another file for a trained run."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from gmsa.config import AUTO, SYNTHETIC, SYNTHETIC_DIALOGUES, DataConfig, TargetConfig
from gmsa.data.corpus import Corpus
from gmsa.data.dialogues.synthetic import synthetic_dialogues
from gmsa.data.lazy import changed, ids_of, joined, labels_of, steps_of, taken
from gmsa.data.mmsa.file import Labels
from gmsa.data.mmsa.split import TEXT_BERT
from gmsa.data.notes import Doubt, note
from gmsa.data.sources import Loaded, named_modalities, read_any
from gmsa.data.splits import POOL, SPLITS, UNSPLIT, apart_from_made, context_of_made, make_splits
from gmsa.data.store.extraction import Extraction, check_extraction
from gmsa.data.store.store import StoredUtterances
from gmsa.data.synthetic import synthetic_corpus
from gmsa.data.targets import Target
from gmsa.data.utterance import Utterance, without_labels
from gmsa.errors import DataError, listed, short, shown
from gmsa.system.reading import exists, expanded


class Reader(Protocol):
    """Gives utterances the features of a modality that are not the file's: those that an encoder makes or reads."""

    modality: str

    @property
    def dim(self) -> int:
        """D of that modality."""

    @property
    def source(self) -> str:
        """Key of what it reads in a file, in the place of features: ``raw_text`` or ``text_bert``."""

    def __call__(self, utterances: Sequence[Utterance], modalities: Sequence[str], where: str) -> list[Utterance]:
        """The utterances with the features of these modalities, in that order."""


@dataclass(frozen=True, eq=False)
class OtherFile:
    """The utterances of another file than a run was trained on, in the splits that the file has."""

    splits: Mapping[str, Sequence[Utterance]]
    """Utterances by split, by gmsa's names (``train``, ``valid``, ``test``, ``pool``) or their own, ``all`` of a file
    without splits; with their labels where they have one. Modalities that the file lacks are missing."""
    target: Target
    """What the labels are: the run's target."""
    sha256: str
    """SHA-256 of the file, as :attr:`Corpus.sha256`."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Why utterances could not be read, by id; none if the reading is strict."""
    extraction: Extraction | None = None
    """How its features were extracted from media, where it says so."""

    @property
    def utterances(self) -> list[Utterance]:
        """All utterances, split by split."""
        return [utterance for utterances in self.splits.values() for utterance in utterances]

    @property
    def labeled(self) -> dict[str, list[Utterance]]:
        """The utterances with a label, of each split that has any."""
        found = {name: [u for u in utterances if u.label is not None] for name, utterances in self.splits.items()}
        return {name: utterances for name, utterances in found.items() if utterances}


def load_corpus(config: DataConfig, target: TargetConfig | None = None, texts: Reader | None = None) -> Corpus:
    """Loads the corpus that a config names, before normalization, masking and label ratio.

    Splits that the file lacks, or folds, are made as ``data.split`` asks; a split ``pool`` or ``unlabeled`` is the
    pool, beside ``data.pool``. Unlabeled utterances of the training split join the pool; those of validation and test
    cannot be scored and are context alone. Notes say all that. The features of a feature store are read on access. If
    the synthetic corpus replaces a missing file, its own pool replaces ``config.pool`` too.

    Args:
        config: the group ``data`` of a config.
        target: the group ``target`` (default: its defaults).
        texts: what reads the transcripts, with ``model.text_encoder``.

    Raises:
        DataError: a file is missing or invalid, or the pool does not match the corpus.

    >>> from gmsa.config import DataConfig
    >>> corpus = load_corpus(DataConfig(path="synthetic"))
    >>> corpus.synthetic, list(corpus.splits), len(corpus.splits["test"])
    (True, ['train', 'valid', 'test'], 160)
    """
    settings = TargetConfig() if target is None else target
    if config.path in (SYNTHETIC, *SYNTHETIC_DIALOGUES):
        if config.pool is not None:
            why = "the synthetic corpus brings its own pool" if config.path == SYNTHETIC else "the dialogues take none"
            raise DataError(f"data.pool '{config.pool}': {why}; leave data.pool out")
        return _synthetic(config, settings, texts)
    path = expanded(config.path, DataError)
    if not exists(path, DataError):
        if config.if_missing == "synthetic":
            return _synthetic(config, settings, texts)
        raise DataError(
            f"data file '{short(path)}' does not exist; the README says where to get it. "
            "Name another by data.path (or $GMSA_DATA), or use data.path=synthetic"
        )
    where = short(path)
    found = _read(path, config, settings, "needed", texts)
    say = (lambda text: None) if found.told else note
    splits = dict(found.splits)
    _tell_unseen(splits.values(), found.target, settings, where)
    own_pool = _without_labels(splits.pop(POOL, []))
    if own_pool:
        say(f"{where}: split '{POOL}': {len(own_pool):,} utterances join the pool of unlabeled utterances")
    given, splits = splits, make_splits(splits, config.split, found.target, where)
    beside, own_pool = own_pool, apart_from_made(own_pool, given, splits, config.split, where)
    if others := [name for name in splits if name not in SPLITS]:
        say(Doubt(f"{where}: not used: {_sizes(splits, others)}; as '{POOL}', a split is the unlabeled pool"))
    parted = {name: _labeled(name, splits[name], where, say) for name in SPLITS}
    splits = {name: labeled for name, (labeled, _) in parted.items()}
    for name, utterances in splits.items():
        _check_present(name, utterances, found.dims, where)
    pool: Sequence[Utterance] = own_pool
    pool_sha256 = None
    if config.pool is not None:
        more = _read_pool(expanded(config.pool, DataError), found.dims, config, settings, texts)
        check_extraction(found.extraction, more.extraction, _from_file(found.dims, texts), short(config.pool))
        _check_apart(more.splits[UNSPLIT], {**splits, POOL: own_pool}, short(config.pool))
        others_pool = apart_from_made(more.splits[UNSPLIT], given, splits, config.split, short(config.pool))
        beside = joined(beside, more.splits[UNSPLIT]) if beside else more.splits[UNSPLIT]
        pool = joined(own_pool, others_pool) if own_pool else others_pool
        pool_sha256 = more.sha256
    made = context_of_made(beside, given, splits, config.split)
    context = {name: them for name, (_, others) in parted.items() if (them := joined(others, made.get(name, ())))}
    return Corpus(
        *(splits, found.dims, pool, found.sha256, found.target, found.field),
        pool_sha256=pool_sha256,
        context=context,
        extraction=found.extraction,
    )


def load_other(
    path: str | Path,
    dims: Mapping[str, int | None],
    data: DataConfig,
    target: TargetConfig,
    require_labels: bool = True,
    strict: bool = True,
    texts: Reader | None = None,
) -> OtherFile:
    """Loads another file, table, folder or feature store for a trained run.

    Notes tell of modalities that the run has and the file lacks, which are missing, and of those that the run does
    not know.

    Args:
        path: the file; ``~`` and ``$VARS`` are expanded.
        dims: features per step of each modality of the run; None accepts any number.
        data: the run's group ``data``, resolved: its modalities and ``nan`` hold, and ``video_from`` and
            ``speaker_from`` where they can.
        target: the run's group ``target``, resolved.
        require_labels: if True, a file without labels, or with such as the target does not have, is an error; if
            False, labels are read where they fit the target, and a note tells where they do not.
        strict: whether an utterance whose features cannot be read is an error; else it is left out, where the format
            allows to read the others.
        texts: what reads the transcripts, with ``model.text_encoder``.

    Raises:
        DataError: the file is missing or invalid, or the dimensions of its features differ from ``dims``.
    """
    path = expanded(path, DataError)
    where = short(path)
    data = replace(data, modalities=tuple(dims))
    found = _read(path, data, target, "found" if require_labels else "tried", texts, strict, other=True)
    _check_dims(found.dims, dims, where)
    splits = {name: _with_missing(utterances, dims, found.dims) for name, utterances in found.splits.items()}
    if require_labels and not any(u.label is not None for utterances in splits.values() for u in utterances):
        raise DataError(f"{where}: no utterance has a label; scoring needs labels")
    return OtherFile(splits, found.target, found.sha256, found.left_out, found.extraction)


def _from_file(modalities: Iterable[str], texts: Reader | None) -> list[str]:
    """The modalities whose features are the file's own, not made by a text encoder."""
    return [m for m in modalities if texts is None or m != texts.modality]


def _read_pool(
    path: Path, dims: Mapping[str, int], data: DataConfig, target: TargetConfig, texts: Reader | None
) -> Loaded:
    """The utterances of ``data.pool``, without labels, as one split."""
    data = replace(data, modalities=tuple(dims))
    found = _read(path, data, target, "unread", texts)
    _check_dims(found.dims, dims, short(path))
    parts = [_with_missing(utterances, dims, found.dims) for utterances in found.splits.values()]
    whole = parts[0] if len(parts) == 1 else joined(*parts)
    return replace(found, splits={UNSPLIT: whole})


def _read(
    path: Path,
    data: DataConfig,
    target: TargetConfig,
    labels: Labels,
    texts: Reader | None,
    strict: bool = True,
    other: bool = False,
) -> Loaded:
    """As :func:`~gmsa.data.sources.read_any`, with what ``texts`` makes of the transcripts.

    Raises:
        DataError: labels are needed, and no utterance has a transcript; or as ``read_any`` does.
    """
    if texts is None:
        return read_any(path, data, target, labels, strict, other)
    found, where = read_any(path, data, target, labels, strict, other, texts.source), short(path)
    known = {texts.modality: texts.dim, **found.dims, texts.modality: texts.dim}
    wanted = [*known] if data.modalities == AUTO else [m for m in data.modalities if m in known]
    if texts.source == TEXT_BERT and not _hold(found.splits.values(), texts.modality):
        what = f"{where}: has no '{TEXT_BERT}', which 'text.source' names"
        if labels == "needed":
            raise DataError(f"{what}; set it to raw_text")
        note(f"{what}: the encoder's own tokenizer cuts its transcripts")
    places = {name: where if name == UNSPLIT else f"{where}: split {shown(name)}" for name in found.splits}
    splits = {name: texts(utterances, wanted, places[name]) for name, utterances in found.splits.items()}
    lacking = {name: sum(not u.lengths[texts.modality] for u in utterances) for name, utterances in splits.items()}
    if sum(lacking.values()) == sum(map(len, splits.values())):
        what = f"{where}: no utterance has '{texts.source}', which model.text_encoder reads"
        if labels == "needed":
            raise DataError(f"{what}; add it, or leave the encoder out")
        note(Doubt(f"{what}: {texts.modality} is missing from all"))
        lacking = {}
    for name, count in lacking.items():
        if count:
            what = f"{count:,} of {len(splits[name]):,} utterances have no '{texts.source}'"
            note(f"{places[name]}: {what}: {texts.modality} is missing there")
    return replace(found, splits=splits, dims={m: known[m] for m in wanted})


def _hold(splits: Iterable[Sequence[Utterance]], modality: str) -> bool:
    return any(modality in utterance.features for utterances in splits for utterance in utterances)


def _synthetic(config: DataConfig, target: TargetConfig, texts: Reader | None) -> Corpus:
    modalities, wanted = named_modalities(config), Target.of(target)
    if config.path in SYNTHETIC_DIALOGUES:
        corpus = synthetic_dialogues(SYNTHETIC_DIALOGUES[config.path], modalities=modalities, target=wanted)
    else:
        corpus = synthetic_corpus(modalities=modalities, target=wanted)
    corpus = replace(corpus, splits=make_splits(corpus.splits, config.split, corpus.target, SYNTHETIC))
    if texts is None:
        return corpus
    splits = {name: texts(utterances, modalities, SYNTHETIC) for name, utterances in corpus.splits.items()}
    dims = {m: texts.dim if m == texts.modality else dim for m, dim in corpus.dims.items()}
    return replace(corpus, splits=splits, pool=texts(corpus.pool, modalities, SYNTHETIC), dims=dims)


def _with_missing(
    utterances: Sequence[Utterance], dims: Mapping[str, int | None], held: Mapping[str, int]
) -> Sequence[Utterance]:
    """The utterances with all modalities of ``dims``, in their order."""
    wanted = {modality: held.get(modality) or dims[modality] or 0 for modality in dims}
    if isinstance(utterances, StoredUtterances):
        return StoredUtterances(utterances.store, utterances.rows, wanted, utterances.with_labels)
    missing = {modality: torch.zeros(0, dim) for modality, dim in wanted.items()}
    return [replace(u, features={**missing, **u.features}) for u in utterances]


def _without_labels(utterances: Sequence[Utterance]) -> Sequence[Utterance]:
    if isinstance(utterances, StoredUtterances):
        return StoredUtterances(utterances.store, utterances.rows, utterances.dims, labels=False)
    return changed(utterances, without_labels, labels=False, own_labels=False)


def _sizes(splits: Mapping[str, Sequence[Utterance]], names: Collection[str]) -> str:
    return listed(f"{shown(name)} ({len(splits[name]):,} utterances)" for name in names)


def _labeled(
    name: str, utterances: Sequence[Utterance], where: str, say: Callable[[str], object] = note
) -> tuple[Sequence[Utterance], Sequence[Utterance]]:
    """The utterances that can be trained on or scored, and the others: in training, unlabeled ones join the pool.

    Raises:
        DataError: none has a label.
    """
    unlabeled = np.isnan(labels_of(utterances))
    lacking, count = int(unlabeled.sum()), len(unlabeled)
    if lacking == count:
        raise DataError(
            f"{where}: split {shown(name)}: no utterance has a label, such as {shown(utterances[0].id)}; training and "
            f"scoring need labels (as '{POOL}', a split is the unlabeled pool)"
        )
    if not lacking:
        return utterances, []
    what, one = f"{where}: split {shown(name)}: {lacking:,} of {count:,} utterances", lacking == 1
    if name == "train":
        say(f"{what} {'has no label and joins' if one else 'have no label and join'} the pool of unlabeled utterances")
        return utterances, []
    note(Doubt(f"{what} {'has no label and is' if one else 'have no label and are'} not scored"))
    return taken(utterances, np.flatnonzero(~unlabeled)), taken(utterances, np.flatnonzero(unlabeled))


def _tell_unseen(splits: Iterable[Sequence[Utterance]], target: Target, settings: TargetConfig, where: str) -> None:
    """Tells of classes that no label of the file has."""
    if not target.is_classes:
        return
    seen: set[float] = set()
    for utterances in splits:
        seen.update(np.unique(labels_of(utterances)).tolist())
    unseen = [name for number, name in enumerate(target.classes) if number not in seen]
    if unseen and len(unseen) < target.num_classes:
        preset = f" (target.preset: {settings.preset})" if settings.classes == AUTO else ""
        note(
            f"{where}: no label of the file is {listed(map(shown, unseen))} of the {target.num_classes} classes"
            f"{preset}, so it is never learned; target.classes may leave it out"
        )


def _check_present(name: str, utterances: Sequence[Utterance], dims: Mapping[str, int], where: str) -> None:
    if not steps_of(utterances).any():
        what = f"{where}: split {shown(name)}: no utterance has {', '.join(dims) or 'any modality'}"
        raise DataError(f"{what}; choose other data.modalities")


def _check_dims(found: Mapping[str, int], dims: Mapping[str, int | None], where: str) -> None:
    for modality, dim in found.items():
        if dims.get(modality) not in (None, dim):
            raise DataError(
                f"{where}: '{modality}' has {dim} features per step, training has {dims[modality]}; "
                "extract the features as for the training data"
            )


def _check_apart(pool: Sequence[Utterance], splits: Mapping[str, Sequence[Utterance]], path: str) -> None:
    known = {identity: name for name, utterances in splits.items() for identity in ids_of(utterances)}
    for identity in ids_of(pool):
        if identity in known:
            raise DataError(
                f"{path}: id {shown(identity)} of the pool is also in split {shown(known[identity])} "
                "of the data file; take it out of one of them"
            )
