"""Test clips: found in folders, read frame by frame through one fixed window."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import InputError
from ..media.video_reader import VideoReader
from ..portrait.crop import cut_square
from ..types import Portrait

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".avi", ".webm", ".mpg", ".mpeg", ".m4v")


def find_clips(paths: Sequence[str | Path]) -> list[Path]:
    """Files as given, folders as the videos directly in them, sorted.

    Raises:
        InputError: a path that is neither, or a folder without videos.
    """
    clips: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            found = sorted(file for file in path.iterdir() if file.suffix.lower() in VIDEO_SUFFIXES)
            if not found:
                raise InputError(f"{path}: no videos in this folder; give clips ({', '.join(VIDEO_SUFFIXES)})")
            clips += found
        else:
            clips.append(path)
    return clips


def sampled_frames(path: Path, every: int, limit: int | None) -> Iterator[np.ndarray]:
    """Every n-th frame (H, W, 3) uint8 of a clip, at most `limit` of them.

    Raises:
        InputError: `every` or `limit` below 1, or an unreadable clip.
    """
    if every < 1 or (limit is not None and limit < 2):
        raise InputError(f"--every {every} and --frames {limit} leave nothing to compare; give at least 1 and 2")
    frames = (frame.rgb for frame in VideoReader(path) if frame.index % every == 0)
    return islice(frames, limit)


@dataclass(frozen=True)
class Window:
    """The part of a clip's frames that is compared: the whole frame if it is about square, as in the papers' data sets,
    otherwise the crop around the first frame's face."""

    portrait: Portrait
    whole: bool

    @staticmethod
    def of(portrait: Portrait) -> Window:
        """The window that suits the clip a portrait was made from."""
        height, width = portrait.photo.shape[:2]
        return Window(portrait, max(height, width) <= SQUARE_ENOUGH * min(height, width))

    @property
    def framing(self) -> str:
        """How `render_frames` has to frame the head."""
        return "paste" if self.whole else "crop"

    def view(self, frame: np.ndarray) -> np.ndarray:
        """A clip's frame (H, W, 3) uint8 as the renderer would show it, uint8."""
        if self.whole:
            return frame
        size = self.portrait.image.shape[0]
        side = self.portrait.crop_to_photo[0, 0] * size
        centre = self.portrait.crop_to_photo[:, 2] + side / 2
        return np.round(cut_square(frame.astype(np.float32) / 255, centre, side, size)[0] * 255).astype(np.uint8)


SQUARE_ENOUGH = 1.05


def resampled(picture: np.ndarray, size: int) -> np.ndarray:
    """A picture (H, W, 3) uint8 as (size, size, 3) float32 0..1, antialiased."""
    small = Image.fromarray(picture).resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(small, np.float32) / 255
