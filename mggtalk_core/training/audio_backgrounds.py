"""Sounds that nobody speaks, synthesised: rooms, machines, weather, held chords and music with drums.

The head must rest through all of them, and a speech encoder alone takes some instruments for vowels.
"""

from __future__ import annotations

import numpy as np
from scipy.signal import butter, fftconvolve, sosfilt

from .audio_speech import RATE, coloured_noise, no_speech

_SCALES = ((0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10), (0, 2, 4, 7, 9))


def _note(rng: np.random.Generator, pitch: float, seconds: float, timbre: tuple[str, float]) -> np.ndarray:
    """One note (n,) of an instrument: additive, sawtooth, square or FM, with an envelope and a low-pass filter."""
    n = int(seconds * RATE)
    t = np.arange(n) / RATE
    kind, brightness = timbre
    phase = 2 * np.pi * pitch * t
    if kind == "sine":
        tone = sum(brightness**k * np.sin((k + 1) * phase + rng.uniform(0, 6)) for k in range(6))
    elif kind == "saw":
        tone = sum(np.sin(k * phase) / k for k in range(1, int(min(40, 7000 / pitch))))
    elif kind == "square":
        tone = sum(np.sin(k * phase) / k for k in range(1, int(min(40, 7000 / pitch)), 2))
    else:
        tone = np.sin(phase + brightness * 5 * np.exp(-t * rng.uniform(1, 8)) * np.sin(phase * rng.choice([1, 2, 3.5])))
    if kind in ("saw", "square"):
        cutoff = float(np.clip(pitch * (1 + 12 * brightness), 200, 7500))
        tone = sosfilt(butter(2, cutoff, fs=RATE, output="sos"), tone)
    attack = max(1, int(rng.uniform(0.003, 0.08) * RATE))
    envelope = np.minimum(np.arange(n) / attack, 1) * np.exp(-t * rng.uniform(0.2, 5))
    release = min(n, int(0.03 * RATE))
    envelope[n - release :] *= np.linspace(1, 0, release)
    return tone * envelope


def _drum(rng: np.random.Generator, kind: str) -> np.ndarray:
    """One hit (n,) of a kick, snare or hi-hat."""
    t = np.arange(int(0.3 * RATE)) / RATE
    if kind == "kick":
        return np.sin(2 * np.pi * (45 * t + rng.uniform(3, 8) * (1 - np.exp(-t * 30)))) * np.exp(-t * 14) * 1.5
    noise = rng.standard_normal(len(t))
    if kind == "hat":
        return sosfilt(butter(2, 5000, "high", fs=RATE, output="sos"), noise) * np.exp(-t * rng.uniform(25, 80)) * 0.5
    tone = np.sin(2 * np.pi * 190 * t) * np.exp(-t * 25)
    return (sosfilt(butter(2, 900, "high", fs=RATE, output="sos"), noise) * np.exp(-t * 18) + tone) * 0.8


def _place(track: np.ndarray, sound: np.ndarray, start: float) -> None:
    first = int(start * RATE)
    part = track[first : first + len(sound)]
    part += sound[: len(part)]


def music(rng: np.random.Generator, seconds: float) -> np.ndarray:
    """Chords, bass, melody and drums (n,) in a random key, tempo, instrumentation and room."""
    track = np.zeros(int(seconds * RATE))
    beat = 60 / rng.uniform(60, 170)
    scale, root = _SCALES[rng.integers(len(_SCALES))], 55 * 2 ** (rng.integers(0, 12) / 12)

    def pitch(step: int, octave: int) -> float:
        return root * 2 ** (octave + (step // len(scale)) + scale[step % len(scale)] / 12)

    def timbre() -> tuple[str, float]:
        return str(rng.choice(["sine", "saw", "square", "fm"])), rng.uniform(0.1, 0.8)

    parts = rng.random(4) < (0.8, 0.6, 0.7, 0.7)
    if not parts.any():
        parts[0] = True
    chord_voice, bass_voice, lead_voice = timbre(), timbre(), timbre()
    for start in np.arange(0, seconds, 4 * beat):
        degree = int(rng.choice([0, 3, 4, 5]))
        if parts[0]:
            for step in (0, 2, 4):
                _place(track, 0.5 * _note(rng, pitch(degree + step, 2), 4 * beat, chord_voice), start)
        for k in range(8):
            if parts[1] and rng.random() < 0.6:
                _place(track, _note(rng, pitch(degree, 0), beat / 2, bass_voice), start + k * beat / 2)
            if parts[2] and rng.random() < 0.6:
                step = degree + int(rng.integers(-3, 6))
                note = _note(rng, pitch(step, 3), beat * rng.uniform(0.3, 1.5), lead_voice)
                _place(track, 0.7 * note, start + k * beat / 2)
            if parts[3]:
                hit = "kick" if k % 4 == 0 else "snare" if k % 4 == 2 else "hat"
                _place(track, _drum(rng, hit), start + k * beat / 2)
    if rng.random() < 0.6:
        length = int(rng.uniform(0.2, 1.5) * RATE)
        room = rng.standard_normal(length) * np.exp(-6.9 * np.arange(length) / length)
        room[0] = rng.uniform(5, 30)
        track = fftconvolve(track, room / np.abs(room).max())[: len(track)]
    return track + rng.choice([0.0, 0.02]) * coloured_noise(rng, len(track)) * track.std()


def weather_or_machine(rng: np.random.Generator, seconds: float) -> np.ndarray:
    """Gusts, ticking, engines or chirps, (n,)."""
    n = int(seconds * RATE)
    t = np.arange(n) / RATE
    kind = rng.choice(["gusts", "ticks", "engine", "chirps"])
    if kind == "gusts":
        return coloured_noise(rng, n) * (1.2 + np.sin(2 * np.pi * rng.uniform(0.1, 1.5) * t + rng.uniform(0, 6)))
    if kind == "ticks":
        sound = 0.02 * coloured_noise(rng, n)
        for start in np.cumsum(rng.uniform(0.05, 0.8, int(seconds / 0.05))):
            if start < seconds:
                _place(sound, _drum(rng, "hat") * rng.uniform(0.3, 1), start)
        return sound
    if kind == "engine":
        base = rng.uniform(20, 90) * (1 + 0.1 * np.sin(2 * np.pi * rng.uniform(0.05, 0.5) * t))
        phase = 2 * np.pi * np.cumsum(base) / RATE
        return sum(rng.uniform(0.2, 1) / k**0.7 * np.sin(k * phase + rng.uniform(0, 6)) for k in range(1, 14)) + (
            0.5 * coloured_noise(rng, n)
        )
    sound = 0.01 * coloured_noise(rng, n)
    for start in np.cumsum(rng.uniform(0.1, 1.2, int(seconds / 0.1))):
        if start < seconds:
            length = np.arange(int(rng.uniform(0.03, 0.25) * RATE)) / RATE
            sweep = rng.uniform(1500, 5000) * length + rng.uniform(-6000, 6000) * length**2
            _place(sound, np.sin(2 * np.pi * sweep) * np.hanning(len(length)), start)
    return sound


def background(rng: np.random.Generator, seconds: float) -> np.ndarray:
    """One sound that nobody speaks, (n,) of any level."""
    make = (no_speech, music, music, weather_or_machine)[rng.integers(4)]
    return make(rng, seconds)


def silent_stream(rng: np.random.Generator, seconds: float) -> np.ndarray:
    """`seconds` of such sounds one after the other, at levels from a whisper to full scale, (n,) float32."""
    parts: list[np.ndarray] = []
    while sum(len(part) for part in parts) < seconds * RATE:
        part = background(rng, rng.uniform(3, 9))
        parts.append(part / (np.abs(part).max() + 1e-6) * 10 ** (rng.uniform(-50, -1) / 20))
    return np.concatenate(parts)[: int(seconds * RATE)].astype(np.float32)
