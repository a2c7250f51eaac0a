"""What an open mouth shows: upper teeth, what goes with the jaw, and lip that the lips' contour left inside."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import binary_dilation, binary_opening, label
from scipy.ndimage import mean as mean_of_labels

from .nearest_pixels import distance_between, nearest_pixels

TOOTH_BORDER = 0.008
"""Width of the shade around teeth, in crop sides."""

BRIDGE = 0.004
"""Half of what rows of teeth that touch are joined by at most, in crop sides."""

LEAST_CONTRAST = 0.18
"""By how much brighter, 0..1, teeth are than the dark between the lips where they can be told from lips at all."""

LEAST_TOOTH, LEAST_ROW = 0.01, 0.05
"""What is smaller, against all that is bright, is a glint on a lip, or, cut off at a bridge, the end of a tooth."""

UPPER_SHARE = 0.65
"""How much of an open mouth, from above, shows upper teeth rather than lower ones."""

LIP_BORDER = 2
"""Pixels beside bright pieces that may show some of them, too."""

LIP_REACH = 0.012
"""How far on average pixels of the lip lie inside of its contour at most, in crop sides."""


@dataclass(frozen=True)
class OpenMouth:
    """Masks (S, S) bool within the lips' inner contour; what is in none is tongue or cavity."""

    upper: np.ndarray  # the upper jaw's teeth and gums
    lower: np.ndarray  # the lower jaw's, and a tongue that is as bright
    lip: np.ndarray  # the lower lip


def open_mouth(image: np.ndarray, landmarks: np.ndarray, inside: np.ndarray, lips: np.ndarray) -> OpenMouth:
    """Tell apart by brightness and place what an image (S, S, 3) shows inside of the lips' contours, masks (S, S) bool.

    The fitted lips often cover the model's teeth, and its tongue lies where a smile shows the ends of teeth: bright
    pixels left on the tongue would go down with the jaw. A bright piece belongs to the jaw that most of it is nearer
    to, or to the lower lip if it lies along it and rather has its colour than the upper teeth's.
    """
    if not inside.any():
        return OpenMouth(inside, inside, inside)
    rows, columns = np.nonzero(inside | lips)
    window = slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1)
    upper_lip, lower_lip = landmarks[[13, 14]] - [columns.min(), rows.min()]
    seen = _told_apart(image[window], upper_lip, lower_lip, inside[window], lips[window], len(image))

    def in_picture(part: np.ndarray) -> np.ndarray:
        mask = np.zeros_like(inside)
        mask[window] = part
        return mask

    return OpenMouth(in_picture(seen.upper), in_picture(seen.lower), in_picture(seen.lip))


def _told_apart(
    image: np.ndarray, upper_lip: np.ndarray, lower_lip: np.ndarray, inside: np.ndarray, lips: np.ndarray, size: int
) -> OpenMouth:
    """`open_mouth` within a part of a crop of `size` pixels; the lips' inner edges in their middle are at (x, y) px."""
    brightness = image.mean(2)
    dark, light = np.percentile(brightness[inside], [10, 95])
    bright = inside & (brightness > 0.5 * (dark + light))
    if not bright.any():
        return OpenMouth(bright, bright, bright)
    border = max(1, round(TOOTH_BORDER * size))
    # Where upper teeth stand on lower ones, narrow bridges join them.
    cores = _at_least(LEAST_ROW, binary_opening(bright, np.ones((1, 2 * round(BRIDGE * size) + 1))))
    pieces, _ = label(bright)
    apart = ~np.isin(pieces, pieces[cores])
    cores |= _at_least(LEAST_TOOTH, bright) & apart
    if light - dark < LEAST_CONTRAST or not cores.any():
        cores = binary_dilation(bright, iterations=border) & inside
    pieces, count = label(cores)
    pieces = pieces[nearest_pixels(cores)]

    down = (lower_lip - upper_lip) / np.linalg.norm(lower_lip - upper_lip)
    places = np.indices(inside.shape)[::-1].reshape(2, -1).T
    heights = (places @ down).reshape(inside.shape)
    middle = (upper_lip + UPPER_SHARE * (lower_lip - upper_lip)) @ down
    below = mean_of_labels(heights, np.where(cores, pieces, 0), np.arange(count + 1)) > middle
    outside = lips & ~inside & (heights > lower_lip @ down)
    of_lip = _like_lip(image, pieces * cores, below, outside, size)

    lip = bright & of_lip[pieces]
    # The dark line between teeth and lips goes with the teeth: on the mouth's inner skin it would hang in the air.
    of_teeth = binary_dilation(bright & ~lip, iterations=border) & inside & ~lip
    lower = of_teeth & (below & ~of_lip)[pieces]
    upper = of_teeth & ~lower
    # And so do gums, however far they are seen.
    across = np.rint(places @ [down[1], -down[0]]).astype(int).reshape(inside.shape)
    across -= across.min()
    lip |= inside & _beyond(lip, heights, across)
    upper |= inside & _beyond(upper, -heights, across)
    lower |= inside & _beyond(lower, heights, across)
    return OpenMouth(upper & ~lip, lower & ~lip & ~upper, lip)


def _at_least(share: float, mask: np.ndarray) -> np.ndarray:
    """A mask's connected pieces (h, w) that have some share of its area."""
    pieces, _ = label(mask)
    sizes = np.bincount(pieces.ravel())
    return mask & (sizes[pieces] >= share * mask.sum())


def _like_lip(image: np.ndarray, pieces: np.ndarray, below: np.ndarray, lip: np.ndarray, size: int) -> np.ndarray:
    """Which pieces (count + 1,) bool are rather the lower lip, of which a mask (h, w) shows some.

    pieces (h, w) are numbered from 1, `below` (count + 1,) tells those of the lower jaw, `size` is the crop's side in
    pixels.
    """
    result = np.zeros(len(below), bool)
    upper = (pieces > 0) & ~below[pieces]
    sure = lip & ~binary_dilation(pieces > 0, iterations=LIP_BORDER)
    if not upper.any() or not sure.any():
        return result
    of_teeth, of_lip = (np.median(image[mask], axis=0) for mask in (upper, sure))
    distance = distance_between(*nearest_pixels(lip))
    for piece in np.flatnonzero(below[1:]) + 1:
        mask = pieces == piece
        color = np.median(image[mask], axis=0)
        like = np.linalg.norm(color - of_lip) < np.linalg.norm(color - of_teeth)
        result[piece] = like and distance[mask].mean() <= LIP_REACH * size
    return result


def _beyond(rows: np.ndarray, heights: np.ndarray, across: np.ndarray) -> np.ndarray:
    """Pixels (h, w) bool that lie farther than all of `rows` in their column; heights and columns are (h, w)."""
    ends = np.full(across.max() + 1, -np.inf)
    np.maximum.at(ends, across[rows], heights[rows])
    ends[np.isinf(ends)] = np.inf  # no teeth, nothing beyond them
    return heights > ends[across]
