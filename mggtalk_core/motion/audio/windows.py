"""Cuts audio of any rate, channel count and length into overlapping 16 kHz windows, so that memory does not grow.

Windows of 10 s every 8 s with 1 s of context on each side keep the encoder's attention well fed: against 30 s windows
the mouth curves correlate 0.97-0.99. The last window reaches back so that it is as long as the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, gcd

import numpy as np
from scipy.signal import resample_poly

from ...errors import InputError
from .mel import SAMPLE_RATE

FEATURE_RATE = 50  # Hz
FEATURE_HOP = SAMPLE_RATE // FEATURE_RATE  # samples
WINDOW_S, HOP_S, CONTEXT_S = 10, 8, 1
_SHORTEST_S = 0.5  # shorter windows are padded with silence; Whisper's convolutions and mirrored edges need some frames


@dataclass(frozen=True)
class Window:
    """Part of the audio and which of its 50 Hz frames to keep."""

    samples: np.ndarray  # (n,) float32 mono at 16 kHz
    first: int  # first frame to keep, counted in this window
    count: int  # frames to keep


def check_waveform(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
    """The audio as (C, n) float32, or a clear error.

    Raises:
        InputError: empty audio, wrong shape, a sample rate below 1 kHz, or samples that are not finite.
    """
    waveform = np.atleast_2d(np.asarray(waveform, np.float32))
    if waveform.ndim != 2:
        raise InputError(f"audio must be (samples,) or (channels, samples), got shape {waveform.shape}")
    if waveform.shape[1] == 0:
        raise InputError("the audio is empty (0 samples); give at least one sample")
    if sample_rate < 1000:
        raise InputError(f"sample rate {sample_rate} Hz is too low for speech; give the rate in Hz, e.g. 16000")
    if not np.isfinite(waveform).all():
        raise InputError("the audio contains NaN or infinite samples; re-export the file")
    return waveform


def frame_count(waveform: np.ndarray, sample_rate: int, rate: float = FEATURE_RATE) -> int:
    """ceil(duration * rate) frames for audio (C, n); a duration within 1e-6 frames of a whole number is that number."""
    return max(1, ceil(waveform.shape[1] / sample_rate * rate - 1e-6))


def to_mono_16k(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
    """Mono 16 kHz samples of audio (C, n) at any rate (polyphase filter, anti-aliased)."""
    mono = waveform.mean(0)
    if sample_rate == SAMPLE_RATE:
        return mono
    divisor = gcd(sample_rate, SAMPLE_RATE)
    return resample_poly(mono, SAMPLE_RATE // divisor, sample_rate // divisor).astype(np.float32)


def windows(waveform: np.ndarray, sample_rate: int) -> Iterator[Window]:
    """Overlapping windows whose kept frames together are all 50 Hz frames of audio (C, n), in order."""
    frames = frame_count(waveform, sample_rate)
    for start in range(0, frames, HOP_S * FEATURE_RATE):
        stop = min(start + HOP_S * FEATURE_RATE, frames)
        high = min(stop + CONTEXT_S * FEATURE_RATE, frames)
        low = max(0, min(start - CONTEXT_S * FEATURE_RATE, high - WINDOW_S * FEATURE_RATE))
        part = waveform[:, low * sample_rate // FEATURE_RATE : ceil(high * sample_rate / FEATURE_RATE)]
        samples = to_mono_16k(part, sample_rate)
        length = max((high - low) * FEATURE_HOP, int(_SHORTEST_S * SAMPLE_RATE))
        yield Window(np.pad(samples[:length], (0, max(0, length - len(samples)))), start - low, stop - start)


def window_count(waveform: np.ndarray, sample_rate: int) -> int:
    """How many windows audio (C, n) has."""
    return ceil(frame_count(waveform, sample_rate) / (HOP_S * FEATURE_RATE))


def loudness(samples: np.ndarray) -> np.ndarray:
    """Level of each 50 Hz frame of samples (n,) in dB re full scale, (n // 320,), from 40 ms around the frame."""
    frames = len(samples) // FEATURE_HOP
    padded = np.pad(samples[: frames * FEATURE_HOP], FEATURE_HOP // 2)
    energy = np.square(padded).reshape(-1, FEATURE_HOP // 2).sum(1)
    window = np.convolve(energy, np.ones(4), "valid")[::2][:frames]
    return (10 * np.log10(window / (2 * FEATURE_HOP) + 1e-12)).astype(np.float32)
