"""How much of the head's turning each point follows: 1 on the head, little on the torso, smooth over the neck."""

from __future__ import annotations

import numpy as np

TORSO_FOLLOWS = 0.08
"""Of the head's turning, how much shoulders and chest follow."""


def head_pose_weight(points: np.ndarray, chin_height: float) -> np.ndarray:
    """Weights (N,) TORSO_FOLLOWS..1 for canonical points (N, 3) m; `chin_height` is the chin's y in metres (down is +).

    The neck blends from the jaw line (at the chin in front, higher toward the ears) to the collar. Hair to the sides
    stays rigid with the head down to the shoulders; what lies far to the side below them is shoulder.
    """
    x, y, z = np.abs(points[:, 0]), points[:, 1], points[:, 2]
    jaw_line = chin_height + 0.006 - 0.045 * np.clip((z - 0.005) / 0.08, 0, 1.2)
    neck = smoothstep((jaw_line + 0.085 - y) / 0.085)
    hair = smoothstep((chin_height + 0.105 - y) / 0.055)
    beside = smoothstep((x - 0.05) / 0.022)
    shoulder = smoothstep((y - chin_height - 0.02) / 0.05) * smoothstep((x - 0.115) / 0.05)
    weight = ((1 - beside) * neck + beside * np.maximum(hair, neck)) * (1 - shoulder)
    return np.maximum(weight, TORSO_FOLLOWS).astype(np.float32)


def smoothstep(value: np.ndarray) -> np.ndarray:
    """0 below 0, 1 above 1, and 3v^2 - 2v^3 between."""
    value = np.clip(value, 0, 1)
    return value * value * (3 - 2 * value)
