"""What stands for the features of text in the utterances of a run with a text encoder."""

# L nodes of text, P pieces of a node, H features of a state
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

from torch import Tensor

from gmsa.config import Config, TextConfig
from gmsa.config.presets import TEXT
from gmsa.data.features import LazyFeatures, select
from gmsa.data.mmsa.split import TEXT_BERT
from gmsa.data.notes import note
from gmsa.data.utterance import Utterance
from gmsa.errors import shown
from gmsa.text.folder import EncoderFolder
from gmsa.text.pieces import Pieces
from gmsa.text.states import states_of


class Texts:
    """Gives utterances the features of ``text`` that an encoder reads: numbers of pieces, or states of a frozen one.

    Args:
        folder: the encoder.
        settings: the group ``text`` of a config.
    """

    modality = TEXT

    def __init__(self, folder: EncoderFolder, settings: TextConfig) -> None:
        self.folder, self.settings = folder, settings
        self.pieces = Pieces(folder, settings.nodes, settings.most)

    @property
    def source(self) -> str:
        """Key of what is read in a file: ``raw_text`` or ``text_bert``."""
        return self.settings.source

    @property
    def frozen(self) -> bool:
        """Whether the features are states, ``[L, H]``; else numbers of pieces, ``[L, P]``."""
        return self.settings.tuning == "frozen"

    @property
    def dim(self) -> int:
        """Features of a node: H, or P."""
        return self.folder.width if self.frozen else self.pieces.dim

    def __call__(self, utterances: Sequence[Utterance], modalities: Sequence[str], where: str) -> list[Utterance]:
        """The utterances with what the encoder reads as their text, and with those of ``modalities`` in that order.

        With ``text.source: text_bert``, the whole numbers among their features of text are the word pieces of a file,
        and other features are what this gave them before; utterances without either have their transcript read.

        Args:
            where: name of the file and the split, for errors and for notes.

        Raises:
            DataError: numbers of word pieces are not those of the encoder's tokenizer.
        """
        numbers, cut = [], []
        before: dict[int, Tensor] = {}
        for place, utterance in enumerate(utterances):
            given = utterance.features.get(TEXT) if self.source == TEXT_BERT else None
            if given is None:
                found, lost = self.pieces(utterance.text)
            elif given.is_floating_point():
                if not self.frozen:
                    self.pieces.check(given, f"{where}: {shown(utterance.id)}")
                before[place], found, lost = given, given.new_zeros(0, self.pieces.dim), 0
            else:
                found, lost = self.pieces.inner(given, f"{where}: {shown(utterance.id)}")
            numbers.append(found)
            if lost:
                cut.append(utterance.id)
        if cut:
            others = f" and {len(cut) - 1} others" if cut[1:] else ""
            is_all = self.pieces.most < self.settings.most
            remedy = "the encoder takes no more" if is_all else "raise 'text.most' if the encoder takes more"
            note(
                f"{where}: the transcripts of {shown(cut[0])}{others} have more than {self.pieces.most} word pieces "
                f"and are cut there; {remedy}"
            )
        features = states_of(self.folder, self.pieces, numbers) if self.frozen else numbers
        return [
            replace(u, features=_with(u.features, modalities, before.get(place, own)), times=_without_text(u.times))
            for place, (u, own) in enumerate(zip(utterances, features, strict=True))
        ]

    def without_masked(self, utterance: Utterance) -> Utterance:
        """The utterance, without its transcript where its text is masked."""
        return utterance if utterance.lengths.get(TEXT) else replace(utterance, text="")

    def say(self, utterance: Utterance) -> list[str]:
        """What each step of an utterance's text is, before strides; empty where it has no text.

        That of a whole transcript is the transcript.
        """
        given = utterance.features.get(TEXT)
        if given is None or not len(given):
            return []
        if self.settings.nodes == "transcript" and utterance.text.strip():
            return [" ".join(utterance.text.split())]
        return self.pieces.say(self.pieces(utterance.text)[0] if self.frozen else given)


class _Beside(LazyFeatures):
    """Lazy features with those of text beside them in memory."""

    __slots__ = ("_lengths", "_others", "_text")

    def __init__(self, others: LazyFeatures, modalities: Sequence[str], text: Tensor) -> None:
        known = others.lengths
        self._others, self._text = others, text
        self._lengths = {m: len(text) if m == TEXT else known[m] for m in modalities if m == TEXT or m in known}

    @property
    def lengths(self) -> dict[str, int]:
        return self._lengths

    def __getitem__(self, modality: str) -> Tensor:
        return self._text if modality == TEXT else self._others[modality]


def _with(others: Mapping[str, Tensor], modalities: Sequence[str], text: Tensor) -> Mapping[str, Tensor]:
    if isinstance(others, LazyFeatures):
        return _Beside(others, modalities, text)
    return {m: text if m == TEXT else others[m] for m in modalities if m == TEXT or m in others}


def _without_text(times: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The times of steps but for those of text, whose steps are no word pieces."""
    return select(times, [m for m in times if m != TEXT]) if times else times


def texts_of(config: Config) -> Texts | None:
    """What reads the transcripts of a run; None without ``model.text_encoder``.

    Raises:
        ConfigError: the encoder cannot be used.
    """
    name = config.model.text_encoder
    if name is None:
        return None
    found = _open(name, config.text)
    if found.folder.is_changed:
        _open.cache_clear()
        found = _open(name, config.text)
    return found


def read_dims(dims: Mapping[str, int | None], texts: Texts | None) -> dict[str, int | None]:
    """The dimensions that the features of a file must have: any, where ``texts`` replaces them."""
    return {m: None if texts is not None and m == texts.modality else dim for m, dim in dims.items()}


def describe_dims(dims: Mapping[str, int], texts: Texts | None) -> str:
    """The modalities with their dimensions, for people; those of word pieces, which a model reads, say nothing."""
    pieces = {} if texts is None or texts.frozen else {texts.modality: f"({texts.settings.nodes})"}
    return ", ".join(f"{modality} {pieces.get(modality, dim)}" for modality, dim in dims.items())


@lru_cache(maxsize=4)
def _open(name: str, settings: TextConfig) -> Texts:
    return Texts(EncoderFolder(name, settings.download), settings)
