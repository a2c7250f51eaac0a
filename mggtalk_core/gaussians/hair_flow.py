"""Which way hair lies in the photo, and on the surface that continues it."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter, uniform_filter

from ..geometry.scalp import outline_pixels
from ..types import PointCloud, Portrait
from .hair import brightness

FINE, AROUND = 1 / 512, 5 / 512
"""Standard deviation, crop sides, of brightness as it is differentiated, and how far around its slopes are averaged."""

FLOW_SIZE = 512
"""Pixels per side, about, of which that is asked."""

STEP = 0.0005
"""How far apart two places on the surface are, metres, that tell which way their pixels lie."""


def flow_in_photo(portrait: Portrait, pixels: np.ndarray) -> np.ndarray:
    """Directions (n, 2), in rows and columns, along which the picture varies least around pixels (n, 2).

    Either sign means the same. They are as long as they are clear, 0..1: the coherence of the structure tensor (Bigün
    & Granlund, 1987).
    """
    size = len(portrait.image)
    step = max(1, size // FLOW_SIZE)
    grey = gaussian_filter(brightness(portrait.image), FINE * size)[::step, ::step]
    down, right = np.gradient(grey)
    width = 2 * round(AROUND * size / step) + 1
    rows, columns = (pixels / step).astype(int).clip(0, len(grey) - 1).T
    dd, dr, rr = (uniform_filter(each, width)[rows, columns] for each in (down**2, down * right, right**2))
    steepest = 0.5 * np.arctan2(2 * dr, dd - rr)  # from rows towards columns
    clear = np.hypot(dd - rr, 2 * dr) / (dd + rr + 1e-8)
    return clear[:, None] * np.stack([-np.sin(steepest), np.cos(steepest)], 1)


def flow_on_surface(points: PointCloud, pixels: np.ndarray, along: np.ndarray, aside: np.ndarray) -> np.ndarray:
    """Vectors (n, 3) along which the hair lies that n hidden points continue, as long as that is clear, 0..1.

    `pixels` (n, 2) are those they continue, `along` and `aside` (n, 3) perpendicular unit vectors on the surface there;
    of both signs the result has the one that goes more along than against the first.
    """
    flow = flow_in_photo(points.portrait, pixels)
    # Pixels move by `down` for a step along and by `across` for one aside: solved for the steps that move them by flow.
    down, across = (
        outline_pixels(points.positions + STEP * towards, points.portrait, points.depth_map.outline).pixels - pixels
        for towards in (along, aside)
    )
    turned = np.sign(_cross(down, across))
    lies = (turned * _cross(flow, across))[:, None] * along + (turned * _cross(down, flow))[:, None] * aside
    lies /= np.linalg.norm(lies, axis=1, keepdims=True) + 1e-9
    lies *= np.linalg.norm(flow, axis=1, keepdims=True)
    return np.where((lies * along).sum(1, keepdims=True) < 0, -lies, lies)


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cross products (n,) of vectors (n, 2)."""
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
