"""Surfels of the person's pixels: P_f, with the pixels' footprint on the surface as their extent."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import binary_dilation, binary_erosion, label

from ..headmodel.landmarks import OVAL
from ..headmodel.model import HeadModel
from ..types import SOLID_ALPHA, VISIBLE, DepthMap, PointCloud, Portrait
from .binding import polygon_mask
from .blocks import block_means, surfel_blocks
from .depth import pixel_tangents
from .feature_edges import edge_offsets, moved_barycentric
from .nearest_pixels import nearest_pixels
from .pose_weights import head_pose_weight, shoulder_tops, smoothstep
from .projection import to_canonical, unproject

HEAD_MAX_SLOPE = 7.0
"""Steepest surface on the head model, in pixel footprints per pixel: 82 degrees off the view axis."""

HAIR_MAX_SLOPE = 6.0
"""The same where depth is a guess: there a steep slope is rather an error than a surface."""

SURFEL_SPREAD = 0.71
"""Standard deviation of a rendered surfel in units of its block's side. Below 0.55 gaps open, so this leaves room to be
stretched; above it blurs more than sharpened colours can make up for."""

RENDERER_BLUR = 0.3
"""Variance in pixels^2 that the renderer's low-pass adds to every splat (gsplat's eps2d)."""

SURFEL_THICKNESS = 0.15
"""Half axis along the normal in pixel footprints: enough to be seen edge-on."""

MAX_OPACITY = 0.97

BORDER_HOLD = 0.1
"""Width along the crop's border, in crop sides, in which the torso is held still."""

CHIN_TO_SHOULDER = 0.05
"""Height over which that begins below the chin, metres."""

EXPRESSION_REACH = 0.012
"""How far beyond the head model its motion fades out (hair moves with the skin it lies on), metres."""


def visible_points(portrait: Portrait, depth_map: DepthMap, head: HeadModel, chin_height: float) -> PointCloud:
    """P_f: a surfel for every person pixel, or for a block of pixels where the picture is flat and off the face."""
    size = portrait.image.shape[0]
    person = np.isfinite(depth_map.depth)
    # Off the person depth is undefined. Continued outward, level, it keeps the outermost pixels small: their colours
    # are the worst.
    rows_near, columns_near = nearest_pixels(person)
    depth = depth_map.depth[rows_near, columns_near]
    max_slope = np.where(depth_map.on_head, HEAD_MAX_SLOPE, HAIR_MAX_SLOPE)
    along_columns, along_rows = pixel_tangents(depth, portrait.camera.K, max_slope)
    footprints = depth / portrait.camera.K[0, 0]

    solid = portrait.alpha > SOLID_ALPHA
    face_oval = polygon_mask(portrait.landmarks[list(OVAL)], size)
    detail = ~solid | face_oval
    rows, columns, steps = surfel_blocks(portrait.image, depth_map.depth, footprints, detail)

    def mean(picture: np.ndarray) -> np.ndarray:
        return block_means(picture.reshape(size, size, -1), rows, columns, steps)

    z = mean(depth)[:, 0]
    centre = 0.5 * steps
    offsets = edge_offsets(portrait, depth_map, head)[rows, columns]
    offsets[steps > 1] = 0
    at = np.stack([columns, rows], 1) + centre[:, None] + offsets
    positions = to_canonical(unproject(*at.T, z, portrait.camera), portrait.camera)
    face, barycentric = depth_map.face[rows, columns], depth_map.barycentric[rows, columns].copy()
    moved = offsets.any(1)
    barycentric[moved] = moved_barycentric(portrait, face[moved], barycentric[moved], offsets[moved], head)
    rotation = portrait.camera.viewmat[:3, :3]  # row vectors @ rotation: camera axes -> canonical axes
    tangent_u = mean(along_columns) @ rotation
    tangent_v = mean(along_rows) @ rotation
    normal = np.cross(tangent_u, tangent_v)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True) + 1e-12
    footprint = mean(footprints)
    sigma = surfel_sigma(steps)[:, None]
    axes = np.stack([sigma * tangent_u, sigma * tangent_v, SURFEL_THICKNESS * footprint * normal], 1)

    reach = depth_map.distance[rows, columns] * footprint[:, 0] / EXPRESSION_REACH
    # Opaque whatever a mask with holes in the person says; where the model reaches beyond the person it is right.
    opaque = (depth_map.on_head | (depth_map.distance == 0)) & (face_oval | ~binary_dilation(_outside(portrait.alpha)))
    pose_weight = head_pose_weight(positions, chin_height, shoulder_tops(portrait, chin_height))
    pose_weight *= _inside_border(rows, columns, positions, chin_height, size)
    count = len(rows)
    return PointCloud(
        positions=positions.astype(np.float32),
        axes=axes.astype(np.float32),
        colors=mean(person_colors(portrait)).astype(np.float32),
        opacities=(np.where(opaque, 1.0, portrait.alpha)[rows, columns] * MAX_OPACITY).astype(np.float32),
        faces=face,
        barycentric=barycentric,
        expression_weight=np.exp(-(reach**2)).astype(np.float32),
        pose_weight=pose_weight.astype(np.float32),
        origin=np.full(count, VISIBLE, np.uint8),
        pixels=np.stack([rows, columns], 1).astype(np.int32),
        steps=steps.astype(np.uint8),
        portrait=portrait,
        depth_map=depth_map,
    )


def _outside(alpha: np.ndarray) -> np.ndarray:
    """Pixels (S, S) bool that are rather background by a mask (S, S), but for holes in the person."""
    part, _ = label(np.pad(alpha < 0.5, 1, constant_values=True))
    return (part == part[0, 0])[1:-1, 1:-1]


def surfel_sigma(steps: np.ndarray) -> np.ndarray:
    """Standard deviation (N,) in pixels of surfels that stand for blocks of side `steps` (N,) pixels."""
    return np.sqrt((SURFEL_SPREAD * steps.astype(np.float32)) ** 2 - RENDERER_BLUR)


def _inside_border(
    rows: np.ndarray, columns: np.ndarray, positions: np.ndarray, chin_height: float, size: int
) -> np.ndarray:
    """Factor (N,) that holds still what touches the crop's border below the chin: moving, it would tear open there."""
    from_border = np.minimum(np.minimum(columns, size - 1 - columns), size - 1 - rows) / (BORDER_HOLD * size)
    below_chin = smoothstep((positions[:, 1] - chin_height) / CHIN_TO_SHOULDER)
    return 1 - below_chin * (1 - smoothstep(from_border))


def person_colors(portrait: Portrait) -> np.ndarray:
    """The person's own colours (S, S, 3): at soft edges the background's share is taken out.

    image = alpha * person + (1 - alpha) * background, solved for the person where alpha is large and continued from
    the nearest solid pixel where it is small.
    """
    solid = binary_erosion(portrait.alpha > SOLID_ALPHA, border_value=1)
    if not solid.any():
        return portrait.image
    rows, columns = nearest_pixels(solid)
    soft = ~solid
    image, alpha, background = portrait.image[soft], portrait.alpha[soft][:, None], portrait.background[soft]
    nearest = portrait.image[rows[soft], columns[soft]]
    solved = ((image - (1 - alpha) * background) / np.maximum(alpha, 0.1)).clip(0, 1)
    colors = portrait.image.copy()
    colors[soft] = alpha * solved + (1 - alpha) * nearest
    return colors
