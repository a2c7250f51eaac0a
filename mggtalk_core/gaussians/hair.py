"""Hair, or bare scalp, that goes on behind the photo's outline: its texture and its tone."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import binary_erosion, gaussian_filter, map_coordinates

from ..geometry.pose_weights import ramp, smoothstep
from ..geometry.scalp import WIDE, Continuation, outline_pixels
from ..types import SOLID_ALPHA, PointCloud

EDGE_WIDTH = 1 / 64
"""Nearer to the mask's edge than this, in crop sides, a pixel is not asked for the colour of hidden skin and hair."""

HAIR_BLUR = 1 / 512
"""Standard deviation by which hair is blurred, crop sides: splats of the scalp are no finer."""

TONE_PIXELS, TONE_BLUR, TONE_REACH, WIDE_HAIR = 128, 1 / 48, 0.03, 1 / 8
"""Pixels per side, about, and standard deviation, crop sides, of the tone of hair without its texture; how far behind
the outline, metres, tone is that of the hair along it; and the width of hair, crop sides, from which on its texture is
repeated in full: a narrow rim, to and fro, would be stripes."""

NARROW = (0.01, WIDE)
"""Widths of hair, crop sides, between which its own texture takes the place of the nearest colours: a rim of few pixels
shows the person's edge and its shade rather than hair."""


def textured(continued: Continuation, size: int) -> np.ndarray:
    """How much (n,) 0..1 what is continued of a crop (S, S) has a texture: a rim of a few pixels has none."""
    return continued.shown * continued.share * ramp(continued.width / size, NARROW)


def continued_hair(points: PointCloud, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How much (n,) 0..1 some positions (n, 3) m continue the photo's hair, or bare scalp, and the colours (m, 3) of
    those that do.

    Texture goes on around the head; light and shade of the side that the photo shows do not, nor does the shadow beside
    the face: farther behind, tone is that of the hair along the outline.
    """
    image, outline = points.portrait.image, points.depth_map.outline
    continued = outline_pixels(positions, points.portrait, outline)
    shown = continued.shown
    sigma = HAIR_BLUR * len(image)
    texture = sampled(gaussian_filter(image, (sigma, sigma, 0)), continued.pixels[shown])
    tones = hair_tones(points)
    step = max(1, len(image) // TONE_PIXELS)
    tone, typical = (sampled(tones, where[shown] / step) for where in (continued.pixels, continued.typical))
    width = continued.width[shown, None]
    amount = smoothstep(continued.behind[shown, None] / np.minimum(TONE_REACH, width * outline.pixel))
    detail = np.minimum(width / (WIDE_HAIR * len(image)), 1)
    levelled = typical + detail * (texture - tone)
    share = textured(continued, len(image))
    return share, (texture + amount * (levelled - texture))[share[shown] > 0]


def hair_tones(points: PointCloud) -> np.ndarray:
    """The person's hair and scalp without their texture, (s, s, 3), about TONE_PIXELS a side."""
    step = max(1, len(points.portrait.image) // TONE_PIXELS)
    image, alpha, bare = (
        each[::step, ::step] for each in (points.portrait.image, points.portrait.alpha, points.depth_map.outline.bare)
    )
    edge = max(1, round(EDGE_WIDTH * len(alpha)))
    hair = binary_erosion(alpha > SOLID_ALPHA, iterations=edge, border_value=1) & ~bare
    weight = hair[..., None].astype(np.float32) + 1e-6
    some = np.concatenate([weight * image, weight], 2)
    sigma = TONE_BLUR * len(alpha)
    sums = gaussian_filter(some, (sigma, sigma, 0))
    return sums[..., :3] / sums[..., 3:]


def brightness(image: np.ndarray) -> np.ndarray:
    """Mean of an image's three colours, (S, S)."""
    return image @ np.full(3, 1 / 3, np.float32)  # an axis of three is summed 20 times as fast so


def sampled(picture: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """A picture (S, S, 3) at rows and columns (n, 2), between its pixels' centres: (n, 3)."""
    where = pixels.T - 0.5
    return np.stack([map_coordinates(picture[..., i], where, order=1, mode="nearest") for i in range(3)], 1)
