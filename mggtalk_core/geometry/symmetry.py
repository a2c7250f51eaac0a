"""Symmetry (paper: Sym. and Filter): mirror the visible points onto the side the photo doesn't show, or shows badly."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.ndimage import maximum_filter

from ..headmodel.arkit import ARKIT_INDEX
from ..headmodel.model import HeadModel
from ..types import SYMMETRIC, VISIBLE, DepthMap, PointCloud, Portrait
from .mesh_raster import at_points
from .nearest_pixels import nearest_pixels
from .pose_weights import head_pose_weight, shoulder_tops
from .projection import project, to_camera, to_the_side
from .scalp import onto_scalp
from .search_tree import search_tree
from .surfels import surfel_sigma

FLIP = np.array([-1, 1, 1], np.float32)

MIN_POSE_WEIGHT = 0.9
"""Only what turns with the head is mirrored: shoulders and clothes are not symmetric about the head's plane, and
between them and it, where the neck bends, mirrored points came out in front of a collar or shoulder."""

FILTER_SPACING = 1.6
"""A mirrored point is dropped when a visible one is nearer than this many times the visible surfels' own spacing."""

TURNED = np.radians(22)
"""Faces turned away from the photo's camera by less than this keep what is seen of their far half."""

SLIGHTLY_TURNED = np.radians(10)
"""Faces turned away by less than this show both corners of the mouth alike."""

ABOVE_LOBES, BEHIND_JAW = 0.005, 0.02
"""From so far above the ends of the ears on, metres, necks begin that no hair covers; so far behind the eyes, a
head's sides."""

NEIGHBOURS, NEIGHBOUR_REACH = 8, 3.0
"""Mirrored points within so many of their pixels that make a surface; one in a whole surface has 28."""

COVERING_ALPHA = 0.5
"""Mask value from which on the photo covers what is mirrored behind it."""

SPLAT_ENDS = 2.0
"""Standard deviations from its middle at which a splat is still seen."""


def mirror_points(points: PointCloud, head: HeadModel) -> PointCloud:
    """All points mirrored: bound to the mirror triangle, at the mirrored offset from it.

    Mirroring through the head model's topology instead of at x = 0 keeps an asymmetric face's own shape.
    """
    corners = head.faces[points.faces]
    vertices = points.portrait.vertices
    mirrored_corners = head.mirror_vertices[corners]
    mirrored_faces = head.mirror_faces[points.faces]
    anchor = at_points(vertices, corners, points.barycentric)
    mirrored_anchor = at_points(vertices, mirrored_corners, points.barycentric)
    # The mirror triangle lists its corners in another order: move the barycentric weights along.
    same_corner = head.faces[mirrored_faces][:, :, None] == mirrored_corners[:, None, :]
    return replace(
        points,
        positions=(mirrored_anchor + (points.positions - anchor) * FLIP).astype(np.float32),
        axes=points.axes * FLIP,
        faces=mirrored_faces,
        barycentric=np.einsum("nij,nj->ni", same_corner, points.barycentric).astype(np.float32),
        origin=np.full(len(points), SYMMETRIC, np.uint8),
    )


def in_free_space(
    positions: np.ndarray, portrait: Portrait, depth_map: DepthMap, margin: float | np.ndarray, reach: float = 0.0
) -> np.ndarray:
    """Mask (N,) of canonical positions (N, 3) the photo can't contradict.

    They must project onto the person, at least `margin` metres (one or (N,)) behind what is visible there and up to
    `reach` metres to the sides; in front of it or beside the person the photo would show them.
    """
    depth = depth_map.depth
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
    mirrored = mirror_points(select(points, moving & has_mirror & (points.origin == VISIBLE)), head)
    portrait = points.portrait
    # Behind soft edges and loose hair what is mirrored would show, solid as it is.
    seen_depth = np.where(portrait.alpha > COVERING_ALPHA, points.depth_map.depth, np.nan)
    depth_map = replace(points.depth_map, depth=seen_depth)
    chin_height = float(head.landmarks_of(portrait.vertices)[152, 1])
    pixel = np.nanmedian(depth_map.depth) / portrait.camera.K[0, 0]
    free = in_free_space(mirrored.positions, portrait, depth_map, 1.5 * pixel) & ~_behind_lips(mirrored, head)
    # Long hair or a hand on one side is a shoulder on the other.
    there = head_pose_weight(mirrored.positions, chin_height, shoulder_tops(portrait, chin_height))
    mirrored = select(mirrored, free & (there > MIN_POSE_WEIGHT) & ~_beside_neck(mirrored, head))
    laid = onto_scalp(mirrored.positions, portrait, depth_map.outline, head)
    mirrored = replace(mirrored, positions=laid)
    margin = 1.5 * pixel + _jaw_travel(mirrored, points, head)
    keep = in_free_space(mirrored.positions, portrait, depth_map, margin) & _covered(mirrored, depth_map)
    if voxel_filter and keep.any():
        seen = points.positions[moving]
        steps = points.steps[moving]
        spacing = np.linalg.norm(points.axes[moving, :2], axis=2).max(1) * steps / surfel_sigma(steps)
        distance, nearest = nearest_point(seen, mirrored.positions[keep], 12 * pixel)
        own_spacing = spacing[nearest.clip(max=len(seen) - 1)]
        keep[keep] = distance > FILTER_SPACING * np.maximum(own_spacing, 1.2 * pixel)
    mirrored = select(mirrored, keep)
    return select(mirrored, ~_scattered(mirrored, pixel, head))


def _beside_neck(mirrored: PointCloud, head: HeadModel) -> np.ndarray:
    """Mask (n,) of mirrored points below an ear, behind the jaw, that the photo shows beside the fitted face and neck.

    Where no hair hangs that is what one side's neck or lobe is wider by: a flap in the air beside the other's.
    """
    if mirrored.depth_map.outline.hangs > 0:
        return np.zeros(len(mirrored), bool)
    lobes = mirrored.portrait.vertices[np.unique(head.faces[head.ears[head.faces].any(1)]), 1].max()
    off_head = ~mirrored.depth_map.on_head[tuple(mirrored.pixels.T)]
    _, height, depth = mirrored.positions.T
    return off_head & (height > lobes - ABOVE_LOBES) & (depth > BEHIND_JAW)


def _scattered(mirrored: PointCloud, pixel: float, head: HeadModel) -> np.ndarray:
    """Mask (n,) of mirrored points of ears that are no surface but single specks of one.

    `pixel` is its size on the head, m. One side's ear is a little wider than the other's: what the other does not cover
    of it was a dotted line beside that.
    """
    scattered = head.ears[head.faces[mirrored.faces]].any(1)
    distance, _ = search_tree(mirrored.positions).query(mirrored.positions[scattered], k=NEIGHBOURS)
    scattered[scattered] = distance[:, -1] > NEIGHBOUR_REACH * pixel * mirrored.steps[scattered]
    return scattered


def _covered(mirrored: PointCloud, depth_map: DepthMap) -> np.ndarray:
    """Mask (n,) of mirrored points whose splats nowhere come out of what the photo shows in front of them.

    Seen at a grazing angle a splat is many pixels long; its mirror image may lie across the visible surface.
    """
    camera, size = mirrored.portrait.camera, len(depth_map.depth)
    covered = np.ones(len(mirrored), bool)
    for axis in (0, 1):
        for side in (-SPLAT_ENDS, SPLAT_ENDS):
            pixels = project(to_camera(mirrored.positions + side * mirrored.axes[:, axis], camera), camera)
            columns, rows = pixels[:, :2].astype(int).clip(0, size - 1).T
            covered &= ~(pixels[:, 2] < depth_map.depth[rows, columns])  # beside the person NaN, which is no front
    return covered


def _behind_lips(mirrored: PointCloud, head: HeadModel) -> np.ndarray:
    """Mask (n,) of mirrored points around the far corner of a mouth that is turned aside, but seen as a whole.

    One side's lips are never quite the other's: what is left of the near one's image hangs in that corner as the mouth
    opens, before its dark. (Seen from the front the same points are lips' inner sides, worth .3 dB of a mouth.)
    """
    portrait = mirrored.portrait
    if not SLIGHTLY_TURNED < yaw_of(portrait) < TURNED:
        return np.zeros(len(mirrored), bool)
    middle = head.mouth_centre(portrait.vertices)[0]
    far = (mirrored.positions[:, 0] - middle) * portrait.camera.viewmat[2, 0] > 0
    return far & head.around_mouth(mirrored.positions, portrait.vertices)


def _jaw_travel(mirrored: PointCloud, points: PointCloud, head: HeadModel) -> np.ndarray:
    """How much farther (n,) m an opening jaw moves mirrored points than the visible points in front of them.

    Nearer to a collar than that a mirrored beard comes out through it.
    """
    length = np.linalg.norm(head.expression_basis[ARKIT_INDEX["jawOpen"]], axis=1)

    def travel(cloud: PointCloud) -> np.ndarray:
        return at_points(length, head.faces[cloud.faces], cloud.barycentric) * cloud.expression_weight

    camera, size = points.portrait.camera, len(points.portrait.alpha)
    pixels = project(to_camera(mirrored.positions, camera), camera)[:, 1::-1].astype(int).clip(0, size - 1)
    seen = np.flatnonzero(points.origin == VISIBLE)
    in_picture = np.full((size, size), np.nan, np.float32)
    in_picture[tuple(points.pixels[seen].T)] = travel(points)[seen]
    rows, columns = nearest_pixels(np.isfinite(in_picture))
    at = tuple(pixels.T)
    return np.maximum(travel(mirrored) - in_picture[rows[at], columns[at]], 0)


def yaw_of(portrait: Portrait) -> float:
    """How far a face is turned from the photo's camera to either side, radians."""
    return abs(to_the_side(portrait.camera.viewmat[2, :3]))


def nearest_point(among: np.ndarray, positions: np.ndarray, reach: float) -> tuple[np.ndarray, np.ndarray]:
    """Distance (n,), inf beyond `reach`, from positions (n, 3) to the nearest of others (m, 3), and its index (n,)."""
    return search_tree(among).query(positions, distance_upper_bound=reach, workers=-1)


def select(points: PointCloud, keep: np.ndarray) -> PointCloud:
    """The points of a mask (N,) or an index array."""
    index = np.flatnonzero(keep) if keep.dtype == bool else keep
    return replace(points, **{name: getattr(points, name)[index] for name in PER_POINT})


def concatenate(clouds: list[PointCloud]) -> PointCloud:
    """Several point clouds of one portrait as one."""
    return replace(
        clouds[0], **{name: np.concatenate([getattr(cloud, name) for cloud in clouds]) for name in PER_POINT}
    )


PER_POINT = ("positions", "axes", "colors", "opacities", "faces", "barycentric", "expression_weight", "pose_weight",
             "origin", "pixels", "steps")  # fmt: skip
"""Fields of PointCloud with one row per point."""
