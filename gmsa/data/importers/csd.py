"""The importer ``csd``: a folder of the CMU MultimodalSDK's computational sequences (HDF5), one file each."""

# S segments of a video, F frames of a sequence in a video, D features
from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gmsa.config import TargetConfig
from gmsa.config.groups.target import AUTO
from gmsa.config.presets import INFINITE_IS_ZERO, TEXT
from gmsa.data.importers.arrays import DENSEST, ROOM, resolve_inside
from gmsa.data.importers.rows import Source, ordered
from gmsa.data.importers.tables import Splits, about_files
from gmsa.data.labels import NoSuchField
from gmsa.data.notes import note
from gmsa.data.opening import open_data
from gmsa.data.splits import UNSPLIT
from gmsa.data.store.files import LARGEST, MOST_FEATURES
from gmsa.data.store.writer import Row
from gmsa.data.utterance import Utterance
from gmsa.errors import DataError, cut, listed, short, shown
from gmsa.system.reading import entries

if TYPE_CHECKING:
    import h5py

ENDING = ".csd"
NAMES = {
    TEXT: r"vectors|glove|bert|(?<!\w)text(?!\w)|embedding",
    "audio": r"covarep|opensmile|is\d\d|acoustic|audio|librosa|wav2vec|hubert|mfcc",
    "vision": r"facet|openface|visual|vision|video|face",
}
"""What the name of a sequence holds, by modality."""
LABELS = re.compile(r"label|opinion", re.IGNORECASE)

_INSTALL = "reading .csd files needs h5py; install it: pip install h5py"
_FILTERS = {1, 2, 3, 4, 6, 32000}
"""Deflate, shuffle, Fletcher32, szip, scale-offset, LZF: filters that h5py has itself."""
_PAUSE = "sp"
_SHORTEST = 1e-5
"""Seconds of a segment, at least: the SDK leaves out shorter ones."""
_MOST_VIDEOS = 1_000_000
_MOST_SEGMENTS = 20_000
"""Segments, or entries, of one video."""
_MOST_WORDS = 1 << 17
"""Words of one video."""
_MOST_TEXT = 1 << 26
_LONGEST_NUMBER = 18
_BROKEN = (OSError, RuntimeError, LookupError, TypeError, ValueError, ArithmeticError, AttributeError, MemoryError)
"""What h5py raises for a damaged file."""
_MOST_METADATA = 1 << 16


def import_csd(path: Path, target: TargetConfig, splits: Splits | None = None) -> Source:
    """Imports a folder of ``.csd`` files: the labels' intervals are the utterances, ``video$_$k`` the k-th of a video.

    The file of the labels has ``label`` or ``opinion`` in its name. Of every other one, an utterance has the frames
    whose intervals overlap its own, in order of time. A sequence of words becomes the transcript; if it is there, or a
    sequence of word vectors is, the others are averaged over each word, so that all have one step per word. Pauses
    (``sp``) are left out. Sequences are called by what their names hold (``COVAREP`` is audio, ``Facet`` vision), or
    by their own names.

    HDF5's own library reads the files. It reports most damage, but a damaged heap of texts of variable length may make
    it hang, which gmsa cannot interrupt: stop the process, and download the file again.

    Args:
        path: the folder. Links inside it, and HDF5's links and external storage, are refused.
        target: the group ``target`` of a config; its ``column`` counts the dimensions of the labels, and its ``field``
            is the name of one, such as ``happy`` of CMU-MOSEI (default: the first dimension).
        splits: the user's assignment of utterances or videos to splits; without it, all are in one split, ``all``.

    Raises:
        DataError: h5py is not installed, or a file is missing, unsafe or invalid.
    """
    files = [resolve_inside(path, file.name, short(path)) for file in entries(path, DataError) if file.suffix == ENDING]
    found = {file: _Sequence(file) for file in files}
    targets = [sequence for sequence in found.values() if LABELS.search(sequence.name)]
    if len(targets) != 1:
        names = listed(file.name for file in files)
        raise DataError(
            f"{short(path)}: needs one .csd file of labels, with 'label' or 'opinion' in its name, and has "
            f"{len(targets)} (its files: {names})"
        )
    parts = _Parts(targets[0], [s for s in found.values() if s is not targets[0]], short(path), target)
    rows, count = parts.rows(splits), sum(len(segments) for segments in parts.segments.values())
    dtypes = dict.fromkeys(ordered(parts.modalities), "float32")
    return Source(rows, count, dtypes, about_files("csd", files, splits))


class _Sequence:
    """One file: a group with the frames of each video, opened for each pass."""

    def __init__(self, path: Path) -> None:
        self.path, self.where = path, short(path)
        self.arrays: dict[int, str] = {}
        """Name of each array that was read, by its address."""
        self.stored = 0
        """Their bytes in the file."""
        with ExitStack() as stack:
            stack.enter_context(_guarded(self.where))
            root = self._open(stack)
            self.name = next(iter(root))
            if not re.search(LABELS, self.name) and LABELS.search(path.name):
                self.name = path.name
            data = _group(_group(root, next(iter(root)), self.where), "data", self.where)
            if not 0 < len(data) <= _MOST_VIDEOS:
                raise DataError(f"{self.where}: holds {len(data):,} videos; expected 1 to {_MOST_VIDEOS:,}")
            self.entries: dict[str, list[str]] = {}
            for name in data:
                self.entries.setdefault(name.partition("[")[0], []).append(name)
            if (most := max(map(len, self.entries.values()))) > _MOST_SEGMENTS:
                raise DataError(f"{self.where}: a video has {most:,} entries; at most {_MOST_SEGMENTS:,} are read")
            first = self._frames(data, next(iter(data)))
            self.is_text, self.dim = first.features.dtype.kind in "SO", first.features.shape[-1]
            self.dimensions = _dimensions(root[next(iter(root))], self.where)

    def _open(self, stack: ExitStack) -> Any:
        try:
            import h5py
        except ImportError:
            raise DataError(f"{self.where}: {_INSTALL}") from None
        raw = stack.enter_context(open_data(self.path, follow=False))
        root = stack.enter_context(h5py.File(raw, "r"))
        if len(root) != 1:
            raise DataError(f"{self.where}: has {len(root)} groups; a .csd file has one, with 'data' in it")
        return root

    def video(self, name: str) -> _Frames | None:
        """The frames of a video in order of time: those of its entries ``name`` or ``name[k]``."""
        found: list[_Frames] = []
        with ExitStack() as stack:
            stack.enter_context(_guarded(self.where))
            root = self._open(stack)
            data = _group(_group(root, next(iter(root)), self.where), "data", self.where)
            size = 0
            for entry in self.entries.get(name, ()):
                found.append(self._frames(data, entry))
                size += found[-1].features.nbytes
                if size > LARGEST:
                    raise DataError(f"{self.where}: {shown(name)} has over {LARGEST >> 30} GiB of features in all")
        if not found:
            return None
        for frames in found:
            if not self.is_text and frames.features.shape[1] != self.dim:
                raise DataError(
                    f"{self.where}: {shown(name)} has {frames.features.shape[1]} features per frame, but others have "
                    f"{self.dim}; extract all of them alike"
                )
        intervals = np.concatenate([frames.intervals for frames in found])
        features = np.concatenate([frames.features for frames in found])
        order = np.argsort(intervals[:, 0], kind="stable")
        return _Frames(intervals[order], features[order])

    def _frames(self, data: Any, entry: str) -> _Frames:
        where = f"{self.where}: {shown(entry)}"
        try:
            group = _group(data, entry, self.where)
            found = [_dataset(group, name, where) for name in ("intervals", "features")]
            for array in found:
                self._count(array, where)
            intervals = _read(found[0], f"{where}: 'intervals'")
            features = _read(found[1], f"{where}: 'features'", words=True)
        except _BROKEN as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{where} cannot be read ({cut(error)}); download the file again") from None
        if intervals.ndim != 2 or intervals.shape[1] != 2 or not np.isfinite(intervals.astype(float)).all():
            raise DataError(f"{where}: 'intervals' has shape {list(intervals.shape)}; expected [F, 2] seconds")
        if features.ndim == 1:
            features = features[:, None]
        if features.ndim != 2 or len(features) != len(intervals) or not features.shape[1]:
            raise DataError(
                f"{where}: 'features' has shape {list(features.shape)} for {len(intervals)} intervals; expected [F, D]"
            )
        return _Frames(intervals.astype(float), features)

    def _count(self, array: h5py.Dataset, where: str) -> None:
        """Refuses an array of several names, or in all more bytes than the file has."""
        import h5py

        address = h5py.h5o.get_info(array.id).addr
        if address not in self.arrays:
            self.arrays[address] = array.name
            self.stored += array.id.get_storage_size()
        if self.arrays[address] != array.name:
            raise DataError(f"{where}: its arrays are those of another entry, too; give each its own")
        if self.stored > self.path.stat().st_size:
            raise DataError(f"{self.where}: is damaged: its arrays have more bytes than the file; download it again")


@contextmanager
def _guarded(where: str) -> Iterator[None]:
    """Turns the errors of HDF5 into one line."""
    try:
        yield
    except _BROKEN as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{where}: is no readable HDF5 file ({cut(error)}); download it again") from None


@dataclass(frozen=True)
class _Frames:
    """Frames of one sequence in one video."""

    intervals: np.ndarray
    """Start and end in seconds, [F, 2], sorted by start."""
    features: np.ndarray
    """[F, D] numbers, or [F, 1] words."""

    def within(self, start: float, end: float) -> np.ndarray:
        """Indices of the frames that overlap an interval; one without duration counts where it begins."""
        first = np.searchsorted(self.latest, start, "left")
        last = max(np.searchsorted(self.intervals[:, 0], end, "left"), first)
        starts, ends = self.intervals[first:last, 0], self.intervals[first:last, 1]
        return first + np.flatnonzero((ends > start) | ((ends == starts) & (starts >= start)))

    @cached_property
    def latest(self) -> np.ndarray:
        """The latest end up to each frame, which never falls [F]."""
        return np.maximum.accumulate(self.intervals[:, 1])


class _Parts:
    """The sequences of a folder, by what they are."""

    def __init__(self, target: _Sequence, others: Sequence[_Sequence], where: str, settings: TargetConfig) -> None:
        self.target, self.where = target, where
        texts = [s for s in others if s.is_text]
        self.words = next((s for s in texts if re.search("word", s.name, re.IGNORECASE)), None)
        for unused in (s for s in texts if s is not self.words):
            note(f"{unused.where}: {cut(unused.name)} is text other than words; it is not used")
        self.modalities: dict[str, _Sequence] = {}
        for sequence in (s for s in others if not s.is_text):
            name = _modality(sequence.name)
            name = name if name not in self.modalities else _own_name(sequence.name)
            if name in self.modalities:
                raise DataError(f"{sequence.where}: two files are called {cut(sequence.name)}; remove one")
            self.modalities[name] = sequence
        if not self.modalities:
            raise DataError(f"{where}: has no .csd file of features beside the labels; add one per modality")
        if target.is_text:
            raise DataError(f"{target.where}: the labels are text; expected numbers")
        self.column = self._column(settings)
        self.segments: dict[str, list[tuple[str, float, float, float]]] = {}
        for video in target.entries:
            self.segments[video] = self._segments(video)
        if not any(self.segments.values()):
            raise DataError(f"{target.where}: has no segment of a positive duration; nothing is imported")

    def _column(self, settings: TargetConfig) -> int:
        names = self.target.dimensions
        if settings.chosen_field in names[: self.target.dim]:
            return names.index(settings.chosen_field)
        if settings.field != AUTO:
            names = names[: self.target.dim]
            what = f"has no dimension {shown(settings.field)} of labels, which target.field names"
            raise NoSuchField(f"{self.target.where}: {what} (its dimensions: {listed(names)})")
        if settings.column is not None:
            if settings.column >= self.target.dim:
                raise DataError(
                    f"{self.target.where}: has {self.target.dim} labels per segment, no column {settings.column} "
                    "(target.column counts from 0)"
                )
            return settings.column
        if self.target.dim > 1:
            known = f" ({listed(names)})" if names else ""
            said = f"has {self.target.dim} labels per segment{known}; the first is the target"
            note(f"{self.target.where}: {said} (target.column: 0)")
        return 0

    def _segments(self, video: str) -> list[tuple[str, float, float, float]]:
        """Id, start, end and label of each segment."""
        frames = self.target.video(video)
        if frames is None:
            return []
        if len(frames.features) > _MOST_SEGMENTS:
            what = f"{shown(video)} has {len(frames.features):,} segments"
            raise DataError(f"{self.target.where}: {what}; at most {_MOST_SEGMENTS:,} are read")
        entries_ = self.target.entries[video]
        aligned = [entry[:-1].rpartition("[")[2] for entry in entries_ if entry.endswith("]")]
        numbers = (
            sorted(map(int, aligned))
            if all(k.isdecimal() and len(k) < _LONGEST_NUMBER for k in aligned) and len(aligned) == len(frames.features)
            else None
        )
        found = []
        for k, ((start, end), values) in enumerate(zip(frames.intervals.tolist(), frames.features, strict=True)):
            if end - start >= _SHORTEST:
                found.append((f"{video}$_${numbers[k] if numbers else k}", start, end, float(values[self.column])))
        return found

    def rows(self, splits: Splits | None) -> Iterator[Row]:
        """Yields the utterances, those of a split together."""
        of = {
            video: [splits.of(segment[0], self.target.where) if splits else UNSPLIT for segment in segments]
            for video, segments in self.segments.items()
        }
        for split in dict.fromkeys(name for names in of.values() for name in names):
            for video, names in of.items():
                chosen = [s for s, name in zip(self.segments[video], names, strict=True) if name == split]
                for utterance in self._utterances(video, chosen) if chosen else ():
                    yield Row(split, utterance)

    def _utterances(self, video: str, segments: Sequence[tuple[str, float, float, float]]) -> Iterator[Utterance]:
        words = self.words.video(video) if self.words else None
        frames = {modality: _numbers(sequence.video(video), modality) for modality, sequence in self.modalities.items()}
        steps = words if words is not None else frames.get(TEXT)
        for identity, start, end, label in segments:
            spans, said = None, []
            if steps is not None:
                chosen = steps.within(start, end)
                if words is not None:
                    all_words = [_word(value) for value in words.features[chosen, 0]]
                    chosen = chosen[[word != _PAUSE for word in all_words]] if len(chosen) else chosen
                    said = [word for word in all_words if word != _PAUSE]
                spans = steps.intervals[chosen]
            features = {}
            for modality, sequence in self.modalities.items():
                values = self._values(frames[modality], start, end, spans, sequence.dim)
                features[modality] = torch.from_numpy(values if values.any() else values[:0])
            yield Utterance(identity, features, None if np.isnan(label) else label, {}, " ".join(said))

    def _values(
        self, frames: _Frames | None, start: float, end: float, spans: np.ndarray | None, dim: int
    ) -> np.ndarray:
        """Features of a segment: its frames [F, D], or their means over each word [L, D], 0 where a word has none."""
        if frames is None:
            return np.zeros((0, dim), np.float32)
        if spans is None:
            return frames.features[frames.within(start, end)]
        found = np.zeros((len(spans), dim), np.float32)
        for step, span in enumerate(spans):
            chosen = frames.within(*span)
            if len(chosen):
                found[step] = frames.features[chosen].mean(axis=0, dtype=np.float64)
        return found


def _numbers(frames: _Frames | None, modality: str) -> _Frames | None:
    """The frames with features as float32."""
    if frames is None:
        return None
    with np.errstate(over="ignore"):
        features = frames.features.astype(np.float32)
    if modality in INFINITE_IS_ZERO:
        features[np.isinf(features)] = 0
    return _Frames(frames.intervals, features)


def _modality(name: str) -> str:
    return next((m for m, pattern in NAMES.items() if re.search(pattern, name, re.IGNORECASE)), _own_name(name))


def _own_name(name: str) -> str:
    """A sequence's name as that of a modality: letters, digits and underscores."""
    own = re.sub(r"\W+", "_", name.lower(), flags=re.ASCII).strip("_")[:60]
    return own if own[:1].isalpha() else f"csd_{own}"


def _word(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


# --- HDF5 of strangers -----------------------------------------------------------------------------------------------


def _child(group: Any, name: str, where: str) -> Any:
    """A member of a group that lies in the same file: no soft or external link is followed."""
    import h5py

    link = group.get(name, getlink=True)
    if link is None:
        raise DataError(f"{where}: has no '{cut(name)}' (it has: {listed(group)}); it is no computational sequence")
    if not isinstance(link, h5py.HardLink):
        raise DataError(f"{where}: '{cut(name)}' is a link; replace it by what it leads to")
    return group[name]


def _group(group: Any, name: str, where: str) -> h5py.Group:
    import h5py

    found = _child(group, name, where)
    if not isinstance(found, h5py.Group):
        raise DataError(f"{where}: '{cut(name)}' is no group; it is no computational sequence")
    return found


def _dataset(group: Any, name: str, where: str) -> h5py.Dataset:
    import h5py

    found = _child(group, name, where)
    if not isinstance(found, h5py.Dataset):
        raise DataError(f"{where}: '{cut(name)}' is no array; it is no computational sequence")
    return found


def _read(data: h5py.Dataset, where: str, words: bool = False) -> np.ndarray:
    """Reads an array after checking where its values are, its type and its size."""
    import h5py

    plan = data.id.get_create_plist()
    if data.is_virtual or plan.get_external_count():
        raise DataError(f"{where} lies in another file; copy its values into this one")
    filters = {plan.get_filter(i)[0] for i in range(plan.get_nfilters())}
    if filters - _FILTERS:
        raise DataError(f"{where} is compressed by a filter that is not HDF5's own; save it with gzip")
    shape, kind = data.shape, data.dtype.kind
    text = words and (kind == "S" or h5py.check_string_dtype(data.dtype) is not None)
    if shape is None or not 1 <= len(shape) <= 3 or (kind not in "biuf" and not text) or data.dtype.itemsize > 1024:
        raise DataError(f"{where} is of type {cut(data.dtype)}; expected an array of numbers")
    size = data.dtype.itemsize * int(np.prod([int(n) for n in shape], dtype=object))
    chunk = data.dtype.itemsize * int(np.prod([int(n) for n in data.chunks or ()], dtype=object))
    stored = data.id.get_storage_size()
    if max(size, chunk) > LARGEST or shape[-1] > MOST_FEATURES or size > max(ROOM, DENSEST * stored):
        raise DataError(
            f"{where} has shape {cut(list(shape))} and {stored:,} bytes on disk; that is no array of features"
        )
    if kind != "O":
        return data[()]
    if (count := int(np.prod([int(n) for n in shape], dtype=object))) > _MOST_WORDS:
        raise DataError(f"{where} holds {count:,} texts; at most {_MOST_WORDS:,} words of one video are read")
    found, total = np.empty(shape, dtype=object), 0
    for index in np.ndindex(*shape):  # one by one: many may share one long text
        found[index] = data[index]
        total += len(found[index])
        if total > _MOST_TEXT:
            raise DataError(f"{where} holds over {_MOST_TEXT >> 20} MiB of text; that is no sequence of words")
    return found


def _dimensions(root: Any, where: str) -> list[str]:
    """Names of the dimensions, from the metadata, if they are there."""
    try:
        data = _dataset(_group(root, "metadata", where), "dimension names", where)
        text = _read(data, where, words=True).ravel()[0]
        names = json.loads(_word(text)[:_MOST_METADATA])
    except _BROKEN:
        return []
    return [str(name) for name in names] if isinstance(names, list) else []
