"""Move the tracked lower contour of an open mouth onto the picture's edge between mouth and lower lip."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates

from ..headmodel.landmarks import INNER_LIP_LOWER, INNER_LIP_UPPER, inter_ocular_distance, mouth_is_open

REACH, STEP = 0.045, 0.005
"""How far below the tracked contour the edge is looked for, and in what steps; inter-ocular distances. Not above
it: there the strongest edges are the teeth's own."""

BLUR = 0.01
"""Detail that is no edge, inter-ocular distances."""

DISTANCE_COST, BEND_COST = 0.15, 0.02
"""Cost of a shift by `REACH`, and of neighbours that differ by one step; the picture's strongest edge is worth 1."""


def refine_lip_contour(image: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Landmarks (478, 2) with the lower lip of an open mouth on its edge in the image (S, S, 3) float32 0..1.

    The tracker's contour often runs through the lower teeth; teeth below it would be taken for lip and show when the
    lips close. Each landmark slides down; the best path of shifts is found by dynamic programming (Amini 1990's snake).
    """
    if not mouth_is_open(landmarks):
        return landmarks
    lower = list(INNER_LIP_LOWER)
    unit = inter_ocular_distance(landmarks)
    smooth = gaussian_filter(image, (BLUR * unit, BLUR * unit, 0))
    opening = landmarks[lower].mean(0) - landmarks[list(INNER_LIP_UPPER)].mean(0)
    down = opening / np.linalg.norm(opening)
    shifts = np.arange(0, REACH + STEP, STEP) * unit
    places = landmarks[lower][:, None] + shifts[:, None] * down  # (landmarks, shifts, 2)
    rows, columns = places[..., 1] - 0.5, places[..., 0] - 0.5
    colors = np.stack([map_coordinates(smooth[..., channel], (rows, columns), order=1) for channel in range(3)], -1)
    strength = np.linalg.norm(np.gradient(colors, axis=1), axis=2)
    cost = DISTANCE_COST * (shifts / (REACH * unit)) ** 2 - strength / strength.max()
    refined = landmarks.copy()
    refined[lower] += shifts[_best_path(cost)][:, None] * down
    return refined.astype(landmarks.dtype)


def _best_path(cost: np.ndarray) -> np.ndarray:
    """Column (n,) of each row of a cost (n, m); the sum of costs and `BEND_COST` per squared step is least."""
    columns = np.arange(cost.shape[1])
    bend = BEND_COST * (columns[:, None] - columns) ** 2  # from, to
    total, came_from = cost[0], []
    for row in cost[1:]:
        ways = total[:, None] + bend
        came_from.append(ways.argmin(0))
        total = ways.min(0) + row
    path = [int(total.argmin())]
    for back in reversed(came_from):
        path.append(int(back[path[-1]]))
    return np.array(path[::-1])
