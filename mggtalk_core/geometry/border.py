"""Hair that the photo's upper edge cuts off: continued beyond it, so that a nod brings no cut into view."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.ndimage import gaussian_filter1d, label

from ..types import PointCloud
from .blocks import MAX_STEP
from .projection import to_canonical, unproject
from .symmetry import concatenate, select

STRIP, SLOPE_STRIP = 1 / 128, 1 / 32
"""Height, in crop sides, of the strip along the edge that is repeated back and forth (so low that it is hair, without
forehead), and of the one that shows the slope of the depth."""

MAX_HEIGHT, HEIGHT_OF_WIDTH = 0.12, 0.25
"""Height of the dome that closes the head, in crop sides at most, and as a part of the cut's width: most of a crown is
in the photo, and a nod of 15 degrees shows no more."""

MOVING_POSE_WEIGHT = 0.5
"""Only what turns with the head is continued."""


def above_photo(points: PointCloud) -> PointCloud:
    """Points above the crop's upper edge: visible ones from along it, repeated in mirrored strips up to a dome.

    Depth goes on with the slope it has at the edge. They keep the pixels they repeat, and so get those pixels' colours.
    Empty where nothing is cut.
    """
    size = points.portrait.image.shape[0]
    strip = max(int(STRIP * size) // MAX_STEP, 1) * MAX_STEP  # whole blocks
    depth = points.depth_map.depth
    cut = cut_columns(points)
    heights = _dome(cut, size)
    lower = round(SLOPE_STRIP * size)
    slope = np.where(cut & np.isfinite(depth[lower]), np.maximum(depth[0] - depth[lower], 0) / lower, 0)
    slope = gaussian_filter1d(slope, size / 50)
    source = select(points, (points.pixels[:, 0] < strip) & (points.pose_weight > MOVING_POSE_WEIGHT))
    down, columns = source.pixels.T + 0.5 * source.steps
    column = source.pixels[:, 1]
    camera = points.portrait.camera
    copies = []
    for index in range(int(MAX_HEIGHT * size) // strip + 1):
        up = index * strip + (down if index % 2 == 0 else strip - down)
        beyond = unproject(columns, -up, depth[0, column] + slope[column] * up, camera)
        copy = replace(source, positions=to_canonical(beyond, camera).astype(np.float32))
        copies.append(select(copy, up < heights[column]))
    return concatenate(copies)


def cut_columns(points: PointCloud) -> np.ndarray:
    """Columns (S,) bool of the crop in which the person reaches its upper edge."""
    return np.isfinite(points.depth_map.depth[0]) & (points.portrait.alpha[0] > 0.5)


def _dome(cut: np.ndarray, size: int) -> np.ndarray:
    """Height in pixels (S,) by which each column is continued: a parabola over every run of cut columns (S,)."""
    heights = np.zeros(len(cut))
    runs, count = label(cut)
    for run in range(1, count + 1):
        columns = np.flatnonzero(runs == run)
        across = np.linspace(-1, 1, len(columns) + 2)[1:-1]
        heights[columns] = min(MAX_HEIGHT * size, HEIGHT_OF_WIDTH * len(columns)) * (1 - across**2)
    return heights
