"""The made clips themselves: what they say is true."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.talking_head import make, needs_flite, speak

from gmsa.media.decoding.decode import audio, frames
from gmsa.media.types import RATE

TEXT = "I really love this movie, it is wonderful. The actors can't act."
pytestmark = needs_flite


@pytest.mark.parametrize(("voice", "rate"), [("slt", 1.0), ("rms", 1.4), ("awb", 0.9), ("kal16", 1.0)])
def test_words_are_where_the_sound_is(voice: str, rate: float) -> None:
    speech = speak(TEXT, voice, rate)
    assert [word.text for word in speech.words] == TEXT.replace(",", "").replace(".", "").split()
    ends = [time for word in speech.words for time in (word.start, word.stop)]
    assert ends == sorted(ends)
    assert ends[-1] <= len(speech.sound) / speech.rate
    inside = np.zeros(len(speech.sound), bool)
    for word in speech.words:
        inside[round(word.start * speech.rate) : round(word.stop * speech.rate)] = True
    power = speech.sound.astype(float) ** 2
    assert power[inside].mean() > 20 * power[~inside].mean()


def test_the_clip_has_the_words_where_it_says(tmp_path: Path) -> None:
    early = make(tmp_path / "early.mp4", "this is wonderful", size=64)
    late = make(tmp_path / "late.mp4", "this is wonderful", size=64, audio_delay=0.7)
    assert [b.start - a.start for a, b in zip(early, late, strict=True)] == pytest.approx([0.7] * 3)
    sound = audio(tmp_path / "late.mp4")
    assert sound is not None
    spoken = sound[round(late[0].start * RATE) : round(late[-1].stop * RATE)]
    assert (spoken**2).sum() > 0.97 * (sound**2).sum()


def test_hidden_faces_are_gray(tmp_path: Path) -> None:
    make(tmp_path / "hidden.mp4", size=64, pad=0.5, hide=((0.3, 0.6),))
    gray = [bool(np.ptp(frame) < 20) for _, frame in frames(tmp_path / "hidden.mp4")]
    assert gray == [False] * 3 + [True] * 3 + [False] * 4
