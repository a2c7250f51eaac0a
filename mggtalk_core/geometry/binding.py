"""Which head-model triangle every pixel belongs to: what will move it."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import distance_transform_edt

from ..headmodel.landmarks import INNER_LIP_RING, inter_ocular_distance
from ..headmodel.model import TONGUE, UPPER_TEETH, HeadModel
from ..types import Portrait
from .mesh_raster import rasterize_mesh
from .projection import project, to_camera

OPEN_MOUTH = 0.06
"""Lip gap in inter-ocular distances from which on the photo shows the inside of the mouth."""


def polygon_mask(points: np.ndarray, size: int) -> np.ndarray:
    """Inside of a polygon (n, 2) in pixels as a mask (size, size) bool."""
    canvas = Image.new("1", (size, size))
    ImageDraw.Draw(canvas).polygon([tuple(map(float, point)) for point in points], fill=1)
    return np.array(canvas, dtype=bool)


def bind_pixels(portrait: Portrait, head: HeadModel) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Triangle (S, S) int32 (-1 off the head), barycentric (S, S, 3) and depth (S, S) m of every head-model pixel.

    The fitted head is rasterised from the photo's camera, which separates lips, lids and eyeballs without any search.
    Only the mouth is corrected by the lip contours: inside of them pixels may only be teeth, tongue or cavity, outside
    never teeth or tongue, wherever the head model has them.
    """
    size = portrait.image.shape[0]
    points = project(to_camera(portrait.vertices, portrait.camera), portrait.camera)

    def rasterize(members: np.ndarray):
        index = np.flatnonzero(members)
        depth, face, barycentric = rasterize_mesh(points, head.faces[index], size, size)
        return depth, np.where(face >= 0, index[face], -1).astype(np.int32), barycentric

    depth, face, barycentric = rasterize(np.ones(len(head.faces), bool))

    def rebind(pixels: np.ndarray, members: np.ndarray) -> None:
        """Give pixels to the nearest of some triangles."""
        other_depth, other_face, other_barycentric = rasterize(members)
        if not pixels.any() or not (other_face >= 0).any():
            return
        rows, columns = distance_transform_edt(other_face < 0, return_distances=False, return_indices=True)
        rows, columns = rows[pixels], columns[pixels]
        face[pixels] = other_face[rows, columns]
        barycentric[pixels] = other_barycentric[rows, columns]
        depth[pixels] = other_depth[rows, columns]

    landmarks = portrait.landmarks
    inside_lips = polygon_mask(landmarks[list(INNER_LIP_RING)], size)
    gap = np.linalg.norm(landmarks[13] - landmarks[14])
    if gap > OPEN_MOUTH * inter_ocular_distance(landmarks):
        rebind(inside_lips, (head.parts >= TONGUE) | head.mouth_interior)
        # Bright pixels in the upper two thirds are upper teeth, also where the fitted lip covers the model's teeth.
        brightness = portrait.image.mean(2)
        threshold = 0.5 * np.percentile(brightness[inside_lips], [10, 95]).sum() if inside_lips.any() else 1.0
        middle = 0.35 * landmarks[13, 1] + 0.65 * landmarks[14, 1]
        upper = inside_lips & (brightness > threshold) & (np.arange(size)[:, None] < middle)
        rebind(upper, head.parts == UPPER_TEETH)
        inner_parts_outside = ~inside_lips & (face >= 0) & (head.parts[face] >= TONGUE)
    else:
        inner_parts_outside = (face >= 0) & ((head.parts[face] >= TONGUE) | head.mouth_interior[face])
    rebind(inner_parts_outside, (head.parts < TONGUE) & ~head.mouth_interior)
    return face, barycentric, depth
