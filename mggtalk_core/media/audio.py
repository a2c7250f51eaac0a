"""Reads sound of any container, codec, rate and channel count that FFmpeg (through PyAV) understands."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError
from .files import open_media, require_file

MIN_RATE, MAX_RATE = 4_000, 384_000
MAX_CHANNELS = 32
MAX_SECONDS = 4 * 3600
"""Sound is held in memory while it drives a face; four hours at 48 kHz mono are 2.8 GB."""


@dataclass(frozen=True)
class Audio:
    """Decoded sound."""

    waveform: np.ndarray  # (C, n) float32, -1..1
    sample_rate: int  # Hz

    @property
    def samples(self) -> int:
        """Samples per channel."""
        return self.waveform.shape[1]

    @property
    def seconds(self) -> float:
        """Duration."""
        return self.samples / self.sample_rate

    def mono(self) -> np.ndarray:
        """The mean of the channels, (n,) float32."""
        return self.waveform.mean(axis=0, dtype=np.float32)


def check_audio(waveform: np.ndarray, sample_rate: int, name: str = "audio") -> Audio:
    """A waveform (n,) or (C, n) as Audio, checked.

    Raises:
        InputError: no samples, NaN or infinite samples, an absurd rate, or more than two dimensions.
    """
    waveform = np.atleast_2d(np.asarray(waveform, dtype=np.float32))
    if waveform.ndim != 2:
        raise InputError(f"{name}: a waveform has shape (samples,) or (channels, samples), not {waveform.shape}")
    if not MIN_RATE <= sample_rate <= MAX_RATE:
        raise InputError(f"{name}: a sample rate of {sample_rate} Hz is not usable; give {MIN_RATE} to {MAX_RATE} Hz")
    if waveform.size == 0:
        raise InputError(f"{name}: the sound has no samples; give a clip with speech in it")
    if not np.isfinite(waveform).all():
        raise InputError(f"{name}: the sound has NaN or infinite samples; export it again as 16-bit WAV")
    return Audio(waveform, int(sample_rate))


@dataclass(frozen=True)
class AudioInfo:
    """What a container says about its first sound track."""

    sample_rate: int  # Hz
    channels: int


@contextmanager
def _open_track(path: str | Path):
    """The container and first sound track of a file; FFmpeg's errors become InputErrors."""
    import av

    path = require_file(path, "audio")
    try:
        with open_media(path) as container:
            if not container.streams.audio:
                raise InputError(f"{path}: there is no sound in this file; give a file with an audio track")
            stream = container.streams.audio[0]
            if stream.codec_context is None:
                raise InputError(f"{path}: the codec of this sound is unknown; convert it to WAV or FLAC")
            if not MIN_RATE <= stream.sample_rate <= MAX_RATE:
                raise InputError(
                    f"{path}: a sample rate of {stream.sample_rate} Hz is not usable; give {MIN_RATE} to {MAX_RATE} Hz"
                )
            if not 1 <= stream.channels <= MAX_CHANNELS:
                raise InputError(f"{path}: {stream.channels} channels of sound are not usable; mix it down to stereo")
            yield container, stream
    except av.error.FFmpegError as error:
        raise InputError(f"{path}: this sound can't be decoded ({error.strerror}); convert it to WAV or FLAC") from None


def audio_info(path: str | Path) -> AudioInfo:
    """Rate and channels of the first sound track.

    Raises:
        InputError: not a file, not a media file, or no usable sound in it.
    """
    with _open_track(path) as (_, stream):
        return AudioInfo(stream.sample_rate, stream.channels)


def audio_blocks(path: str | Path, sample_rate: int | None = None, channels: int | None = None) -> Iterator[Audio]:
    """Decodes the first sound track block by block, at its own rate and channels unless told otherwise.

    Args:
        sample_rate: Hz to resample to.
        channels: 1 or 2 to mix down (or up) to.

    Raises:
        InputError: not a file, not a media file, no usable sound in it, or damaged.
    """
    import av

    with _open_track(path) as (container, stream):
        rate = sample_rate or stream.sample_rate
        layout = {None: stream.layout.name, 1: "mono", 2: "stereo"}[channels]
        resampler = av.AudioResampler(format="fltp", layout=layout, rate=rate)
        left, expected = _stated_samples(container, stream, rate), channels or stream.channels
        for frame in itertools.chain(container.decode(stream), [None]):
            if frame is not None:
                frame.pts = None  # samples are taken back to back: gaps in time stamps are no reason to drop sound
            for block in resampler.resample(frame):
                if len(block.planes) != expected:
                    raise InputError(f"{path}: the number of channels changes in the middle; convert it to WAV")
                waveform = block.to_ndarray() if left is None else block.to_ndarray()[:, :left]
                if waveform.shape[1]:
                    yield Audio(waveform, rate)
                if left is not None:
                    left -= waveform.shape[1]


def _stated_samples(container, stream, rate: int) -> int | None:
    """Samples of the track at `rate` where the container states them exactly.

    MP4 does: the last AAC packet is only partly sound, and PyAV hands out all of it.
    """
    if "mp4" not in container.format.name or stream.duration is None:
        return None
    return round(stream.duration * stream.time_base * rate)


def read_audio(path: str | Path, sample_rate: int | None = None, channels: int | None = None) -> Audio:
    """The first sound track of a file, at its own rate and channels unless told otherwise.

    Raises:
        InputError: as `audio_blocks`; also an empty track, one over four hours, or NaN samples.
    """
    blocks: list[np.ndarray] = []
    samples, rate = 0, 0
    for block in audio_blocks(path, sample_rate, channels):
        blocks.append(block.waveform)
        samples, rate = samples + block.samples, block.sample_rate
        if samples > MAX_SECONDS * rate:
            raise InputError(f"{path}: more than {MAX_SECONDS // 3600} hours of sound; cut it into parts")
    if not samples:
        raise InputError(f"{path}: the sound has no samples; give a clip with speech in it")
    return check_audio(np.concatenate(blocks, axis=1), rate, str(path))
