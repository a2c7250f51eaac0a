"""Symmetry (paper: Sym. and Filter): mirror the visible points onto the side the photo doesn't show, or shows badly."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.ndimage import maximum_filter

from ..headmodel.arkit import ARKIT_INDEX
from ..headmodel.model import LEFT_EYE, RIGHT_EYE, HeadModel
from ..types import SUBSTITUTE, SYMMETRIC, VISIBLE, DepthMap, PointCloud, Portrait
from .mesh_raster import at_points, vertex_normals
from .nearest_pixels import nearest_pixels
from .pose_weights import head_pose_weight, shoulder_tops
from .projection import project, to_camera
from .scalp import onto_scalp
from .search_tree import search_tree
from .surfels import surfel_sigma
from .within_outline import within_outline

FLIP = np.array([-1, 1, 1], np.float32)

MIN_POSE_WEIGHT = 0.9
"""Only what turns with the head is mirrored: shoulders and clothes are not symmetric about the head's plane, and
between them and it, where the neck bends, mirrored points came out in front of a collar or shoulder."""

FILTER_SPACING = 1.6
"""A mirrored point is dropped when a visible one is nearer than this many times the visible surfels' own spacing."""

TURNED = np.radians(25)
"""Faces turned away from the photo's camera by less than this keep what is seen of their far half."""

SLIGHTLY_TURNED = np.radians(10)
"""Faces turned away by less than this show both corners of the mouth alike."""

OBLIQUE, FACING = 0.38, 0.6
"""Cosines to the viewing direction: surface seen below the first gives way to its mirror image seen above the second.
A face in three-quarter view shows its far half in a few pixels; turned to the camera they would be smears."""

FACING_REACH, FACING_SPACING, FACING_COUNT = 0.025, 0.004, 200
"""The surface's direction is a mean over so many metres, of vertices at least so far apart, of so many at most: eyes,
lids and nose give way with the cheek that they are part of."""

COVERING_ALPHA = 0.5
"""Mask value from which on the photo covers what is mirrored behind it."""

SUBSTITUTE_REACH = 1 / 64
"""A point gives way to mirrored ones nearer than this, crop sides at the head's distance, and they are taken where such
a point is as near."""

SPLAT_ENDS = 2.0
"""Standard deviations from its middle at which a splat is still seen."""

LID_TRAVEL = 0.0005
"""What a blink moves by more, metres, lies around an eye."""

RIM = 1 / 85
"""Width, crop sides, of what lies beyond the fitted face at its outline and gives way with it."""

ALIKE, TONE_STEP, TONE_STEPS = 0.25, 0.05, 80
"""Logarithms of tones: how much they vary within one, in what steps they are counted, and how many of these."""

TONE_RANGE = (0.5, 1.5)
"""Between these the far half of a face may be darker or brighter than the near one."""


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
    mirrored = select(mirrored, free & (there > MIN_POSE_WEIGHT))
    laid = onto_scalp(mirrored.positions, portrait, depth_map.outline, head)
    mirrored = replace(mirrored, positions=laid)
    margin = 1.5 * pixel + _jaw_travel(mirrored, points, head)
    keep = in_free_space(mirrored.positions, portrait, depth_map, margin) & _covered(mirrored, depth_map)
    if voxel_filter and keep.any():
        seen = points.positions[moving]
        steps = points.steps[moving]
        spacing = np.linalg.norm(points.axes[moving, :2], axis=2).max(1) * steps / surfel_sigma(steps)
        distance, nearest = _nearest(seen, mirrored.positions[keep], 12 * pixel)
        own_spacing = spacing[nearest.clip(max=len(seen) - 1)]
        keep[keep] = distance > FILTER_SPACING * np.maximum(own_spacing, 1.2 * pixel)
    return select(mirrored, keep)


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
    if not SLIGHTLY_TURNED < _yaw(portrait) < TURNED:
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


def _yaw(portrait: Portrait) -> float:
    """How far a face is turned from the photo's camera to either side, radians."""
    axis = portrait.camera.viewmat[2, :3]
    return abs(np.arctan2(axis[0], axis[2]))


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


def with_substitutes(points: PointCloud, head: HeadModel) -> tuple[PointCloud, PointCloud]:
    """The visible points without those whose mirror image the photo shows much better, and that image in their place.

    The image takes on the tone of what it replaces: the far half of a face is lit otherwise.
    """
    if _yaw(points.portrait) < TURNED:
        return points, select(points, np.zeros(0, int))
    cosine = facing_camera(points.portrait, head)
    rows, columns = points.pixels.T
    on_face, off_face = points.depth_map.on_head[rows, columns], points.depth_map.distance[rows, columns]
    moving = (points.pose_weight > MIN_POSE_WEIGHT) & (head.mirror_faces[points.faces] >= 0)
    seen_at = at_points(cosine, head.faces[points.faces], points.barycentric)
    images = mirror_points(select(points, moving & on_face & (seen_at > FACING)), head)
    images = select(images, at_points(cosine, head.faces[images.faces], images.barycentric) < OBLIQUE)
    size = len(points.portrait.alpha)
    oblique = np.flatnonzero(moving & (off_face < RIM * size) & (seen_at < OBLIQUE))
    reach = SUBSTITUTE_REACH * size * np.nanmedian(points.depth_map.depth) / points.portrait.camera.K[0, 0]
    distance, image = _nearest(images.positions, points.positions[oblique], reach)
    oblique, image = oblique[distance < reach], image[distance < reach]
    if not on_face[oblique].any():
        return points, select(images, np.zeros(0, int))
    images_seen, _ = _nearest(points.positions[oblique], images.positions, reach)
    substitutes = _within_outline(select(images, images_seen < reach), points.depth_map, head)
    of_face = on_face[oblique]
    tone = _tone(points.colors[oblique[of_face]], images.colors[image[of_face]])
    kept = np.ones(len(points), bool)
    kept[oblique] = False
    return select(points, kept), replace(
        substitutes,
        colors=(substitutes.colors * tone).clip(0, 1).astype(np.float32),
        origin=np.full(len(substitutes), SUBSTITUTE, np.uint8),
    )


def _tone(far: np.ndarray, near: np.ndarray) -> np.ndarray:
    """Factor (3,) from colours (n, 3) of a face's near half to those (n, 3) of its far half in the same places.

    The most frequent one: hair that lies over one half alone makes it any other.
    """
    ratio = np.log((far.mean(1) + 0.02) / (near.mean(1) + 0.02))
    counts, edges = np.histogram(ratio, TONE_STEPS, (-TONE_STEPS * TONE_STEP / 2, TONE_STEPS * TONE_STEP / 2))
    spread = round(ALIKE / TONE_STEP)
    most = edges[np.convolve(counts, np.ones(2 * spread + 1), "same").argmax()] + TONE_STEP / 2
    alike = np.abs(ratio - most) <= ALIKE
    return (np.median(far[alike], 0) / np.median(near[alike], 0).clip(0.02)).clip(*TONE_RANGE)


def _within_outline(images: PointCloud, depth_map: DepthMap, head: HeadModel) -> PointCloud:
    """Mirrored points moved to within the outline of the photo's person, without those that stay beside it.

    Around the eyes, where a millimetre brings a lid before the eyeball, all stay as they are.
    """
    portrait = images.portrait
    blinks = [ARKIT_INDEX["eyeBlinkLeft"], ARKIT_INDEX["eyeBlinkRight"]]
    lids = np.linalg.norm(head.expression_basis[blinks], axis=2).max(0) > LID_TRAVEL
    around_eyes = lids[head.faces[images.faces]].any(1) | np.isin(head.parts[images.faces], (LEFT_EYE, RIGHT_EYE))
    moved = within_outline(images.positions, portrait).astype(np.float32)
    seen_depth = np.where(portrait.alpha > COVERING_ALPHA, depth_map.depth, np.nan)
    on_person = in_free_space(moved, portrait, replace(depth_map, depth=seen_depth), -np.inf)
    moved = np.where(around_eyes[:, None], images.positions, moved)
    on_person |= around_eyes & in_free_space(images.positions, portrait, depth_map, -np.inf)
    return select(replace(images, positions=moved), on_person)


def _nearest(among: np.ndarray, positions: np.ndarray, reach: float) -> tuple[np.ndarray, np.ndarray]:
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
