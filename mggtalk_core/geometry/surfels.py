"""One surfel per person pixel: P_f, with the pixel's footprint on the surface as its extent."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import binary_erosion, distance_transform_edt

from ..types import VISIBLE, DepthMap, PointCloud, Portrait
from .depth import pixel_tangents
from .pose_weights import head_pose_weight
from .projection import to_canonical, unproject

HEAD_MAX_SLOPE = 7.0
"""Steepest surface on the head model, in pixel footprints per pixel: 82 degrees off the view axis."""

HAIR_MAX_SLOPE = 2.5
"""The same where depth is a guess: there a steep slope is rather an error than a surface."""

SURFEL_SIGMA = 0.45
"""Standard deviation of a surfel in pixel steps. With the renderer's 0.3 px^2 low-pass that makes 0.71 px where it was
built and 1.05 px stretched twice: above the 0.55 steps below which gaps open, and sharp enough for the photo."""

SURFEL_THICKNESS = 0.15
"""Half axis along the normal in pixel footprints: enough to be seen edge-on."""

MAX_OPACITY = 0.97

EXPRESSION_REACH = 0.012
"""How far beyond the head model its motion fades out (hair moves with the skin it lies on), metres."""


def visible_points(portrait: Portrait, depth_map: DepthMap, chin_height: float) -> PointCloud:
    """P_f: a surfel for every person pixel."""
    person = np.isfinite(depth_map.depth)
    # Off the person depth is undefined: continue it outward, so that the outline's gradients are its own.
    rows_near, columns_near = distance_transform_edt(~person, return_distances=False, return_indices=True)
    depth = depth_map.depth[rows_near, columns_near]
    max_slope = np.where(depth_map.on_head, HEAD_MAX_SLOPE, HAIR_MAX_SLOPE)
    along_columns, along_rows = pixel_tangents(depth, portrait.camera.K, max_slope)

    rows, columns = np.nonzero(person)
    z = depth[rows, columns]
    positions = to_canonical(unproject(columns + 0.5, rows + 0.5, z, portrait.camera), portrait.camera)
    rotation = portrait.camera.viewmat[:3, :3]  # row vectors @ rotation: camera axes -> canonical axes
    tangent_u = along_columns[rows, columns] @ rotation
    tangent_v = along_rows[rows, columns] @ rotation
    normal = np.cross(tangent_u, tangent_v)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True) + 1e-12
    footprint = (z / portrait.camera.K[0, 0])[:, None]
    axes = np.stack([SURFEL_SIGMA * tangent_u, SURFEL_SIGMA * tangent_v, SURFEL_THICKNESS * footprint * normal], 1)

    reach = depth_map.distance[rows, columns] * footprint[:, 0] / EXPRESSION_REACH
    on_face = depth_map.on_head[rows, columns] | (depth_map.distance[rows, columns] == 0)
    count = len(rows)
    return PointCloud(
        positions=positions.astype(np.float32),
        axes=axes.astype(np.float32),
        colors=person_colors(portrait)[rows, columns].astype(np.float32),
        opacities=(np.where(on_face, 1.0, portrait.alpha[rows, columns]) * MAX_OPACITY).astype(np.float32),
        faces=depth_map.face[rows, columns],
        barycentric=depth_map.barycentric[rows, columns],
        expression_weight=np.exp(-(reach**2)).astype(np.float32),
        pose_weight=head_pose_weight(positions, chin_height),
        origin=np.full(count, VISIBLE, np.uint8),
        pixels=np.stack([rows, columns], 1).astype(np.int32),
        portrait=portrait,
        depth_map=depth_map,
    )


def person_colors(portrait: Portrait) -> np.ndarray:
    """The person's own colours (S, S, 3): at soft edges the background's share is taken out.

    image = alpha * person + (1 - alpha) * background, solved for the person where alpha is large and continued from
    the nearest solid pixel where it is small.
    """
    image, alpha = portrait.image, portrait.alpha[..., None]
    solid = binary_erosion(portrait.alpha > 0.95, border_value=1)
    if not solid.any():
        return image
    rows, columns = distance_transform_edt(~solid, return_distances=False, return_indices=True)
    nearest = image[rows, columns]
    solved = np.clip((image - (1 - alpha) * portrait.background) / np.maximum(alpha, 0.1), 0, 1)
    return np.where(solid[..., None], image, alpha * solved + (1 - alpha) * nearest)
