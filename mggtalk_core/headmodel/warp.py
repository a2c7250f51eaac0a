"""Personal detail the head model can't express: move its surface so that the landmarks land where they were seen."""

from __future__ import annotations

import numpy as np

from ..types import HeadFit
from .arkit import ARKIT_INDEX
from .landmarks import INNER_FACE, LOWER_EDGES, UPPER_EDGES
from .model import LEFT_EYE, LOWER_TEETH, RIGHT_EYE, TONGUE, UPPER_TEETH, HeadModel

WARP_RADIUS = 0.010
"""Reach of one landmark's residual over the surface, metres (about a fifth of the mouth's width)."""

WARP_RIDGE = 0.15
"""Smoothing of the kernel ridge regression: landmarks are noisy, so their residual is not followed to the full."""

EDGE_RIDGE = 0.02
"""The edges of lips and lids are followed more closely: touching lips have to touch."""

CHIN_AND_FOREHEAD = (10, 152, 148, 377, 176, 400)
"""Outline landmarks on the face's midline: these do not slide, unlike the rest of the outline."""


def warp_to_landmarks(
    head: HeadModel,
    vertices: np.ndarray,  # (V, 3) m, canonical, with the fitted identity and expression
    fit: HeadFit,
    landmarks: np.ndarray,  # (478, 2) observed, pixels
    K: np.ndarray,  # (3, 3)
) -> np.ndarray:
    """Vertices (V, 3) m moved parallel to the image plane by kernel ridge regression of the landmark residuals.

    The kernel sees how far a point travels with the jaw as a fourth coordinate, so that residuals of the upper lip
    never pull the lower one, although they touch. Eyes, teeth and tongue move rigidly with their surroundings.
    """
    jaw_travel = head.expression_basis[ARKIT_INDEX["jawOpen"]][:, 1:2]
    features = np.concatenate([vertices, 2 * jaw_travel], axis=1) / WARP_RADIUS

    at_landmarks = head.landmarks_of(vertices) @ fit.rotation.T + fit.translation
    metres_per_pixel = at_landmarks[:, 2:] / K[0, 0]
    residual = (landmarks - fit.landmarks) * metres_per_pixel
    index = np.concatenate([INNER_FACE, CHIN_AND_FOREHEAD])
    centres = head.landmarks_of(features)[index]

    kernel = _gaussian_kernel(centres, centres)
    ridge = np.where(np.isin(index, UPPER_EDGES + LOWER_EDGES), EDGE_RIDGE, WARP_RIDGE)
    coefficients = np.linalg.solve(kernel + np.diag(ridge), residual[index])
    offset = np.zeros_like(vertices)
    offset[:, :2] = _gaussian_kernel(features, centres) @ coefficients
    warped = vertices + offset @ fit.rotation  # camera axes -> canonical axes
    for part in (LEFT_EYE, RIGHT_EYE, TONGUE, UPPER_TEETH, LOWER_TEETH):
        members = head.part_vertices(part)
        warped[members] = vertices[members] + (warped[members] - vertices[members]).mean(0)
    return warped.astype(np.float32)


def _gaussian_kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """exp(-|a - b|^2 / 2) between rows of (n, d) and (m, d): (n, m)."""
    squared = (a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T
    return np.exp(-0.5 * np.maximum(squared, 0))
