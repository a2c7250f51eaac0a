"""Motion in and out as the CSV that Live Link Face writes: time code, 52 shapes, head and eye angles per frame.

Angles are radians. HeadYaw > 0 turns the face to the right of the image (the subject's left), HeadPitch > 0 lowers it,
HeadRoll > 0 tilts its top to the right of the image; applied as roll, then pitch, then yaw. The eye columns repeat the
gaze the eyeLook shapes stand for, with the same signs. A translation, which Live Link Face does not know, goes into
three more columns (metres) and only when there is one.
"""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from ..errors import InputError
from ..headmodel.arkit import ARKIT_INDEX, ARKIT_NAMES
from ..media.files import require_file
from ..types import Motion
from .idle import gaze

POSE = ("HeadYaw", "HeadPitch", "HeadRoll")
EYES = ("LeftEyeYaw", "LeftEyePitch", "LeftEyeRoll", "RightEyeYaw", "RightEyePitch", "RightEyeRoll")
TRANSLATION = ("HeadX", "HeadY", "HeadZ")
SHAPES = tuple(name[0].upper() + name[1:] for name in ARKIT_NAMES)
_RATES = (24, 25, 30, 48, 50, 60, 72, 90, 100, 120, 240)


def _timecode(seconds: float, base: int) -> str:
    thousandths = round(seconds * base * 1000)
    frames, rest = divmod(thousandths, 1000)
    whole, frame = divmod(frames, base)
    return f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}:{frame:02d}.{rest:03d}"


def euler_from_rotation(rotation: np.ndarray) -> np.ndarray:
    """Yaw, pitch, roll (T, 3) rad as the file has them of axis-angle rotations (T, 3) in the canonical frame."""
    # turning about +y (down) moves the face to the left of the image: the file's yaw has the other sign
    return Rotation.from_rotvec(rotation).as_euler("YXZ") * (-1, 1, 1)


def rotation_from_euler(angles: np.ndarray) -> np.ndarray:
    """Inverse of `euler_from_rotation`."""
    return Rotation.from_euler("YXZ", angles * (-1, 1, 1)).as_rotvec().astype(np.float32)


def _eye_angles(expression: np.ndarray) -> np.ndarray:
    """Eye columns (T, 6) rad of expressions (T, 52)."""

    def value(name: str) -> np.ndarray:
        return expression[:, ARKIT_INDEX[name]]

    left = value("eyeLookOutLeft") - value("eyeLookInLeft"), value("eyeLookDownLeft") - value("eyeLookUpLeft")
    right = value("eyeLookInRight") - value("eyeLookOutRight"), value("eyeLookDownRight") - value("eyeLookUpRight")
    turn, tilt = np.radians(gaze().horizontal), np.radians(gaze().vertical)
    none = np.zeros(len(expression))
    return np.stack([left[0] * turn, left[1] * tilt, none, right[0] * turn, right[1] * tilt, none], 1)


def write_motion_csv(motion: Motion, path: str | Path) -> None:
    """Writes motion as a Live Link Face CSV (61 value columns; 64 when the head also moves sideways)."""
    header = ["Timecode", "BlendShapeCount", *SHAPES, *POSE, *EYES]
    columns = [motion.expression, euler_from_rotation(motion.rotation), _eye_angles(motion.expression)]
    if np.any(motion.translation):
        header += TRANSLATION
        columns.append(motion.translation)
    values = np.concatenate(columns, 1)
    base = max(1, round(motion.fps))
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    with open(partial, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for index, row in enumerate(values):
            writer.writerow([_timecode(index / motion.fps, base), 61, *(f"{value:.9g}" for value in row)])
    os.replace(partial, path)


def _frame_times(codes: list[str], path: Path) -> np.ndarray:
    """Seconds since the first frame (T,) of Live Link time codes HH:MM:SS:FF.fff."""
    try:
        parts = np.array([[float(x) for x in code.replace(";", ":").split(":")] for code in codes])
        hours, minutes, seconds, frames = parts.T
    except ValueError as error:
        raise InputError(f"{path}: time code {codes[0]!r} is not HH:MM:SS:FF; give fps= for other files") from error
    base = next((rate for rate in _RATES if rate > frames.max()), frames.max() + 1)
    if len(codes) * 1.2 < base:  # shorter than a second: the frame number never rolls over, so take the usual rate
        base = max(base, 30)
    times = hours * 3600 + minutes * 60 + seconds + frames / base
    return times - times[0]


def read_motion_csv(path: str | Path, fps: float | None = None) -> Motion:
    """Reads a Live Link Face CSV (or any CSV with ARKit column names) as motion with equal frame steps.

    Columns may come in any order and case; missing shapes and angles are 0. Frames that the recording dropped are
    interpolated. Values outside 0..1 are clipped and noted in `warnings`.

    Args:
        fps: frame rate when the file has no time codes, or to override them.

    Raises:
        InputError: no such file, no ARKit columns, a cell that is no number, or no frame rate.
    """
    path = require_file(path, "motion")
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if any(cell.strip() for cell in row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"can't read {path} as CSV: {error}; give a Live Link Face .csv") from error
    names = {name.strip().lower(): index for index, name in enumerate(rows[0])} if rows else {}
    if not any(name.lower() in names for name in ARKIT_NAMES):
        raise InputError(f"{path} has no ARKit column such as JawOpen in its first row; give a Live Link Face .csv")
    body = rows[1:]
    if not body:
        raise InputError(f"{path} has a header but no frames; record or export it again")

    def column(name: str) -> np.ndarray:
        index = names.get(name.lower())
        if index is None:
            return np.zeros(len(body))
        values = np.empty(len(body))
        for number, row in enumerate(body):
            cell = row[index] if index < len(row) else ""
            try:
                values[number] = float(cell)
            except ValueError:
                values[number] = np.nan
            if not np.isfinite(values[number]):
                raise InputError(f"{path}: row {number + 2}, column {name}: {cell!r} is not a number")
        return values

    expression = np.stack([column(name) for name in ARKIT_NAMES], 1)
    rotation = rotation_from_euler(np.stack([column(name) for name in POSE], 1))
    translation = np.stack([column(name) for name in TRANSLATION], 1).astype(np.float32)
    warnings = ()
    if expression.min() < 0 or expression.max() > 1:
        warnings = (f"shapes ranged {expression.min():.2f}..{expression.max():.2f} and were clipped to 0..1",)
    expression = np.clip(expression, 0, 1).astype(np.float32)
    if fps is not None or "timecode" not in names:
        if fps is None:
            raise InputError(f"{path} has no Timecode column; give fps=")
        return Motion(expression, rotation, translation, float(fps), warnings)
    times = _frame_times([row[names["timecode"]] for row in body], path)
    steps = np.diff(times)
    if len(times) < 2 or not (steps > 0).all():
        raise InputError(f"{path}: the time codes do not rise from row to row; give fps=")
    # dropped frames make some steps whole multiples of the shortest usual one
    step = np.median(steps)
    counts = np.maximum(np.round(steps / step), 1)
    if not 1 <= 1 / step <= 240 or counts.sum() > 100 * len(times):
        raise InputError(f"{path}: the time codes jump (a step of {steps.max():.0f} s); give fps=")
    step = times[-1] / counts.sum()
    index = np.arange(int(counts.sum()) + 1)
    at = np.concatenate([[0], np.cumsum(counts)])
    return Motion(*(_interpolate(index, at, curve) for curve in (expression, rotation, translation)),
                  round(1 / step, 3), warnings)


def _interpolate(x: np.ndarray, known: np.ndarray, curves: np.ndarray) -> np.ndarray:
    """Curves (T, C) known at `known` (T,), linearly at x (n,)."""
    return np.stack([np.interp(x, known, curve) for curve in curves.T], 1).astype(np.float32)
