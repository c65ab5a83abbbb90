"""What a command answers one by one: the utterances of a file, or those that JSON lines name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import BinaryIO, NamedTuple

import numpy as np
import torch

from gmsa.data import Utterance
from gmsa.data.importers.arrays import ArrayFile, read_array
from gmsa.errors import DataError, GmsaError, listed, nearest, shown
from gmsa.graph import dialogues_of
from gmsa.runs.folder import Run
from gmsa.runs.inputs import INPUT, read_inputs
from gmsa.runs.live.stream import AnswerStream
from gmsa.system.reading import expanded, parse_json
from gmsa.text import texts_of

LONGEST = 1 << 20
"""Bytes of a JSON line, at most."""
FIELDS = ("id", "dialogue", "speaker", "end")
"""Keys of a JSON line beside the modalities of the run."""


class Turn(NamedTuple):
    """An utterance to answer, or why there is none; or the end of a dialogue alone."""

    id: str
    utterance: Utterance | None = None
    split: str = INPUT
    reason: str = ""
    label: float | None = None
    end: str | None = None
    """The dialogue that ends after it."""
    read: bool = False
    """Whether a text encoder's features of its transcript are those of its text."""


def rows_of(stream: AnswerStream, turns: Iterable[Turn], strict: bool = False) -> Iterator[list[str]]:
    """The rows of a CSV, the header first: each turn is answered when it comes.

    The last cell of one that cannot be predicted says why.

    Raises:
        GmsaError: a turn cannot be predicted, and ``strict`` asks to stop there.
    """
    yield stream.refused("", "").table(True)[0]
    for turn in turns:
        try:
            if turn.reason:
                raise DataError(turn.reason)
            answers = None if turn.utterance is None else stream.add(turn.utterance, turn.split, turn.read)
        except GmsaError as error:
            if strict:
                raise
            answers = stream.refused(turn.id, str(error), turn.split, turn.label)
        if answers is not None:
            yield answers.table(True)[1]
        if turn.end is not None:
            stream.end(turn.end)


def turns_of_file(run: Run, file: str) -> list[Turn]:
    """The utterances of a file in its order, but those of a dialogue in the order in which they are said.

    Raises:
        DataError: the file is missing, unsafe, or does not fit the run.
    """
    inputs = read_inputs(file, run.dims, run.config, run.extraction)
    order = list(range(len(inputs.utterances)))
    if run.config.graph.has_dialogues:
        for group in dialogues_of(inputs.utterances):
            for place, i in zip(sorted(group), group, strict=True):
                order[place] = i
    last = {inputs.utterances[i].video: i for i in order}
    turns = [
        Turn(u.id, u, split, label=u.label, end=u.video if last[u.video] == i else None, read=True)
        for i, u, split in ((i, inputs.utterances[i], inputs.splits[i]) for i in order)
    ]
    for one in sorted(inputs.refused, key=lambda one: one.place):
        turns.insert(one.place, Turn(one.id, split=one.split, reason=one.reason, label=one.label))
    return turns


def turns_of_lines(run: Run, lines: BinaryIO) -> Iterator[Turn]:
    """The utterances that JSON lines name, each when its line comes.

    A line has an ``id``, an ``.npy`` file ``[steps, features]`` for each modality that the utterance has (of text its
    transcript, where the run has a text encoder), and maybe ``dialogue`` (by default the id up to ``$_$``) and
    ``speaker``; or ``end``, the dialogue that is over.
    """
    number = 0
    while line := lines.readline(LONGEST + 1):
        number += 1
        if line.strip():
            yield _turn_of(run, line, f"line {number}")
        while len(line) > LONGEST and not line.endswith(b"\n"):  # the rest of one that is too long
            line = lines.readline(LONGEST + 1)


def _turn_of(run: Run, line: bytes, where: str) -> Turn:
    identity = where
    try:
        if len(line) > LONGEST:
            raise DataError(f"{where}: has more than {LONGEST:,} bytes; name the features' files")
        fields = _fields_of(line, run, where)
        if "end" in fields:
            if fields.keys() != {"end"}:
                raise DataError(f"{where}: 'end' stands alone; give the utterance a line of its own")
            return Turn(where, end=fields["end"])
        if not fields.get("id"):
            raise DataError(f'{where}: has no id; add one, as {{"id": "call7$_$1", "text": "clip1.npy"}}')
        identity = fields["id"]
        texts = texts_of(run.config)
        words = fields.pop(texts.modality, "") if texts is not None else ""
        features = {m: _read(fields[m], where) for m in run.dims if m in fields}
        speaker, dialogue = fields.get("speaker", ""), fields.get("dialogue", "")
        utterance = Utterance(identity, features, text=words, speaker=speaker, of_video=dialogue)
        return Turn(identity, utterance)
    except GmsaError as error:
        return Turn(identity, reason=str(error))


def _fields_of(line: bytes, run: Run, where: str) -> dict[str, str]:
    try:
        found = parse_json(line.decode("utf-8"))
    except ValueError as error:
        raise DataError(f"{where}: is not JSON ({error}); write one object per line") from None
    known = (*FIELDS, *run.dims)
    if not isinstance(found, dict):
        raise DataError(f'{where}: is not an object; write one, as {{"id": "call7$_$1", "text": "clip1.npy"}}')
    for key, value in found.items():
        if key not in known:
            raise DataError(f"{where}: has the key {shown(key)}{nearest(key, known)}; it may have {listed(known)}")
        if not isinstance(value, str):
            raise DataError(f"{where}: '{key}' must be a text (got {shown(value)})")
    return found


def _read(name: str, where: str) -> torch.Tensor:
    path = expanded(name, DataError)
    values, _ = read_array(ArrayFile(path, name), where)
    with np.errstate(over="ignore"):  # infinity is refused with the utterance
        return torch.from_numpy(values.astype(np.float32))
