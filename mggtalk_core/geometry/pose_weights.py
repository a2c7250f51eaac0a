"""How much of the head's turning each point follows: 1 on the head, little on the torso, smooth over the neck."""

from __future__ import annotations

import numpy as np

from ..types import Portrait
from .projection import project, to_camera

TORSO_FOLLOWS = 0.08
"""Of the head's turning, how much shoulders and chest follow."""

NO_SHOULDERS = np.full(2, np.inf)
"""`shoulder_tops` of someone whose hair may hang down on both sides."""

BESIDE_NECK, BESIDE_DEPTH = (0.06, 0.09), 0.08
"""Where hair that reaches the shoulders hangs: distances from the middle, and depth behind the eyes, metres."""

BELOW_EARS, BELOW_CHIN = 0.04, 0.10
"""It is looked for from so far below the eyes to so far below the chin, metres."""

BARE_ALPHA, BARE_SHARE = 0.2, 0.5
"""Mask value below which a pixel is the background, and the share of columns that must show it between head and
shoulder."""

SHOULDER_EDGE = 0.02
"""Height over which the head's turning ends where a shoulder begins, metres."""


def shoulder_tops(portrait: Portrait, chin_height: float) -> np.ndarray:
    """Heights (2,), y in metres, where shoulders begin at x < 0 and x > 0; infinite where hair may hang down to them.

    Where the photo shows background between head and shoulder, no hair hangs there.
    """
    size = portrait.alpha.shape[0]
    heights = np.linspace(BELOW_EARS, chin_height + BELOW_CHIN, 64)
    tops = np.full(2, np.inf)
    for side, sign in enumerate((-1, 1)):
        x, y = np.meshgrid(sign * np.linspace(*BESIDE_NECK, 8), heights)
        beside = np.stack([x, y, np.full_like(x, BESIDE_DEPTH)], -1).reshape(-1, 3)
        in_picture = project(to_camera(beside, portrait.camera), portrait.camera)[:, :2]
        columns, rows = np.floor(in_picture).astype(int).T
        inside = (rows >= 0) & (rows < size) & (columns >= 0) & (columns < size)
        alpha = portrait.alpha[rows.clip(0, size - 1), columns.clip(0, size - 1)]
        bare = (inside & (alpha < BARE_ALPHA)).reshape(x.shape)
        shown = bare.any(0)
        if shown.mean() >= BARE_SHARE:
            lowest = len(heights) - 1 - bare[::-1, shown].argmax(0)
            tops[side] = np.median(heights[lowest])
    return tops


def head_pose_weight(points: np.ndarray, chin_height: float, shoulders: np.ndarray = NO_SHOULDERS) -> np.ndarray:
    """Weights (N,) TORSO_FOLLOWS..1 for canonical points (N, 3) m; `chin_height` is the chin's y in metres (down is +),
    `shoulders` (2,) the `shoulder_tops`.

    The neck blends from the jaw line (at the chin in front, higher toward the ears) to the collar. Hair to the sides
    stays rigid with the head down to the shoulders; what lies far to the side below them is shoulder, and so is all
    that lies to the side below a shoulder's top.
    """
    x, y, z = np.abs(points[:, 0]), points[:, 1], points[:, 2]
    jaw_line = chin_height + 0.006 - 0.045 * np.clip((z - 0.005) / 0.08, 0, 1.2)
    neck = smoothstep((jaw_line + 0.085 - y) / 0.085)
    hair = smoothstep((chin_height + 0.105 - y) / 0.055)
    beside = smoothstep((x - 0.05) / 0.022)
    shoulder = smoothstep((y - chin_height - 0.02) / 0.05) * smoothstep((x - 0.115) / 0.05)
    weight = ((1 - beside) * neck + beside * np.maximum(hair, neck)) * (1 - shoulder)
    top = np.where(points[:, 0] < 0, *shoulders)
    weight *= 1 - beside * smoothstep((y - top) / SHOULDER_EDGE + 1)
    return np.maximum(weight, TORSO_FOLLOWS).astype(np.float32)


def smoothstep(value: np.ndarray) -> np.ndarray:
    """0 below 0, 1 above 1, and 3v^2 - 2v^3 between."""
    value = np.clip(value, 0, 1)
    return value * value * (3 - 2 * value)


def ramp(value: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    """`smoothstep` from the first limit, where it is 0, to the second, where it is 1."""
    return smoothstep((value - limits[0]) / (limits[1] - limits[0]))
