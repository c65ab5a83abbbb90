"""One split of a file in MMSA's layout: checks its columns, and reads them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gmsa.config import TargetConfig
from gmsa.config.groups.target import AUTO
from gmsa.data.labels import is_column, read_column, read_labels
from gmsa.data.mmsa.faults import Values
from gmsa.data.mmsa.keys import SPEAKERS, STARTS, UNIMODAL
from gmsa.data.mmsa.naming import speakers_of, videos_of
from gmsa.data.mmsa.sequences import Sequences, as_array, check_lengths, cut_sequences, read_sequences
from gmsa.data.notes import note
from gmsa.data.targets import Target
from gmsa.data.texts import LONGEST_ID, check_id, check_text, hint
from gmsa.errors import DataError, cut, shown

TEXT_BERT = "text_bert"
"""Key of the word pieces of BERT's tokenizer: per utterance ``[3, L]``, their numbers, mask and segments."""
UNREADABLE = "\ufffd"
"""What stands in a transcript for bytes that are not UTF-8."""


class Split:
    """One split of a file.

    Args:
        columns: the columns by their keys.
        where: name of the file and the split, for errors.
    """

    def __init__(self, columns: Mapping[str, Any], where: str) -> None:
        self.columns, self.where = columns, where
        self._sequences: dict[str, Sequences] = {}
        self.bad: dict[str, str] | None = None
        """Collects, by id, why the features of utterances cannot be read; None: that is an error."""
        if "id" not in columns:
            raise DataError(f"{where}: has no key 'id'{hint('id', columns)}; every utterance needs an id")
        self.ids = [_identity(value, f"{where}: row {i}") for i, value in enumerate(self._list("id", None), 1)]
        if not self.ids:
            raise DataError(f"{where}: is empty; every split needs utterances")

    def _list(self, key: str, count: int | None) -> Any:
        column = self.columns[key]
        if not is_column(column):
            raise DataError(f"{self.where}: '{cut(key)}' is a {type(column).__name__}; expected an array or a list")
        if count is not None and len(column) != count:
            raise DataError(
                f"{self.where}: '{cut(key)}' has {len(column)} entries but 'id' has {count}; "
                "every key must hold one entry per utterance"
            )
        return column

    def _numbers(self, key: str) -> list[float]:
        column = self._list(key, len(self.ids))
        try:
            array = as_array(column)
            if array.dtype.kind not in "biufO" or any(isinstance(value, (str, bytes)) for value in _objects(array)):
                raise ValueError
            return array.astype(np.float64).reshape(len(self.ids)).tolist()
        except (ValueError, TypeError, OverflowError):
            message = f"{self.where}: '{key}' does not hold one number per utterance; check how it was saved"
            raise DataError(message) from None

    def labels(self, target: Target, key: str = "regression_labels") -> list[float]:
        """Reads and checks intensities [N].

        Raises:
            DataError: one is missing, no number, or out of range.
        """
        if key not in self.columns:
            near = hint(key, self.columns)
            raise DataError(f"{self.where}: has no key '{key}'{near}; training and scoring need labels")
        column = read_column(self.columns[key], self.ids, self.where, key)
        values = read_labels({"": column}, target.settings(TargetConfig()), self.where)[1][""]
        if not column.labeled.all():
            raise DataError(f"{column.first(~column.labeled)} is NaN or empty; label it, or remove the utterance")
        return values.tolist()

    def unimodal(self, modalities: Iterable[str], target: Target) -> list[dict[str, float]]:
        """Reads the labels of single modalities, if the file has them (CH-SIMS); none of classes."""
        found: list[dict[str, float]] = [{} for _ in self.ids]
        keys = {m: UNIMODAL.get(m, f"regression_labels_{m}") for m in modalities if not target.is_classes}
        columns = {
            m: read_column(self.columns[key], self.ids, self.where, key)
            for m, key in keys.items()
            if key in self.columns
        }
        values = read_labels(columns, target.settings(TargetConfig()), self.where)[1] if columns else {}
        for modality, column in columns.items():
            if unlabeled := int((~column.labeled).sum()):
                said = f"{unlabeled:,} of {len(self.ids):,} utterances have no label in '{column.field}'"
                note(f"{self.where}: {said}: missing for {modality}")
            for labels, value in zip(found, values[modality].tolist(), strict=True):
                if value == value:
                    labels[modality] = value
        return found

    def texts(self) -> list[str]:
        """Reads the transcripts; empty if the file has none."""
        if "raw_text" not in self.columns:
            return [""] * len(self.ids)
        column = self._list("raw_text", len(self.ids))
        return [_transcript(text, f"{self.where}: {shown(i)}") for i, text in zip(self.ids, column, strict=True)]

    def pieces(self) -> list[Tensor]:
        """Reads the numbers of word pieces, special ones among them, without padding: int64 ``[L, 1]`` each.

        Raises:
            DataError: an entry is neither ``[3, L]`` nor ``[L, 3]``, or its second row is no mask.
        """
        column = self._list(TEXT_BERT, len(self.ids))
        return [_pieces(value, f"{self.where}: {shown(i)}") for i, value in zip(self.ids, column, strict=True)]

    def names(self, keys: Sequence[str]) -> list[str]:
        """Reads names, as of speakers, from the first of some keys that the split has; empty if it has none."""
        key = next((key for key in keys if key in self.columns), None)
        if key is None:
            return [""] * len(self.ids)
        return [_name(value) for value in self._list(key, len(self.ids))]

    def speakers(self, how: str = AUTO, needed: bool = True) -> list[str]:
        """The speaker of each utterance, as ``data.speaker_from`` says; empty if unknown.

        Args:
            needed: as :meth:`videos` has it; a note says that the key ``speaker`` tells them.

        Raises:
            DataError: the file has no such key, an id does not match, or no utterance has a speaker.
        """
        if how != AUTO:
            try:
                return self._speakers(how)
            except DataError as error:
                if needed:
                    raise
                note(f"{str(error)[:300]}; the key 'speaker' tells the speakers, if there is one")
        return self.names(SPEAKERS)

    def _speakers(self, how: str) -> list[str]:
        if how not in self.columns:
            return speakers_of(how, self.ids, self.columns, self.where)
        speakers = self.names([how])
        if not any(speakers):
            raise DataError(
                f"{self.where}: no utterance has a speaker in '{cut(how)}', which data.speaker_from names; name "
                "another key, or leave data.speaker_from out"
            )
        return speakers

    def videos(
        self, how: str, needed: bool = True, before: dict[str, int] | None = None
    ) -> tuple[list[str], list[int | None]]:
        """The video of each utterance and its place there, as ``data.video_from`` says.

        A key of the file names the videos; places are then those in order of time, if the file tells it, else of the
        file. A regular expression finds both in the id: by its groups ``video`` and ``clip``, or the first and second.

        Args:
            needed: whether it is an error if they cannot be found; else a note says so, and the ids tell them.
            before: number of utterances of each video in earlier splits, after which the places of the file go on; it
                is counted on.

        Raises:
            DataError: the file has no such key, or an id does not match.
        """
        if how != AUTO:
            try:
                return self._videos(how, {} if before is None else before)
            except DataError as error:
                if needed:
                    raise
                note(f"{str(error)[:300]}; the ids tell the videos, up to '$_$'")
        return [""] * len(self.ids), [None] * len(self.ids)

    def _videos(self, how: str, before: dict[str, int]) -> tuple[list[str], list[int | None]]:
        if how in self.columns:
            videos = self.names([how])
            if "" in videos:
                first = shown(self.ids[videos.index("")])
                raise DataError(f"{self.where}: '{how}' of {first} is empty; data.video_from needs a video of each")
            return videos, self._places(videos, before)
        videos, clips = videos_of(how, self.ids, self.columns, self.where)
        if all(name is not None and name.isdecimal() and len(name) < 18 for name in clips):
            return videos, [int(name) for name in clips if name is not None]
        return videos, self._places(videos, before)

    def _places(self, videos: Sequence[str], count: dict[str, int]) -> list[int | None]:
        """The place of each utterance among those of its video."""
        order: Iterable[int] = range(len(videos))
        if key := next((key for key in STARTS if key in self.columns), None):
            times = self._numbers(key)
            order = sorted(order, key=lambda row: times[row])
        places: list[int | None] = [None] * len(videos)
        for row in order:
            places[row] = count.get(videos[row], 0)
            count[videos[row]] = count.get(videos[row], 0) + 1
        return places

    def sequences(self, modality: str) -> Sequences:
        """Reads a modality and checks its shapes and lengths."""
        if modality not in self._sequences:
            self._sequences[modality] = self._read_sequences(modality)
        return self._sequences[modality]

    def _read_sequences(self, modality: str) -> Sequences:
        if modality not in self.columns:
            return Sequences([np.zeros((0, 0), np.float32)] * len(self.ids), dim=0, width=0)
        found = read_sequences(self._list(modality, len(self.ids)), self.ids, modality, self.where, self.bad)
        if self.columns.get(key := f"{modality}_lengths") is None:
            return found
        return replace(found, lengths=check_lengths(self._numbers(key), found.items, self.ids, modality, self.where))

    def features(self, dims: Mapping[str, int], values: Values | None = None) -> list[dict[str, Tensor]]:
        """Returns, per utterance and modality, float32 [L_i, D] without padding; length 0 if missing.

        Args:
            dims: D of the modalities.
            values: notes the values that float32 does not hold (default: they are an error).

        Raises:
            DataError: there are such values, and no ``values``.
        """
        present = {modality: self.sequences(modality) for modality in dims if self.sequences(modality).dim}
        watched = Values(self.where, "error") if values is None else values
        watched.place = self.where
        for modality, sequences in present.items():
            watched.zeroed[modality] += sequences.zeroed
        found = cut_sequences(present, dims, self.columns.get("text_bert"), self.ids, watched)
        if values is None:
            watched.refuse()
        return found


def _name(value: Any) -> str:
    """A name as text; empty for what is none."""
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.reshape(-1)[0]
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, str) or (_is_number(value) and value == value):
        return str(value).encode("utf-8", "replace").decode()[:LONGEST_ID]
    return ""


def _objects(array: np.ndarray) -> Iterable[Any]:
    return array.flat if array.dtype == object else ()


def _transcript(value: Any, where: str) -> str:
    """Returns a transcript; words of a list are joined by spaces, and :data:`UNREADABLE` stands for other bytes, which
    ``gmsa data check`` tells. None and NaN, pandas' entries for no text, are none."""
    words = value.ravel().tolist() if isinstance(value, np.ndarray) else value
    words = words if isinstance(words, (list, tuple)) else [words]
    if any(isinstance(word, (list, tuple, np.ndarray, Mapping)) for word in words):
        raise DataError(f"{where} has a {type(value).__name__} as transcript; save it as text")
    there = [w for w in words if w is not None and w == w]
    text = " ".join(w.decode("utf-8", "replace") if isinstance(w, bytes) else str(w) for w in there)
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    check_text(text, where)
    return text


def _pieces(value: Any, where: str) -> Tensor:
    try:
        table = as_array(value)
    except (ValueError, TypeError, OverflowError):
        table = np.zeros(0, object)
    if table.ndim == 2 and table.shape[0] != 3 and table.shape[1] == 3:
        table = table.T
    if table.ndim != 2 or len(table) != 3 or table.dtype.kind not in "biuf":
        raise DataError(
            f"{where} has a '{TEXT_BERT}' of shape {list(table.shape)}; expected [3, L]: the numbers of its word "
            "pieces, their mask, their segments"
        )
    if not np.isin(table[1], (0, 1)).all():
        raise DataError(f"{where}: the second row of its '{TEXT_BERT}' is no mask of 0 and 1; save it as BERT takes it")
    numbers = table[0][table[1] == 1]
    with np.errstate(invalid="ignore"):
        whole = numbers.astype(np.int64)
    if (whole != numbers).any():
        raise DataError(f"{where}: the first row of its '{TEXT_BERT}' is no whole numbers of word pieces; check it")
    return torch.from_numpy(whole)[:, None]


def _identity(value: Any, where: str) -> str:
    """Returns ``video$_$clip`` for a string, bytes, or a sequence of the parts of an id."""
    identity = _joined(value, where)
    check_id(identity, where)
    return identity


def _joined(value: Any, where: str) -> str:
    if isinstance(value, np.ndarray):
        value = value.ravel().tolist()
    if isinstance(value, (list, tuple)):
        return "$_$".join(_joined(part, where) for part in value)
    if isinstance(value, (str, bytes)) or (_is_number(value) and value == value):
        return _string(value, f"{where} has an id", "rename it")
    raise DataError(f"{where} has the id {shown(value)}; expected text, or a list of the parts of an id")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)


def _string(value: Any, what: str, remedy: str) -> str:
    if not isinstance(value, bytes):
        return str(value)
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        raise DataError(f"{what} of bytes that are not UTF-8 ({shown(value)}); {remedy}") from None
