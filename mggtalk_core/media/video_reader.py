"""Reads video frame by frame: upright, RGB, with the true time of each frame, in constant memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from ..errors import InputError
from .files import open_media, require_file
from .timing import MAX_FPS, MIN_FPS, exact_fps

MIN_SIDE = 32
MAX_PIXELS = 8192 * 8192


@dataclass(frozen=True)
class VideoFrame:
    """One decoded picture."""

    index: int  # counted from 0 over the frames delivered
    time: float  # s from the first frame
    rgb: np.ndarray  # (H, W, 3) uint8 sRGB


class VideoReader:
    """A video file whose frames are decoded as they are asked for.

    `for frame in VideoReader(path)` gives the frames the file holds, with their own times; `reader.frames(fps)` gives
    a constant rate, repeating or dropping frames as a player would: for variable-frame-rate files and to match a rate.

    Raises:
        InputError: not a file, no picture in it, absurd size; damaged files raise when the damage is reached.
    """

    def __init__(self, path: str | Path):
        import av

        self.path = require_file(path, "video")
        try:
            with open_media(self.path) as container:
                streams = [s for s in container.streams.video if not int(s.disposition) & ATTACHED_PICTURE]
                if not streams:
                    raise InputError(f"{self.path}: there is no picture in this file; give a video")
                stream = streams[0]
                if stream.codec_context is None:
                    raise InputError(f"{self.path}: the codec of this video is unknown; convert it to MP4")
                self._stream_index = stream.index
                self._check_size(stream.codec_context.width, stream.codec_context.height)
                first = next(container.decode(stream), None)
                if first is None:
                    raise InputError(f"{self.path}: the video has no frames; convert it to MP4")
                lying = first.rotation % 180 != 0
                self.width, self.height = (first.height, first.width) if lying else (first.width, first.height)
                self.fps = _usable_rate(stream)  # Fraction
                self.has_audio = bool(container.streams.audio)
                self.audio_delay = _audio_delay(container, stream)  # s the sound starts after the picture
                seconds = _seconds(stream, container)
        except av.error.FFmpegError as error:
            raise InputError(f"{self.path}: not a readable video ({error.strerror}); convert it to MP4") from None
        self.seconds = seconds  # float or None, as the container says
        self.frame_estimate = None if seconds is None else max(1, round(seconds * self.fps))

    def __iter__(self) -> Iterator[VideoFrame]:
        import av

        index, start = 0, None
        try:
            with open_media(self.path) as container:
                stream = container.streams[self._stream_index]
                stream.thread_type = "AUTO"
                for frame in container.decode(stream):
                    self._check_size(frame.width, frame.height)
                    time = frame.time if frame.time is not None else index / float(self.fps)
                    start = time if start is None else start
                    rgb = frame.to_ndarray(format="rgb24", interpolation=EXACT_COLOURS)
                    if frame.rotation % 360:
                        rgb = np.ascontiguousarray(np.rot90(rgb, round(frame.rotation / 90)))
                    yield VideoFrame(index, time - start, rgb)
                    index += 1
        except av.error.FFmpegError as error:
            raise InputError(
                f"{self.path}: damaged after frame {index} ({error.strerror}); cut or convert the video"
            ) from None

    def _check_size(self, width: int, height: int) -> None:
        if min(width, height) < MIN_SIDE or width * height > MAX_PIXELS:
            raise InputError(
                f"{self.path}: frames of {width}x{height} pixels are not usable; "
                f"scale the video to {MIN_SIDE} to 8192 pixels a side"
            )

    def frames(self, fps: float | Fraction) -> Iterator[VideoFrame]:
        """The frames at a constant rate: at each time k / fps the last picture shown by then."""
        rate = exact_fps(fps)
        index, shown = 0, None
        for frame in self:
            while shown is not None and Fraction(index) / rate < Fraction(frame.time).limit_denominator(90_000):
                yield VideoFrame(index, float(index / rate), shown.rgb)
                index += 1
            shown = frame
        end = shown.time + 1 / float(self.fps)  # the last picture lasts one frame
        while index / rate < end - 1e-6:
            yield VideoFrame(index, float(index / rate), shown.rgb)
            index += 1


EXACT_COLOURS = 0x4 | 0x2000 | 0x40000
"""swscale's bicubic, full chroma and accurate rounding; its default darkens every pixel by one level in 255."""
ATTACHED_PICTURE = 0x0400  # AV_DISPOSITION_ATTACHED_PIC: the cover of a sound file is no video


def _usable_rate(stream) -> Fraction:
    """The average rate of a stream; 25 when the container states none that makes sense."""
    for rate in (stream.average_rate, stream.guessed_rate, stream.base_rate):
        if rate and MIN_FPS <= rate <= MAX_FPS:
            return Fraction(rate)
    return Fraction(25)


def _audio_delay(container, video) -> float:
    """How much later than the picture the first sound track starts, in seconds."""
    if not container.streams.audio:
        return 0.0
    audio = container.streams.audio[0]
    if audio.start_time is None or video.start_time is None:
        return 0.0
    return float(audio.start_time * audio.time_base - video.start_time * video.time_base)


def _seconds(stream, container) -> float | None:
    if stream.duration is not None:
        return float(stream.duration * stream.time_base)
    return container.duration / 1e6 if container.duration else None
