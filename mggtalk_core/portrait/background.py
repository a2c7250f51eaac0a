"""The background with the person removed: I_s^bg, what shows where the head moved away."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import binary_dilation, gaussian_filter, zoom

GROW = 1 / 40
"""The mask is grown by this part of the crop's side before filling."""


def remove_person(image: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Fill the person's area of an image (S, S, 3) from around it: (S, S, 3) float32 0..1.

    Pull-push (Gortler et al. 1996): average the known pixels down a pyramid, then fill holes from coarse to fine.
    Smooth, no seams, and independent of the hole's size.
    """
    hole = person_hole(alpha)
    filled = _pull_push(image, hole == 0)
    return (image * (1 - hole[..., None]) + filled * hole[..., None]).astype(np.float32)


def person_hole(alpha: np.ndarray) -> np.ndarray:
    """How much of each pixel must be filled once the person of mask (S, S) is gone: (S, S) float32, 0 beyond the hole.

    The person, grown so that no hair fringe bleeds into the fill, fading out inside that margin.
    """
    size = alpha.shape[0]
    hole = binary_dilation(alpha > 0.05, iterations=max(2, round(GROW * size)))
    return np.where(hole, gaussian_filter(hole.astype(np.float32), size / 170), 0).astype(np.float32)


def _pull_push(image: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Fill pixels that are not known (H, W) bool in an image (H, W, 3)."""
    weight = known.astype(np.float32)[..., None]
    if min(image.shape[:2]) <= 4 or known.all():
        total = weight.sum()
        mean = (image * weight).sum((0, 1)) / total if total > 0 else np.full(3, 0.5, np.float32)
        return image * weight + mean * (1 - weight)
    height, width = image.shape[0] // 2 * 2, image.shape[1] // 2 * 2

    def halve(array):
        return array[:height, :width].reshape(height // 2, 2, width // 2, 2, -1).mean((1, 3))

    coarse_weight = halve(weight)
    coarse = halve(image * weight) / np.maximum(coarse_weight, 1e-6)
    coarse = _pull_push(coarse, coarse_weight[..., 0] > 0)
    factors = (image.shape[0] / coarse.shape[0], image.shape[1] / coarse.shape[1], 1)
    smooth = zoom(coarse, factors, order=1, mode="nearest", grid_mode=True)
    return image * weight + smooth * (1 - weight)
