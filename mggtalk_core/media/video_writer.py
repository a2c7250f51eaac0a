"""Writes H.264 + AAC video frame by frame, in constant memory, to a file that appears whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from fractions import Fraction
from math import ceil
from pathlib import Path

import numpy as np

from ..errors import InputError
from .audio import Audio, audio_blocks, audio_info
from .files import atomic_path
from .timing import exact_fps

CRF = 16
AAC_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350)
AAC_OPTIONS = {"aac_coder": "fast"}
"""FFmpeg's default coder spoils the first 20 ms of a sound that starts loud (error 0.27 against 0.003 with this)."""
RESAMPLED_RATE = 48_000
"""For the rates AAC can't hold."""
BITS_PER_CHANNEL = 128_000
MP4_OPTIONS = {
    "movflags": "use_metadata_tags+faststart",  # any tag name, and the index first for players on the web
    "movie_timescale": "48000",  # the default of 1000 rounds the sound's end to a millisecond
}
BT709, MPEG_RANGE = 1, 1  # ITU-T H.273 codes: how players must turn the file's numbers into colours


class VideoWriter:
    """A streaming MP4 writer, used as a context manager.

    The sound is written whole: resampled only when AAC can't hold its rate, downmixed to stereo only above two
    channels, never trimmed, and padded with silence up to the end of the last frame. An exception inside the block
    (also an interrupt) leaves no file; the final name is only ever given to a finished file.

    Example:
        with VideoWriter("out.mp4", 512, 512, 25, audio="speech.wav") as video:
            for rgb in frames:  # (512, 512, 3) uint8
                video.write(rgb)

    Args:
        path: final name, .mp4 or .mov.
        width, height: pixels; an odd size is padded by one repeated line because 4:2:0 video has none.
        fps: frames per second; 23.976, 29.97 and 59.94 mean their exact fractions.
        audio: decoded sound, or the path of a file to stream it from, or None.
        audio_delay: seconds the sound starts after the picture; before it if negative, and then what precedes the
            picture is left out (`VideoReader.audio_delay` of the video the sound comes from).
        metadata: tags of the container.

    Raises:
        InputError: unusable size, rate, name or sound; the disk is full.
    """

    def __init__(
        self,
        path: str | Path,
        width: int,
        height: int,
        fps: float | Fraction,
        audio: Audio | str | Path | None = None,
        audio_delay: float = 0.0,
        metadata: dict[str, str] | None = None,
        crf: int = CRF,
    ):
        if not (16 <= width <= 8192 and 16 <= height <= 8192):
            raise InputError(f"video of {width}x{height} pixels can't be written; give 16 to 8192 pixels a side")
        self.path = Path(path)
        self.width, self.height = width, height
        self.fps = exact_fps(fps)
        self.frames = 0
        self._audio, self._audio_delay, self._metadata, self._crf = audio, audio_delay, metadata or {}, crf

    def __enter__(self) -> VideoWriter:
        import av

        with ExitStack() as stack:
            temporary = stack.enter_context(atomic_path(self.path, (".mp4", ".mov")))
            self._container = stack.enter_context(av.open(str(temporary), "w", options=MP4_OPTIONS))
            self._container.metadata.update(self._metadata)
            self._video = self._container.add_stream("libx264", rate=self.fps)
            self._video.width, self._video.height = self.width + self.width % 2, self.height + self.height % 2
            self._video.pix_fmt = "yuv420p"
            self._video.options = {"crf": str(self._crf), "preset": "veryfast"}
            self._video.codec_context.time_base = 1 / self.fps
            for field in ("colorspace", "color_primaries", "color_trc"):
                setattr(self._video.codec_context, field, BT709)
            self._video.codec_context.color_range = MPEG_RANGE
            self._track = None if self._audio is None else _AudioTrack(self._container, self._audio, self._audio_delay)
            self._stack = stack.pop_all()
        return self

    def write(self, rgb: np.ndarray) -> None:
        """Appends one frame, (height, width, 3) uint8 sRGB.

        Raises:
            InputError: the disk is full.
        """
        import av

        if rgb.shape != (self.height, self.width, 3) or rgb.dtype != np.uint8:
            raise ValueError(f"frame {rgb.shape} {rgb.dtype}, expected {(self.height, self.width, 3)} uint8")
        if self.width % 2 or self.height % 2:
            rgb = np.pad(rgb, ((0, self.height % 2), (0, self.width % 2), (0, 0)), mode="edge")
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709")
        frame.pts, frame.time_base = self.frames, 1 / self.fps
        self._container.mux(self._video.encode(frame))
        self.frames += 1
        if self._track is not None:
            self._track.write_until(self.frames / self.fps)

    def __exit__(self, kind, error, trace) -> bool | None:
        if kind is not None:
            return self._stack.__exit__(kind, error, trace)
        with self._stack:
            self._container.mux(self._video.encode(None))
            if self._track is not None:
                self._track.finish(self.frames / self.fps)


class _AudioTrack:
    """The sound of a video being written: encoded block by block as the pictures advance.

    The AAC encoder's delay and its last, partly filled packet are stated in the file (edit list and packet duration),
    so a player hears exactly the samples given here.
    """

    def __init__(self, container, audio: Audio | str | Path, delay: float):
        self._container = container
        if isinstance(audio, Audio):
            channels, self._rate = len(audio.waveform), audio.sample_rate
            self._blocks = _slices(audio if channels <= 2 else Audio(audio.mono()[None], audio.sample_rate))
            channels = 1 if channels != 2 else 2
        else:
            info = audio_info(audio)
            channels, self._rate = min(info.channels, 2), info.sample_rate
            self._blocks = audio_blocks(audio, channels=channels)
        encoded_rate = self._rate if self._rate in AAC_RATES else RESAMPLED_RATE
        self._stream = container.add_stream("aac", rate=encoded_rate, options=AAC_OPTIONS)
        self._stream.layout = self._layout = "mono" if channels == 1 else "stereo"
        # AAC packets hold at most 6144 bits per channel: low rates can't use more
        self._stream.bit_rate = channels * min(BITS_PER_CHANNEL, 6 * encoded_rate)
        self._channels, self._written = channels, 0
        if delay:
            self._blocks = _delayed(self._blocks, round(delay * self._rate))

    def write_until(self, time: Fraction) -> None:
        """Encodes blocks until the sound has reached `time` (s) or its end."""
        while self._written < time * self._rate:
            block = next(self._blocks, None)
            if block is None:
                return
            self._encode(block.waveform)

    def finish(self, time: Fraction) -> None:
        """Encodes all that is left, then silence up to `time` (s), the end of the last picture."""
        for block in self._blocks:
            self._encode(block.waveform)
        silence = ceil(time * self._rate) - self._written
        if silence > 0:
            self._encode(np.zeros((self._channels, silence), np.float32))
        self._container.mux(self._stream.encode(None))

    def _encode(self, waveform: np.ndarray) -> None:
        import av

        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(waveform), format="fltp", layout=self._layout)
        frame.sample_rate, frame.time_base = self._rate, Fraction(1, self._rate)
        frame.pts = self._written
        self._written += waveform.shape[1]
        self._container.mux(self._stream.encode(frame))


def _slices(audio: Audio) -> Iterator[Audio]:
    """Decoded sound in blocks of about a tenth of a second."""
    step = max(1024, audio.sample_rate // 10)
    for start in range(0, audio.samples, step):
        yield Audio(audio.waveform[:, start : start + step], audio.sample_rate)


def _delayed(blocks: Iterator[Audio], samples: int) -> Iterator[Audio]:
    """Sound with silence put in front of it, or with as many samples left out there if `samples` is negative."""
    for block in blocks:
        if samples > 0:
            yield Audio(np.zeros((len(block.waveform), samples), np.float32), block.sample_rate)
            samples = 0
        left_out = min(-samples, block.samples)
        samples += left_out
        if left_out < block.samples:
            yield Audio(block.waveform[:, left_out:], block.sample_rate)
