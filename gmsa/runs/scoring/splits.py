"""Which utterances of a file to score: never those that the run was trained on, unless asked for."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from gmsa.config import SYNTHETIC, SYNTHETIC_DIALOGUES
from gmsa.data import Corpus, Utterance, data_sha256, describe_missing, load_corpus
from gmsa.data.features import select
from gmsa.data.loading import load_other
from gmsa.data.notes import note
from gmsa.data.splits import UNSPLIT
from gmsa.data.store.extraction import check_extraction
from gmsa.errors import DataError, RunError, listed, nearest, short, shown
from gmsa.runs.folder import Run
from gmsa.runs.prepare import hide
from gmsa.system.reading import MOST_RECORDS, exists, read_text
from gmsa.text import read_dims, texts_of

TRAINING = "train"
"""The split that a run is trained on, and what training utterances are scored as."""
ALL = "all"
"""Stands for all labeled splits."""


@dataclass(frozen=True, eq=False)
class Chosen:
    """The splits of a file that are to be scored."""

    splits: Mapping[str, Sequence[Utterance]]
    """Labeled utterances, features as the file has them, by split."""
    dataset: str
    synthetic: bool
    sha256: str
    own: bool
    """Whether it is the file that the run was trained on."""
    ids: frozenset[str] = frozenset()
    """Ids of all utterances of the file."""
    missing: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    """Of masked splits, the record of :func:`~gmsa.data.describe_missing`."""
    context: Mapping[str, Sequence[Utterance]] = field(default_factory=dict)
    """Unlabeled utterances of the splits: the context of the labeled ones."""

    @property
    def name(self) -> str:
        """The names of the splits."""
        return " + ".join(self.splits)

    @property
    def utterances(self) -> list[Utterance]:
        """The utterances of all splits."""
        return [utterance for utterances in self.splits.values() for utterance in utterances]

    @property
    def unlabeled(self) -> list[Utterance]:
        """The context of these."""
        return [*{u.id: u for split in self.splits for u in self.context.get(split, ())}.values()]


def own_corpus(run: Run, otherwise: str = "") -> Corpus:
    """The corpus that a run was trained on, features as the file has them.

    Args:
        otherwise: what to do where the file cannot be put back.

    Raises:
        RunError: its data file is missing, or not the one that it was trained on.
        DataError: the file is unsafe or wrong.
    """
    settings, trained_on = run.config.data, str(run.environment["data_sha256"])
    if run.synthetic and settings.path not in SYNTHETIC_DIALOGUES:
        settings = replace(settings, path=SYNTHETIC)
    elif not run.synthetic and not exists(settings.path):
        raise RunError(
            f"'{settings.path}', which '{run.folder}' was trained on (SHA-256 {trained_on[:12]}…), is not there; "
            f"put it back, or {otherwise or 'score another labeled file with --data'}"
        )
    corpus = load_corpus(settings, run.config.target, texts_of(run.config))
    if corpus.sha256 != trained_on:
        raise RunError(
            f"'{settings.path}' is not the file that '{run.folder}' was trained on (SHA-256 {corpus.sha256[:12]}…, "
            f"was {trained_on[:12]}…); put that file back, or {otherwise or 'score this one with --data'}"
        )
    return corpus


def masked(run: Run, corpus: Corpus) -> tuple[Corpus, dict[str, dict[str, Any]]]:
    """A run's own corpus as masked by ``data.missing``, and by split what is missing."""
    missing, modalities = run.config.data.missing, [*corpus.dims]
    hidden = hide(corpus, missing)
    records = {s: describe_missing(us, hidden.splits[s], missing.of(s), modalities) for s, us in corpus.splits.items()}
    return hidden, records


def _known(utterances: Sequence[Utterance], modalities: Collection[str], labeled: bool = True) -> list[Utterance]:
    """The labeled utterances, or the others; without features of other modalities, as training left some out."""
    return [
        replace(u, features=select(u.features, modalities), withheld=select(u.withheld, modalities))
        if u.features.keys() - set(modalities)
        else u
        for u in utterances
        if (u.label is not None) == labeled
    ]


def splits_to_score(
    run: Run,
    data: str | Path | None,
    split: str | None = None,
    include_training: bool = False,
    dims: Mapping[str, int | None] | None = None,
    mask: bool = False,
) -> Chosen:
    """The splits of the run's own file, or of another labeled one, that are to be scored.

    Args:
        data: the other file; the run's own by default.
        split: name of a split, or ``all``; by default ``test``, or all labeled splits but ``train`` where there is no
            ``test``.
        include_training: whether utterances that the run was trained on may be scored; they make up the split
            ``train`` then, whatever the file calls them.
        dims: features per step of each modality to read; those of the run by default.
        mask: whether the run's own file is masked by ``data.missing``, as in training; another file never is.

    Raises:
        RunError: utterances are chosen that the run was trained on, or its own file is not as it was.
        DataError: the file is missing, unsafe or wrong, or has no such split.
    """
    other, records = None, dict[str, dict[str, Any]]()
    dims, texts = run.dims if dims is None else dims, texts_of(run.config)
    if data is not None and _sha256(data) != run.environment["data_sha256"]:
        other = load_other(data, read_dims(dims, texts), run.config.data, run.config.target, texts=texts)
        held = [m for m in dims if texts is None or m != texts.modality]
        check_extraction(run.extraction, other.extraction, held, short(data))
    if other is None or other.sha256 == run.environment["data_sha256"]:
        if data is None:
            corpus = own_corpus(run)
        else:  # its splits are those of the training, also where these were drawn
            corpus = load_corpus(replace(run.config.data, path=str(data), pool=None), run.config.target, texts)
        if mask:
            corpus, records = masked(run, corpus)
        where, own, sha256, synthetic = short(data or run.config.data.path), True, corpus.sha256, corpus.synthetic
        ids = frozenset(u.id for utterances in corpus.splits.values() for u in utterances)
        labeled = {name: _known(utterances, dims) for name, utterances in corpus.splits.items()}
        unlabeled = {TRAINING: [*corpus.splits[TRAINING], *corpus.pool], **corpus.context}
        others = {name: _known(utterances, dims, False) for name, utterances in unlabeled.items()}
    else:
        where, own, sha256, synthetic, labeled = short(data or ""), False, other.sha256, False, other.labeled
        ids = frozenset(u.id for u in other.utterances)
        others = {name: [u for u in utterances if u.label is None] for name, utterances in other.splits.items()}
    context = {name: utterances for name, utterances in others.items() if utterances}
    names = choose_splits(labeled, split, where)
    chosen = {name: labeled[name] for name in names}
    seen = {u.id for u in chosen.get(TRAINING, ())} if own else _training_ids(run, chosen, where)
    if seen and not include_training:
        raise RunError(_refusal(chosen, seen, where, run))
    if seen:
        training = [u for utterances in chosen.values() for u in utterances if u.id in seen]
        rest = {name: [u for u in utterances if u.id not in seen] for name, utterances in chosen.items()}
        untrained = {name: utterances for name, utterances in rest.items() if utterances}
        if TRAINING in untrained:
            raise RunError(
                f"{where}: split 'train' holds utterances that '{run.folder}' was trained on and others; "
                "save them apart to score both"
            )
        chosen = {TRAINING: training, **untrained}
        of_training = [name for name in names if len(rest[name]) < len(labeled[name])]
        context = {**context, TRAINING: [u for name in of_training for u in context.get(name, ())]}
    for name, utterances in chosen.items():
        empty = [u.id for u in utterances if not u.steps]
        if empty and not own:
            note(
                f"{where}: {len(empty)} of {len(utterances)} utterances of split {shown(name)} have none of "
                f"{', '.join(run.dims)} (the first {shown(empty[0])}); they are scored all the same"
            )
    dataset = run.config.data.name if data is None else Path(data).stem
    records = {name: records[name] for name in chosen if name in records}
    return Chosen(chosen, dataset, synthetic, sha256, own, ids, records, context)


def _sha256(data: str | Path) -> str | None:
    """The SHA-256 of a file; None where its reader has to say what is wrong with it."""
    try:
        return data_sha256(data)
    except DataError:
        return None


def choose_splits(labeled: Mapping[str, Sequence[Utterance]], split: str | None, where: str) -> list[str]:
    """The names of the splits to score; see :func:`splits_to_score`.

    Raises:
        DataError: the file has no such split with labels.
    """
    if not labeled:
        raise DataError(f"{where}: no utterance has a label; scoring needs labels")
    if split is not None and split != ALL:
        if split not in labeled:
            raise DataError(
                f"{where}: has no labeled split {shown(split)}{nearest(split, labeled)}; it has {listed(labeled)}"
            )
        return [split]
    if split == ALL:
        return [*labeled]
    if "test" in labeled:
        return ["test"]
    names = [name for name in labeled if name != TRAINING]
    if not names:
        raise DataError(f"{where}: only its split 'train' has labels; score that with --split train")
    if labeled.keys() != {UNSPLIT}:
        note(f"{where}: has no split 'test'; scored: {listed(names)}; choose with --split")
    return names


def _training_ids(run: Run, chosen: Mapping[str, Sequence[Utterance]], where: str) -> set[str]:
    """The ids of utterances that the run was trained on: they have the same ids, and the same features in float16.

    A note tells of utterances with such ids and other features.
    """
    ids = _recorded_ids(run)
    same = [u for utterances in chosen.values() for u in utterances if u.id in ids]
    if not same:
        return set()
    try:
        trained = {u.id: u for u in own_corpus(run).splits[TRAINING]}
    except (RunError, DataError):
        note(
            f"{where}: {len(same)} ids, such as {shown(same[0].id)}, are also ids of the training split of "
            f"'{short(run.folder)}'; whether the utterances are the same cannot be checked without its data file"
        )
        return set()
    found = {u.id for u in same if u.id in trained and _same_features(u, trained[u.id])}
    if other := [u.id for u in same if u.id not in found]:
        note(
            f"{where}: {len(other)} ids, such as {shown(other[0])}, are also ids of the training split of "
            f"'{short(run.folder)}', with other features; if they are the same clips, leave them out"
        )
    return found


def _recorded_ids(run: Run) -> set[str]:
    """Ids of the training split, as the run's predictions have them; none of a model that was saved alone."""
    path = run.folder / f"seed-{run.seeds[0]}" / "predictions.csv"
    if not exists(path):
        return set()
    rows = csv.DictReader(io.StringIO(read_text(path, MOST_RECORDS, inside=run.folder), newline=""))
    return {row["id"] for row in rows if row.get("split") == TRAINING and row.get("id")}


def _same_features(one: Utterance, other: Utterance) -> bool:
    shared = [m for m in one.features if m in other.features]
    # A feature store may hold float16, and rounding again changes nothing.
    return bool(shared) and all(torch.equal(one.features[m].half(), other.features[m].half()) for m in shared)


def _refusal(chosen: Mapping[str, Sequence[Utterance]], seen: set[str], where: str, run: Run) -> str:
    found = {name: [u.id for u in us if u.id in seen] for name, us in chosen.items()}
    found = {name: ids for name, ids in found.items() if ids}
    name, ids = next(iter(found.items()))
    count = sum(map(len, found.values()))
    return (
        f"{where}: '{short(run.folder)}' was trained on {count} of the utterances to score (split {shown(name)}, the "
        f"first {shown(ids[0])}); choose another --split, or add --include-training to score them as 'train'"
    )
