"""Fill a hole in a picture with what its surroundings are made of: patch-based completion, coarse to fine.

Wexler et al. 2007 with PatchMatch (Barnes et al. 2009): every patch that touches the hole is matched to a patch from
outside; overlapping matches vote for the hole's colours; matching and voting alternate at each level of a pyramid.
"""

from __future__ import annotations

import numpy as np
from PIL import Image
from scipy.ndimage import binary_dilation, binary_erosion, zoom

from ..geometry.nearest_pixels import distance_to
from ..rendering.kernel_cache import kernel

RADIUS = 3  # patches of 7 x 7 pixels
COARSEST, FINEST = 64, 256
"""Sides of the pyramid's levels; above the finest, its matches are copied at full resolution."""

ROUNDS = 3
"""Matching and voting per level."""

SWEEPS, FINEST_SWEEPS = 4, 2
"""How often matches spread through the picture in one matching: where structure is decided more than where, at the
finest level, it costs most."""

CONFIDENCE_DECAY = 1.3
"""A hole pixel counts this many times less per pixel from the known: structure grows from the border inward."""


def complete(image: np.ndarray, hole: np.ndarray, guess: np.ndarray | None = None) -> np.ndarray:
    """An image (S, S, 3) float32 with its hole (S, S) bool filled; what is known stays. Same input, same result.

    `guess` (S, S, 3) is what the hole is taken for at first: its surroundings, smooth, if there is none. A hole that
    leaves too little outside to learn from stays as guessed.
    """
    size = image.shape[0]
    if not hole.any():
        return image
    sides = [COARSEST]
    while sides[-1] < min(FINEST, size):
        sides.append(min(2 * sides[-1], FINEST, size))
    matches = None
    for side in sides:
        level = _resized(image, side)
        level_hole = _any_in_cell(hole, side)
        sources = binary_erosion(~level_hole, np.ones((2 * RADIUS + 1,) * 2), border_value=0)
        if sources.sum() < 64:
            continue
        targets = binary_dilation(level_hole, np.ones((2 * RADIUS + 1,) * 2))
        if matches is not None:
            first = _upscaled_vote(level, level_hole, matches, side)
        else:
            first = fill_smoothly(level, ~level_hole) if guess is None else _resized(guess, side)
        level = np.ascontiguousarray(np.where(level_hole[..., None], first, level), np.float32)
        matches = _initial_matches(matches, sources, targets)
        confidence = _confidence(level_hole)
        for round_ in range(ROUNDS):
            cost = np.empty((side, side), np.float32)
            sweeps = SWEEPS if side < FINEST else FINEST_SWEEPS
            _match(level, confidence, sources, targets, matches, cost, sweeps, round_)
            _vote(level, confidence, level_hole, targets, matches)
    if matches is None:
        return fill_smoothly(image, ~hole) if guess is None else np.where(hole[..., None], guess, image)
    if size > matches.shape[0]:
        level = _upscaled_vote(image, hole, matches, size)
    return np.where(hole[..., None], level, image).astype(np.float32)


def fill_smoothly(image: np.ndarray, known: np.ndarray) -> np.ndarray:
    """An image (H, W, 3) with the pixels that are not known (H, W) bool filled without structure.

    Pull-push (Gortler et al. 1996): average the known pixels down a pyramid, fill holes from coarse to fine.
    """
    weight = known.astype(np.float32)[..., None]
    if min(image.shape[:2]) <= 4 or known.all():
        total = weight.sum()
        mean = (image * weight).sum((0, 1)) / total if total > 0 else np.full(3, 0.5, np.float32)
        return image * weight + mean * (1 - weight)
    height, width = image.shape[0] // 2 * 2, image.shape[1] // 2 * 2

    def halve(array: np.ndarray) -> np.ndarray:
        return array[:height, :width].reshape(height // 2, 2, width // 2, 2, -1).mean((1, 3))

    coarse_weight = halve(weight)
    coarse = halve(image * weight) / np.maximum(coarse_weight, 1e-6)
    coarse = fill_smoothly(coarse, coarse_weight[..., 0] > 0)
    factors = (image.shape[0] / coarse.shape[0], image.shape[1] / coarse.shape[1], 1)
    smooth = zoom(coarse, factors, order=1, mode="nearest", grid_mode=True)
    return image * weight + smooth * (1 - weight)


def _resized(image: np.ndarray, side: int) -> np.ndarray:
    channels = [Image.fromarray(np.ascontiguousarray(channel, np.float32)) for channel in np.moveaxis(image, 2, 0)]
    return np.stack([np.asarray(channel.resize((side, side), Image.Resampling.BOX)) for channel in channels], -1)


def _any_in_cell(mask: np.ndarray, side: int) -> np.ndarray:
    """A mask (S, S) reduced to (side, side): True where any of its pixels is."""
    share = Image.fromarray(mask.astype(np.float32)).resize((side, side), Image.Resampling.BOX)
    return np.asarray(share) > 1e-6


def _confidence(hole: np.ndarray) -> np.ndarray:
    """1 where known, decaying with the distance into the hole (S, S) float32, but never to nothing."""
    return np.power(CONFIDENCE_DECAY, -distance_to(~hole)).clip(1e-4).astype(np.float32)


def _initial_matches(previous: np.ndarray | None, sources: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Matches (side, side, 2) row, column of targets: the coarser level's, doubled; where that is none, any source."""
    side = len(sources)
    known, at = np.argwhere(sources), np.argwhere(targets)
    found = known[np.random.default_rng(side).integers(len(known), size=len(at))]
    if previous is not None:
        coarse = at * len(previous) // side
        offset = previous[coarse[:, 0], coarse[:, 1]] - coarse
        scaled = np.round(at + offset * (side / len(previous))).astype(int).clip(0, side - 1)
        valid = sources[scaled[:, 0], scaled[:, 1]]
        found[valid] = scaled[valid]
    matches = np.zeros((side, side, 2), np.int32)
    matches[targets] = found
    return matches


def _upscaled_vote(image: np.ndarray, hole: np.ndarray, matches: np.ndarray, side: int) -> np.ndarray:
    """Colours for the hole of an image (side, side, 3), voted by matches found on a coarser grid."""
    sources = binary_erosion(~hole, np.ones((2 * RADIUS + 1,) * 2), border_value=0)
    targets = binary_dilation(hole, np.ones((2 * RADIUS + 1,) * 2))
    level = np.ascontiguousarray(image, np.float32).copy()
    _vote(level, _confidence(hole), hole, targets, _initial_matches(matches, sources, targets))
    return level


@kernel
def _distance(image, confidence, row, column, other_row, other_column, limit):
    """Confident squared difference of two patches, cut at the picture's border; given up once it exceeds `limit`."""
    side = image.shape[0]
    total = np.float32(0)
    for dy in range(-RADIUS, RADIUS + 1):
        y = row + dy
        if y < 0 or y >= side:
            continue
        for dx in range(-RADIUS, RADIUS + 1):
            x = column + dx
            if x < 0 or x >= side:
                continue
            for channel in range(3):
                difference = image[y, x, channel] - image[other_row + dy, other_column + dx, channel]
                total += confidence[y, x] * difference * difference
        if total >= limit:
            return total
    return total


@kernel
def _match(image, confidence, sources, targets, matches, cost, sweeps, seed):
    """PatchMatch: good matches spread to neighbours, and each looks around itself at random in shrinking windows."""
    side = image.shape[0]
    state = np.uint32(2463534242 + 977 * seed)
    for row in range(side):
        for column in range(side):
            if targets[row, column]:
                cost[row, column] = _distance(
                    image, confidence, row, column, matches[row, column, 0], matches[row, column, 1], np.float32(1e30)
                )
    for sweep in range(sweeps):
        step = 1 if sweep % 2 == 0 else -1
        for i in range(side):
            row = i if step == 1 else side - 1 - i
            for j in range(side):
                column = j if step == 1 else side - 1 - j
                if not targets[row, column]:
                    continue
                for axis in range(2):
                    y = row - step if axis == 0 else row
                    x = column if axis == 0 else column - step
                    if 0 <= y < side and 0 <= x < side and targets[y, x]:
                        other_row = matches[y, x, 0] + (step if axis == 0 else 0)
                        other_column = matches[y, x, 1] + (0 if axis == 0 else step)
                        if 0 <= other_row < side and 0 <= other_column < side and sources[other_row, other_column]:
                            d = _distance(image, confidence, row, column, other_row, other_column, cost[row, column])
                            if d < cost[row, column]:
                                cost[row, column] = d
                                matches[row, column, 0], matches[row, column, 1] = other_row, other_column
                window = side
                while window >= 1:
                    state ^= state << np.uint32(13)
                    state ^= state >> np.uint32(17)
                    state ^= state << np.uint32(5)
                    other_row = matches[row, column, 0] + np.int32(state % np.uint32(2 * window + 1)) - window
                    state ^= state << np.uint32(13)
                    state ^= state >> np.uint32(17)
                    state ^= state << np.uint32(5)
                    other_column = matches[row, column, 1] + np.int32(state % np.uint32(2 * window + 1)) - window
                    if 0 <= other_row < side and 0 <= other_column < side and sources[other_row, other_column]:
                        d = _distance(image, confidence, row, column, other_row, other_column, cost[row, column])
                        if d < cost[row, column]:
                            cost[row, column] = d
                            matches[row, column, 0], matches[row, column, 1] = other_row, other_column
                    window //= 2


@kernel
def _vote(image, confidence, hole, targets, matches):
    """Each hole pixel becomes the mean of what the patches over it say, those nearer the known counting more."""
    side = image.shape[0]
    voted = np.zeros((side, side, 3), np.float32)
    for row in range(side):
        for column in range(side):
            if not hole[row, column]:
                continue
            total = np.float32(0)
            for dy in range(-RADIUS, RADIUS + 1):
                y = row + dy
                if y < 0 or y >= side:
                    continue
                for dx in range(-RADIUS, RADIUS + 1):
                    x = column + dx
                    if x < 0 or x >= side or not targets[y, x]:
                        continue
                    weight = confidence[y, x] ** 2
                    total += weight
                    for channel in range(3):
                        voted[row, column, channel] += (
                            weight * image[matches[y, x, 0] - dy, matches[y, x, 1] - dx, channel]
                        )
            for channel in range(3):
                voted[row, column, channel] /= total
    for row in range(side):
        for column in range(side):
            if hole[row, column]:
                for channel in range(3):
                    image[row, column, channel] = voted[row, column, channel]
