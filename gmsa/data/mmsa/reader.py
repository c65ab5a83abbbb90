"""Reads MMSA's format: a dict of splits, each a dict of columns with one entry per utterance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gmsa.config import MODALITIES, DataConfig, TargetConfig
from gmsa.config.groups.target import AUTO
from gmsa.data.mmsa.file import Labels, read_file
from gmsa.data.mmsa.keys import EXPECTED, Columns, check_keys, keys_of
from gmsa.data.splits import SPLIT_NAMES, SPLITS
from gmsa.data.targets import Target
from gmsa.data.texts import hint
from gmsa.data.unpickling import load_pickle
from gmsa.data.utterance import Utterance
from gmsa.errors import DataError, short, shown


def read_mmsa(
    path: str | Path,
    modalities: Sequence[str] = MODALITIES,
    target: Target | None = None,
    splits: Sequence[str] | None = SPLITS,
    require_labels: bool = True,
) -> dict[str, list[Utterance]]:
    """Reads a pickle in MMSA's format.

    Args:
        path: the pickle; it is read without executing code.
        modalities: modalities to read (default: text, audio and vision).
        target: what the labels are (default: intensities in [-3, 3]).
        splits: splits to read (default: ``train``, ``valid``, ``test``); None reads all.
        require_labels: whether to read labels and to fail without (default: True).

    Returns:
        The utterances of each split; see :func:`from_mmsa`.

    Raises:
        DataError: the file is missing, unsafe, or invalid for the format.
    """
    return from_mmsa(load_pickle(path), short(path), modalities, target, splits, require_labels)


def from_mmsa(
    content: Any,
    where: str,
    modalities: Sequence[str] = MODALITIES,
    target: Target | None = None,
    splits: Sequence[str] | None = SPLITS,
    require_labels: bool = True,
    words: str | None = None,
) -> dict[str, list[Utterance]]:
    """Converts ``{split: {"id": ..., "text": ..., "regression_labels": ..., ...}}`` to utterances.

    Features are arrays [N, L, D] or [N, D] (sequences of length one), or lists of [L_i, D], of any numeric type; an
    axis of size 1 before D is left out. Every utterance gets each of ``modalities`` that any split has, as float32
    without padding. Its true length is

    - ``<modality>_lengths`` if the file has it. If that would cut features and the first row is zero, the padding is
      in front (as in MulT's files, from which MMSA counted), and zero rows at both ends are cut instead;
    - else, in aligned files (all modalities have the same L), the steps in ``text_bert``'s attention mask, extended to
      the first and the last nonzero step of any modality. All modalities keep the same steps, so that equal
      indices still mean the same word;
    - else ``text_bert``'s attention mask for text; for other modalities, zero rows at both ends are cut. Sequences of
      unequal length have no padding, and nothing is cut.

    A modality is missing (length 0) if its length is 0 or all of its features are zero: MMSA writes a missing modality
    as one zero row. Infinite audio features become 0, as in MMSA. What the file holds and is not used, and what looks
    wrong, is said by notes (:func:`gmsa.data.notes.note`).

    Args:
        content: the unpickled file.
        where: name of the file, for errors.
        modalities: modalities to read (default: text, audio and vision).
        target: what the labels are (default: intensities in [-3, 3]).
        splits: splits to read (default: ``train``, ``valid``, ``test``), by any of their usual names; None reads all,
            under gmsa's names, and a flat dict as ``"all"``.
        require_labels: whether to read labels and to fail without (default: True); if False, labels are ignored.
        words: key of what a text encoder reads, ``raw_text`` or ``text_bert``: then no features of text are read, and
            the numbers of ``text_bert``'s word pieces ``[L, 1]`` are in their place.

    Raises:
        DataError: a split, column, count, length, dimension, id, label or feature is invalid.
    """
    data = DataConfig(modalities=tuple(modalities))
    settings = _settings_of(Target() if target is None else target)
    chosen = content if splits is None else _requested(content, where, splits)
    labels: Labels = "needed" if require_labels else "unread"
    ours = None if splits is None else [SPLIT_NAMES.get(name.lower(), name) for name in splits]
    found = read_file(chosen, where, data, settings, ours, labels, unlabeled=(), words=words).splits
    return found if splits is None else {name: found[SPLIT_NAMES.get(name.lower(), name)] for name in splits}


def _settings_of(target: Target) -> TargetConfig:
    if target.is_classes:
        return TargetConfig(kind="classes", classes=target.classes or AUTO)
    return target.settings(TargetConfig())


def _requested(content: Any, where: str, splits: Sequence[str]) -> dict[str, Columns]:
    check_keys(content, where)
    names = {SPLIT_NAMES.get(name.lower(), name): name for name in reversed(content)}
    found = {}
    for wanted in splits:
        name = wanted if wanted in content else names.get(SPLIT_NAMES.get(wanted.lower(), wanted))
        if name is None:
            raise DataError(
                f"{where}: has no split {shown(wanted)}{hint(wanted, content)} ({keys_of(content)}); {EXPECTED}"
            )
        check_keys(content[name], where, name)
        found[name] = content[name]
    return found


def feature_dims(splits: Mapping[str, list[Utterance]]) -> dict[str, int]:
    """Returns the feature dimension D of each modality in the splits of one file."""
    first = next(utterance for utterances in splits.values() for utterance in utterances)
    return {modality: sequence.shape[1] for modality, sequence in first.features.items()}
