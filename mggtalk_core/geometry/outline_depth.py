"""How deep the person's outline lies: in the plane of the ears, but at the chin's depth where a beard ends there.

On a face turned to the side a beard's outline is the chin's. In the plane of the ears, nearly a hand's breadth behind,
it would stand off sideways as a spike as soon as the head turns.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import binary_erosion, gaussian_filter

from ..headmodel.model import HeadModel
from ..types import Portrait
from .coarse import enlarged
from .mesh_raster import rasterize_mesh
from .nearest_pixels import distance_to, nearest_pixels
from .pose_weights import ramp, smoothstep
from .projection import project, to_camera, to_canonical, unproject
from .scalp import SILHOUETTE_DEPTH

JAW = (0.025, 0.125)
"""Heights of the jaw, metres below the eyes."""

BLEND = 0.035
"""Height over which the outline becomes the jaw's, metres."""

THINNEST, LONGEST = 0.004, (0.02, 0.04)
"""A beard is this thick at least, and what is between these distances and more beside the jaw hair or cloth, metres."""

AHEAD = (0.055, 0.075)
"""How far before the plane of the ears, metres, the jaw's outline begins to count, and does: seen from the front it is
less, and what hangs beside it is hair of the head, a neck or a collar."""

OVERHANG = 0.025
"""Within this distance below a beard's outline there is background, metres; below a collar's there is cloth."""

WIDTH, BLUR = 0.05, 1 / 48
"""How far inside the outline its depth is felt, metres; the standard deviation by which it is smooth, crop sides."""

GRID = 128
"""Side of the grid it is looked for on, pixels."""


def outline_depth(portrait: Portrait, head: HeadModel, person: np.ndarray) -> np.ndarray:
    """Depth (S, S) m along the camera's z of the nearest part of the outline of the person (S, S) bool."""
    size = len(portrait.image)
    step = max(1, size // GRID)
    side = size // step
    camera = portrait.camera.resized(side, side)
    plane = camera.viewmat[2, 3] + SILHOUETTE_DEPTH
    pixel = plane / camera.K[0, 0]
    person = person[step // 2 :: step, step // 2 :: step][:side, :side]
    at_outline = person & ~binary_erosion(person, border_value=1)
    rows, columns = np.nonzero(at_outline)

    skin = head.faces[head.outer_skin & ~head.ears[head.faces].any(1)]
    jaw = (head.mean[skin, 1].mean(1) < JAW[1]) & (head.mean[skin, 2].mean(1) < SILHOUETTE_DEPTH)
    depth, face, _ = rasterize_mesh(project(to_camera(portrait.vertices, camera), camera), skin, side, side)
    near = tuple(each[rows, columns] for each in nearest_pixels(face >= 0))
    beside = np.hypot(near[0] - rows, near[1] - columns) * pixel
    height = to_canonical(unproject(columns + 0.5, rows + 0.5, np.full(len(rows), plane), camera), camera)[:, 1]
    below = (rows + np.arange(1, OVERHANG / pixel)[:, None].astype(int)).clip(max=side - 1)
    ahead = np.maximum(plane - depth[near], 0)
    beard = jaw[face[near]] & ~person[below, columns].all(0)
    weight = beard * smoothstep((height - JAW[0]) / BLEND) * smoothstep(beside / THINNEST)
    weight *= 1 - ramp(beside, LONGEST)
    weight *= ramp(ahead, AHEAD)
    if not weight.any():
        return np.full((size, size), plane, np.float32)

    forward = np.zeros((side, side), np.float32)
    forward[rows, columns] = weight * ahead
    nearest = nearest_pixels(at_outline)
    forward = forward[nearest] * (1 - smoothstep(distance_to(at_outline) * pixel / WIDTH))
    return plane - enlarged(gaussian_filter(forward, BLUR * side), step, size)
