"""How far inside a person's mask pixels lie."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import distance_transform_edt


def distance_within(mask: np.ndarray) -> np.ndarray:
    """Distances (S, S), px, from a mask's pixels (S, S) bool to the nearest one off it; 0 there.

    The crop's border is no outline: the person goes on beyond it.
    """
    return distance_transform_edt(np.pad(mask, 1, mode="edge"))[1:-1, 1:-1]
