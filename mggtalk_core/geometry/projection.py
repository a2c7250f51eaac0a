"""Pinhole projection between the canonical head frame and pixels (OpenCV convention, CONVENTIONS.md)."""

from __future__ import annotations

import numpy as np

from ..types import Camera

PORTRAIT_FOCAL = 4.2647
"""Focal length of a portrait lens in units of the crop's side (a 13.4 degree view; prototypes' fit of MediaPipe's)."""


def to_camera(points: np.ndarray, camera: Camera) -> np.ndarray:
    """Canonical points (..., 3) in the camera frame (..., 3)."""
    return points @ camera.viewmat[:3, :3].T + camera.viewmat[:3, 3]


def to_canonical(points: np.ndarray, camera: Camera) -> np.ndarray:
    """Camera-frame points (..., 3) in the canonical head frame (..., 3)."""
    return (points - camera.viewmat[:3, 3]) @ camera.viewmat[:3, :3]


def project(points: np.ndarray, camera: Camera) -> np.ndarray:
    """Camera-frame points (..., 3) as (column px, row px, depth m) (..., 3)."""
    K = camera.K
    z = points[..., 2]
    return np.stack(
        [K[0, 0] * points[..., 0] / z + K[0, 2], K[1, 1] * points[..., 1] / z + K[1, 2], z], axis=-1
    )


def projection_jacobian(points: np.ndarray, focal: float) -> np.ndarray:
    """Derivative (N, 2, 3) of pixels by camera-frame points (N, 3), for one focal length in pixels."""
    jacobian = np.zeros((len(points), 2, 3))
    jacobian[:, 0, 0] = jacobian[:, 1, 1] = focal / points[:, 2]
    jacobian[:, :, 2] = -focal * points[:, :2] / points[:, 2:] ** 2
    return jacobian


def rotation_derivative(points: np.ndarray) -> np.ndarray:
    """Derivative (N, 3, 3) of points (N, 3) by a turn about the origin, -[p]x: d(exp(w) p)/dw at w = 0."""
    x, y, z = points.T
    zero = np.zeros_like(x)
    return np.stack([zero, z, -y, -z, zero, x, y, -x, zero], axis=1).reshape(-1, 3, 3)


def unproject(columns: np.ndarray, rows: np.ndarray, depth: np.ndarray, camera: Camera) -> np.ndarray:
    """Pixels (...,) with depth (...,) m as camera-frame points (..., 3)."""
    K = camera.K
    return np.stack([(columns - K[0, 2]) / K[0, 0] * depth, (rows - K[1, 2]) / K[1, 1] * depth, depth], axis=-1)


def to_the_side(axis: np.ndarray) -> float:
    """How far a camera that looks along an axis (3,) of the canonical frame is to a side, rad; positive at x < 0."""
    return float(np.arctan2(axis[0], axis[2]))
