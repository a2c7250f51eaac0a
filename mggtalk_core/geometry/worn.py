"""Worn: points of the spectacles, stiff, before the face.

Their front is a surface a little curved and tilted, as near before the face as it can be without touching it. Temples
lie on the head's sides; from the ends of the front they are drawn back to there along the photo's rays, where the photo
hides them behind the front.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.ndimage import maximum_filter

from ..types import WORN, Camera, DepthMap, PointCloud, Portrait
from .depth import pixel_tangents
from .nearest_pixels import nearest_pixels
from .projection import to_camera, to_canonical, unproject
from .surfels import HEAD_MAX_SLOPE, MAX_OPACITY, SURFEL_THICKNESS, surfel_sigma
from .symmetry import concatenate, select

LEAST_ALPHA = 0.04
"""Share of a pixel from which on it gets a point."""

WRAP, TILT = 1.5, np.tan(np.radians(8))
"""How fronts curve to the sides, 1/m, and how much farther back they are at their lower end: 5 mm at the hinges, and
as opticians bend them."""

CLEARANCE, TOUCHING = 0.0015, 4.0
"""Metres that they keep from the face, but for the percentage of their front that is nearest to it."""

END_PIECE, OUTERMOST, HALF_HEIGHT, BACKWARD, BESIDE, SOLID = 0.005, 0.001, 0.002, 0.04, 0.008, 0.9
"""Width of the front's ends, from which temples go back; of what tells how high temples begin where none is seen; half
their height; how far back at most; how far beside the fitted head an end may be seen: metres. And how much of a pixel
is theirs there."""

SPACING, SPREAD = 1.5, 0.76
"""Distance of points along a ray, in pixel footprints, and their standard deviation along it, in units of that."""

ROUNDS, FARTHEST = 5, 0.03
"""Steps by which a ray finds the front, and metres of one at most: seen edge-on, rays may miss it."""


def worn_points(portrait: Portrait, depth_map: DepthMap) -> PointCloud:
    """Surfels of the portrait's spectacles, which move as the head does, whatever the face does."""
    spectacles, camera = portrait.spectacles, portrait.camera
    theirs = (spectacles.alpha > LEAST_ALPHA) & np.isfinite(depth_map.depth)
    depth = _depth(portrait, depth_map, theirs)
    rows, columns = np.nonzero(theirs)
    z = depth[rows, columns]
    tangents = pixel_tangents(depth, camera.K, np.full_like(depth, HEAD_MAX_SLOPE))
    along_columns, along_rows = (field[rows, columns] @ camera.viewmat[:3, :3] for field in tangents)
    normal = np.cross(along_columns, along_rows)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    sigma = surfel_sigma(np.ones(1))
    thickness = SURFEL_THICKNESS * (z / camera.K[0, 0])[:, None]
    count = len(rows)
    seen = PointCloud(
        positions=to_canonical(unproject(columns + 0.5, rows + 0.5, z, camera), camera).astype(np.float32),
        axes=np.stack([sigma * along_columns, sigma * along_rows, thickness * normal], 1).astype(np.float32),
        colors=spectacles.colors[rows, columns],
        opacities=(spectacles.alpha[rows, columns] * MAX_OPACITY).astype(np.float32),
        faces=depth_map.face[rows, columns],
        barycentric=depth_map.barycentric[rows, columns],
        expression_weight=np.zeros(count, np.float32),
        pose_weight=np.ones(count, np.float32),
        origin=np.full(count, WORN, np.uint8),
        pixels=np.stack([rows, columns], 1).astype(np.int32),
        steps=np.ones(count, np.uint8),
        portrait=portrait,
        depth_map=depth_map,
    )
    return concatenate([seen, _temples(seen)])


def _depth(portrait: Portrait, depth_map: DepthMap, theirs: np.ndarray) -> np.ndarray:
    """Depth (S, S) m of the spectacles where they are (S, S) bool; elsewhere that of the nearest of their pixels."""
    behind, camera = depth_map.depth, portrait.camera
    front = theirs & ~portrait.spectacles.temples
    front = front if front.any() else theirs
    rows, columns = np.nonzero(theirs)
    z = _front_depth(rows, columns, behind[rows, columns], front[rows, columns], camera)
    before = np.zeros(theirs.shape)
    before[rows, columns] = np.maximum(behind[rows, columns] - z, CLEARANCE)
    depth = behind - np.where(front, before, CLEARANCE)
    return depth[nearest_pixels(theirs)]


def _front_depth(
    rows: np.ndarray, columns: np.ndarray, behind: np.ndarray, front: np.ndarray, camera: Camera
) -> np.ndarray:
    """Depth (n,) m at which pixels' rays meet the front's surface, which stays before the face there, `behind` (n,) m.

    It is put so that its own pixels, `front` (n,) bool, touch the face in few places.
    """

    def beyond(z: np.ndarray) -> np.ndarray:
        """How far points on the rays at depths (n,) are behind the surface through the origin, canonical m."""
        x, y, forward = to_canonical(unproject(columns + 0.5, rows + 0.5, z, camera), camera).T
        return forward - WRAP * x**2 - TILT * y

    place = np.percentile(beyond(behind)[front], TOUCHING) - CLEARANCE
    z, step = np.full(len(rows), float(camera.viewmat[2, 3])), 1e-3  # from between the eyes
    for _ in range(ROUNDS):
        error = beyond(z) - place
        z = z - (error * step / (beyond(z + step) - beyond(z))).clip(-FARTHEST, FARTHEST)
    return z


def _temples(seen: PointCloud) -> PointCloud:
    """Points from the ends of the front back to the head, or to where a temple is seen, on the rays of `seen` pixels.

    Where the photo shows an end beside the head, its temple is behind that.
    """
    camera, (across, height, _) = seen.portrait.camera, seen.positions.T
    rows, columns = seen.pixels.T
    z = to_camera(seen.positions, camera)[:, 2]
    pixel = z / camera.K[0, 0]
    temple = seen.portrait.spectacles.temples[rows, columns]
    front = ~temple & (seen.opacities > SOLID * MAX_OPACITY) & (seen.depth_map.distance[rows, columns] * pixel < BESIDE)
    depths = np.zeros_like(seen.depth_map.depth)
    depths[rows, columns] = z
    to = np.maximum(maximum_filter(depths, 3), seen.depth_map.depth)[rows, columns]
    sides = []
    for outward in (across, -across) if front.any() else ():
        end = outward[front].max()
        near = temple & (np.abs(outward - end) < END_PIECE)
        level = np.median(height[near if near.any() else front & (outward > end - OUTERMOST)])
        chosen = np.flatnonzero(front & (outward > end - END_PIECE) & (np.abs(height - level) < HALF_HEIGHT))
        count = ((to - z)[chosen].clip(0, BACKWARD) / (SPACING * pixel[chosen])).astype(int)
        order = np.arange(count.sum()) - np.repeat(count.cumsum() - count, count)
        chosen = np.repeat(chosen, count)
        at = z[chosen] + (order + 1) * SPACING * pixel[chosen]
        at_camera = unproject(columns[chosen] + 0.5, rows[chosen] + 0.5, at, camera)
        ray = at_camera / np.linalg.norm(at_camera, axis=1, keepdims=True)
        aside = np.cross(ray, [0, 1, 0])
        wide, long = surfel_sigma(np.ones(1)), SPREAD * SPACING
        axes = np.stack([long * ray, wide * aside, wide * np.cross(ray, aside)], 1) * pixel[chosen, None, None]
        side = select(seen, chosen)
        middle = np.median(side.colors, axis=0, keepdims=True) if len(side) else side.colors
        sides.append(
            replace(
                side,
                positions=to_canonical(at_camera, camera).astype(np.float32),
                axes=(axes @ camera.viewmat[:3, :3]).astype(np.float32),
                colors=np.repeat(middle, len(side), axis=0),
                pixels=np.full((len(side), 2), -1, np.int32),
            )
        )
    return concatenate(sides) if sides else select(seen, np.zeros(0, int))
