"""Colours that splats at the person's edge and at grazing angles may have: without bounds a turned head shows lines."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import maximum_filter, minimum_filter

from ..geometry.nearest_pixels import distance_to
from ..geometry.scalp import goes_on_behind
from ..headmodel.landmarks import INNER_LIP_RING
from ..types import DepthMap, Portrait
from .edge import EDGE_LOOK, Edge, colors_around, colors_beside

EDGE_MARGIN = 0.05
"""How much darker or brighter than the person's farther inside an edge's colour may be."""

BESIDE_FACE = 1 / 40
"""So far from surely bare face and neck, crop sides, what looks like skin is skin: blond braids do too."""

ENOUGH_PIXELS = 512
"""Pixels per side, about, that are asked how dark and bright a person is near the edge."""

GRAZING = 0.5
"""Cosine of the angle between view and surface below which the photo sees it at a grazing angle."""

LIP_LINE = 1 / 100
"""Width of the line where lips meet, crop sides."""

SMOOTH, SPREAD, SHADE_MARGIN, TINT_MARGIN = (0.1, 0.2), (2.5, 1.0), (0.05, 0.02), 0.01
"""Where the person's colours inside of an edge vary less than this part of their brightness, any foreign tint shows (in
hair's texture only the background's does); and how many of their standard deviations, and of these margins (sRGB), an
edge's brightness and tint may differ from theirs. Where there are two figures the first is for hair, the second for
bare skin, which has no strands and shows a line at once."""


def color_range(portrait: Portrait, depth_map: DepthMap, edge: Edge) -> tuple[np.ndarray, np.ndarray]:
    """Darkest and brightest colour (S, S, 3) each that a pixel's splat may have: 0 to 1, with three exceptions.

    Where the photo sees the surface at a grazing angle, no more than the pixels around: turned into view, such a splat
    is many pixels wide, and contrast that made the photo sharp becomes grain. The same where lips meet: splats of one
    make up for what the other's hide, and once the lips part they would be glints and blots.
    Near the person's edge, no more than the person has farther inside. Edge pixels are half background, and a matte is
    never exact: unbounded, they come out in colours that nobody has, a line across the head as soon as it turns.
    """
    image, size = portrait.image, len(portrait.image)
    darkest, brightest = np.zeros_like(image), np.ones_like(image)
    grazing = -depth_map.normals[..., 2] < GRAZING
    close = grazing | _between_lips(portrait)
    around = colors_beside(image, close)
    darkest[close], brightest[close] = around.min(0), around.max(0)
    step = max(1, size // ENOUGH_PIXELS)
    nearest = tuple(edge.nearest // step)
    window = (2 * max(1, round(EDGE_LOOK * size / step)) + 1,) * 2 + (1,)
    some, inside = image[::step, ::step], edge.solid[::step, ::step, None]
    lowest = minimum_filter(np.where(inside, some, 1), window)[nearest] - EDGE_MARGIN
    highest = maximum_filter(np.where(inside, some, 0), window)[nearest] + EDGE_MARGIN
    darkest[edge.pixels], brightest[edge.pixels] = lowest.clip(0, 1), highest.clip(0, 1)
    return darkest, brightest


@dataclass(frozen=True)
class EdgeTints:
    """Colours of the person inside of n pixels of the edge."""

    number: np.ndarray  # (S, S) int, which of the n a pixel is, -1: none
    mean: np.ndarray  # (n, 3)
    precision: np.ndarray  # (n, 3, 3) inverse covariance of colours as far off as an edge's may be

    def kept(self, colors: np.ndarray, number: np.ndarray) -> np.ndarray:
        """Colours (m, 3) for the pixels of some numbers (m,), those far from the mean moved towards it."""
        away = colors - self.mean[number]
        distance = np.sqrt(np.einsum("ni,nij,nj->n", away, self.precision[number], away))[:, None]
        return self.mean[number] + away / np.maximum(distance, 1)


def edge_tints(portrait: Portrait, depth_map: DepthMap, edge: Edge) -> EdgeTints:
    """The colours that bare skin, or smooth hair that goes on behind the outline, has inside of its edge.

    A matte that is half a pixel wide of the truth mixes the background's tint into the edge. Darkest and brightest
    colour leave room for it (red as in the shade, blue as in the light), and on a turned head it draws the old outline.
    """
    size = len(portrait.image)
    rows, columns = np.nonzero(edge.pixels)
    beside_face = distance_to(depth_map.on_head) < BESIDE_FACE * size
    bare = (depth_map.outline.bare & beside_face)[tuple(edge.nearest)]
    chosen = (-depth_map.normals[rows, columns, 2] < GRAZING) & goes_on_behind(rows, columns, depth_map.outline, size)
    chosen |= bare
    mean, covariance = colors_around(portrait.image, edge.solid, edge.nearest[:, chosen])
    brightness = np.linalg.norm(mean, axis=1)
    vary, spread, margin = (np.where(bare[chosen], skin, hair) for hair, skin in (SMOOTH, SPREAD, SHADE_MARGIN))
    smooth = (np.trace(covariance, axis1=1, axis2=2) < (vary * brightness) ** 2) & (brightness > TINT_MARGIN)
    mean, covariance, spread, margin = (each[smooth] for each in (mean, covariance, spread, margin))
    shade = mean * (margin / brightness[smooth])[:, None]
    covariance = covariance + TINT_MARGIN**2 * np.eye(3) + shade[:, :, None] * shade[:, None, :]
    number = np.full(edge.pixels.shape, -1)
    number[rows[chosen][smooth], columns[chosen][smooth]] = np.arange(len(mean))
    return EdgeTints(number, mean, np.linalg.inv(covariance * spread[:, None, None] ** 2))


def _between_lips(portrait: Portrait) -> np.ndarray:
    """Pixels (S, S) bool along the lips' inner edges."""
    canvas = Image.new("1", portrait.alpha.shape)
    ring = portrait.landmarks[[*INNER_LIP_RING, INNER_LIP_RING[0]]]
    width = max(1, round(LIP_LINE * len(portrait.alpha)))
    ImageDraw.Draw(canvas).line([tuple(map(float, point)) for point in ring], fill=1, width=width)
    return np.array(canvas, bool)
