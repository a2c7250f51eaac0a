"""Picture against picture: PSNR and SSIM, whole or inside a mask."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import correlate1d

SSIM_RADIUS, SSIM_SIGMA = 5, 1.5
"""The 11x11 Gaussian window of Wang et al. 2004."""


def mean_squared_error(image: np.ndarray, reference: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Mean squared difference of two (H, W, C) images 0..1, inside a bool mask (H, W) when given."""
    difference = (np.asarray(image, np.float64) - np.asarray(reference, np.float64)) ** 2
    return float(difference.mean() if mask is None else difference[mask].mean())


def psnr(image: np.ndarray, reference: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Peak signal-to-noise ratio in dB of (H, W, C) images 0..1; infinite for equal images.

    NaN when the mask is empty.
    """
    if mask is not None and not mask.any():
        return float("nan")
    error = mean_squared_error(image, reference, mask)
    return float("inf") if error == 0 else float(-10 * np.log10(error))


def ssim_map(image: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Structural similarity of each pixel, (H, W), mean of the channels; images (H, W, C) 0..1.

    Wang et al. 2004, equation 13, with population covariances as in their code, torchmetrics and
    scikit-image(gaussian_weights=True, use_sample_covariance=False).
    """
    x, y = np.asarray(image, np.float64), np.asarray(reference, np.float64)
    mean_x, mean_y = _window(x), _window(y)
    variance_x = _window(x * x) - mean_x**2
    variance_y = _window(y * y) - mean_y**2
    covariance = _window(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    similarity = ((2 * mean_x * mean_y + c1) * (2 * covariance + c2)) / (
        (mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2)
    )
    return similarity.mean(axis=2)


def ssim(image: np.ndarray, reference: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Mean structural similarity of (H, W, C) images 0..1; without a mask over all full windows, as published."""
    values = ssim_map(image, reference)
    if mask is not None:
        return float(values[mask].mean()) if mask.any() else float("nan")
    return float(values[SSIM_RADIUS:-SSIM_RADIUS, SSIM_RADIUS:-SSIM_RADIUS].mean())


def _window(image: np.ndarray) -> np.ndarray:
    offsets = np.arange(-SSIM_RADIUS, SSIM_RADIUS + 1)
    weights = np.exp(-0.5 * (offsets / SSIM_SIGMA) ** 2)
    weights /= weights.sum()
    return correlate1d(correlate1d(image, weights, axis=0, mode="reflect"), weights, axis=1, mode="reflect")
