"""Symmetry (paper: Sym. and Filter): mirror the visible points onto the side the photo doesn't show."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.ndimage import maximum_filter
from scipy.spatial import cKDTree

from ..headmodel.model import HeadModel
from ..types import SYMMETRIC, PointCloud
from .projection import project, to_camera
from .scalp import onto_scalp
from .surfels import surfel_sigma

FLIP = np.array([-1, 1, 1], np.float32)

MIN_POSE_WEIGHT = 0.9
"""Only what turns with the head is mirrored: shoulders and clothes are not symmetric about the head's plane, and
between them and it, where the neck bends, mirrored points came out in front of a collar or shoulder."""

FILTER_SPACING = 1.6
"""A mirrored point is dropped when a visible one is nearer than this many times the visible surfels' own spacing."""


def mirror_points(points: PointCloud, head: HeadModel) -> PointCloud:
    """All points mirrored: bound to the mirror triangle, at the mirrored offset from it.

    Mirroring through the head model's topology instead of at x = 0 keeps an asymmetric face's own shape.
    """
    corners = head.faces[points.faces]
    vertices = points.portrait.vertices
    mirrored_corners = head.mirror_vertices[corners]
    mirrored_faces = head.mirror_faces[points.faces]
    anchor = (vertices[corners] * points.barycentric[..., None]).sum(1)
    mirrored_anchor = (vertices[mirrored_corners] * points.barycentric[..., None]).sum(1)
    # The mirror triangle lists its corners in another order: move the barycentric weights along.
    same_corner = head.faces[mirrored_faces][:, :, None] == mirrored_corners[:, None, :]
    return replace(
        points,
        positions=(mirrored_anchor + (points.positions - anchor) * FLIP).astype(np.float32),
        axes=points.axes * FLIP,
        faces=mirrored_faces,
        barycentric=(same_corner * points.barycentric[:, None, :]).sum(2).astype(np.float32),
        origin=np.full(len(points), SYMMETRIC, np.uint8),
    )


def in_free_space(positions: np.ndarray, points: PointCloud, margin: float, reach: float = 0.0) -> np.ndarray:
    """Mask (N,) of canonical positions (N, 3) the photo can't contradict.

    They must project onto the person, at least `margin` metres behind what is visible there and up to `reach` metres
    to the sides; in front of it or beside the person the photo would show them.
    """
    portrait, depth = points.portrait, points.depth_map.depth
    window = 2 * round(reach * portrait.camera.K[0, 0] / np.nanmedian(depth)) + 1
    if window > 1:
        depth = np.where(np.isnan(depth), np.nan, maximum_filter(np.nan_to_num(depth), window))
    size = depth.shape[0]
    pixels = project(to_camera(positions, portrait.camera), portrait.camera)
    columns = pixels[:, 0].astype(int).clip(0, size - 1)
    rows = pixels[:, 1].astype(int).clip(0, size - 1)
    return pixels[:, 2] > depth[rows, columns] + margin  # False where depth is NaN, off the person


def symmetric_points(points: PointCloud, head: HeadModel, *, voxel_filter: bool = True) -> PointCloud:
    """P_f^s: mirrored points that add something: not already seen, and consistent with the photo."""
    moving = points.pose_weight > MIN_POSE_WEIGHT
    has_mirror = head.mirror_faces[points.faces] >= 0
    mirrored = mirror_points(select(points, moving & has_mirror), head)
    pixel = np.nanmedian(points.depth_map.depth) / points.portrait.camera.K[0, 0]
    mirrored = select(mirrored, in_free_space(mirrored.positions, points, 1.5 * pixel))
    laid = onto_scalp(mirrored.positions, points.portrait, points.depth_map.outline, head)
    mirrored = replace(mirrored, positions=laid)
    keep = in_free_space(mirrored.positions, points, 1.5 * pixel)
    if voxel_filter and keep.any():
        seen = points.positions[moving]
        steps = points.steps[moving]
        spacing = np.linalg.norm(points.axes[moving, :2], axis=2).max(1) * steps / surfel_sigma(steps)
        distance, nearest = cKDTree(seen).query(
            mirrored.positions[keep], distance_upper_bound=12 * pixel, workers=-1
        )
        own_spacing = spacing[nearest.clip(max=len(seen) - 1)]
        keep[keep] = distance > FILTER_SPACING * np.maximum(own_spacing, 1.2 * pixel)
    return select(mirrored, keep)


def select(points: PointCloud, keep: np.ndarray) -> PointCloud:
    """The points of a mask (N,) or an index array."""
    return replace(points, **{name: getattr(points, name)[keep] for name in PER_POINT})


def concatenate(clouds: list[PointCloud]) -> PointCloud:
    """Several point clouds of one portrait as one."""
    return replace(
        clouds[0], **{name: np.concatenate([getattr(cloud, name) for cloud in clouds]) for name in PER_POINT}
    )


PER_POINT = ("positions", "axes", "colors", "opacities", "faces", "barycentric", "expression_weight", "pose_weight",
             "origin", "pixels", "steps")  # fmt: skip
"""Fields of PointCloud with one row per point."""
