"""Where metrics look: the face, the mouth and the head of the true frame."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import binary_dilation
from scipy.spatial import ConvexHull

from ..headmodel.landmarks import INNER_FACE, OUTER_LIP

CHIN = 152


def hull_mask(points: np.ndarray, height: int, width: int) -> np.ndarray:
    """The convex hull of points (N, 2) in pixels, as bool (height, width)."""
    outline = points[ConvexHull(points).vertices]
    picture = Image.new("1", (width, height))
    ImageDraw.Draw(picture).polygon([(float(x) - 0.5, float(y) - 0.5) for x, y in outline], fill=1, outline=1)
    return np.asarray(picture, dtype=bool)


def face_mask(landmarks: np.ndarray, height: int, width: int) -> np.ndarray:
    """Inside of the face without its outline: convex hull of the inner landmarks (478, 2), bool (height, width)."""
    return hull_mask(landmarks[INNER_FACE, :2], height, width)


def mouth_mask(landmarks: np.ndarray, height: int, width: int) -> np.ndarray:
    """The lips with a rim of a 64th of the picture around them, bool (height, width)."""
    rim = max(1, width // 64)
    return binary_dilation(hull_mask(landmarks[list(OUTER_LIP), :2], height, width), iterations=rim)


def head_mask(person: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """The person's pixels above the chin: person (H, W) 0..1 -> bool (H, W)."""
    above_chin = np.arange(len(person))[:, None] < landmarks[CHIN, 1]
    return (person > 0.5) & above_chin
