"""What looks like the face's skin, by colour alone."""

from __future__ import annotations

import numpy as np

from ..geometry.binding import polygon_mask
from ..geometry.search_tree import search_tree
from ..headmodel.landmarks import OVAL

NOSE_BASE = 2
"""Landmark between the nostrils."""

DARK_SHARE = 0.2
"""So much of the upper face is brows, lashes and frames of glasses, which are darker than skin."""

SAMPLES, NEIGHBOURS = 2000, 5
"""How many colours of skin and of something else pixels are compared with, and how many of the nearest count."""


def face_skin(image: np.ndarray, mask: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Colours (n, 3) of skin: the upper face's, in an image (S, S, 3) where a mask (S, S) bool holds."""
    face = polygon_mask(landmarks[list(OVAL)], len(image)) & mask
    face[int(landmarks[NOSE_BASE, 1]) :] = False  # no beard
    colors = image[face]
    if not len(colors):
        return colors
    brightness = colors.mean(1)
    return samples(colors[brightness > np.quantile(brightness, DARK_SHARE)])


def samples(colors: np.ndarray) -> np.ndarray:
    """At most SAMPLES of some colours (n, 3), evenly taken."""
    return colors[:: -(-len(colors) // SAMPLES)] if len(colors) else colors


def like_skin(colors: np.ndarray, skin: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Mask (n,) of colours (n, 3) nearer to the skin's (s, 3) than to something else's (o, 3)."""
    to_skin, _ = search_tree(skin).query(colors, k=NEIGHBOURS, workers=-1)
    to_other, _ = search_tree(other).query(colors, k=NEIGHBOURS, workers=-1)
    return to_skin.mean(1) < to_other.mean(1)
