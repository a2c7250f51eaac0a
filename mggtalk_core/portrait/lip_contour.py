"""Move the tracked inner contour of an open mouth onto the picture's edge between lip and mouth."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates

from ..headmodel.landmarks import INNER_LIP_LOWER, INNER_LIP_UPPER, inter_ocular_distance, mouth_is_open

INWARD, OUTWARD, STEP = -0.01, 0.045, 0.005
"""Where across the tracked contour the edge is looked for, and in what steps; inter-ocular distances. Hardly inwards:
there the strongest edges are the teeth's own."""

BLUR = 0.01
"""Detail that is no edge, inter-ocular distances."""

DISTANCE_COST, BEND_COST = 0.15, 0.02
"""Cost of a shift by `OUTWARD`, and of neighbours that differ by one step; the picture's strongest edge is worth 1."""


def refine_lip_contour(image: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Landmarks (478, 2) with the inner lips of an open mouth on the edges of the image (S, S, 3) float32 0..1.

    The tracker's contour often runs through the teeth; teeth outside of it would be taken for lip and show when the
    lips close. Each landmark slides across its lip; the best path of shifts is found by dynamic programming (Amini
    1990's snake).
    """
    if not mouth_is_open(landmarks):
        return landmarks
    unit = inter_ocular_distance(landmarks)
    smooth = gaussian_filter(image, (BLUR * unit, BLUR * unit, 0))
    opening = landmarks[list(INNER_LIP_LOWER)].mean(0) - landmarks[list(INNER_LIP_UPPER)].mean(0)
    down = opening / np.linalg.norm(opening)
    refined = landmarks.copy()
    for edge, outward in ((INNER_LIP_UPPER, -down), (INNER_LIP_LOWER, down)):
        shifts = np.arange(INWARD, OUTWARD, STEP) * unit
        places = landmarks[list(edge), None] + shifts[:, None] * outward  # (landmarks, shifts, 2)
        colors = np.stack(
            [map_coordinates(smooth[..., c], places[..., ::-1].reshape(-1, 2).T - 0.5, order=1) for c in range(3)], -1
        ).reshape(*places.shape[:2], 3)
        strength = np.linalg.norm(np.gradient(colors, axis=1), axis=2)
        cost = DISTANCE_COST * (shifts / (OUTWARD * unit)) ** 2 - strength / strength.max()
        refined[list(edge)] += shifts[_best_path(cost)][:, None] * outward
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
