"""Photos of one tint, grey or sepia: what they hide has no other."""

from __future__ import annotations

import numpy as np

from ..geometry.pose_weights import ramp

TINTS = 16
"""Brightnesses, equally many pixels each, whose mean tint is looked at."""

ONE_TINT = (0.006, 0.012)
"""Mean distance of colours, sRGB 0..1, from the tint of their brightness, between which a photo stops being of one: the
grey portrait of the development set has 0, toned sepia .001, those in colour .013 to .049."""

EVERY = 7
"""One in so many pixels is looked at."""


def in_the_photos_tint(colors: np.ndarray, photo: np.ndarray) -> np.ndarray:
    """Colours (n, 3) as bright as they are, in the tint of a photo (H, W, 3) of one; untouched in others."""
    pixels = photo.reshape(-1, 3)[::EVERY]
    pixels = pixels[np.argsort(pixels.mean(1))]
    groups = np.array([part.mean(0) for part in np.array_split(pixels, TINTS)])
    tinted = _tinted(pixels.mean(1), groups)
    stray = float(np.abs(pixels - tinted).mean())
    amount = 1 - ramp(stray, ONE_TINT)
    return colors + amount * (_tinted(colors.mean(1), groups) - colors)


def _tinted(brightness: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Colours (n, 3) of a brightness (n,), the tint taken from groups (m, 3) of about that brightness."""
    levels = groups.mean(1)
    tints = groups - levels[:, None]
    return brightness[:, None] + np.stack([np.interp(brightness, levels, tint) for tint in tints.T], -1)
