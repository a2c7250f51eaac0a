"""Loose hair and jewels before a plain wall that the segmenter misses: not the wall, and hanging on the person."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import binary_dilation, binary_erosion, binary_opening, gaussian_filter, label

from ..geometry.coarse import enlarged
from ..geometry.nearest_pixels import distance_to
from ..types import SOLID_ALPHA
from .background import PERSON_ALPHA

REACH, MARGIN = 1 / 9, 1 / 64
"""How far from the person loose hair may reach, and how near the wall is not asked for its colour; crop sides."""

WALL_BLUR, HAIR_BLUR = 1 / 24, 1 / 20
"""Widths, crop sides, over which a wall's colour and the hair's are the same."""

NEAR_TRUST = 0.1
"""How much what lies within reach of loose hair counts as wall: a tuft would make its own."""

WALL_ROUNDS = 4
"""Fits of the wall's colour, each trusting what differs from the last one's less."""

PLAIN = 0.045
"""Spread of colour, sRGB 0..1, up to which a wall is plain: bricks are not."""

UNLIKE_WALL, GOES_ON = (3.5, 0.045), 0.42
"""What differs from the wall by so many times its spread, and at least so much, is something else; it ends where the
difference is less than this share of that."""

THIN, RIM = 1 / 40, 1 / 100
"""Half the width, crop sides, up to which such a thing is hair or jewel, and how far from the person it must get."""

BESIDE = 3 * RIM
"""What is so near the person, crop sides, does not join what lies farther off: hair's soft edge is all around."""

GAP = 1 / 256
"""What may lie between parts of one lock, crop sides."""

LEAST_CONTRAST = 0.15
"""Contrast between hair and wall that a pixel's share is measured by, at least."""

COARSE = 128
"""Side, pixels, of the pictures that walls and hair are smoothed on."""


def with_loose_hair(image: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """A person's mask (S, S) 0..1 with thin things in the image (S, S, 3) that stand out from a plain wall beside it.

    On the wall they would stay behind as the head turns.
    """
    size = len(alpha)
    step = max(1, size // COARSE)
    away = distance_to(alpha > PERSON_ALPHA) / size
    small, small_away = image[::step, ::step], away[::step, ::step]
    trust = np.where(small_away > REACH, 1, NEAR_TRUST) * (small_away > MARGIN)
    wall, spread = _wall(small, trust)
    solid = binary_erosion(alpha > SOLID_ALPHA, iterations=max(1, size // 100), border_value=1)
    hair, _ = _around(small, solid[::step, ::step], HAIR_BLUR * len(small))
    contrast = np.linalg.norm(hair - wall, axis=2).clip(LEAST_CONTRAST)
    wall, spread, contrast = (enlarged(smooth, step, size) for smooth in (wall, spread, contrast))
    difference = np.linalg.norm(image - wall, axis=2)
    times, least = UNLIKE_WALL
    unlike = difference / np.maximum(times * spread, least)
    other = (away > 0) & (unlike > 1)
    half = max(1, round(THIN * size))
    thin = other & ~binary_dilation(binary_opening(other, iterations=half), iterations=half + 1)
    locks = _hanging_on(away, thin, unlike > GOES_ON, spread < PLAIN)
    return np.where(locks, np.maximum(alpha, (difference / contrast).clip(0, 1)), alpha).astype(np.float32)


def _hanging_on(away: np.ndarray, thin: np.ndarray, more: np.ndarray, plain: np.ndarray) -> np.ndarray:
    """Of thin things (S, S) bool those that hang on the person and end nearby, before `plain` wall (S, S) bool.

    `away` (S, S) are distances from the person, crop sides. `more` (S, S) bool is what they may go on as, fainter: a
    pole on the wall, a bar of what is blurred behind. Those that stay beside the outline are its own soft edge.
    """
    size = len(away)
    grown = binary_dilation(thin & (away > RIM), iterations=round(GAP * size) + 1)
    pieces, count = label(grown)
    fits = np.zeros(count + 1, bool)
    fits[np.unique(pieces[grown & (away <= RIM)])] = True
    nearby = (away < REACH) & plain
    nearby[[0, -1]] = nearby[:, [0, -1]] = False
    beyond, count = label((more | grown) & (away > BESIDE))
    far = np.zeros(count + 1, bool)
    far[np.unique(beyond[~nearby])] = True
    far[0] = False
    fits[np.unique(pieces[grown & (far[beyond] | (away > RIM) & ~nearby)])] = False
    fits[0] = False
    return thin & binary_dilation(grown & fits[pieces], iterations=round(RIM * size))


def _wall(image: np.ndarray, trust: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A wall's smooth colour (s, s, 3) and spread (s, s) around it where it shows; else large.

    `trust` (s, s) 0..1 is how much pixels count as wall if they look like it.
    """
    sigma, weight = WALL_BLUR * len(image), trust
    for _ in range(WALL_ROUNDS):
        wall, total = _around(image, weight, sigma)
        difference = np.linalg.norm(image - wall, axis=2)
        spread = np.sqrt(_around(difference[..., None] ** 2, weight, sigma)[0][..., 0]) + 0.004
        weight = trust * np.exp(-((difference / (2 * spread)) ** 2))
    return wall, np.where(total > 1e-5, spread, 1.0)


def _around(values: np.ndarray, weight: np.ndarray, sigma: float) -> tuple[np.ndarray, np.ndarray]:
    """Weighted means (s, s, C) of values (s, s, C) around each pixel, and the mean weight (s, s) there."""
    total = gaussian_filter(weight.astype(np.float32), sigma, mode="nearest")
    sums = [gaussian_filter(weight * channel, sigma, mode="nearest") for channel in np.moveaxis(values, 2, 0)]
    return np.stack(sums, 2) / np.maximum(total, 1e-9)[..., None], total
