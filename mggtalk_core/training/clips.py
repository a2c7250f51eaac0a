"""Tracked clips on disk: one safetensors file per clip, pictures inside it as JPEG."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import save_file

FORMAT = "mggtalk-clip-1"
JPEG_QUALITY = 95


@dataclass(frozen=True)
class Clip:
    """One person, one take, T frames in one fixed crop. Frame 0 is the source the others are relative to."""

    name: str
    frames: tuple[bytes, ...]  # T JPEG pictures (S, S, 3) of the crop
    alphas: tuple[bytes, ...]  # T JPEG pictures (S, S), person against background
    landmarks: np.ndarray  # (T, 478, 2) float32 crop pixels
    scores: np.ndarray  # (T, 52) float32, the tracker's ARKit scores
    expression: np.ndarray  # (T, 52) float32, fitted to the landmarks with the person's own shape
    rotation: np.ndarray  # (T, 3, 3) float32, canonical -> camera
    translation: np.ndarray  # (T, 3) float32 m
    neutral_landmarks: np.ndarray  # (478, 3) float32 m, the person's landmarks without expression
    K: np.ndarray  # (3, 3) float32 pixels

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def size(self) -> int:
        """Side S of the pictures."""
        return round(float(2 * self.K[0, 2]))

    def picture(self, index: int) -> np.ndarray:
        """Frame (S, S, 3) float32 0..1 sRGB."""
        return np.asarray(Image.open(io.BytesIO(self.frames[index])), np.float32) / 255

    def alpha(self, index: int) -> np.ndarray:
        """Person mask (S, S) float32 0..1."""
        return np.asarray(Image.open(io.BytesIO(self.alphas[index])), np.float32) / 255


ARRAYS = ("landmarks", "scores", "expression", "rotation", "translation", "neutral_landmarks", "K")


def to_jpeg(picture: np.ndarray) -> bytes:
    """A picture (S, S[, 3]) float 0..1 as JPEG bytes."""
    buffer = io.BytesIO()
    Image.fromarray(np.round(picture * 255).astype(np.uint8)).save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return buffer.getvalue()


def write_clip(clip: Clip, path: Path) -> None:
    """Write a clip atomically."""
    arrays = {name: np.ascontiguousarray(getattr(clip, name)) for name in ARRAYS}
    for field in ("frames", "alphas"):
        pictures = getattr(clip, field)
        arrays[field] = np.frombuffer(b"".join(pictures), np.uint8)
        arrays[f"{field}_lengths"] = np.array([len(picture) for picture in pictures], np.int64)
    temporary = path.with_suffix(".part")
    save_file(arrays, temporary, {"format": FORMAT, "name": clip.name})
    os.replace(temporary, path)


def read_clip(path: Path) -> Clip:
    """Read a clip written by `write_clip`."""
    with safe_open(str(path), "numpy") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}
        name = file.metadata()["name"]

    def pictures(field: str) -> tuple[bytes, ...]:
        ends = np.cumsum(arrays[f"{field}_lengths"])
        data = arrays[field].tobytes()
        return tuple(data[end - length : end] for end, length in zip(ends, arrays[f"{field}_lengths"]))

    return Clip(name, pictures("frames"), pictures("alphas"), **{key: arrays[key] for key in ARRAYS})


def read_clips(folder: Path, prefixes: tuple[str, ...] = ("",)) -> list[Clip]:
    """All clips of a folder whose names start with one of the prefixes, by name."""
    paths = sorted(Path(folder).glob("*.safetensors"))
    return [read_clip(path) for path in paths if path.name.startswith(prefixes)]
