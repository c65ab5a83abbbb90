"""Prosody against a plain loop, SciPy, tones of known pitch, and the smallest changes of the sound."""

# N samples, L steps
from __future__ import annotations

import ast
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.clips import Clip
from helpers.talking_head import needs_flite, speak
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import fft, signal

from gmsa.media import Missing
from gmsa.media.extractors import prosody as prosody_module
from gmsa.media.extractors.prosody import Prosody, dct, mel_bands, prosody

COLUMNS = Prosody.columns
PITCH = [COLUMNS.index(name) for name in ("pitch", "strength", "voiced", "pitch_delta")]


def column(sound: np.ndarray, name: str) -> np.ndarray:
    return prosody(sound)[:, COLUMNS.index(name)]


def tone(hertz: float, seconds: float = 1.0, harmonics: int = 40, seed: int = 0) -> np.ndarray:
    """A tone of rms 0.1, whose harmonics up to 4 kHz have random phases."""
    draw, time = np.random.default_rng(seed), np.arange(round(16_000 * seconds)) / 16_000
    numbers = range(1, min(harmonics, int(4000 / hertz)) + 1)
    wave = sum(np.cos(2 * np.pi * hertz * k * time + draw.uniform(0, 2 * np.pi)) / k for k in numbers)
    return 0.1 * wave / np.std(wave)


def voice(seconds: float = 2.0) -> np.ndarray:
    """Something like speech: a gliding voice, hisses, pauses, and digital silence."""
    draw, time = np.random.default_rng(1), np.arange(round(16_000 * seconds)) / 16_000
    phase = np.cumsum(130 + 40 * np.sin(2 * np.pi * 1.3 * time)) / 16_000 * 2 * np.pi
    buzz = sum(np.sin(k * phase) / k for k in range(1, 20)) * np.clip(np.sin(2 * np.pi * 2.1 * time), 0, None)
    hiss = draw.normal(size=len(time)) * np.clip(-np.sin(2 * np.pi * 2.1 * time) - 0.3, 0, None)
    sound = 0.1 * buzz + 0.03 * hiss + 0.0005 * draw.normal(size=len(time))
    sound[len(sound) // 2 : len(sound) // 2 + 4000] = 0
    return sound.astype(np.float32)


def by_loop(sound: np.ndarray) -> np.ndarray:
    """All features, a step at a time, from the formulas."""
    steps = math.ceil(len(sound) / 160)
    padded = np.concatenate([np.zeros(320), sound.astype(np.float64), np.zeros(1000)])
    rows, semitones, before = [], [], None
    window = signal.get_window("hann", 400 * 2)[1::2]  # sampled in the middle of each sample
    wide = signal.get_window("hann", 800 * 2)[1::2]
    for i in range(steps):
        middle = 320 + 160 * i + 80
        frame = padded[middle - 200 : middle + 200]
        sign = [min(1.0, max(-1.0, x / math.sqrt(3e-7))) for x in frame]
        crossings = sum(max(0.0, -a * b) for a, b in zip(sign[1:], sign[:-1], strict=True)) / 399
        power = np.abs(fft.rfft(frame * window, 512)) ** 2 / 256 / (window**2).sum() + 3e-7 / 256
        share, khz = power / power.sum(), np.arange(257) * 16 / 512
        center = (share * khz).sum()
        total, rolloff = 0.0, 0.0
        for bin_, part in enumerate(share):
            if total + part >= 0.85:
                rolloff = max(0.0, bin_ - 1 + (0.85 - total) / part) * 16 / 512
                break
            total += part
        flux = 0.0 if before is None else np.linalg.norm(share - before)
        before = share
        mfcc = fft.dct(np.log(mel_bands() @ power), norm="ortho")[:13]
        pitch, strength = pitch_by_loop(
            padded[middle - 400 : middle + 400]
            if middle >= 400
            else np.concatenate([np.zeros(400 - middle), padded[: middle + 400]]),
            wide,
        )
        voiced = min(1.0, max(0.0, (strength - 0.4) / 0.2))
        semitones.append(pitch)
        rows.append([
            math.log((frame**2).mean() + 3e-7), pitch * voiced, strength, voiced, crossings,
            center, math.sqrt((share * (khz - center) ** 2).sum()), rolloff,
            math.exp(np.log(power).mean()) / power.mean(), flux, *mfcc,
        ])  # fmt: skip
    for i, row in enumerate(rows):
        a, b = max(i - 1, 0), min(i + 1, steps - 1)
        row.append((rows[b][0] - rows[a][0]) / max(b - a, 1))
        inside = 0 < i < steps - 1
        row.append((semitones[b] - semitones[a]) / 2 * rows[a][3] * rows[b][3] if inside else 0.0)
    return np.array(rows)


def pitch_by_loop(frame: np.ndarray, window: np.ndarray) -> tuple[float, float]:
    frame = (frame - frame.mean()) * window
    own = [float(np.dot(window[: 800 - lag], window[lag:])) for lag in range(278)]
    r = [float(np.dot(frame[: 800 - lag], frame[lag:])) for lag in range(278)]
    r = [value / (r[0] + 3e-7 * own[0]) * own[0] / own[lag] for lag, value in enumerate(r)]
    best, found = 0.0, 39
    for lag in range(39, 277):
        score = r[lag] - 0.05 * math.log2(lag / 39)
        if r[lag - 1] <= r[lag] >= r[lag + 1] and score > best:
            best, found = score, lag
    a, b, c = r[found - 1 : found + 2]
    bend = max(2 * b - a - c, 1e-12)
    shift = min(0.5, max(-0.5, (c - a) / 2 / bend))
    return 12 * math.log2(16_000 / (found + shift) / 55), min(best, 1.0)


@pytest.mark.parametrize(
    "sound", [voice(0.5), voice(2.0)[14_000:19_001], tone(200, 0.0301)], ids=["voice", "gap", "short"]
)
def test_all_features_equal_a_plain_loop(sound: np.ndarray) -> None:
    found, expected = prosody(sound), by_loop(sound)
    assert found.dtype == np.float32
    voiced = expected[:, 3] > 0  # where nothing is voiced, its semitones are noise times 0
    np.testing.assert_allclose(found[:, :-1], expected[:, :-1], rtol=2e-6, atol=2e-6)
    np.testing.assert_allclose(found[voiced, -1], expected[voiced, -1], rtol=1e-4, atol=1e-5)


def test_the_dct_is_scipys_and_the_mel_scale_htks() -> None:
    values = np.random.default_rng(0).normal(size=26)
    np.testing.assert_allclose(dct(26, 13) @ values, fft.dct(values, norm="ortho")[:13], atol=1e-12)
    bands = mel_bands()
    hertz = np.arange(257) * 31.25
    mel = 1127.01048 * np.log(1 + hertz / 700)  # the same formula with the natural logarithm
    peaks = np.interp(np.arange(1, 27), [0, 27], 1127.01048 * np.log(1 + np.array([20, 8000]) / 700))
    for band, peak in zip(bands, peaks, strict=True):
        assert abs(mel[band.argmax()] - peak) < mel[band.argmax() + 1] - mel[band.argmax()]
    inside = (mel >= peaks[0]) & (mel <= peaks[-1])
    np.testing.assert_allclose(bands[:, inside].sum(0), 1, atol=1e-12)  # neighboring triangles add up to 1


@pytest.mark.parametrize("hertz", [60, 61, 75, 100, 133, 200, 250, 300, 350, 399, 400])
@pytest.mark.parametrize(("harmonics", "noise"), [(1, 0), (40, 0), (40, 0.01), (40, 0.03)])
def test_pitch_of_tones_is_within_a_hundredth(hertz: float, harmonics: int, noise: float) -> None:
    """Up to 10 dB of noise. Steps at the ends hear less than 50 ms of the tone."""
    sound = tone(hertz, harmonics=harmonics) + noise * np.random.default_rng(0).normal(size=16_000)
    found = prosody(sound)[5:-5]
    assert (found[:, COLUMNS.index("voiced")] == 1).all()
    np.testing.assert_allclose(55 * 2 ** (found[:, COLUMNS.index("pitch")] / 12), hertz, rtol=0.01)


def test_a_missing_fundamental_is_heard() -> None:
    time = np.arange(16_000) / 16_000
    sound = 0.05 * sum(np.cos(2 * np.pi * 150 * k * time) for k in (3, 4, 5, 6))
    np.testing.assert_allclose(55 * 2 ** (column(sound, "pitch")[5:-5] / 12), 150, rtol=0.01)


def test_noise_and_hum_are_not_voiced() -> None:
    noise = 0.1 * np.random.default_rng(0).normal(size=48_000)
    assert column(noise, "voiced").max() == 0
    assert column(noise, "pitch").max() == 0
    for hertz in (20, 30, 50):  # below 60 Hz
        assert column(tone(hertz, harmonics=1), "voiced")[5:-5].max() == 0
    faint = 1e-4 * tone(120) / 0.1  # a tone 15 dB below the floor
    assert column(faint, "voiced").max() == 0


def test_a_glide_has_its_slope() -> None:
    time = np.arange(32_000) / 16_000
    hertz = 100 * 2 ** (time / 2)  # 6 semitones a second, 0.06 a step
    sound = 0.1 * np.sin(2 * np.pi * np.cumsum(hertz) / 16_000)
    np.testing.assert_allclose(column(sound, "pitch_delta")[5:-5], 0.06, atol=0.01)


def test_spectrum_of_a_sine_and_of_white_noise() -> None:
    sine = prosody(tone(2000, harmonics=1))[5:-5]
    noise = prosody(0.1 * np.random.default_rng(0).normal(size=64_000)).mean(0)
    expected = {"energy": math.log(0.01), "crossings": 0.25, "centroid": 2, "rolloff": 2}
    for name, value in expected.items():
        np.testing.assert_allclose(sine[:, COLUMNS.index(name)], value, rtol=0.02)
    assert sine[:, COLUMNS.index("flatness")].max() < 0.01
    expected = {"energy": math.log(0.01), "crossings": 0.5, "centroid": 4, "spread": 8 / math.sqrt(12), "rolloff": 6.8}
    for name, value in expected.items():
        assert noise[COLUMNS.index(name)] == pytest.approx(value, rel=0.03)
    # Geometric over arithmetic mean of exponential power: exp(-Euler's constant).
    assert noise[COLUMNS.index("flatness")] == pytest.approx(math.exp(-np.euler_gamma), rel=0.03)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("change", ["noise", "sine", "louder"])
def test_a_tiny_change_of_the_sound_changes_little(seed: int, change: str) -> None:
    """By 1e-7: no feature by more than 1e-3. Pitch alone decides, and next to a tie it would jump; here is none."""
    sound = voice().astype(np.float64)
    changes = {
        "noise": np.random.default_rng(seed).uniform(-1e-7, 1e-7, len(sound)),
        "sine": 1e-7 * np.sin(np.arange(len(sound)) * (0.1 + seed)),
        "louder": 1e-7 * sound,
    }
    difference = np.abs(prosody(sound + changes[change]) - prosody(sound)).max(0)
    assert difference.max() < 1e-3, dict(zip(COLUMNS, difference, strict=True))


@needs_flite
@pytest.mark.parametrize("noise", [0, 1e-4, 1e-2])
def test_a_tiny_change_of_speech_changes_little(noise: float) -> None:
    """Next to silent speech, at the floor, is the hardest."""
    speech = speak("this was a terrible film and I hated every minute of it", "rms")
    sound = signal.resample_poly(speech.sound / 32_768, 16_000, speech.rate)
    sound += noise * np.random.default_rng(0).normal(size=len(sound))
    changed = sound + np.random.default_rng(1).uniform(-1e-7, 1e-7, len(sound))
    difference = np.abs(prosody(changed) - prosody(sound)).max(0)
    assert difference.max() < 1e-3, dict(zip(COLUMNS, difference, strict=True))


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.floats(-6, 0))
def test_a_tiny_change_of_noise_of_any_strength_changes_little(seed: int, power: float) -> None:
    """From 1e-6 to 1 of full scale; noise has no pitch, and its autocorrelation many peaks that are nearly equal."""
    draw = np.random.default_rng(seed)
    sound = 10**power * draw.normal(size=3200)
    difference = np.abs(prosody(sound + draw.uniform(-1e-7, 1e-7, 3200)) - prosody(sound))
    others = [i for i in range(len(COLUMNS)) if i not in PITCH]
    assert difference[:, others].max() < 1e-3


def test_where_pitch_decides_it_may_jump() -> None:
    """The limit of the promise above: two tones an octave apart, mixed so that both pitches are equally good."""
    low, high = tone(110, harmonics=1), tone(220, harmonics=1)

    def semitones(mix: float) -> float:
        return float(column((1 - mix) * low + mix * high, "pitch")[50])

    few, many = 0.0, 1.0
    for _ in range(60):
        middle = (few + many) / 2
        few, many = (middle, many) if semitones(middle) < 18 else (few, middle)
    assert many - few < 1e-9
    assert semitones(many) - semitones(few) > 11


@pytest.mark.parametrize("block", [1, 7, 64, 199, 200, 201])
def test_blocks_do_not_show(block: int) -> None:
    sound = voice(2.003)
    np.testing.assert_array_equal(prosody(sound, block), prosody(sound))


def test_a_step_depends_on_nothing_but_the_sound_around_it() -> None:
    """A loud bang at the end changes no step that is further than 25 ms (and one step for the deltas) from it."""
    sound = voice()
    other = sound.copy()
    other[-800:] = 1
    np.testing.assert_array_equal(prosody(sound)[:-9], prosody(other)[:-9])


def test_the_number_of_blas_threads_changes_no_bit() -> None:
    code = (
        "import sys, hashlib, numpy as np; from gmsa.media.extractors.prosody import prosody;"
        "x = np.random.default_rng(0).normal(size=64_000) * 0.1;"
        "print(hashlib.sha256(prosody(x).tobytes()).hexdigest());"
        "sys.exit('torch' in sys.modules)"
    )
    names = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
    digests = {
        subprocess.run(
            [sys.executable, "-c", code], env=os.environ | dict.fromkeys(names, count), check=True, capture_output=True
        ).stdout
        for count in ("1", "2")
    }
    assert len(digests) == 1


def test_no_matrix_product_is_left_to_blas() -> None:
    """Whether threads change bits depends on the library and the sizes, so the test above may pass by luck."""
    nodes = [*ast.walk(ast.parse(Path(prosody_module.__file__).read_text(encoding="utf-8")))]
    names = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    assert not names & {"dot", "vdot", "inner", "matmul", "tensordot", "linalg", "correlate", "convolve"}
    assert not any(isinstance(node, ast.MatMult) for node in nodes)
    assert not any(isinstance(node, ast.keyword) and node.arg == "optimize" for node in nodes)


def test_steps_cover_the_clip() -> None:
    steps = Prosody()(Clip(sound=voice(1.005)))
    assert steps.values.shape == (101, len(COLUMNS)) == (101, 25)
    np.testing.assert_allclose(steps.start, np.arange(101) / 100)
    np.testing.assert_allclose(steps.stop, np.arange(1, 102) / 100)
    assert len(prosody(np.ones(1))) == 1
    assert np.isfinite(prosody(np.ones(1))).all()


def test_what_is_missing() -> None:
    extract = Prosody()
    with pytest.raises(Missing, match=r"^no audio track$"):
        extract(Clip(sound=None))
    for sound in (np.zeros(0, np.float32), np.zeros(16_000, np.float32), np.full(16_000, 9e-5, np.float32)):
        with pytest.raises(Missing, match=r"^silent$"):
            extract(Clip(sound=sound))
    broken = np.full(100, 0.5, np.float32)
    broken[[3, 5]] = np.nan, np.inf
    with pytest.raises(Missing, match="2 of 100 samples"):
        extract(Clip(sound=broken))
