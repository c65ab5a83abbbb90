"""Whisper's log-mel spectrogram without a matrix product, so that the threads of BLAS change no bit of it."""

# N samples, T frames, M mel bands, F frequencies
from __future__ import annotations

from functools import lru_cache

import numpy as np

from gmsa.media.types import RATE

WINDOW = 400
"""Samples of a frame of the spectrum."""
HOP = 160
"""Samples from one frame to the next."""
_LINEAR, _STEP = 200 / 3, np.log(6.4) / 27
"""Slaney's scale: Hz per mel below 1,000 Hz, and growth per mel above."""


def log_mel(samples: np.ndarray, bands: int = 80) -> np.ndarray:
    r"""Returns the spectrogram of a block of sound as Whisper takes it.

    :math:`\max(\log_{10} m, \max \log_{10} m - 8) / 4 + 1`, with the energies :math:`m \geq 10^{-10}` of mel bands.
    OpenAI's ``log_mel_spectrogram``; faster-whisper's ``FeatureExtractor`` gives the same up to rounding.

    Args:
        samples: float32 ``[N]`` at 16 kHz, with N a multiple of :data:`HOP`, and above half of :data:`WINDOW`.
        bands: M.

    Returns:
        float32 ``[M, N / HOP]``.
    """
    padded = np.pad(samples.astype(np.float32), WINDOW // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[:-1:HOP]  # [T, WINDOW]
    window = np.hanning(WINDOW + 1)[:-1].astype(np.float32)
    spectrum = np.fft.rfft(frames * window, axis=1).astype(np.complex64).T
    power = np.ascontiguousarray(spectrum.real**2 + spectrum.imag**2)  # [F, T]
    mel = np.empty((bands, power.shape[1]), np.float32)
    for band, (first, weights) in enumerate(_filters(bands)):
        mel[band] = (weights[:, None] * power[first : first + len(weights)]).sum(0)
    log = np.log10(np.maximum(mel, np.float32(1e-10)))
    return np.asarray((np.maximum(log, log.max() - 8) + 4) / 4, np.float32)


@lru_cache
def _filters(bands: int) -> list[tuple[int, np.ndarray]]:
    """Slaney's triangular filters of equal area: of each, its first frequency and its weights from there on."""
    frequencies = np.fft.rfftfreq(WINDOW, 1 / RATE)
    mels = np.linspace(0, 15 + np.log(RATE / 2 / 1000) / _STEP, bands + 2)
    corners = np.where(mels < 15, _LINEAR * mels, 1000 * np.exp(_STEP * (mels - 15)))
    found = []
    for low, top, high in zip(corners, corners[1:], corners[2:], strict=False):
        rise, fall = (frequencies - low) / (top - low), (high - frequencies) / (high - top)
        weights = np.maximum(0, np.minimum(rise, fall)) * 2 / (high - low)
        there = np.flatnonzero(weights)
        first, stop = (there[0], there[-1] + 1) if len(there) else (0, 1)
        found.append((int(first), weights[first:stop].astype(np.float32)))
    return found
