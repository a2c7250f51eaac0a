"""Motion written by hand: one line per key pose.

    # seconds  what the face does then
    0.0  rest
    0.6  jawOpen=0.5 mouthSmile=0.3 yaw=10
    1.4  smile blink
    2.0  rest

A line holds every value it does not name at 0. Names without a side set both sides; yaw, pitch and roll are degrees
with the signs of the CSV (right of the image, down, top to the right); x, y and z are centimetres. Between lines the
face eases from pose to pose.
"""

from __future__ import annotations

import numpy as np

from ..errors import InputError
from ..headmodel.arkit import ARKIT_INDEX, ARKIT_NAMES
from ..types import Motion
from .blendshape_csv import rotation_from_euler

POSES = {
    "rest": {},
    "smile": {"mouthSmile": 0.7, "cheekSquint": 0.4, "eyeSquint": 0.2},
    "laugh": {"mouthSmile": 0.9, "jawOpen": 0.35, "cheekSquint": 0.7, "eyeSquint": 0.4, "mouthUpperUp": 0.3},
    "sad": {"mouthFrown": 0.6, "browInnerUp": 0.7, "mouthShrugLower": 0.3},
    "angry": {"browDown": 0.8, "noseSneer": 0.4, "mouthPress": 0.4, "eyeSquint": 0.3},
    "surprise": {"browInnerUp": 0.8, "browOuterUp": 0.7, "eyeWide": 0.7, "jawOpen": 0.35},
    "blink": {"eyeBlink": 1.0},
    "aa": {"jawOpen": 0.5, "mouthLowerDown": 0.3},
    "ee": {"mouthStretch": 0.4, "mouthSmile": 0.3, "jawOpen": 0.12},
    "oo": {"mouthPucker": 0.7, "mouthFunnel": 0.3, "jawOpen": 0.1},
}
_POSE_VALUES = ("yaw", "pitch", "roll", "x", "y", "z")
_LOWER = {name.lower(): name for name in ARKIT_NAMES}


def _values_of(word: str, line: int) -> dict[str, float]:
    """What one word of a line sets: ARKit names or pose values -> number."""
    name, separator, text = word.partition("=")
    if not separator:
        if name.lower() not in POSES:
            raise InputError(f"timeline line {line}: {word!r} is no pose; use {', '.join(POSES)} or name=value")
        values: dict[str, float] = {}
        for key, value in POSES[name.lower()].items():
            values |= _values_of(f"{key}={value}", line)
        return values
    try:
        value = float(text)
    except ValueError:
        raise InputError(f"timeline line {line}: {text!r} in {word!r} is not a number") from None
    if name.lower() in _POSE_VALUES:
        return {name.lower(): value}
    names = [n for n in (name, f"{name}Left", f"{name}Right") if n.lower() in _LOWER]
    if not names:
        raise InputError(f"timeline line {line}: {name!r} is no ARKit shape; e.g. jawOpen, mouthSmile, eyeBlinkLeft")
    if not 0 <= value <= 1:
        raise InputError(f"timeline line {line}: {word!r} is outside 0..1")
    return {_LOWER[n.lower()]: value for n in names}


def read_timeline(text: str, fps: float = 25.0) -> Motion:
    """Motion of a text timeline, from 0 to its last line, at `fps`.

    Raises:
        InputError: names the line and word that can't be read, or a time that does not rise.
    """
    times: list[float] = []
    keys: list[np.ndarray] = []
    for number, raw in enumerate(text.splitlines(), 1):
        words = raw.split("#")[0].replace(",", " ").split()
        if not words:
            continue
        try:
            time = float(words[0].rstrip("s:"))
        except ValueError:
            raise InputError(f"timeline line {number}: {words[0]!r} is not a time in seconds") from None
        if time < 0 or (times and time <= times[-1]):
            raise InputError(f"timeline line {number}: time {time} does not come after {times[-1] if times else 0}")
        key = np.zeros(52 + len(_POSE_VALUES))
        for word in words[1:]:
            for name, value in _values_of(word, number).items():
                key[ARKIT_INDEX[name] if name in ARKIT_INDEX else 52 + _POSE_VALUES.index(name)] = value
        times.append(time)
        keys.append(key)
    if not times:
        raise InputError("the timeline has no lines; write e.g. '0 rest' and '1.0 smile'")
    frames = max(1, int(np.ceil(times[-1] * fps - 1e-6)) + 1)
    clock = np.arange(frames) / fps
    after = np.clip(np.searchsorted(times, clock, side="right"), 1, max(1, len(times) - 1))
    start, end = np.array(times)[after - 1], np.array(times)[np.minimum(after, len(times) - 1)]
    t = np.clip((clock - start) / np.maximum(end - start, 1e-9), 0, 1)[:, None]
    ease = t * t * (3 - 2 * t)
    table = np.array(keys)
    curves = table[after - 1] * (1 - ease) + table[np.minimum(after, len(times) - 1)] * ease
    rotation = rotation_from_euler(np.radians(curves[:, 52:55]))
    return Motion(curves[:, :52].astype(np.float32), rotation, (curves[:, 55:] / 100).astype(np.float32), float(fps))
