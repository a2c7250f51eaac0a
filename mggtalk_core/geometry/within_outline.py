"""The photo's outline of a person, which nothing of the head may lie outside of."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

from ..types import Portrait
from .nearest_pixels import distance_to, distance_within
from .projection import project, to_camera, to_canonical
from .scalp import SPLAT_RADIUS

FARTHEST_OUTSIDE = 0.012
"""So far outside the person's outline, metres, the head model's skull may be where the person's is narrower."""


def within_outline(positions: np.ndarray, portrait: Portrait) -> np.ndarray:
    """Positions (N, 3) m, canonical, moved inward so far that their splats end where the person does in the photo.

    Only those near the outline (`FARTHEST_OUTSIDE`): what is farther outside is no part of this head.
    """
    camera = portrait.camera
    inside = portrait.alpha > 0.5
    at_camera = to_camera(positions, camera)
    columns, rows, depth = project(at_camera, camera).T
    to_metres = depth / camera.K[0, 0]
    within = distance_within(inside)
    distance = gaussian_filter(within - distance_to(inside), 1.0)
    last = len(inside) - 1
    row, column = rows.astype(int).clip(0, last), columns.astype(int).clip(0, last)
    left, right = distance[row, (column - 1).clip(0)], distance[row, (column + 1).clip(max=last)]
    above, below = distance[(row - 1).clip(0), column], distance[(row + 1).clip(max=last), column]
    inward = np.stack([right - left, below - above], -1)
    inward /= np.linalg.norm(inward, axis=-1, keepdims=True) + 1e-6
    missing = SPLAT_RADIUS - distance[row, column] * to_metres
    missing = np.where(missing < FARTHEST_OUTSIDE, missing.clip(0), 0)
    at_camera[:, :2] += missing[:, None] * inward
    return to_canonical(at_camera, camera)
