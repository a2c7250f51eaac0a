"""Surface behind steps in depth: from aside one would look between the photo's pixels into the head.

Beside an ear or along a jaw two neighbouring pixels can be a centimetre apart in depth, more than splats reach.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..headmodel.landmarks import OVAL
from ..types import SOLID_ALPHA, PointCloud
from .binding import polygon_mask
from .blocks import block_pixels
from .nearest_pixels import distance_within
from .projection import to_canonical, unproject
from .surfels import MAX_OPACITY
from .symmetry import select

STEP = (6.0, 25.0)
"""Steps between pixels, in pixel footprints, that are closed: splats reach over lower ones, and what is farther behind
is another part of the person."""

SPACING, SPREAD = 2.5, 0.76
"""Distance of points along the ray, in pixel footprints, and their standard deviation along it, in units of that."""

ASIDE, WIDTH = 0.5, 0.4
"""How far from the step they lie, and their standard deviation, pixels: the photo's own view does not show them."""

FROM_EDGE = 1 / 100
"""Distance from the person's edge, crop sides: nearer to it colours are mixed with the background's, and pixels lie too
far apart to be one surface."""

MOVING_POSE_WEIGHT = 0.5
"""Only what turns with the head needs them."""


def behind_steps(visible: PointCloud) -> PointCloud:
    """Points behind the nearer pixels of steps in the depth of what turns with the head, but for those within the face.

    They lie on these pixels' rays, down to the depth of the farther ones, and have these pixels' colours.
    """
    portrait, camera = visible.portrait, visible.portrait.camera
    depth, size = visible.depth_map.depth, len(portrait.image)
    rows, columns, height, towards = _steps(depth, depth / camera.K[0, 0])
    number = np.full((size, size), -1)
    moving = np.flatnonzero(visible.pose_weight > MOVING_POSE_WEIGHT)
    at_rows, at_columns, block = block_pixels(visible.pixels[moving], visible.steps[moving])
    number[at_rows, at_columns] = moving[block]
    face = polygon_mask(portrait.landmarks[list(OVAL)], size) & visible.depth_map.on_head
    near, far = (rows, columns), (rows + towards[:, 0], columns + towards[:, 1])
    between = (number[near] >= 0) & (number[far] >= 0) & ~(face[near] & face[far])
    between &= distance_within(portrait.alpha > SOLID_ALPHA)[near] >= FROM_EDGE * size
    rows, columns, height, towards = (each[between] for each in (rows, columns, height, towards))
    count = (height / SPACING).astype(int)
    order = np.arange(count.sum()) - np.repeat(count.cumsum() - count, count)
    rows, columns, towards = (np.repeat(each, count, axis=0) for each in (rows, columns, towards))
    down, right = towards.T * ASIDE
    pixel = depth[rows, columns] / camera.K[0, 0]
    z = depth[rows, columns] + (order + 1) * SPACING * pixel
    at_camera = unproject(columns + 0.5 - right, rows + 0.5 - down, z, camera)
    ray = at_camera / np.linalg.norm(at_camera, axis=1, keepdims=True)
    aside = np.cross(ray, [0, 1, 0])
    axes = np.stack([SPREAD * SPACING * ray, WIDTH * aside, WIDTH * np.cross(ray, aside)], 1) * pixel[:, None, None]
    behind = select(visible, number[rows, columns])
    return replace(
        behind,
        positions=to_canonical(at_camera, camera).astype(np.float32),
        axes=(axes @ camera.viewmat[:3, :3]).astype(np.float32),
        opacities=np.full(len(behind), MAX_OPACITY, np.float32),
    )


def _steps(depth: np.ndarray, footprint: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Nearer pixels, rows and columns (n,), of steps in a depth (S, S), how high these are (n,) in footprints (S, S),
    and the way (n, 2) to the farther pixel: of each pixel the highest."""
    size, found = len(depth), []
    for axis, way in enumerate(((1, 0), (0, 1))):
        rise = np.diff(depth, axis=axis)
        rows, columns = np.nonzero(np.abs(rise) > STEP[0] * np.nanmin(footprint))
        rise, way = rise[rows, columns], np.array(way)
        falls = (rise < 0)[:, None]
        near = np.stack([rows, columns], 1) + way * falls
        found.append(np.column_stack([near, np.abs(rise) / footprint[tuple(near.T)], way * np.where(falls, -1, 1)]))
    found = np.concatenate(found)
    found = found[(found[:, 2] > STEP[0]) & (found[:, 2] < STEP[1])]
    found = found[found[:, 2].argsort(kind="stable")]
    last = np.full((size, size), -1)
    rows, columns = found[:, :2].astype(int).T
    last[rows, columns] = np.arange(len(found))  # the highest come last
    rows, columns, height, *towards = found[last[last >= 0]].T
    return rows.astype(int), columns.astype(int), height, np.stack(towards, 1).astype(int)
