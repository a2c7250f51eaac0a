"""The person's edge: its pixels mix person and background, and a mask is never exact there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import binary_erosion, uniform_filter

from ..geometry.nearest_pixels import distance_between, nearest_pixels
from ..types import SOLID_ALPHA

EDGE_WIDTH, EDGE_REACH, EDGE_LOOK = 1 / 170, 1 / 100, 1 / 64
"""Width of the person's edge, whose colours are not trusted, how far outward that holds (beyond are loose hair and
guesses), and how far around those inside of it are looked at, in crop sides."""

BESIDE_SKIN = 2.0
"""So many times farther it holds beside bare skin; all the way there would dim long hair beside a face."""

LOOK_PIXELS = 256
"""Pixels per side, about, that are asked which colours are near."""


@dataclass(frozen=True)
class Edge:
    """Where a person ends in the photo."""

    solid: np.ndarray  # (S, S) bool, pixels farther inside
    pixels: np.ndarray  # (S, S) bool, the edge's n pixels
    nearest: np.ndarray  # (2, n) row and column of the nearest solid pixel to each, in their order
    doubt: np.ndarray  # (n,) 0..1, rising outward over the edge's width

    @staticmethod
    def of(alpha: np.ndarray, bare: np.ndarray) -> Edge:
        """The edge by a mask (S, S), wider where the person is `bare` (S, S) bool: skin has no loose hair."""
        size = len(alpha)
        solid = binary_erosion(alpha > SOLID_ALPHA, iterations=max(1, round(EDGE_WIDTH * size)), border_value=1)
        nearest = nearest_pixels(solid)
        distance = distance_between(*nearest)
        reach = EDGE_REACH * size * np.where(bare[nearest], BESIDE_SKIN, 1)
        pixels = (distance > 0) & (distance < reach) & solid.any()
        doubt = (distance[pixels] / (EDGE_WIDTH * size)).clip(0, 1)
        return Edge(solid, pixels, np.stack([index[pixels] for index in nearest]), doubt)


def colors_around(image: np.ndarray, known: np.ndarray, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean (n, 3) and covariance (n, 3, 3) of an image's (S, S, 3) `known` (S, S) bool pixels around some places.

    `places` (2, n) are rows and columns; they are looked at as far as EDGE_LOOK.
    """
    size = len(image)
    step = max(1, size // LOOK_PIXELS)
    window = (2 * max(1, round(EDGE_LOOK * size / step)) + 1,) * 2 + (1,)
    some, weight = image[::step, ::step], known[::step, ::step, None].astype(np.float32)
    i, j = np.triu_indices(3)
    sums = uniform_filter(np.concatenate([weight, weight * some, weight * some[..., i] * some[..., j]], 2), window)
    sums = sums[tuple(places // step)].astype(np.float64)
    alone = sums[:, 0] < 1e-6  # a place that the coarser grid has passed over
    colors = image[tuple(places[:, alone])]
    sums[alone] = np.column_stack([np.ones(len(colors)), colors, colors[:, i] * colors[:, j]])
    sums /= sums[:, :1]
    mean, covariance = sums[:, 1:4], np.empty((len(sums), 3, 3))
    covariance[:, i, j] = covariance[:, j, i] = sums[:, 4:] - mean[:, i] * mean[:, j]
    return mean, covariance


def colors_beside(image: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Colours (9, n, 3) of the 3 x 3 pixels around each of some pixels (S, S) bool of an image (S, S, 3)."""
    rows, columns = np.nonzero(chosen)
    down, right = np.mgrid[-1:2, -1:2].reshape(2, 9, 1)
    last = len(image) - 1
    return image[(rows + down).clip(0, last), (columns + right).clip(0, last)]


OWN_SPREAD, OWN_MARGIN, APART = 1.5, 0.02, 3.0
"""How many standard deviations of the person's own colours, and of this margin (sRGB), still look like the person; and
how many times that far off the background's are where the two can be told apart."""


@dataclass(frozen=True)
class TowardsBackground:
    """From the person's colours inside of n pixels of the edge to those of the background beside them.

    In hair's texture neither a foreign tint nor its brightness tells what is background, but both together do:
    lengths are counted in the person's own standard deviations, few across the strands' tints, many along them.
    """

    number: np.ndarray  # (S, S) int, which of the n a pixel is, -1: none, or person and background look alike
    mean: np.ndarray  # (n, 3) of the person
    away: np.ndarray  # (n, 3) from there to the background
    measure: np.ndarray  # (n, 3), product with a difference from the mean: how far that goes, in OWN_SPREAD
    length: np.ndarray  # (n,) of `away`, likewise
    doubt: np.ndarray  # (n,) 0..1, how much of what is beyond the person's own is taken for background: jewels are, too

    @staticmethod
    def of(image: np.ndarray, background: np.ndarray, edge: Edge) -> TowardsBackground:
        """For the pixels of an edge, with the background's colours (n, 3) beside each."""
        mean, covariance = colors_around(image, edge.solid, edge.nearest)
        away = background - mean
        whitened = np.linalg.solve(covariance + OWN_MARGIN**2 * np.eye(3), away[..., None])[..., 0]
        length = np.sqrt((whitened * away).sum(1)) / OWN_SPREAD
        apart = length > APART
        mean, away, whitened, length, doubt = (each[apart] for each in (mean, away, whitened, length, edge.doubt))
        rows, columns = (each[apart] for each in np.nonzero(edge.pixels))
        number = np.full(edge.pixels.shape, -1)
        number[rows, columns] = np.arange(len(mean))
        return TowardsBackground(number, mean, away, whitened / (length * OWN_SPREAD**2)[:, None], length, doubt)

    def share(self, colors: np.ndarray, number: np.ndarray) -> np.ndarray:
        """How much (m,), 0..1, of the background colours (m, 3) for the pixels of some numbers (m,) seem to show."""
        beyond = ((colors - self.mean[number]) * self.measure[number]).sum(1) - 1
        return (self.doubt[number] * beyond / (self.length[number] - 1)).clip(0, 1)

    def kept(self, colors: np.ndarray, number: np.ndarray) -> np.ndarray:
        """Colours (m, 3) for the pixels of some numbers (m,) without that share of the background."""
        back = self.share(colors, number) * (1 - 1 / self.length[number])
        return colors - back[:, None] * self.away[number]
