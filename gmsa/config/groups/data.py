"""Settings of the data: where it is, its modalities, splits, labels and what of it is withheld."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from gmsa.config.fields import number
from gmsa.config.groups.missing import MissingConfig
from gmsa.config.groups.target import AUTO
from gmsa.config.presets import MODALITIES, TEXT
from gmsa.errors import ConfigError, shown

if sys.version_info >= (3, 11):
    import re._parser as sre_parse  # type: ignore[import-not-found]
else:
    import sre_parse

SYNTHETIC = "synthetic"
"""Value of ``data.path`` for the embedded synthetic corpus."""
SYNTHETIC_DIALOGUES: dict[str, Literal["two_back", "speaker"]] = {
    "synthetic_two_back": "two_back",
    "synthetic_speaker": "speaker",
}
"""Values of ``data.path`` for the synthetic dialogues, and the rule of each."""
LONGEST_MATCHED = 200
"""Characters of an id that ``data.video_from`` and ``data.speaker_from`` are matched with, as regular expressions."""


@dataclass(frozen=True)
class SplitConfig:
    """Splits that are made of a file's utterances, seeded: no video or speaker is in two of them."""

    valid: float = number(0.0, ge=0, lt=1)
    """Share of the utterances that become the validation split where the file has none; 0 makes none."""
    test: float = number(0.0, ge=0, lt=1)
    """Share of the utterances that become the test split where the file has none; 0 makes none."""
    by: Literal["video", "speaker", "utterance"] = "video"
    """What stays together: the utterances of a video, of a speaker, or each for itself."""
    seed: int = 0
    """Seed of the draw, apart from the run's seed, so that all runs are scored on the same utterances."""
    folds: int = number(0, ge=0, le=1000)
    """Parts of cross-validation over the labeled utterances of the file; 0 is none."""
    fold: int = number(0, ge=0, le=999)
    """The part that is the test split, counted from 0; the next one validates. With ``keep_test`` this one does."""
    keep_test: bool = False
    """Whether the file's own test split is the test split of every fold, and in none of the parts: validation scores
    then choose settings without having seen it."""

    def __post_init__(self) -> None:
        if self.valid + self.test >= 1:
            raise ConfigError(
                f"'data.split.valid' and 'data.split.test' leave nothing to train on (got {self.valid:g} and "
                f"{self.test:g}); lower them"
            )
        if self.keep_test and not self.folds:
            raise ConfigError(
                "'data.split.keep_test' is for cross-validation, since a test split that the file has is used anyway; "
                "set 'data.split.folds', or leave it out"
            )
        if 0 < self.folds < 3 - self.keep_test:
            parts = "2: one to validate" if self.keep_test else "3: one to test, one to validate"
            raise ConfigError(f"'data.split.folds' must be 0, or at least {parts}, one to train (got {self.folds})")
        if self.folds and self.fold >= self.folds:
            raise ConfigError(f"'data.split.fold' must be below 'data.split.folds' (got {self.fold} of {self.folds})")


@dataclass(frozen=True)
class DataConfig:
    """Which data to use, how to normalize it, and which labels and modalities to withhold."""

    path: str = SYNTHETIC
    """Data file or feature store, or a made-up corpus: ``synthetic``, or of dialogues ``synthetic_two_back`` and
    ``synthetic_speaker``; ``$GMSA_DATA`` overrides it."""
    if_missing: Literal["error", "synthetic"] = "error"
    """Where ``path`` does not exist: stop with an error, or train on the synthetic corpus."""
    name: str = ""
    """Name of the data set in tables; by default that of the file."""
    modalities: tuple[str, ...] | Literal["auto"] = MODALITIES
    """Modalities to use, 1 to 8 of the file's; those that it lacks are missing. ``auto`` takes all that it has."""
    normalize: tuple[str, ...] | Literal["auto"] = AUTO
    """Modalities to z-normalize with the statistics of the training split's observed frames; ``auto`` is all but
    text."""
    nan: Literal["error", "zero", "drop"] = "error"
    """What to do with NaN or infinite features: stop with an error, set them to 0, or drop their steps; both say how
    many."""
    clip: float = number(5.0, gt=0)
    """Limit of normalized features, in standard deviations."""
    label_ratio: float = number(1.0, gt=0, le=1)
    """Share of the training labels to use; the other utterances join the unlabeled pool."""
    label_unit: Literal["utterance", "dialogue"] = "utterance"
    """What keeps or loses its labels as a whole: each utterance for itself, or all of a dialogue (a video)."""
    label_seed: int | None = None
    """Seed that draws the labeled share; by default the run's seed."""
    missing: MissingConfig = field(default_factory=MissingConfig)
    """Modalities that are masked: ``none``, ``eta:R``, ``sample:R``, ``fixed:ta``, ``frame:R`` or ``frame_uniform`` for
    all splits, or ``{train: ..., valid: ..., test: ...}``, with ``unit: dialogue`` alike in a whole dialogue."""
    pool: str | None = None
    """File of further unlabeled utterances; its labels, if any, are not used."""
    split: SplitConfig = field(default_factory=SplitConfig)
    """Splits to make where the file has none, or folds of cross-validation."""
    video_from: str = AUTO
    """How to tell the video of an utterance: ``auto`` is its id up to ``$_$``; else a key of the file, or a regular
    expression of ids with a group ``video`` and maybe ``clip``, as ``dia(?P<video>\\d+)_utt(?P<clip>\\d+)``."""
    speaker_from: str = AUTO
    """How to tell the speaker of an utterance, a name within its dialogue: ``auto`` is the file's ``speaker``; else
    another key of the file, or a regular expression of ids with a group ``speaker``, as ``_(?P<speaker>[MF])\\d+$``."""

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", Path(self.path).stem)
        for key, example in (("video_from", "(?P<video>[a-z]+[0-9]+)_"), ("speaker_from", "_(?P<speaker>[A-Z])[0-9]+")):
            if _takes_long(pattern := getattr(self, key)):
                raise ConfigError(
                    f"'data.{key}': {shown(pattern)} repeats what repeats or has a choice, or repeats too often, which "
                    f"can take forever on an id; write it as {example}"
                )

    def normalized(self, modalities: Iterable[str]) -> tuple[str, ...]:
        """Those of the modalities that are normalized, in the order of the setting."""
        given = tuple(modalities)
        return tuple(m for m in (given if self.normalize == AUTO else self.normalize) if m in given and self._chosen(m))

    def _chosen(self, modality: str) -> bool:
        return self.normalize != AUTO or modality != TEXT


def _takes_long(pattern: str) -> bool:
    """Whether a regular expression, which may be of a stranger's run, can take forever on an id."""
    try:
        return _ways(sre_parse.parse(pattern)) > _MOST_WAYS
    except (re.error, RecursionError, OverflowError):
        return False  # a key of the file, or refused where it is used


def _ways(parsed: Any) -> float:
    """In how many ways an expression may be tried on an id, about: without end if a repeat holds a choice."""
    ways = 1.0
    for operation, argument in parsed:
        if operation in _REPEATS:
            low, high, inner = argument
            inside, varies = _ways(inner), high > low
            if inside > 1 and high > (1 if varies else _MOST_COPIES):
                return math.inf
            ways *= min(inside, _MOST_WAYS * 2) ** (high if inside > 1 else 1)
            ways *= min(high - low + 1, LONGEST_MATCHED) if varies else 1
        elif operation is sre_parse.BRANCH:
            ways *= sum(map(_ways, argument[1]))
        else:
            for part in _parts(argument):
                ways *= _ways(part)
        if ways > _MOST_WAYS:
            return math.inf
    return ways


def _parts(argument: Any) -> Iterator[Any]:
    """The expressions within an operation of one."""
    if isinstance(argument, sre_parse.SubPattern):
        yield argument
    elif isinstance(argument, (tuple, list)):
        for one in argument:
            yield from _parts(one)


_MOST_WAYS = 1e8
"""Three repeats without end on a long id, and a few choices."""
_MOST_COPIES = 30
_REPEATS = (sre_parse.MAX_REPEAT, sre_parse.MIN_REPEAT)
