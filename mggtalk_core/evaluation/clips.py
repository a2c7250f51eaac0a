"""Test clips: found in folders, read frame by frame through one fixed window around the face."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

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


def through_window(frame: np.ndarray, portrait: Portrait, size: int) -> np.ndarray:
    """A frame (H, W, 3) uint8 cut as the portrait was, (size, size, 3) float32 0..1."""
    scale = portrait.crop_to_photo[0, 0]
    side = scale * portrait.image.shape[0]
    centre = portrait.crop_to_photo[:, 2] + side / 2
    return cut_square(frame.astype(np.float32) / 255, centre, side, size)[0]
