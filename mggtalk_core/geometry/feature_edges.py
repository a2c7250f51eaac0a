"""Where lips and teeth end, between the pixels: their surfels lie along the edge, not on the grid.

Which of two surfaces a pixel shows is all or nothing. Pulled apart, both would end in stairs a pixel high, and higher
where the surface is stretched.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter, generate_binary_structure, maximum_filter, minimum_filter
from scipy.special import ndtri

from ..headmodel.landmarks import LIP_CORNERS, OUTER_LIP
from ..headmodel.model import TONGUE, HeadModel
from ..types import DepthMap, Portrait
from .projection import project, to_camera

SMOOTH = 3.0
"""Standard deviation, pixels, by which a mask is blurred to tell where its smooth edge runs."""

FARTHEST, UNCLEAR = 0.75, 1.5
"""How far a surfel is moved at most, pixels; and from which distance on it stays: there the edge has a corner."""

STEEP = 0.2
"""Part of a straight edge's slope below which a blurred mask has no edge."""

MIN_AREA = 0.5
"""Twice the area, square pixels, that a triangle must have in the photo to be gone on with."""

AREA_MARGIN = 0.1
"""How far around the lips edges are looked for, in widths of the mouth."""


def edge_offsets(portrait: Portrait, depth_map: DepthMap, head: HeadModel) -> np.ndarray:
    """By how many pixels (S, S, 2), columns and rows, surfels are moved so that lips, and what is seen between them,
    have smooth edges: half a pixel to either side of where the smooth edge runs, as on a straight one."""
    size = len(depth_map.face)
    low, high = (limit(portrait.landmarks[list(OUTER_LIP)], axis=0) for limit in (np.min, np.max))
    grow = AREA_MARGIN * (high - low).max()
    left, top = (low - grow).astype(int).clip(0, size - 1)
    right, bottom = (high + grow).astype(int).clip(1, size)
    face = depth_map.face[top:bottom, left:right]
    inside = (face >= 0) & ((head.parts[face] >= TONGUE) | head.mouth_interior[face])
    first, last = np.sort(portrait.landmarks[list(LIP_CORNERS), 0]) - left
    columns = np.arange(inside.shape[1])
    touching = ~inside & (columns >= first) & (columns < last)
    of_mouth = _onto_edge(inside)
    of_lips = _onto_edge((face >= 0) & head.below_mouth[face]) * touching[..., None]
    offsets = np.zeros((size, size, 2), np.float32)
    offsets[top:bottom, left:right] = np.where(of_mouth.any(2, keepdims=True), of_mouth, of_lips)
    return offsets


def _onto_edge(mask: np.ndarray) -> np.ndarray:
    """Offsets (h, w, 2) px that put the pixels along a mask's edge half a pixel from where its smooth edge runs."""
    cross = generate_binary_structure(2, 1)
    along = maximum_filter(mask, footprint=cross) != minimum_filter(mask, footprint=cross)
    share = gaussian_filter(mask.astype(np.float32), SMOOTH)
    inward = np.stack(np.gradient(share)[::-1], -1)
    slope = np.linalg.norm(inward, axis=2)
    # A blurred straight edge is the normal distribution of the distance from it, whose slope at 0 is .4 / SMOOTH.
    missing = np.where(mask, 0.5, -0.5) - SMOOTH * ndtri(share.clip(1e-3, 1 - 1e-3))
    along &= (slope > STEEP * 0.4 / SMOOTH) & (np.abs(missing) < UNCLEAR)
    amount = np.where(along, missing.clip(-FARTHEST, FARTHEST) / np.maximum(slope, 1e-9), 0)
    return (amount[..., None] * inward).astype(np.float32)


def moved_barycentric(
    portrait: Portrait, face: np.ndarray, barycentric: np.ndarray, offsets: np.ndarray, head: HeadModel
) -> np.ndarray:
    """Barycentric coordinates (n, 3) of points on triangles (n,) moved by offsets (n, 2) px in the photo.

    They may leave their triangle, which then goes on beyond its sides. Triangles seen edge-on leave them as they are.
    """
    corners = project(to_camera(portrait.vertices, portrait.camera), portrait.camera)[head.faces[face], :2]
    (bx, by), (cx, cy), (x, y) = (corners[:, 1] - corners[:, 0]).T, (corners[:, 2] - corners[:, 0]).T, offsets.T
    double_area = bx * cy - by * cx
    double_area = np.where(np.abs(double_area) < MIN_AREA, np.inf, double_area)
    b, c = (x * cy - y * cx) / double_area, (bx * y - by * x) / double_area
    return (barycentric + np.stack([-b - c, b, c], 1)).astype(np.float32)
