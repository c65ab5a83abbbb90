"""Recognition: where someone speaks, which words, when, and the states of the encoder."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from helpers.model_weights import weights
from helpers.sentences import Clip, said, sentences
from helpers.talking_head import needs_flite

from gmsa.errors import ConfigError
from gmsa.media.extractors.whisper import WhisperStates
from gmsa.media.hearing import speech
from gmsa.media.hearing.mel import log_mel
from gmsa.media.hearing.speech import BLOCK, STATES, Whisper, blocks, clipped, speech_spans
from gmsa.media.types import RATE, Steps, Word

pytest.importorskip("faster_whisper", reason="the extra 'media' is not installed")


@pytest.fixture(scope="module")
def whisper() -> Whisper:
    return Whisper(weights("whisper-tiny.en"))


Heard = tuple[list[Word], list[Word], Steps, list[tuple[float, float]]]
"""The true words of a sentence, the recognized ones, the states, and the spans of speech."""


def hear(whisper: Whisper, sound: np.ndarray, words: list[Word]) -> Heard:
    spans = speech_spans(sound)
    return (words, *whisper.words_and_states(sound, spans), spans)


@pytest.fixture(scope="module", params=[4, pytest.param(12, marks=pytest.mark.slow)])
def heard(whisper: Whisper, request: pytest.FixtureRequest) -> list[Heard]:
    """A sentence of each voice, or all twelve."""
    return [hear(whisper, *one) for one in sentences(request.param)]


@pytest.fixture(scope="module")
def first(whisper: Whisper) -> Heard:
    """The first sentence."""
    return hear(whisper, *sentences(1)[0])


def noise(seconds: float = 4, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(round(seconds * RATE)).astype(np.float32) / 10


def plain(words: list[Word]) -> list[str]:
    return re.sub(r"[^a-z0-9' ]", "", " ".join(word.text.lower() for word in words)).split()


def errors(truth: list[str], found: list[str]) -> int:
    """Word errors: Levenshtein's distance."""
    table = np.add.outer(np.arange(len(truth) + 1), np.arange(len(found) + 1))
    for i, a in enumerate(truth):
        for j, b in enumerate(found):
            table[i + 1, j + 1] = min(table[i, j + 1] + 1, table[i + 1, j] + 1, table[i, j] + (a != b))
    return int(table[-1, -1])


# --- the spectrogram and the blocks ----------------------------------------------------------------------------------


@pytest.mark.parametrize("bands", [80, 128])
def test_spectrogram_equals_faster_whispers(bands: int) -> None:
    from faster_whisper.feature_extractor import FeatureExtractor

    t = np.arange(5 * RATE) / RATE
    tone = (0.3 * np.sin(2 * np.pi * 220 * t * (1 + t / 9))).astype(np.float32)
    for sound in (noise(5), tone, np.zeros(5 * RATE, np.float32)):
        expected = FeatureExtractor(feature_size=bands)(sound, padding=0)
        np.testing.assert_allclose(log_mel(sound, bands), expected, atol=1e-5)


def test_blocks_cover_the_sound_and_end_in_pauses() -> None:
    rng = np.random.default_rng(0)
    for count in (0, 1, 3, 20, 60):
        edges = np.sort(rng.uniform(0, 200, 2 * count)).reshape(-1, 2)
        spans = [(a, b - 0.05) for a, b in edges.tolist() if 0.1 < b - a < 10]
        sound = noise(200)
        found = blocks(sound, spans)
        assert found[0][0] == 0
        assert found[-1][1] == len(sound)
        for (_, stop), (start, _) in itertools.pairwise(found):
            assert start == stop
            assert start % (RATE // STATES) == 0
            assert not any(a < start / RATE < b for a, b in spans)
        assert all(0 < stop - start <= BLOCK * RATE for start, stop in found)


def test_a_block_without_a_pause_ends_where_it_is_quietest() -> None:
    sound = noise(50)
    sound[24 * RATE : 24 * RATE + 1600] *= 0.01
    assert blocks(sound, [(0, 50)])[0][1] == 24 * RATE + 640


def test_an_empty_sound_is_one_empty_block() -> None:
    assert blocks(np.zeros(0, np.float32), []) == [(0, 0)]


def test_words_are_moved_into_speech() -> None:
    words = [Word("a", 0, 0.9), Word("b", 0.9, 1.0), Word("c", 1.0, 3.0), Word("d", 3.4, 3.8), Word("e", 5, 5)]
    found = clipped(words, [(0.5, 1.2), (2.0, 3.5)])
    assert [(w.start, w.stop) for w in found[:4]] == [(0.5, 0.9), (0.9, 1.0), (2.0, 3.0), (3.4, 3.5)]
    assert [w.text for w in found] == list("abcde")
    assert all(a.stop <= b.start < b.stop for a, b in itertools.pairwise(found))


# --- speech ----------------------------------------------------------------------------------------------------------


@needs_flite
def test_speech_is_found_where_it_is_also_over_the_edges_of_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [said(text) for text in ("I really loved this movie.", "The ending was terrible.")]
    sound = np.concatenate([part for part, _ in parts])
    truth = [(words[0].start, words[-1].stop) for _, words in parts]
    truth[1] = truth[1][0] + len(parts[0][0]) / RATE, truth[1][1] + len(parts[0][0]) / RATE
    whole = speech_spans(sound)
    np.testing.assert_allclose(whole, truth, atol=0.15)
    for seconds in (0.8, 1.3, 2.1):
        monkeypatch.setattr(speech, "_VAD_BLOCK", round(seconds * RATE))
        np.testing.assert_allclose(speech_spans(sound), whole, atol=0.07)


@pytest.mark.parametrize(
    "sound",
    [
        noise(),
        np.zeros(0, np.float32),
        *(pytest.param(sound, marks=pytest.mark.slow) for sound in (np.zeros(3 * RATE, np.float32), noise(0.01))),
    ],
)
def test_no_words_without_speech(whisper: Whisper, sound: np.ndarray) -> None:
    spans = speech_spans(sound)
    assert spans == []
    words, states = whisper.words_and_states(sound, spans)
    assert words == []
    assert len(states.values) == -(-len(sound) * STATES // RATE)


# --- words -----------------------------------------------------------------------------------------------------------


@needs_flite
def test_words_are_right(heard: list[Heard]) -> None:
    wrong = sum(errors(plain(truth), plain(words)) for truth, words, _, _ in heard)
    assert wrong <= 0.15 * sum(len(truth) for truth, *_ in heard)


@needs_flite
def test_words_are_where_they_are_spoken(heard: list[Heard]) -> None:
    offsets = []
    for truth, words, _, spans in heard:
        assert all(any(a <= w.start < w.stop <= b for a, b in spans) for w in words)
        assert all(a.stop <= b.start for a, b in itertools.pairwise(words))
        if plain(words) == plain(truth):
            offsets += [abs(w.start - t.start) for w, t in zip(words, truth, strict=True)]
    assert len(offsets) > 5 * len(heard)
    assert np.median(offsets) < 0.15
    assert np.mean(np.array(offsets) < 0.25) > 0.9
    assert all(abs(words[0].start - truth[0].start) < 0.1 for truth, words, *_ in heard)


@pytest.mark.slow
@needs_flite
def test_words_beyond_the_first_block_have_times_of_the_clip(whisper: Whisper) -> None:
    (first, one), (second, two) = said("She said that the music was beautiful."), said("The ending was terrible.")
    gap = np.zeros(33 * RATE, np.float32)
    sound = np.concatenate([first, gap, second])
    later = (len(first) + len(gap)) / RATE
    truth = [*one, *(w._replace(start=w.start + later, stop=w.stop + later) for w in two)]
    words, states = whisper.words_and_states(sound, speech_spans(sound))
    assert plain(words) == plain(truth)
    np.testing.assert_allclose([w.start for w in words], [t.start for t in truth], atol=0.35)
    assert len(states.values) == -(-len(sound) * STATES // RATE)


class Model:
    """CTranslate2's Whisper, which decodes what it is told."""

    def __init__(self, model: Any, *answers: tuple[list[int], float, float]) -> None:
        self.model, self.answers, self.asked = model, list(answers), []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def generate(self, *_: Any, **settings: Any) -> list[SimpleNamespace]:
        self.asked.append(settings)
        tokens, likelihood, silence = self.answers.pop(0)
        return [SimpleNamespace(sequences_ids=[tokens], scores=[likelihood], no_speech_prob=silence)]


@pytest.mark.parametrize(("likelihood", "silence", "kept"), [(-2, 0.9, 0), (-0.5, 0.9, 2), (-2, 0.1, 2)])
def test_unlikely_words_where_perhaps_nobody_speaks_are_dropped(
    whisper: Whisper, monkeypatch: pytest.MonkeyPatch, likelihood: float, silence: float, kept: int
) -> None:
    tokens = whisper._tokenizer.encode(" thank you")
    monkeypatch.setattr(whisper._model, "model", Model(whisper._model.model, (tokens, likelihood, silence)))
    assert len(whisper.words_and_states(noise(2), [(0.0, 2.0)])[0]) == kept


def test_a_text_that_repeats_itself_is_decoded_again(whisper: Whisper, monkeypatch: pytest.MonkeyPatch) -> None:
    loop, good = (whisper._tokenizer.encode(text) for text in (" and so on" * 40, " and so on"))
    model = Model(whisper._model.model, (loop, -0.1, 0.1), (good, -0.1, 0.1))
    monkeypatch.setattr(whisper._model, "model", model)
    words, _ = whisper.words_and_states(noise(2), [(0.0, 2.0)])
    assert [word.text for word in words] == ["and", "so", "on"]
    assert [settings.get("no_repeat_ngram_size") for settings in model.asked] == [None, 4]


def test_the_encoder_passes_once_over_each_block(whisper: Whisper, monkeypatch: pytest.MonkeyPatch) -> None:
    sound, spans = noise(50), [(1.0, 20.0), (26.0, 49.0)]
    encode, passes = whisper._model.encode, []

    def counted(features: np.ndarray) -> Any:
        passes.append(features.shape)
        return encode(features)

    monkeypatch.setattr(whisper._model, "encode", counted)
    whisper.words_and_states(sound, spans)
    assert passes == [(80, 3000)] * len(blocks(sound, spans)) == [(80, 3000)] * 2


@pytest.mark.parametrize("length", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 400))])
def test_sound_of_a_moment(whisper: Whisper, length: int) -> None:
    words, states = whisper.words_and_states(noise(1)[:length], [(0.0, length / RATE)] if length else [])
    assert len(states.values) == -(-length * STATES // RATE)
    assert all(word.start >= 0 for word in words)
    assert [word.text for word in whisper.align(noise(1)[:length], "so it is")] == ["so", "it", "is"]


# --- states ----------------------------------------------------------------------------------------------------------


@needs_flite
def test_states_are_the_encoders_50_a_second(whisper: Whisper, first: Heard) -> None:
    sound, _ = said("I really loved this movie because the acting was great.")
    states = first[2]
    assert states.values.dtype == np.float32
    assert states.values.shape == (-(-len(sound) * STATES // RATE), 384)
    np.testing.assert_allclose(states.start, np.arange(len(states.values)) / STATES)
    assert np.all(states.stop > states.start)
    assert states.stop[-1] == pytest.approx(len(sound) / RATE)
    model = whisper._model
    whole = np.pad(sound, (0, BLOCK * RATE - len(sound)))
    expected = np.array(model.encode(model.feature_extractor(whole, padding=0)))[0, : len(states.values)]
    np.testing.assert_allclose(states.values, expected, atol=1e-3)


@needs_flite
def test_the_same_sound_gives_the_same_bits_and_a_small_change_a_small_one(whisper: Whisper, first: Heard) -> None:
    sound, _ = said("I really loved this movie because the acting was great.")
    _, words, states, spans = first
    again, same = whisper.words_and_states(sound, spans)
    assert again == words
    assert same.values.tobytes() == states.values.tobytes()
    shaken = sound + 1e-7 * np.random.default_rng(0).choice([-1, 1], len(sound)).astype(np.float32)
    near, other = whisper.words_and_states(shaken, spans)
    assert [w.text for w in near] == [w.text for w in words]
    assert np.abs(other.values - states.values).max() < 1e-3


RECOGNIZE = """
import hashlib, sys, numpy as np
from gmsa.media.hearing.speech import Whisper, speech_spans
sound = np.load(sys.argv[2])
words, states = Whisper(sys.argv[1]).words_and_states(sound, speech_spans(sound))
print(words, hashlib.sha256(states.values.tobytes()).hexdigest())
"""


@pytest.mark.slow
@needs_flite
def test_threads_change_no_bit(whisper: Whisper, first: Heard, tmp_path: Path) -> None:
    """Another process with another number of threads than this one; `make test` gives this one a single thread."""
    np.save(tmp_path / "sound.npy", said("I really loved this movie because the acting was great.")[0])
    command = [sys.executable, "-c", RECOGNIZE, str(whisper.folder), str(tmp_path / "sound.npy")]
    threads = "2" if os.environ.get("OMP_NUM_THREADS") == "1" else "1"
    own = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), threads)
    done = subprocess.run(
        command, env=os.environ | own, capture_output=True, text=True, timeout=120, check=True, cwd=Path.cwd()
    )
    digest = hashlib.sha256(first[2].values.tobytes()).hexdigest()
    assert done.stdout.split("\n")[-2] == f"{first[1]} {digest}"


def test_states_are_an_extractors_steps() -> None:
    steps = Steps(np.ones((3, 4), np.float32), np.arange(3) / 50, np.arange(1, 4) / 50)
    extractor = WhisperStates(width=4)
    assert extractor(Clip(states=steps)) is steps
    assert len(extractor.columns) == 4
    with pytest.raises(ConfigError, match=r"have 4 features, not 384; set it to whisper\(width=4\)"):
        WhisperStates()(Clip(states=steps))


# --- the model -------------------------------------------------------------------------------------------------------


def test_no_socket_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a connection was tried")

    folder = weights("whisper-tiny.en")
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    sound = noise(1)
    Whisper(folder).words_and_states(sound, [(0.0, 1.0)])


def test_the_fingerprint_tells_settings_and_weights(whisper: Whisper) -> None:
    found = whisper.fingerprint()
    assert found["weights"] == hashlib.sha256((whisper.folder / "model.bin").read_bytes()).hexdigest()
    assert {"language", "beam", "compute", "ctranslate2", "faster-whisper"} <= {*found}


def test_models_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no model\.bin"):
        Whisper(tmp_path)
    (tmp_path / "model.bin").write_bytes(b"nothing")
    with pytest.raises(ConfigError, match=r"has no tokenizer\.json"):
        Whisper(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ConfigError, match="cannot be loaded") as caught:
        Whisper(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_language_that_the_model_does_not_know() -> None:
    with pytest.raises(ConfigError, match="does not know 'zh'; name a multilingual model"):
        Whisper(weights("whisper-tiny.en"), language="zh")
