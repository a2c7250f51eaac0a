"""Substitutes: the near half's mirror image for what the photo of a turned face shows too obliquely of its far half.

Both are kept: near the photo's view nothing is as right as its own pixels (gaussians/far_half.py).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.spatial.distance import cdist

from ..headmodel.model import HeadModel
from ..types import OBLIQUE, SUBSTITUTE, PointCloud, Portrait
from .mesh_raster import at_points, vertex_normals
from .search_tree import search_tree
from .symmetry import MIN_POSE_WEIGHT, TURNED, mirror_points, nearest_point, select, yaw_of

SEEN_OBLIQUELY, FACING = 0.38, 0.6
"""Cosines to the viewing direction: surface seen below the first gives way to its mirror image seen above the second.
A face in three-quarter view shows its far half in a few pixels; turned to the camera they would be smears."""

FACING_REACH, FACING_SPACING, FACING_COUNT = 0.025, 0.004, 200
"""The surface's direction is a mean over so many metres, of vertices at least so far apart, of so many at most: eyes,
lids and nose give way with the cheek that they are part of."""

SUBSTITUTE_REACH = 1 / 64
"""A point gives way to mirrored ones nearer than this, crop sides at the head's distance, and they are taken where such
a point is as near."""

RIM = 1 / 85
"""Width, crop sides, of what lies beyond the fitted face at its outline and gives way with it."""

COMPARED = 0.5
"""Cosine to the viewing direction below which the far half's surface is compared with its mirror image's."""

TONE_STEP, TONE_STEPS = 0.05, 80
"""In what steps logarithms of brightness ratios are counted, and how many of these."""

COMMON, ALIKE, SAME = 0.25, 0.5, (-0.5, 1.2)
"""How far such logarithms may be from the most frequent one: of what tells the common tone, of what tells tones from
place to place, and of what may be the same skin at all. Darker is hair over one half alone, much brighter over the
other; a little brighter is the sheen of skin at a grazing angle."""

TONE_RANGE, TINT_RANGE = (0.5, 1.6), 0.1
"""Between these the far half of a face may be darker or brighter than the near one, and the logarithm of how much more
so in one colour than in all."""

TONE_REACH, SAME_REACH, CELL, CELL_COUNT = 0.012, 0.006, 0.005, 4
"""Metres within which tones, and what is the same, are averaged (standard deviations), and cells they are summed up in
first; such a cell counts half with so many points."""


def facing_camera(portrait: Portrait, head: HeadModel) -> np.ndarray:
    """Cosine (V,) between the surface's direction around each head-model vertex and the way to the photo's camera."""
    vertices = portrait.vertices
    skin = np.unique(head.faces[head.outer_skin])
    _, spread_out = np.unique((vertices[skin] / FACING_SPACING).astype(int), axis=0, return_index=True)
    skin = skin[spread_out]
    tree = search_tree(vertices[skin])
    _, near = tree.query(vertices[skin], k=FACING_COUNT, distance_upper_bound=FACING_REACH)
    _, own = tree.query(vertices)
    normals = np.vstack([vertex_normals(vertices, head.faces)[skin], np.zeros(3)])[near].sum(1)[own]
    rotation, translation = portrait.camera.viewmat[:3, :3], portrait.camera.viewmat[:3, 3]
    ways = -translation @ rotation - vertices
    return (normals * ways).sum(1) / (np.linalg.norm(normals, axis=1) * np.linalg.norm(ways, axis=1) + 1e-12)


def with_substitutes(points: PointCloud, head: HeadModel) -> tuple[PointCloud, PointCloud, PointCloud]:
    """The visible points without those whose mirror image the photo shows much better; that image; and those.

    The image takes on the tone of what it replaces: the far half of a face is lit otherwise.
    """
    none = select(points, np.zeros(0, int))
    if yaw_of(points.portrait) < TURNED:
        return points, none, none
    cosine = facing_camera(points.portrait, head)
    rows, columns = points.pixels.T
    on_face, off_face = points.depth_map.on_head[rows, columns], points.depth_map.distance[rows, columns]
    moving = (points.pose_weight > MIN_POSE_WEIGHT) & (head.mirror_faces[points.faces] >= 0)
    seen_at = at_points(cosine, head.faces[points.faces], points.barycentric)
    images = mirror_points(select(points, moving & on_face & (seen_at > FACING)), head)
    images_seen_at = at_points(cosine, head.faces[images.faces], images.barycentric)
    compared = select(images, images_seen_at < COMPARED)
    images = select(images, images_seen_at < SEEN_OBLIQUELY)
    size = len(points.portrait.alpha)
    reach = SUBSTITUTE_REACH * size * np.nanmedian(points.depth_map.depth) / points.portrait.camera.K[0, 0]
    far = np.flatnonzero(moving & on_face & (seen_at < COMPARED))
    distance, image = nearest_point(compared.positions, points.positions[far], reach)
    far, image = far[distance < reach], image[distance < reach]
    if not len(far):
        return points, none, none
    colors = points.colors[far], compared.colors[image]
    same, tone = _comparison(points.portrait.vertices, points.positions[far], *colors)
    images = select(images, at_points(same, head.faces[images.faces], images.barycentric) > 0.5)
    same_there = at_points(same, head.faces[points.faces], points.barycentric)
    oblique = moving & (off_face < RIM * size) & (seen_at < SEEN_OBLIQUELY) & (same_there > 0.5)
    oblique = np.flatnonzero(oblique)
    oblique = oblique[nearest_point(images.positions, points.positions[oblique], reach)[0] < reach]
    if not on_face[oblique].any():
        return points, none, none
    images_seen, _ = nearest_point(points.positions[oblique], images.positions, reach)
    substitutes = select(images, images_seen < reach)
    tone = at_points(tone, head.faces[substitutes.faces], substitutes.barycentric)
    substitutes = replace(
        substitutes,
        colors=(substitutes.colors * tone).clip(0, 1).astype(np.float32),
        origin=np.full(len(substitutes), SUBSTITUTE, np.uint8),
    )
    kept = np.ones(len(points), bool)
    kept[oblique] = False
    given_way = replace(select(points, oblique), origin=np.full(len(oblique), OBLIQUE, np.uint8))
    return select(points, kept), substitutes, given_way


def _comparison(
    places: np.ndarray, positions: np.ndarray, far: np.ndarray, near: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Whether the same skin is on a face's far half as on its near one, share (m,), at places (m, 3) m; and factors
    (m, 3) from the near half's tone there to the far half's.

    From colours (n, 3) of the far half at positions (n, 3) m and those (n, 3) of the near one in the same places.
    """
    ratios = np.log((far + 0.02) / (near + 0.02))
    brightness = ratios.mean(1)
    counts, edges = np.histogram(brightness, TONE_STEPS, (-TONE_STEPS * TONE_STEP / 2, TONE_STEPS * TONE_STEP / 2))
    spread = round(COMMON / TONE_STEP)
    most = edges[np.convolve(counts, np.ones(2 * spread + 1), "same").argmax()] + TONE_STEP / 2
    brightness -= np.median(brightness[np.abs(brightness - most) <= COMMON + TONE_STEP])
    common = np.median(ratios[np.abs(brightness) <= COMMON], axis=0)
    alike = np.abs(brightness) <= ALIKE
    tones = _around(places, positions[alike], ratios[alike], TONE_REACH, common)
    grey, least = tones.mean(1, keepdims=True), tones.min(1, keepdims=True)
    diffuse = np.minimum(grey, least.clip(0))  # sheen is white, which brightens most what skin has least of
    tones = np.exp(diffuse.clip(*np.log(TONE_RANGE)) + (tones - grey).clip(-TINT_RANGE, TINT_RANGE))
    same = ((brightness > SAME[0]) & (brightness < SAME[1])).astype(np.float64)
    return _around(places, positions, same[:, None], SAME_REACH, np.ones(1))[:, 0], tones


def _around(
    places: np.ndarray, positions: np.ndarray, values: np.ndarray, reach: float, common: np.ndarray
) -> np.ndarray:
    """Means (m, k) around places (m, 3) m of values (n, k) at positions (n, 3) m; `common` (k,) where there are few."""
    cells = (positions / CELL).round().astype(int)
    _, cell, count = np.unique(cells, axis=0, return_inverse=True, return_counts=True)
    columns = np.column_stack([positions, values]).T
    means = np.stack([np.bincount(cell.ravel(), column) for column in columns], 1) / count[:, None]
    weights = np.exp(-0.5 * (cdist(places, means[:, :3]) / reach) ** 2) * (count / (count + CELL_COUNT))
    return (weights @ means[:, 3:] + common) / (weights.sum(1, keepdims=True) + 1)
