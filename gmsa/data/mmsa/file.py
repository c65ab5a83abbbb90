"""A file in MMSA's layout: what of it is read, and what is said of the rest."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from gmsa.config import MODALITIES, DataConfig, TargetConfig
from gmsa.config.groups.target import AUTO
from gmsa.config.presets import TEXT
from gmsa.data.dialogues.order import in_file_order
from gmsa.data.labels import (
    CLASS_FIELDS,
    INTENSITY_FIELDS,
    Column,
    are_places,
    check_places,
    find_field,
    holds_labels,
    holds_words,
    is_column,
    label_notes,
    read_column,
    read_labels,
)
from gmsa.data.mmsa.faults import Values, counted
from gmsa.data.mmsa.keys import (
    EXPECTED,
    WORDS,
    Columns,
    all_modalities,
    check_keys,
    groups_of,
    holds_utterances,
    is_features,
    key_notes,
    keys_of,
    may_be_labels,
    named_splits,
    renamed,
)
from gmsa.data.mmsa.split import TEXT_BERT, Split
from gmsa.data.notes import Doubt, note
from gmsa.data.splits import POOL, SPLIT_NAMES, SPLITS, UNSPLIT
from gmsa.data.targets import Target
from gmsa.data.texts import check_count, check_split, few, hint
from gmsa.data.utterance import Utterance
from gmsa.errors import DataError, listed, shown

Labels = Literal["needed", "tried", "found", "unread"]
"""Labels must be there; are read where they fit the target; must fit where they are; or are not read."""


@dataclass(frozen=True)
class Reading:
    """What was read of a file."""

    splits: dict[str, list[Utterance]]
    """By gmsa's names: ``train``, ``valid``, ``test``, ``pool``; other splits by their own; ``all`` of a flat file."""
    dims: dict[str, int]
    """D of each modality, in the order of ``data.modalities``."""
    target: Target
    """What the labels are, with the classes found in the file."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Why utterances were left out, by id; none if the reading is strict."""
    field: str = AUTO
    """Key of the labels; ``auto`` if none were read."""


def read_file(
    content: Any,
    where: str,
    data: DataConfig | None = None,
    settings: TargetConfig | None = None,
    splits: Sequence[str] | None = None,
    labels: Labels = "needed",
    unlabeled: Collection[str] = ("train", UNSPLIT),
    strict: bool = True,
    other: bool = False,
    words: str | None = None,
) -> Reading:
    """Reads the content of a file in MMSA's layout, and notes what it holds that is not used or looks wrong.

    Args:
        content: the unpickled file.
        where: name of the file, for errors and notes.
        data: the group ``data`` (default: its defaults): ``modalities``, ``nan``, ``video_from`` and ``speaker_from``.
        settings: the group ``target`` (default: its defaults).
        splits: splits to read, by gmsa's names; those that the file lacks are not in the result. Default: all.
        labels: ``needed``: labels of all splits but the pool are read, and must be there; ``found``: of those that have
            them; ``tried``: the same, but labels that cannot be read make the file unlabeled, which a note says;
            ``unread``: none are.
        unlabeled: splits in which single utterances may have no label if labels are ``needed``.
        strict: whether an utterance whose features cannot be read is an error; else it is left out.
        other: whether it is another file than was trained on, whose ids may tell no video or
            speaker by ``video_from`` and ``speaker_from``.
        words: key of what a text encoder reads in the place of features of text: ``raw_text``, or ``text_bert``, whose
            numbers of word pieces ``[L, 1]`` are then the features of text of the utterances of a split that has it.

    Raises:
        DataError: a split, column, count, length, dimension, id, label or feature is invalid.
    """
    file = MmsaFile(content, where, data, settings, splits, labels, unlabeled, strict, other, words)
    found = {name: file.read(name) for name in file.splits}
    file.finish()
    left_out = file.left_out
    if left_out:
        found = {name: [u for u in utterances if u.id not in left_out] for name, utterances in found.items()}
    return Reading(in_file_order(found), file.dims, file.target, left_out, file.field or AUTO)


class MmsaFile:
    """A file in MMSA's layout whose keys, ids, shapes and labels are checked; features are read split by split.

    Arguments and errors are those of :func:`read_file`. After the last :meth:`read`, call :meth:`finish`.
    """

    def __init__(
        self,
        content: Any,
        where: str,
        data: DataConfig | None = None,
        settings: TargetConfig | None = None,
        splits: Sequence[str] | None = None,
        labels: Labels = "needed",
        unlabeled: Collection[str] = ("train", UNSPLIT),
        strict: bool = True,
        other: bool = False,
        words: str | None = None,
    ) -> None:
        self.where, self.data = where, DataConfig() if data is None else data
        self._settings, self._kind, self._unlabeled = settings or TargetConfig(), labels, unlabeled
        modalities = MODALITIES if self.data.modalities == AUTO else tuple(self.data.modalities)
        groups, changed = _with_names(_splits_of(content, where, modalities), modalities)
        if self.data.modalities == AUTO:
            modalities = all_modalities(list(groups.values()), where, self._settings.chosen_field)
        if words is not None:
            modalities = tuple(m for m in modalities if m != TEXT)
        self._groups, self._words = groups, words
        chosen = self._chosen(splits)
        needed = modalities if words is None else (*modalities, words, "raw_text")
        if not any(key in columns for columns in chosen.values() for key in needed):
            raise DataError(_no_modality(chosen, modalities, where, self._settings.chosen_field, words))
        single = len(groups) == 1 and UNSPLIT in groups
        places = {n: where if single else f"{where}: split {shown(self._names[n])}" for n in chosen}
        self.splits = {name: Split(columns, places[name]) for name, columns in chosen.items()}
        """The splits by gmsa's names."""
        self.left_out: dict[str, str] = {}
        """Why utterances are left out, by id."""
        if not strict:
            for split in self.splits.values():
                split.bad = self.left_out
        _check_ids(self.splits, where)
        self.dims = _common_dims(self.splits, where, modalities)
        """D of each modality."""
        self._values = Values(where, self.data.nan)
        if not strict and self.data.nan == "error":
            self._values.bad = self.left_out
        self._strict, self._other = strict, other
        self._turns: dict[str, int] = {}
        self.field = ""
        """Key of the labels; empty if none are read."""
        self.target = Target.of(self._settings)
        """What the labels are."""
        self._labels: dict[str, list[float | None]] = {}
        self._read_labels()
        for text in (*self._split_notes(), *_name_notes(changed, where), *self._key_notes(modalities)):
            note(text)

    # --- splits ---

    def _chosen(self, splits: Sequence[str] | None) -> dict[str, Columns]:
        """The splits to read, by gmsa's names in their usual order."""
        ours = named_splits(self._groups, self.where)
        self._names = {ours[name]: name for name in self._groups}
        order = sorted(self._names, key=lambda name: (*SPLITS, POOL).index(name) if name in (*SPLITS, POOL) else 4)
        chosen = {}
        for name in order:
            columns = self._groups[self._names[name]]
            if splits is None and _length(columns) == 0:
                continue
            if splits is not None and name not in splits and name != UNSPLIT:
                continue
            check_split(self._names[name], self.where)
            check_keys(columns, self.where, self._names[name])
            chosen[name] = columns
        check_count(chosen, self.where)
        if not chosen:
            wanted = listed(splits or ("train",))
            raise DataError(f"{self.where}: has none of the splits {wanted} ({keys_of(self._groups)}); {EXPECTED}")
        return chosen

    def _split_notes(self) -> Iterator[str]:
        known = (*SPLITS, POOL, UNSPLIT)
        unused = [n for n, name in self._names.items() if n not in self.splits and n not in known]
        if unused:
            counts = {name: counted(_length(self._groups[name]) or 0, "utterance") for name in unused}
            said = listed(f"{shown(name)} ({count})" for name, count in counts.items())
            what = f"split {said} is" if len(unused) == 1 else f"splits {said} are"
            yield Doubt(f"{self.where}: {what} not used; gmsa reads train, valid, test and unlabeled (the pool)")
        if POOL in self.splits and len(self.splits) > 1:
            pool = self.splits[POOL]
            also = "; its labels are not used" if self.field and self.field in pool.columns else ""
            yield f"{pool.where}: {counted(len(pool.ids), 'utterance')} join the pool of unlabeled utterances{also}"
        plain = [s for s in self.splits.values() if len(s.ids) > 1 and not any("$_$" in i for i in s.ids)]
        if plain and self.data.video_from == AUTO:
            place = self.where if len(plain) == len(self.splits) else plain[0].where
            yield (
                f"{place}: no id has '$_$' between video and clip (such as {shown(plain[0].ids[0])}), so each "
                "utterance is a video of its own; data.video_from says how to tell the videos"
            )

    # --- labels ---

    def _read_labels(self) -> None:
        if self._kind == "unread":
            return
        labeled = {name: split for name, split in self.splits.items() if name != POOL}
        columns = {name: split.columns for name, split in labeled.items()}
        known = {*INTENSITY_FIELDS, *CLASS_FIELDS, self._settings.chosen_field}
        there = any(key in known for c in columns.values() for key in c)
        if not there and (self._kind == "tried" or (self._kind == "found" and self._settings.field == AUTO)):
            if columns and self._kind == "found":
                keys = keys_of(next(iter(columns.values())))
                note(Doubt(f"{self.where}: has no labels ({keys}); target.field names their key"))
            return
        try:
            self._take_labels(labeled, columns)
        except DataError as error:
            if self._kind != "tried":
                raise
            self.field, self._labels = "", {}
            note(Doubt(f"{str(error)[:330]}: the labels are not read"))

    def _take_labels(self, labeled: Mapping[str, Split], columns: Mapping[str, Columns]) -> None:
        if not labeled:
            return
        key = self._find_field(columns)
        for split in labeled.values():
            if key not in split.columns and self._kind == "needed":
                near = hint(key, split.columns)
                raise DataError(f"{split.where}: has no key '{key}'{near}; training and scoring need labels")
        read = {name: self._column(split, key) for name, split in labeled.items() if key in split.columns}
        self.target, values = read_labels(read, self._settings, self.where)
        if self.target.is_classes and are_places(read, self.target):
            self._check_places(read, columns)
        for name, column in read.items():
            self._check_labeled(name, column)
        for split in labeled.values():
            if key not in split.columns and self._kind == "found":
                note(
                    Doubt(f"{split.where}: has no key '{key}', so {counted(len(split.ids), 'utterance')} are unlabeled")
                )
        self.field = key
        for name, found in values.items():
            self._labels[name] = [None if value != value else value for value in found.tolist()]
        for text in label_notes({**self._others(key), **read}, self.target, self.where):
            note(text)

    def _find_field(self, columns: Mapping[str, Columns]) -> str:
        """The key of the labels; of another file than a run was trained on, another if it lacks the run's."""
        settings = self._settings
        named = any(settings.field in keys for keys in columns.values())
        if settings.field == AUTO or named or self._kind == "needed":
            return find_field(columns, settings, self.where)
        try:
            found = find_field(columns, replace(settings, field=AUTO), self.where)
        except DataError:
            return find_field(columns, settings, self.where)  # whose error names the field that was asked for
        note(Doubt(f"{self.where}: has no key '{settings.field}', which target.field names; '{found}' is read"))
        return found

    def _check_places(self, read: Mapping[str, Column], columns: Mapping[str, Columns]) -> None:
        """Checks numbers of classes by words in other fields."""
        for key in dict.fromkeys(key for name in read for key in columns[name] if key not in ("id", "raw_text")):
            words: dict[str, Column] = {}
            for name in read:
                split = self.splits[name]
                values: Any = columns[name].get(key)
                if holds_labels(values) and holds_words(values) and len(values) == len(split.ids):
                    try:
                        words[name] = read_column(values, split.ids, split.where, key, classes=True)
                    except DataError:  # the field is not read
                        continue
            if words:
                check_places(read, words, self.target, self.where)

    def _column(self, split: Split, key: str) -> Column:
        settings = self._settings
        return read_column(split.columns[key], split.ids, split.where, key, settings.column, settings.is_classes)

    def _others(self, key: str) -> dict[str, Column]:
        """The labels of splits that are not read, which tell the scale too; unless they are wrong."""
        found = {}
        for name, theirs in self._names.items():
            columns = self._groups[theirs]
            if name in SPLITS and name not in self.splits and isinstance(columns, Mapping) and key in columns:
                try:
                    found[name] = self._column(Split(columns, f"{self.where}: split {shown(theirs)}"), key)
                except DataError:
                    continue
        return found

    def _check_labeled(self, name: str, column: Column) -> None:
        unlabeled = ~column.labeled
        count, total = int(unlabeled.sum()), len(column.ids)
        if not count:
            return
        said = f"{count:,} of {counted(total, 'utterance')}"
        if self._kind == "needed" and name not in self._unlabeled:
            others = f" (no label, like {said})" if count > 1 else ""
            them = "them" if count > 1 else "it"
            remedy = f"label {them}, or move {them} to a split 'unlabeled', or to the file of data.pool"
            raise DataError(f"{column.first(unlabeled)} is NaN or empty{others}; {remedy}")
        if count == total and self._kind == "needed":
            raise DataError(f"{column.where}: no utterance has a label in '{column.field}'; training needs some")
        pool = " and join the pool of unlabeled utterances" if name in ("train", UNSPLIT) else ""
        note(f"{column.where}: {said} have no label in '{column.field}'{pool}")

    # --- modalities and features ---

    def _key_notes(self, modalities: Sequence[str]) -> Iterator[str]:
        used = [self.data.video_from, self.data.speaker_from]
        if not self.field:  # the labels are not asked for, or what is wrong with them has been said
            used += [self._settings.chosen_field, *INTENSITY_FIELDS, *CLASS_FIELDS]
        columns = {self._names[name]: split.columns for name, split in self.splits.items()}
        return key_notes(columns, modalities, self.field, used, self.where, self.data.modalities == AUTO, self._words)

    def read(self, name: str) -> list[Utterance]:
        """Reads the utterances of a split."""
        split = self.splits[name]
        count = len(split.ids)
        features = split.features(self.dims, self._values)
        lacking = [m for m in self.dims if not any(len(one[m]) for one in features)]
        if len(lacking) == len(self.dims) and self._words is None and self._strict and not self._values.faults:
            dims = ", ".join(self.dims) or "any modality"
            which = f"all {count:,}, such as {shown(split.ids[0])}, lack it or hold zeros"
            raise DataError(f"{split.where}: no utterance has {dims} ({which}); choose other data.modalities")
        for modality in lacking:
            if modality in split.columns:
                note(Doubt(f"{split.where}: '{modality}' is missing from all {counted(count, 'utterance')}"))
        if self._words == TEXT_BERT and TEXT_BERT in split.columns:
            features = [{TEXT: pieces, **own} for pieces, own in zip(split.pieces(), features, strict=True)]
        labels = self._labels.get(name) or [None] * count
        unimodal = split.unimodal(self.dims, self.target) if name in self._labels else [{} for _ in split.ids]
        videos, places = split.videos(self.data.video_from, not self._other, self._turns)
        speakers = split.speakers(self.data.speaker_from, needed=not self._other)
        return [
            Utterance(i, x, label, single, text, {}, speaker, video, place, fold)
            for i, x, label, single, text, speaker, video, place, fold in zip(
                split.ids,
                features,
                labels,
                unimodal,
                split.texts(),
                speakers,
                videos,
                places,
                split.names(("fold",)),
                strict=True,
            )
        ]

    def finish(self) -> None:
        """Says what is wrong with the values of the features that were read.

        Raises:
            DataError: float32 does not hold some of them, and ``data.nan`` is ``error``.
        """
        if self._strict:
            self._values.refuse()
        self._values.tell()


# --- parts -----------------------------------------------------------------------------------------------------------


def _splits_of(content: Any, where: str, modalities: Sequence[str]) -> dict[str, Any]:
    """The entries of a file that are splits, or are called like one."""
    groups = groups_of(content, where, modalities)
    usual = {name for name in groups if name.strip().lower() in SPLIT_NAMES or name == UNSPLIT}
    found = {n: columns for n, columns in groups.items() if n in usual or holds_utterances(columns)}
    if not found:
        raise DataError(f"{where}: has neither splits nor 'id' ({keys_of(content)}); {EXPECTED}")
    return found


def _with_names(groups: Mapping[str, Any], modalities: Sequence[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """The splits with their columns under the names of the modalities, and the names that changed."""
    found: dict[str, Any] = {}
    changed: dict[str, str] = {}
    for name, columns in groups.items():
        found[name] = columns
        if isinstance(columns, Mapping) and all(isinstance(key, str) for key in columns):
            found[name], names = renamed(columns, modalities)
            changed |= names
    return found, changed


def _name_notes(changed: Mapping[str, str], where: str) -> Iterator[str]:
    if changed:
        said = listed(f"'{key}' is read as {modality}" for key, modality in changed.items())
        yield f"{where}: {said}; data.modalities may list the file's own names instead"


def _no_modality(
    splits: Mapping[str, Columns], modalities: Sequence[str], where: str, field: str, words: str | None
) -> str:
    columns = next(iter(splits.values()))
    if words is not None:
        others = "".join(f", nor {m}" for m in modalities)
        remedy = f"add it, or set text.source to {TEXT_BERT}" if TEXT_BERT in columns else "add it"
        return f"{where}: has no '{words}', which model.text_encoder reads{others} ({keys_of(columns)}); {remedy}"
    named = f"has none of the modalities {', '.join(modalities)}" if modalities else "has no features"
    found = dict.fromkeys(
        key
        for c in splits.values()
        for key, values in c.items()
        if key != field and is_features(key, values) and not may_be_labels(key, values)
    )
    text = [key for key in WORDS if key in columns]
    remedy = "check data.modalities"
    if found:
        remedy = f"set data.modalities: [{few(found)}]"
    elif text:
        remedy += f", or extract features; or set model.text_encoder, which reads {' or '.join(text)}"
    return f"{where}: {named} ({keys_of(columns)}); {remedy}"


def _length(columns: Any) -> int | None:
    """Number of utterances of a split; None if it has no column of ids."""
    column: Any = columns.get("id") if isinstance(columns, Mapping) else None
    return len(column) if is_column(column) else None


def _check_ids(readers: Mapping[str, Split], where: str) -> None:
    seen: dict[str, str] = {}
    for name, reader in readers.items():
        for identity in reader.ids:
            if seen.get(identity) == name:
                raise DataError(f"{reader.where}: duplicate id {shown(identity)}; ids must be unique")
            if identity in seen:
                both = f"splits {shown(seen[identity])} and {shown(name)}"
                raise DataError(
                    f"{where}: duplicate id {shown(identity)} in {both}; splits must not overlap (if these "
                    "are different clips, make ids unique, for example by the split's name before them)"
                )
            seen[identity] = name


def _common_dims(readers: Mapping[str, Split], where: str, modalities: Sequence[str]) -> dict[str, int]:
    dims: dict[str, int] = {}
    source: dict[str, str] = {}
    for name, reader in readers.items():
        for modality in modalities:
            dim = reader.sequences(modality).dim
            if dim and dims.setdefault(modality, dim) != dim:
                steps = {r.sequences(modality).width for r in readers.values() if r.sequences(modality).dim}
                turned = (
                    "; or are they transposed? Save [steps, features]" if len(steps) == 1 and min(steps) > 1 else ""
                )
                raise DataError(
                    f"{where}: '{modality}' has {dims[modality]} features per step in split {shown(source[modality])} "
                    f"but {dim} in split {shown(name)}; extract all splits alike{turned}"
                )
            if dim:
                source.setdefault(modality, name)
    return {modality: dims[modality] for modality in modalities if modality in dims}
