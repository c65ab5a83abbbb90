"""Alignment: the words of a given transcript get the times at which they are spoken, and none is lost."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from helpers.model_weights import weights
from helpers.sentences import SAID, said, sentences
from helpers.talking_head import needs_flite
from hypothesis import given
from hypothesis import strategies as st

from gmsa.errors import ConfigError
from gmsa.media.hearing import align as room
from gmsa.media.hearing.align import align, spread, words_of
from gmsa.media.hearing.speech import Whisper, speech_spans
from gmsa.media.hearing.spoken import cardinal, phones, spoken
from gmsa.media.types import RATE, Missing, Word

pytest.importorskip("pocketsphinx", reason="the extra 'media' is not installed")
pytest.importorskip("faster_whisper", reason="the extra 'media' is not installed")


@pytest.fixture(scope="module")
def whisper() -> Whisper:
    return Whisper(weights("whisper-tiny.en"))


def offsets(found: list[Word], truth: list[Word]) -> np.ndarray:
    """Seconds between starts."""
    return np.abs([word.start - true.start for word, true in zip(found, truth, strict=True)])


def in_order(words: list[Word]) -> bool:
    return all(w.start < w.stop for w in words) and all(a.stop <= b.start + 1e-9 for a, b in itertools.pairwise(words))


# --- how it is read --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("Hello,", "hello"),
        ("well-known", "well known"),
        ("don’t", "don't"),
        ("café", "cafe"),
        ("$25", "twenty five dollars"),
        ("3.14", "three point one four"),
        ("1,000,000", "one million"),
        ("50%", "fifty percent"),
        ("1984", "nineteen eighty four"),
        ("1905", "nineteen o five"),
        ("1900", "nineteen hundred"),
        ("2001", "two thousand one"),
        ("007", "zero zero seven"),
        ("21st", "twenty first"),
        ("20th", "twentieth"),
        ("R&B", "r and b"),
        ("10:30", "ten thirty"),
        ("--", ""),
        ("…", ""),
    ],
)
def test_how_words_are_spoken(written: str, said: str) -> None:
    assert " ".join(spoken(written)) == said


@given(st.integers(0, 10**15 - 1))
def test_numbers_in_words_add_up(number: int) -> None:
    values = {w: n for n in range(20) for w in cardinal(n)} | {w: n for n in range(20, 100, 10) for w in cardinal(n)}
    sizes = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
    total = part = 0
    for word in cardinal(number):
        if word == "hundred":
            part *= 100
        elif word in sizes:
            total, part = total + part * sizes[word], 0
        else:
            part += values[word]
    assert total + part == number


@given(st.text(max_size=60))
def test_words_keep_every_character(text: str) -> None:
    for language in ("en", "zh"):
        found = words_of(text, language)
        assert "".join("".join(found).split()) == "".join(text.split())
        assert all(any(c.isalnum() for c in word) for word in found) or len(found) == 1
    assert not any(letter.isspace() for word in spoken(text) for letter in word)


def test_characters_are_words_where_no_spaces_are_written() -> None:
    assert words_of("我很喜欢iPhone 12,真的。", "zh") == ["我", "很", "喜", "欢", "iPhone", "12,", "真", "的。"]


def test_words_of_no_dictionary_have_phones_that_the_model_knows() -> None:
    decoder = room._decoder()
    for word in ("blorx", "grumbolix", "zyxwv", "qi", "o'brianish", "ee"):
        decoder.add_word(f"{word}zz", phones(word), True)
    assert phones("日本") == phones("") == ""


# --- times -----------------------------------------------------------------------------------------------------------


@needs_flite
def test_pocketsphinx_finds_words_within_a_tenth_of_a_second() -> None:
    for text, (sound, truth) in zip(SAID, sentences(6), strict=False):
        found = align(sound, text, "pocketsphinx")
        assert [word.text for word in found] == text.split()
        assert all(word.confidence == 1 for word in found)
        assert in_order(found)
        assert offsets(found, truth).max() < 0.1


@needs_flite
@pytest.mark.slow
def test_whisper_finds_most_words_within_a_quarter_of_a_second(whisper: Whisper) -> None:
    every = []
    for text, (sound, truth) in zip(SAID, sentences(6), strict=False):
        found = align(sound, text, "whisper", whisper=whisper)
        assert [word.text for word in found] == text.split()
        assert in_order(found)
        every += offsets(found, truth).tolist()
    assert np.median(every) < 0.15
    assert np.mean(np.array(every) < 0.25) > 0.9


@needs_flite
@pytest.mark.parametrize("how", ["pocketsphinx", "whisper"])
def test_numbers_signs_and_unknown_words_have_their_time(whisper: Whisper, how: room.How) -> None:
    sound, true = said("It was 2023 and I paid twenty five dollars for a grumbolix, you know.")
    found = align(sound, "It was 2023 -- and I paid $25 for a grumbolix, you know !", how, whisper=whisper)
    assert [w.text for w in found] == [
        "It",
        "was",
        "2023 --",
        *["and", "I", "paid", "$25", "for", "a", "grumbolix,", "you"],
        "know !",
    ]
    starts = {w.text.strip(",.! -"): w.start for w in found}
    for word in true:
        if word.text not in ("five", "dollars"):
            assert starts["$25" if word.text == "twenty" else word.text] == pytest.approx(word.start, abs=0.3)
    assert in_order(found)


@needs_flite
def test_a_word_without_a_pronunciation_lies_between_its_neighbors() -> None:
    sound, true = said("I paid a lot for a grumbolix you know.")
    found = align(sound, "I paid a lot for a 日本 you know.", "pocketsphinx")
    assert [w.confidence for w in found] == [1, 1, 1, 1, 1, 1, 0, 1, 1]
    assert in_order(found)
    assert found[7].start == pytest.approx(true[7].start, abs=0.3)


@needs_flite
@pytest.mark.parametrize("how", ["pocketsphinx", "whisper"])
@pytest.mark.slow
def test_long_transcripts(whisper: Whisper, how: room.How) -> None:
    sounds, truth, text, at = [], [], "", 0.0
    for sentence, (sound, words) in zip(SAID, sentences(9), strict=False):
        sounds.append(sound)
        truth += [w._replace(start=w.start + at, stop=w.stop + at) for w in words]
        text, at = f"{text} {sentence}", at + len(sound) / RATE
    assert at > 31
    found = align(np.concatenate(sounds), text, how, whisper=whisper)
    assert [w.text for w in found] == text.split()
    assert in_order(found)
    limit = {"pocketsphinx": 0.1, "whisper": 0.3}[how]
    assert np.mean(offsets(found, truth) < limit) > 0.95


@needs_flite
def test_no_clip_changes_the_next() -> None:
    first, second = said(SAID[0]), said(SAID[1], "rms")
    room._decoder.cache_clear()
    alone = align(second[0], SAID[1], "pocketsphinx")
    align(first[0] / 9, SAID[0], "pocketsphinx")
    assert align(second[0], SAID[1], "pocketsphinx") == alone


# --- what cannot be aligned ------------------------------------------------------------------------------------------


@needs_flite
@pytest.mark.parametrize("how", ["pocketsphinx", "whisper", "auto"])
def test_a_transcript_of_something_else_is_spread_over_the_speech(whisper: Whisper, how: room.How) -> None:
    sound, truth = said("I really loved this movie.")
    text = " ".join(["completely different words about the weather tomorrow in boston"] * 4)
    found = align(sound, text, how, whisper=whisper)
    assert [w.text for w in found] == text.split()
    assert all(w.confidence == 0 for w in found)
    assert in_order(found)
    assert found[0].start == pytest.approx(truth[0].start, abs=0.1)
    assert found[-1].stop == pytest.approx(truth[-1].stop, abs=0.2)


@needs_flite
@pytest.mark.parametrize("length", [0, 100, 800])
def test_too_little_sound_spoils_no_other_clip(whisper: Whisper, length: int) -> None:
    sound, _ = said("I really loved this movie.")
    before = align(sound, "I really loved this movie.", "pocketsphinx")
    for way in ("pocketsphinx", "whisper"):
        found = align(sound[:length], "hello there", way, whisper=whisper, spans=[(0.0, 0.05)])
        assert [w.text for w in found] == ["hello", "there"]
    assert align(sound, "I really loved this movie.", "pocketsphinx") == before


def test_more_text_than_whisper_reads_is_spread(whisper: Whisper) -> None:
    found = align(np.zeros(4 * RATE, np.float32), "so " * 700, "whisper", whisper=whisper, spans=[(0.0, 4.0)])
    assert len(found) == 700
    assert all(w.confidence == 0 for w in found)


@pytest.mark.parametrize("sound", [None, np.zeros(RATE, np.float32), np.zeros(0, np.float32)])
def test_without_speech_the_reason_is_said(sound: np.ndarray | None) -> None:
    what = "sound" if sound is None else "speech"
    with pytest.raises(Missing, match=f"{what} for the 3 words of the transcript"):
        align(sound, "three little words")
    assert align(sound, " \n") == []


def test_words_are_spread_by_their_letters() -> None:
    assert spread("a bcd ef", 1, 7) == [Word("a", 1, 2, 0), Word("bcd", 2, 5, 0), Word("ef", 5, 7, 0)]
    found = room._spread(["ab", "cd", "ef"], [(0, 1), (5, 6), (7, 8)])
    assert [(w.start, w.stop) for w in found] == [(0, 1), (5, 6), (7, 8)]


@given(
    st.lists(st.text("abc日", min_size=1, max_size=5), min_size=1, max_size=12),
    st.sets(st.integers(0, 11)),
    st.lists(st.integers(1, 400), min_size=12, max_size=12),
    st.floats(0, 1),
)
def test_all_words_stay_and_are_in_order_whichever_are_found(
    texts: list[str], there: set[int], lengths: list[int], start: float
) -> None:
    ends = np.cumsum([50, *lengths]) / 100
    times = {i: (float(ends[i]), float(ends[i + 1])) for i in there if i < len(texts)}
    if not times:
        return
    found = room._filled(texts, times, [(start, 0.5 + float(ends[len(texts)]))])
    assert [w.text for w in found] == texts
    assert in_order(found)


def test_ways_that_are_not_there() -> None:
    sound = np.zeros(RATE, np.float32)
    with pytest.raises(ConfigError, match="must be auto, pocketsphinx or whisper"):
        align(sound, "a", "sphinx")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="is for English, not 'zh'"):
        align(sound, "a", "pocketsphinx", language="zh")
    with pytest.raises(ConfigError, match="needs a Whisper model"):
        align(sound, "a", "whisper")


@needs_flite
def test_other_languages_without_whisper_are_spread() -> None:
    sound, _ = said("I really loved this movie.")
    found = align(sound, "我很喜欢", language="zh", spans=speech_spans(sound))
    assert [(w.text, w.confidence) for w in found] == [(c, 0) for c in "我很喜欢"]
