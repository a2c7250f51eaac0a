"""The square crop every later stage works in, and the way back to the photo."""

from __future__ import annotations

import numpy as np
from PIL import Image

CROP_HALF_SIDE = 1.05
"""Half of the crop's side in units of the face's longer side: room for hair, ears, chin at full opening, shoulders."""

CROP_RAISE = 0.08
"""How far above the face's centre the crop is centred (hair needs more room than the neck), in face sizes."""


MIN_CROP_HALF_SIDE = 0.85
"""How far the crop may shrink to stay inside the photo: below, chin and hair would touch its border."""


def face_crop_box(landmarks: np.ndarray) -> tuple[np.ndarray, float]:
    """Centre (2,) and side, photo pixels, of the square crop around landmarks (478, 2)."""
    low, high = landmarks[:468, :2].min(0), landmarks[:468, :2].max(0)
    size = float((high - low).max())
    centre = (low + high) / 2 - np.array([0, CROP_RAISE * size])
    return centre, 2 * CROP_HALF_SIDE * size


def crop_box_inside(landmarks: np.ndarray, width: int, height: int) -> tuple[np.ndarray, float]:
    """The same, moved and a little reduced where that keeps it inside a photo (height, width): no invented borders."""
    centre, side = face_crop_box(landmarks)
    smallest = side * MIN_CROP_HALF_SIDE / CROP_HALF_SIDE
    side = max(smallest, min(side, width, height))
    for axis, length in ((0, width), (1, height)):
        if side <= length:
            centre[axis] = np.clip(centre[axis], side / 2, length - side / 2)
    return centre, side


def cut_square(photo: np.ndarray, centre: np.ndarray, side: float, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Antialiased square crop (size, size, 3) of a photo (H, W, 3), edge pixels repeated outside of it.

    Also returns the affine (2, 3) from crop pixels to photo pixels.
    """
    height, width = photo.shape[:2]
    left, top = centre[0] - side / 2, centre[1] - side / 2
    before = (max(0, int(np.ceil(-top)) + 2), max(0, int(np.ceil(-left)) + 2))
    after = (
        max(0, int(np.ceil(top + side - height)) + 2),
        max(0, int(np.ceil(left + side - width)) + 2),
    )
    # Cut loosely first: padding and filtering a 50 megapixel photo for a small face would be wasteful.
    y0, y1 = max(0, int(top) - 8), min(height, int(top + side) + 10)
    x0, x1 = max(0, int(left) - 8), min(width, int(left + side) + 10)
    loose = np.pad(photo[y0:y1, x0:x1], ((before[0], after[0]), (before[1], after[1]), (0, 0)), mode="edge")
    box_left, box_top = left - x0 + before[1], top - y0 + before[0]
    box = (box_left, box_top, box_left + side, box_top + side)
    channels = [
        np.asarray(
            Image.fromarray(np.ascontiguousarray(loose[..., channel], np.float32)).resize(
                (size, size), Image.Resampling.BICUBIC, box=box
            )
        )
        for channel in range(photo.shape[2])
    ]
    scale = side / size
    return np.stack(channels, -1).clip(0, 1), np.array([[scale, 0, left], [0, scale, top]])
