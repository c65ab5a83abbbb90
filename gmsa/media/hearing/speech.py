"""Speech: where it is, its words with their times, and the states of the encoder that heard them."""

# N samples, B samples of a block, M mel bands, L steps, D features of a state
from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from gmsa.errors import ConfigError, cut, short
from gmsa.media.hearing.mel import HOP, log_mel
from gmsa.media.private import forbid_telemetry
from gmsa.media.types import RATE, Steps, Word
from gmsa.system.files import sha256_of
from gmsa.system.packages import load_package
from gmsa.system.reading import exists

Spans = Sequence[tuple[float, float]]
"""Parts of a clip, in seconds, ascending."""
PAUSE = 0.25
"""Seconds of silence that end a span of speech."""
PAD = 0.03
"""Seconds that a span begins before, and ends after, what the detector calls speech."""
BLOCK = 30
"""Seconds that Whisper hears at once."""
VERSION = "1"
"""Of the recognition; raised by each change that changes words or states."""
STATES = 50
"""States of Whisper's encoder per second."""
_STEP = RATE // STATES
_VAD_BLOCK, _VAD_MARGIN = 300 * RATE, 2 * RATE
SHORTEST = 0.02
"""Seconds of a word, at least."""
_NEAR = 0.5
"""Seconds from speech within which a word is moved there: Whisper's times are no better."""
_TOKENS = 430
"""Of a block, at most: the decoder has 448 places, some of them for tokens that are no text."""
_NO_SPEECH, _UNLIKELY, _REPEATED = 0.6, -1.0, 2.4
"""Whisper's own limits: of the probability that nobody speaks, the mean log-likelihood of the text, and how far zlib
shrinks it."""


def _load(name: str) -> Any:
    forbid_telemetry()  # it brings onnxruntime
    return load_package(name, "recognizing speech", "media")


def speech_spans(samples: np.ndarray) -> list[tuple[float, float]]:
    """Returns where someone speaks, in seconds, by Silero's detector of voice activity.

    Long sound is heard in blocks of five minutes with two seconds of context, to limit memory.

    Args:
        samples: float32 ``[N]`` at 16 kHz.

    Raises:
        ConfigError: faster-whisper, which holds the detector, is not installed.
    """
    vad = _load("faster_whisper.vad")
    options = vad.VadOptions(min_silence_duration_ms=round(1000 * PAUSE), speech_pad_ms=round(1000 * PAD))
    found: list[tuple[float, float]] = []
    for begin in range(0, len(samples), _VAD_BLOCK):
        end, first = min(begin + _VAD_BLOCK, len(samples)), max(begin - _VAD_MARGIN, 0)
        for span in vad.get_speech_timestamps(samples[first : end + _VAD_MARGIN], options):
            start, stop = max(first + span["start"], begin), min(first + span["end"], end)
            if start >= stop:
                continue
            if found and start == begin and found[-1][1] == begin / RATE:  # goes on from the block before
                found[-1] = found[-1][0], stop / RATE
            else:
                found.append((start / RATE, stop / RATE))
    return found


def blocks(samples: np.ndarray, spans: Spans) -> list[tuple[int, int]]:
    """Cuts sound into blocks of at most :data:`BLOCK` seconds, each as late as possible, in a pause.

    Where there is no pause in the last third of a block, it is cut at the quietest tenth of a second there. Every
    sample is in one block.

    Returns:
        First sample, and the one after the last, of each; all first ones are multiples of a state's samples.
    """
    ends, starts = [0.0, *(stop for _, stop in spans)], [*(start for start, _ in spans), len(samples) / RATE]
    pauses = [(int(end * RATE), int(start * RATE)) for end, start in zip(ends, starts, strict=True)]
    edges = [0]
    while len(samples) - edges[-1] > BLOCK * RATE:
        most = edges[-1] + BLOCK * RATE
        least = most - BLOCK * RATE // 3
        usable = [(end, start) for end, start in pauses if end <= most and start >= least]
        middles = [min(max((end + start) // 2 // _STEP * _STEP, least), most) for end, start in usable]
        edges.append(max(middles, default=least + _quietest(samples[least:most])))
    return list(pairwise([*edges, len(samples)]))


def _quietest(samples: np.ndarray) -> int:
    """The middle of the quietest tenth of a second, as a multiple of a state's samples."""
    energy = (samples.reshape(-1, _STEP) ** 2).sum(1)
    return int(np.argmin(np.lib.stride_tricks.sliding_window_view(energy, 5).sum(1)) + 2) * _STEP


class Whisper:
    """Whisper by CTranslate2: one pass of its encoder gives the words and the states.

    Decoding is greedy or a beam search, never sampled, so that the same sound gives the same words.

    Args:
        folder: of a converted model: ``model.bin``, ``config.json``, ``tokenizer.json`` and a vocabulary.
        language: what is spoken, such as ``en``.
        beam: width of the search; 1 is greedy.
        compute: type of CTranslate2. int8 is faster, but magnifies rounding until states and words change.

    Raises:
        ConfigError: faster-whisper is not installed, the folder holds no model, or the model lacks the language.
    """

    def __init__(self, folder: str | Path, language: str = "en", beam: int = 1, compute: str = "float32") -> None:
        self.folder, self.language, self.beam, self.compute = Path(folder), language, beam, compute
        whisper = _load("faster_whisper")
        tokenizer = _load("faster_whisper.tokenizer")
        where = f"'transcript.model': '{short(self.folder)}'"
        for name in ("model.bin", "tokenizer.json"):  # without its tokenizer, it would be fetched
            if not exists(self.folder / name, ConfigError):
                raise ConfigError(f"{where} has no {name}; name the folder of a Whisper model that CTranslate2 reads")
        try:
            self._model = whisper.WhisperModel(
                str(self.folder), device="cpu", compute_type=compute, cpu_threads=1, local_files_only=True
            )
        except (RuntimeError, ValueError) as error:
            raise ConfigError(f"{where}: cannot be loaded ({cut(error)}); fetch it again") from None
        if language not in self._model.supported_languages:
            raise ConfigError(
                f"'transcript.language': the Whisper model of '{short(self.folder)}' does not know {language!r}; "
                "name a multilingual model, or one of its languages"
            )
        self._tokenizer = tokenizer.Tokenizer(
            self._model.hf_tokenizer, self._model.model.is_multilingual, task="transcribe", language=language
        )
        transcribe = _load("faster_whisper.transcribe")
        self._merge_punctuations = transcribe.merge_punctuations
        self._suppressed = list(transcribe.get_suppressed_tokens(self._tokenizer, [-1]))

    def fingerprint(self) -> Mapping[str, str]:
        """What the words and states depend on."""
        return {
            "version": VERSION,
            "language": self.language,
            "beam": str(self.beam),
            "compute": self.compute,
            "weights": self.weights,
            **{name: version(name) for name in ("ctranslate2", "faster-whisper", "onnxruntime")},
        }

    @cached_property
    def weights(self) -> str:
        """SHA-256 of the weights."""
        return sha256_of(self.folder / "model.bin", ConfigError)

    def words_and_states(self, samples: np.ndarray, spans: Spans) -> tuple[list[Word], Steps]:
        """Returns the words of the spans of speech, and the encoder's states of the whole sound.

        A block whose text is unlikely, and perhaps no speech, has no words; nor has what is far from speech.

        Args:
            samples: float32 ``[N]`` at 16 kHz.
            spans: where someone speaks; see :func:`speech_spans`.
        """
        words: list[Word] = []
        states = []
        for begin, end in blocks(samples, spans):
            block = samples[begin:end]
            encoded = self._encode(block)
            states.append(np.array(encoded)[0, : -(-len(block) * STATES // RATE)])
            within = ((max(start, begin / RATE), min(stop, end / RATE)) for start, stop in spans)
            spoken = [(start, stop) for start, stop in within if start < stop]
            if spoken:
                tokens = self._decode(encoded)
                found = self._times(encoded, tokens, len(block), begin / RATE)
                words += clipped([w for w in found if _distance(w, spoken) <= _NEAR], spoken)
        values = np.concatenate(states).astype(np.float32, copy=False)
        start = np.arange(len(values)) / STATES
        return words, Steps(values, start, np.minimum(start + 1 / STATES, len(samples) / RATE))

    def align(self, samples: np.ndarray, text: str) -> list[Word]:
        """Returns the words of a text that is spoken in at most :data:`BLOCK` seconds, as Whisper cuts them.

        A text of more tokens than the decoder reads has none: nobody speaks so fast.
        """
        tokens = self._tokenizer.encode(" " + " ".join(text.split()))
        if len(tokens) > _TOKENS:
            return []
        return self._times(self._encode(samples), tokens, len(samples), 0.0)

    def _encode(self, samples: np.ndarray) -> Any:
        """The states of a block, padded with silence to the length that Whisper was trained with."""
        whole = np.zeros(BLOCK * RATE, np.float32)
        whole[: len(samples)] = samples
        return self._model.encode(log_mel(whole, self._model.feature_extractor.mel_filters.shape[0]))

    def _decode(self, encoded: Any) -> list[int]:
        """The tokens of a block; none where nobody seems to speak."""
        prompt = [*self._tokenizer.sot_sequence, self._tokenizer.no_timestamps]
        tokens: list[int] = []
        for penalties in ({}, {"repetition_penalty": 1.2, "no_repeat_ngram_size": 4}):
            result = self._model.model.generate(
                encoded,
                [prompt],
                beam_size=self.beam,
                return_scores=True,
                return_no_speech_prob=True,
                suppress_tokens=self._suppressed,
                max_length=_TOKENS,
                **penalties,
            )[0]
            tokens = result.sequences_ids[0]
            likelihood = result.scores[0] * len(tokens) / (len(tokens) + 1)
            if result.no_speech_prob > _NO_SPEECH and likelihood < _UNLIKELY:
                return []
            text = self._tokenizer.decode(tokens).encode()
            if len(text) <= _REPEATED * len(zlib.compress(text)):
                break
        return [token for token in tokens if token < self._tokenizer.eot]

    def _times(self, encoded: Any, tokens: list[int], length: int, offset: float) -> list[Word]:
        """The words of tokens, with times by the attention of the decoder to the states."""
        if not tokens:
            return []
        found = self._model.find_alignment(self._tokenizer, [tokens], encoded, max(2, length // HOP))[0]
        self._merge_punctuations(found, "\"'“¿([{-", "\"'.。,，!！?？:：”)]}、")
        return [
            Word(text, offset + float(w["start"]), offset + float(w["end"]), min(1.0, float(w["probability"])))
            for w in found
            if (text := w["word"].strip())
        ]


def clipped(words: Sequence[Word], spans: Spans) -> list[Word]:
    """Moves each word into the span of speech that it overlaps most, or else that is nearest.

    Whisper's first word swallows the silence before it, and its last the silence after it. Times stay ascending, and
    words do not overlap.
    """
    found: list[Word] = []
    for word in words:
        low, high = max(spans, key=lambda span: min(span[1], word.stop) - max(span[0], word.start))
        earliest = max(low, found[-1].stop if found else 0.0)
        start = min(max(word.start, earliest), max(earliest, high - SHORTEST))
        found.append(word._replace(start=start, stop=max(start + SHORTEST, min(word.stop, high))))
    return found


def _distance(word: Word, spans: Spans) -> float:
    """Seconds from a word to the nearest speech; 0 where they overlap."""
    return min(max(start - word.stop, word.start - stop, 0.0) for start, stop in spans)
