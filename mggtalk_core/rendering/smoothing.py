"""3D smoothing filter: seen closer than in the photo, Gaussians are no finer than its pixels were.

A surfel is as large as it must be to reproduce the photo together with the renderer's low-pass of EPS2D pixels^2. Seen
closer, the same low-pass is less of the surfel, gaps open between neighbours and a grid shows. What is missing is added
to the covariances (Mip-Splatting, Yu et al. 2024: a Gaussian's frequencies are limited by the pictures it came from).
"""

from __future__ import annotations

import numpy as np

from ..gaussians.head import GaussianHead
from ..types import VISIBLE, Camera
from .semantics import EPS2D

DIAGONAL = (0, 3, 5)
"""Of a covariance's six numbers."""

EVERY = 64
"""One in so many Gaussians tells how far away the head is."""


class SmoothingFilter:
    """What to add to a head's covariances for a camera that may be nearer than the photo's was."""

    def __init__(self, head: GaussianHead):
        self._chosen = np.flatnonzero(head.origin.numpy() == VISIBLE)[::EVERY]
        self._source = self._footprint(head.positions.numpy(), head.camera)

    def _footprint(self, means: np.ndarray, camera: Camera) -> float:
        """Mean side of a pixel, metres, on a head at means (N, 3)."""
        away = means[self._chosen] @ camera.viewmat[2, :3] + camera.viewmat[2, 3]
        return float(away.mean() / camera.K[0, 0])

    def variance(self, means: np.ndarray, camera: Camera) -> float:
        """Variance, m^2, that the photo's low-pass had beyond the camera's own on a head at means (N, 3)."""
        return EPS2D * max(self._source**2 - self._footprint(means, camera) ** 2, 0.0)

    def smooth(self, means: np.ndarray, covars: np.ndarray, camera: Camera) -> None:
        """Adds it to covariances (N, 6), in place."""
        variance = self.variance(means, camera)
        if variance > 0:
            covars[:, DIAGONAL] += variance
