"""Whisper's log-mel spectrogram in numpy (Radford et al. 2022, section 2.2; the reference's `log_mel_spectrogram`)."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

SAMPLE_RATE = 16000  # Hz
HOP = 160  # samples, 10 ms
WINDOW = 400  # samples, 25 ms
N_MELS = 80


def _hz_to_mel(hz: np.ndarray) -> np.ndarray:
    """Slaney's mel scale: linear below 1 kHz, logarithmic above."""
    return np.where(hz >= 1000, 15 + np.log(np.maximum(hz, 1e-9) / 1000) * 27 / np.log(6.4), hz * 3 / 200)


def _mel_to_hz(mel: np.ndarray) -> np.ndarray:
    return np.where(mel >= 15, 1000 * np.exp(np.log(6.4) / 27 * (mel - 15)), mel * 200 / 3)


@lru_cache(maxsize=1)
def mel_filters() -> np.ndarray:
    """Triangular area-normalised mel filters, (201, 80): power spectrum -> mel energies."""
    edges = _mel_to_hz(np.linspace(0, _hz_to_mel(np.array(SAMPLE_RATE / 2)), N_MELS + 2))
    bins = np.linspace(0, SAMPLE_RATE / 2, WINDOW // 2 + 1)
    rising = (bins[None] - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - bins[None]) / np.diff(edges)[1:, None]
    return (np.maximum(0, np.minimum(rising, falling)) * (2 / (edges[2:] - edges[:-2]))[:, None]).T.astype(np.float32)


def log_mel(samples: np.ndarray) -> np.ndarray:
    """Log-mel frames (80, n // 160) of mono samples (n,) at 16 kHz, n >= 400, normalised as Whisper expects."""
    padded = np.pad(samples, WINDOW // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[:: HOP][: len(samples) // HOP]
    hann = np.hanning(WINDOW + 1)[:-1].astype(np.float32)
    power = np.abs(np.fft.rfft(frames * hann, axis=1)).astype(np.float32) ** 2
    mel = np.log10(np.maximum(power @ mel_filters(), 1e-10))
    return ((np.maximum(mel, mel.max() - 8) + 4) / 4).T.astype(np.float32)
