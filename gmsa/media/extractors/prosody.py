"""How something is said: energy, pitch, voicing, and the shape of the spectrum."""

# N samples, L steps, B bins of the spectrum, M mel bands, K lags
from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from gmsa.media.protocol import Media
from gmsa.media.types import RATE, Missing, Steps

HOP = RATE // 100
"""Samples from step to step: 10 ms."""
FLOOR = 3e-7
"""Mean square that is added to any sound, as white noise at −65 dBFS would: without it, what is next to silent would
have features as large as speech has, and made of rounding errors."""
SILENCE = 1e-4
"""Largest amplitude of a clip that counts as silent."""

_WINDOW, _BINS = 400, 512
"""Samples of a frame (25 ms), and of its Fourier transform."""
_PITCH_WINDOW, _PITCH_BINS = 800, 1080
"""Samples of a frame of pitch (50 ms: three periods of the lowest voice), and of its transform, which holds the frame
and the longest lag."""
_LOWEST, _HIGHEST = 58, 410
"""Hertz between which pitch is looked for: from 60 to 400, with room for noise that moves a peak."""
_OCTAVE_COST = 0.05
"""What an octave less costs in periodicity: two periods are as periodic as one."""
_BLOCK = 1000
"""Steps that are computed at once: 10 s."""
_MFCC = 13
_COLUMNS = (
    *("energy", "pitch", "strength", "voiced", "crossings"),
    *("centroid", "spread", "rolloff", "flatness", "flux"),
    *(f"mfcc_{i}" for i in range(_MFCC)),
    *("energy_delta", "pitch_delta"),
)


class Prosody:
    r"""Energy, pitch, voicing, spectrum and MFCC of the sound: 25 features, 100 steps a second.

    Step i covers 10 ms from :math:`i / 100` s; its frames (25 ms, for pitch 50 ms, Hann) have the same middle. With
    :math:`P` the power spectrum and :math:`p = P / \sum P`, frequencies in kHz:

    ============================ =================================================================================
    ``energy``                   log of the mean square
    ``pitch``                    semitones above 55 Hz times ``voiced``
    ``strength``                 height of the autocorrelation's best peak at 58 to 410 Hz (Boersma 1993), less 0.05
                                 an octave below 410 Hz
    ``voiced``                   rises from 0 at a strength of 0.4 to 1 at 0.6
    ``crossings``                share of neighboring samples of different sign
    ``centroid``, ``spread``     mean :math:`c = \sum p f` and standard deviation of the frequency
    ``rolloff``                  frequency below which 85 % of the power are
    ``flatness``                 geometric mean of P over its arithmetic mean
    ``flux``                     Euclidean distance of :math:`p` from that of the step before
    ``mfcc_0`` ... ``mfcc_12``   orthonormal DCT-II of the logs of 26 mel bands from 20 Hz to 8 kHz
    ``energy_delta``             half the difference of the steps around
    ``pitch_delta``              the same in semitones, where both are voiced
    ============================ =================================================================================

    Each step depends on 50 ms of sound alone, so that neither the rest of the clip nor the length of blocks changes
    it; and no sum is left to a BLAS library, whose bits change with its threads. All features but one group are
    continuous in the sound. That group is pitch: where two peaks of the autocorrelation are equally high, the
    smallest change decides between them, and ``pitch`` may jump by an octave; and where a peak arises from a shoulder
    or enters the range at 58 or 410 Hz, ``strength`` and ``voiced`` jump with it.

    Raises:
        Missing: the clip has no audio track, or is silent: no sample is above 0.0001 of full scale.
    """

    name, modality, version, columns = "prosody", "audio", 1, _COLUMNS

    def fingerprint(self) -> Mapping[str, str]:
        """Nothing: it has neither settings nor weights."""
        return {}

    def __call__(self, media: Media) -> Steps:
        """Extracts the steps of the clip's sound."""
        sound = media.samples()
        if sound is None:
            raise Missing("no audio track")
        if not np.isfinite(sound).all():
            raise Missing(f"{np.count_nonzero(~np.isfinite(sound))} of {len(sound)} samples of sound are no numbers")
        if np.abs(sound).max(initial=0) < SILENCE:
            raise Missing("silent")
        values = prosody(sound)
        start = np.arange(len(values)) * HOP / RATE
        return Steps(values, start, start + HOP / RATE)


def prosody(sound: np.ndarray, block: int = _BLOCK) -> np.ndarray:
    """Computes the features of :class:`Prosody`.

    Args:
        sound: float [N], 16 kHz.
        block: steps that are computed at once; changes memory alone.

    Returns:
        float32 [L, 25], one step for each started 10 ms.
    """
    steps = -(-len(sound) // HOP)
    before = (_PITCH_WINDOW - HOP) // 2
    padded = np.zeros(before + steps * HOP + before)
    padded[before : before + len(sound)] = sound
    long = sliding_window_view(padded, _PITCH_WINDOW)[::HOP]  # [L, 800]
    short = long[:, (_PITCH_WINDOW - _WINDOW) // 2 :][:, :_WINDOW]  # [L, 400]
    found = np.empty((steps, len(_COLUMNS)))
    semitones = np.empty(steps)
    for first in range(0, steps, block):
        rows = slice(first, first + block)
        energy = np.log((short[rows] ** 2).mean(1) + FLOOR)
        semitones[rows], strength = _pitch(long[rows])
        voiced = np.clip((strength - 0.4) / 0.2, 0, 1)
        crossings = _crossings(short[rows])
        voice = np.stack([energy, semitones[rows] * voiced, strength, voiced, crossings], 1)
        last = max(first - 1, 0)  # the step before has a share in the flux
        shape, mfcc = _spectrum(short[last : first + block])
        found[rows, :-2] = np.concatenate([voice, shape[first - last :], mfcc[first - last :]], 1)
    found[:, -2] = _delta(found[:, 0])
    found[1:-1, -1] = (semitones[2:] - semitones[:-2]) / 2 * found[2:, 3] * found[:-2, 3]
    found[[0, -1][:steps], -1] = 0
    return found.astype(np.float32)


def _crossings(frames: np.ndarray) -> np.ndarray:
    """Share of neighboring samples of different sign; samples within the noise of ``FLOOR`` count in part. [L]"""
    sign = np.clip(frames / FLOOR**0.5, -1, 1)
    return np.maximum(0, -sign[:, 1:] * sign[:, :-1]).mean(1)


def _delta(values: np.ndarray) -> np.ndarray:
    return np.gradient(values) if len(values) > 1 else np.zeros(len(values))


# --- pitch -----------------------------------------------------------------------------------------------------------


def _hann(width: int) -> np.ndarray:
    return 0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(width) + 0.5) / width)


def _autocorrelation(frames: np.ndarray) -> np.ndarray:
    """Autocorrelation [L, K] of frames at lags from 0 on."""
    spectrum = np.fft.rfft(frames, _PITCH_BINS)
    return np.fft.irfft(spectrum.real**2 + spectrum.imag**2, _PITCH_BINS)[:, : RATE // _LOWEST + 3]


_PITCH_HANN = _hann(_PITCH_WINDOW)
_LAGS = np.arange(RATE // _HIGHEST, RATE // _LOWEST + 2)
"""Lags, in samples, from the highest to the lowest pitch."""
_COST = _OCTAVE_COST * np.log2(_LAGS / _LAGS[0])
_OF_WINDOW = _autocorrelation(_PITCH_HANN[None])


def _pitch(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Semitones above 55 Hz [L], and strength [L] from 0 to 1, of the best peak of the autocorrelation.

    The autocorrelation of a windowed frame is divided by that of the window (Boersma 1993); the lag of the peak is
    that of the parabola through the peak and its neighbors.
    """
    found = _autocorrelation((frames - frames.mean(1, keepdims=True)) * _PITCH_HANN)
    found /= found[:, :1] + FLOOR * _OF_WINDOW[0, 0]
    found *= _OF_WINDOW[0, 0] / _OF_WINDOW
    left, middle, right = (found[:, _LAGS[0] + i : _LAGS[-1] + i + 1] for i in (-1, 0, 1))
    score = np.where((middle >= left) & (middle >= right), middle - _COST, 0)
    best = score.argmax(1)[:, None]
    left, middle, right = (np.take_along_axis(part, best, 1)[:, 0] for part in (left, middle, right))
    bend = np.maximum(2 * middle - left - right, 1e-12)
    lag = _LAGS[best[:, 0]] + np.clip((right - left) / 2 / bend, -0.5, 0.5)
    strength = np.take_along_axis(score, best, 1)[:, 0]
    return 12 * np.log2(RATE / lag / 55), np.clip(strength, 0, 1)


# --- spectrum --------------------------------------------------------------------------------------------------------


def mel_bands(count: int = 26, lowest: float = 20, highest: float = RATE / 2) -> np.ndarray:
    r"""Weights [M, B] of triangular bands, equally wide in mel: :math:`m = 2595 \log_{10}(1 + f / 700)` (HTK)."""
    first, last = (2595 * np.log10(1 + hertz / 700) for hertz in (lowest, highest))
    edges = np.linspace(first, last, count + 2)
    low, peak, high = (700 * (10 ** (edges[i : i + count, None] / 2595) - 1) for i in range(3))
    hertz = np.arange(_BINS // 2 + 1) * RATE / _BINS
    return np.clip(np.minimum((hertz - low) / (peak - low), (high - hertz) / (high - peak)), 0, None)


def dct(size: int, count: int) -> np.ndarray:
    """Rows [count, size] of the orthonormal DCT-II."""
    rows = np.cos(np.pi / size * (np.arange(size) + 0.5) * np.arange(count)[:, None]) * (2 / size) ** 0.5
    rows[0] /= 2**0.5
    return rows


_HANN = _hann(_WINDOW)
_KHZ = np.arange(_BINS // 2 + 1) * RATE / _BINS / 1000
_MEL = mel_bands()
_DCT = dct(len(_MEL), _MFCC)


def _spectrum(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shape of the spectrum (centroid, spread, rolloff, flatness, flux) [L, 5], and MFCC [L, 13]."""
    found = np.fft.rfft(frames * _HANN, _BINS)
    power = (found.real**2 + found.imag**2) * (2 / _BINS / (_HANN**2).sum())  # white noise: its mean square in all
    power += FLOOR * 2 / _BINS
    share = power / power.sum(1, keepdims=True)
    centroid = (share * _KHZ).sum(1)
    spread = np.sqrt((share * (_KHZ - centroid[:, None]) ** 2).sum(1))
    flatness = np.exp(np.log(power).mean(1)) / power.mean(1)
    flux = np.zeros(len(power))
    flux[1:] = np.sqrt(((share[1:] - share[:-1]) ** 2).sum(1))
    bands = np.log(np.einsum("lb,mb->lm", power, _MEL))  # without `optimize`, einsum calls no BLAS
    mfcc = np.einsum("lm,cm->lc", bands, _DCT)
    return np.stack([centroid, spread, _rolloff(share), flatness, flux], 1), mfcc


def _rolloff(share: np.ndarray) -> np.ndarray:
    """Frequency in kHz below which 85 % of the power are, linear within a bin. [L]"""
    below = share.cumsum(1)
    bin_ = (below < 0.85).sum(1)[:, None]
    here, upto = np.take_along_axis(share, bin_, 1), np.take_along_axis(below, bin_, 1)
    return ((bin_ + (0.85 - upto) / here)[:, 0] * _KHZ[1]).clip(0)
