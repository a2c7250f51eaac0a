"""The background with the person removed: I_s^bg, what shows where the head moved away."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from scipy.ndimage import binary_dilation, gaussian_filter

from .inpainting import complete

PERSON_ALPHA = 0.05
"""Mask value from which on a pixel is not background alone."""

GROW = 1 / 80
"""The mask is grown by this part of the crop's side before filling: the fringe of hair the mask misses goes too."""


def begin_removing_person(image: np.ndarray, alpha: np.ndarray) -> Future[np.ndarray]:
    """`remove_person` in a thread: geometry, which comes next, takes as long and needs no background."""
    thread = ThreadPoolExecutor(1, thread_name_prefix="mggtalk-background")
    filling = thread.submit(remove_person, image, alpha)
    thread.shutdown(wait=False)
    return filling


def already(background: np.ndarray) -> Future[np.ndarray]:
    """A background (S, S, 3) float32 0..1 that is there already, where one that is being filled is expected."""
    filling: Future[np.ndarray] = Future()
    filling.set_result(background)
    return filling


def remove_person(image: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Fill the area of the person of mask (S, S) in an image (S, S, 3) from around it: (S, S, 3) float32 0..1."""
    hole = person_hole(alpha)
    filled = complete(image, hole > 0)
    return (image * (1 - hole[..., None]) + filled * hole[..., None]).astype(np.float32)


def person_hole(alpha: np.ndarray) -> np.ndarray:
    """How much of each pixel must be filled once the person of mask (S, S) is gone: (S, S) float32, 0 beyond the hole.

    The person and a margin, fading out inside that margin.
    """
    size = alpha.shape[0]
    hole = binary_dilation(alpha > PERSON_ALPHA, iterations=max(2, round(GROW * size)))
    return np.where(hole, gaussian_filter(hole.astype(np.float32), size / 400), 0).astype(np.float32)
