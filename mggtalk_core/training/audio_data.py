"""What the mouth head learns from, made once and kept in a cache folder: synthetic streams and tracked clips."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..evaluation.lip_sync import LipCurves
from ..evaluation.lip_tracking import clip_sound, track_lips
from ..motion.audio.encoders import SpeechEncoder
from ..motion.audio.windows import loudness, to_mono_16k, windows
from .audio_backgrounds import silent_stream
from .audio_phones import Segment
from .audio_speech import RATE, STREAM_S, coloured_noise, espeak_utterances, kokoro_utterances, speech_stream, spoil

LOG = logging.getLogger(__name__)
KINDS = ("espeak", "kokoro", "none")


@dataclass(frozen=True)
class Stream:
    """One synthetic stream as the head sees it."""

    features: np.ndarray  # (T, D) float16 at 50 Hz
    level: np.ndarray  # (T,) float32 dB
    segments: list[Segment]


def make_stream(kind: str, seed: int, index: int) -> tuple[np.ndarray, list[Segment]]:
    """Samples and segments of one stream; the same arguments give the same stream."""
    rng = np.random.default_rng([seed, KINDS.index(kind), index])
    if kind == "none":
        return silent_stream(rng, STREAM_S), [(0.0, STREAM_S, "sil")]
    voices = {"espeak": espeak_utterances, "kokoro": kokoro_utterances}[kind](rng)
    sound, segments = speech_stream(voices, rng)
    babble, _ = speech_stream(espeak_utterances(rng), rng)
    sound = sound + 1e-5 * rng.standard_normal(len(sound))
    return spoil(sound, rng, np.roll(babble, len(babble) // 3)), segments


def synthetic_streams(
    encoder: SpeechEncoder, cache: Path, counts: dict[str, int], seed: int, progress: Callable[[str], None] = LOG.info
) -> list[Stream]:
    """`counts` streams of each kind, made when the cache lacks them."""
    folder = cache / f"streams-{encoder.hash[:12]}-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    streams = []
    for kind, count in counts.items():
        for index in range(count):
            path = folder / f"{kind}-{index:03d}.npz"
            if not path.exists():
                samples, segments = make_stream(kind, seed, index)
                partial = path.with_suffix(".partial.npz")
                np.savez(
                    partial,
                    features=encoder(samples).astype(np.float16),
                    level=loudness(samples),
                    segments=np.frombuffer(json.dumps(segments, default=float).encode(), np.uint8),
                )
                partial.replace(path)
                progress(f"stream {kind} {index + 1}/{count}")
            with np.load(path) as data:
                segments = [tuple(s) for s in json.loads(data["segments"].tobytes())]
                streams.append(Stream(data["features"], data["level"], segments))
    return streams


@dataclass(frozen=True)
class Clip:
    """A real speaker: sound, and the lips that were tracked with it."""

    name: str
    samples: np.ndarray  # (n,) float32 mono at 16 kHz
    lips: LipCurves  # at 50 Hz on the clock of the sound


def tracked_clip(path: Path, cache: Path) -> Clip | None:
    """A clip's sound and lips, tracked when the cache lacks them; None when its face can't be followed."""
    folder = cache / "clips"
    folder.mkdir(parents=True, exist_ok=True)
    saved = folder / f"{path.stem}-{path.stat().st_size}.npz"
    if not saved.exists():
        partial = saved.with_suffix(".partial.npz")
        try:
            lips = track_lips(path)
            samples, rate = clip_sound(path)
            samples = to_mono_16k(samples[None], rate)
            np.savez(partial, samples=samples, aperture=lips.aperture, width=lips.width, pucker=lips.pucker)
        except InputError as error:
            LOG.info("left out: %s", error)
            np.savez(partial, samples=np.zeros(0))
        partial.replace(saved)
    with np.load(saved) as data:
        if len(data["samples"]) == 0:
            return None
        return Clip(path.stem, data["samples"], LipCurves(data["aperture"], data["width"], data["pucker"]))


@dataclass(frozen=True)
class ClipFeatures:
    """One version of a clip as the head sees it; lips and features share their length."""

    name: str
    features: np.ndarray  # (T, D) float16
    level: np.ndarray  # (T,) float32 dB
    lips: np.ndarray  # (T, 3) float32: aperture, width, pucker


def clip_features(
    clip: Clip, version: int, offset: int, encoder: SpeechEncoder, cache: Path, seed: int
) -> ClipFeatures:
    """Features and lips of a clip; version 0 is the clip itself, others change voice, speed and background.

    Playing a clip faster or slower moves pitch and formants like another speaker's, and its lips with it.

    Args:
        offset: 50 Hz frames by which the clip's picture runs later than its sound.
    """
    folder = cache / f"clip-features-{encoder.hash[:12]}-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    saved = folder / f"{clip.name}-{version}.npz"
    rng = np.random.default_rng([seed, version, *clip.name.encode()])
    speed = 1.0 if version == 0 else rng.uniform(0.82, 1.25)
    if not saved.exists():
        samples = clip.samples
        if version:
            length = int(len(samples) / speed)
            samples = np.interp(np.arange(length) * speed, np.arange(len(samples)), samples)
            samples = spoil(samples, rng, coloured_noise(rng, length))
        parts, level = [], []
        for window in windows(samples[None].astype(np.float32), RATE):
            kept = slice(window.first, window.first + window.count)
            parts.append(encoder(window.samples)[kept])
            level.append(loudness(window.samples)[kept])
        partial = saved.with_suffix(".partial.npz")
        np.savez(partial, features=np.concatenate(parts).astype(np.float16), level=np.concatenate(level))
        partial.replace(saved)
    with np.load(saved) as data:
        features, level = data["features"], data["level"]
    lips = np.stack([clip.lips.aperture, clip.lips.width, clip.lips.pucker], 1)
    at = np.arange(len(features)) * speed + offset
    inside = (at >= 0) & (at <= len(lips) - 1)
    lips = np.stack([np.interp(at[inside], np.arange(len(lips)), curve) for curve in lips.T], 1)
    return ClipFeatures(clip.name, features[inside], level[inside], lips.astype(np.float32))
