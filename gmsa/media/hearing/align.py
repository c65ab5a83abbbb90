"""Alignment: when each word of a given transcript is spoken."""

# N samples
from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from functools import lru_cache
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from gmsa.errors import ConfigError, shown
from gmsa.media.hearing.speech import BLOCK, SHORTEST, Spans, Whisper, clipped, speech_spans
from gmsa.media.hearing.spoken import phones, spoken
from gmsa.media.types import RATE, Missing, Word
from gmsa.system.packages import load_package

How = Literal["auto", "pocketsphinx", "whisper"]
_UNSPACED = {"zh", "ja", "th", "lo", "my", "yue"}
"""Languages that are written without spaces between words: each of their characters counts as a word, as in Whisper."""
_FRAMES = 100
"""Of pocketsphinx, per second."""
_BEAM = 1e-200
"""Likelihood below the best at which a path is given up. The default, 1e-48, loses the end of texts of 30 seconds."""
_Times = dict[int, tuple[float, float]]
"""Start and stop, in seconds, of the words that are found, by their places in the transcript."""


def align(
    samples: np.ndarray | None,
    text: str,
    how: How = "auto",
    language: str = "en",
    whisper: Whisper | None = None,
    spans: Spans | None = None,
) -> list[Word]:
    """Returns the words of a transcript with their times; none is left out.

    pocketsphinx aligns English by its phones. Whisper's aligner takes all languages of its model; its words are moved
    into speech, since the first swallows the silence before it. A word without a pronunciation gets its part of the
    time between its neighbors. Where a transcript cannot be aligned at all, its words are spread over the speech.
    Words with such guessed times have confidence 0, all others 1.

    Args:
        samples: float32 ``[N]`` at 16 kHz; None where the clip has no sound.
        text: the transcript.
        how: ``auto`` is pocketsphinx for English, else ``whisper``; where it fails, the other one.
        language: of the transcript.
        whisper: the model, where there is one.
        spans: where someone speaks; found, if None.

    Raises:
        Missing: there is no sound, or nobody speaks. The text is still there: see :func:`spread`.
        ConfigError: this way of aligning is not for this language, or lacks its package or model.
    """
    ways = _ways(how, language, whisper)
    texts = words_of(text, language)
    if not texts:
        return []
    if samples is None:
        raise Missing(f"sound for the {len(texts)} words of the transcript")
    spans = speech_spans(samples) if spans is None else spans
    if not spans:
        raise Missing(f"speech for the {len(texts)} words of the transcript")
    for way in ways:
        times = (
            _by_pocketsphinx(samples, texts) if way == "pocketsphinx" else _by_whisper(samples, texts, whisper, spans)
        )
        if times:
            return _filled(texts, times, spans)
    return _spread(texts, spans)


def spread(text: str, start: float, stop: float, language: str = "en") -> list[Word]:
    """Returns the words of a transcript, spread over a time by their letters, with confidence 0."""
    return _spread(words_of(text, language), [(start, stop)])


def words_of(text: str, language: str = "en") -> list[str]:
    """Cuts a transcript into words. Punctuation that stands alone goes with the word before it.

    >>> words_of("It was -- well, 10 % OK !")
    ['It', 'was --', 'well,', '10 %', 'OK !']
    """
    pattern = r"[A-Za-z0-9']+|\S" if language in _UNSPACED else r"\S+"
    found: list[str] = []
    for piece in re.finditer(pattern, text):
        if found and not any(c.isalnum() for c in piece.group()):
            gap = " " if text[piece.start() - 1].isspace() else ""
            found[-1] += gap + piece.group()
        else:
            found.append(piece.group())
    if len(found) > 1 and not any(c.isalnum() for c in found[0]):
        found[:2] = [" ".join(found[:2])]
    return found


def _ways(how: str, language: str, whisper: Whisper | None) -> list[str]:
    """Ways to align, the best first."""
    if how not in ("auto", "pocketsphinx", "whisper"):
        raise ConfigError(f"'align.words' must be auto, pocketsphinx or whisper (got {shown(how)})")
    if how == "pocketsphinx" and language != "en":
        raise ConfigError(f"'align.words: pocketsphinx' is for English, not {shown(language)}; set it to auto")
    if how == "whisper" and whisper is None:
        raise ConfigError("'align.words: whisper' needs a Whisper model; name one in 'transcript.model'")
    usable = (["pocketsphinx"] if language == "en" else []) + (["whisper"] if whisper is not None else [])
    return [way for way in usable if how in ("auto", way)]


@lru_cache
def _decoder() -> Any:
    """pocketsphinx with its own English model. ``cmn: batch`` lets no clip change what is heard in the next."""
    package = load_package("pocketsphinx", "aligning a transcript", "media")
    beams = dict.fromkeys(("beam", "wbeam", "pbeam"), _BEAM)
    return package.Decoder(lm=None, samprate=RATE, loglevel="FATAL", cmn="batch", bestpath=False, **beams)


def _by_pocketsphinx(samples: np.ndarray, texts: Sequence[str]) -> _Times:
    decoder = _decoder()
    said: list[tuple[int, str]] = []
    for place, text in enumerate(texts):
        for word in spoken(text):
            if decoder.lookup_word(word) is None:
                if not (sounds := phones(word)):
                    continue
                decoder.add_word(word, sounds, False)
            said.append((place, word))
    if not said:
        return {}
    try:
        decoder.set_align_text(" ".join(word for _, word in said))
        decoder.start_utt()
        decoder.process_raw((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes(), full_utt=True)
        decoder.end_utt()
        found = [s for s in decoder.seg() or () if s.word[0] not in "<[("]  # without silence and noise
    except (RuntimeError, IndexError):  # too little sound; a decoder that has failed stays in the middle of it
        _decoder.cache_clear()
        return {}
    if len(found) != len(said):
        return {}
    times: _Times = {}
    for (place, _), segment in zip(said, found, strict=True):
        start, stop = segment.start_frame / _FRAMES, (segment.end_frame + 1) / _FRAMES
        times[place] = times.get(place, (start, stop))[0], stop
    return times


def _by_whisper(samples: np.ndarray, texts: Sequence[str], whisper: Whisper | None, spans: Spans) -> _Times:
    assert whisper is not None
    if len(samples) > BLOCK * RATE:
        return _by_recognition(texts, whisper.words_and_states(samples, spans)[0])
    pieces = clipped(whisper.align(samples, " ".join(texts)), spans)
    if not pieces or pieces[-1].stop > spans[-1][1] + SHORTEST:  # more text than the speech has room for
        return {}
    ends = np.cumsum([len(_joined(piece.text)) for piece in pieces])
    times: _Times = {}
    at = 0
    for place, text in enumerate(texts):
        first, last = np.searchsorted(ends, [at, (at := at + len(_joined(text))) - 1], "right")
        if last < len(pieces):
            times[place] = pieces[first].start, pieces[last].stop
    return times


def _by_recognition(texts: Sequence[str], heard: Sequence[Word]) -> _Times:
    """The times of the words that Whisper hears, too."""
    given = [re.sub(r"\W", "", text.lower()) for text in texts]
    said = [re.sub(r"\W", "", word.text.lower()) for word in heard]
    matches = SequenceMatcher(None, given, said, autojunk=False).get_matching_blocks()
    pairs = ((a + k, heard[b + k]) for a, b, size in matches for k in range(size))
    return {place: (word.start, word.stop) for place, word in pairs}


def _joined(text: str) -> str:
    return "".join(text.split())


def _filled(texts: Sequence[str], times: _Times, spans: Spans) -> list[Word]:
    """All words: those between two that are found share the time there."""
    lead = min(times)
    begin = max(0.0, min(spans[0][0], times[lead][0] - SHORTEST * lead))
    ends = [(-1, begin), *((i, times[i][1]) for i in sorted(times)), (len(texts), 0.0)]
    starts = {i: start for i, (start, _) in times.items()} | {len(texts): max(spans[-1][1], ends[-2][1])}
    found: list[Word] = []
    for (before, low), (after, _) in pairwise(ends):
        first, high = before + 1, max(low, starts[after])
        if found and high - low < SHORTEST * (after - first):  # no time is left: the word before gives of its own
            first, low = before, found.pop().start
        found += _spread(texts[first:after], [(low, high)])
        if after < len(texts):
            found.append(Word(texts[after], *times[after]))
    return found


def _spread(texts: Sequence[str], spans: Spans) -> list[Word]:
    """Words over the time of speech, each as long as its share of the letters."""
    lengths = np.cumsum([0, *(len(text) for text in texts)])
    durations = np.cumsum([0.0, *(stop - start for start, stop in spans)])
    shares = lengths / max(lengths[-1], 1) * durations[-1]
    found = []
    for text, low, high in zip(texts, shares, shares[1:], strict=False):
        first = min(int(np.searchsorted(durations, low, "right")) - 1, len(spans) - 1)
        last = max(int(np.searchsorted(durations, high, "left")) - 1, 0)
        start, stop = spans[first][0] + low - durations[first], spans[last][0] + high - durations[last]
        found.append(Word(text, float(start), float(stop), 0.0))
    return found
