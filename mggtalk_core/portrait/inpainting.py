"""Fill a hole in a picture with what its surroundings are made of: patch-based completion, coarse to fine.

Wexler et al. 2007 with PatchMatch (Barnes et al. 2009): every patch that touches the hole is matched to a patch from
outside; overlapping matches vote for the hole's colours; matching and voting alternate at each level of a pyramid.
"""

from __future__ import annotations

import numpy as np
from PIL import Image
from scipy.ndimage import maximum_filter, minimum_filter, zoom

from ..geometry.nearest_pixels import distance_to
from .patch_kernels import RADIUS, bordered, match, unbordered, vote

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
        sources, targets = _whole_patches(~level_hole), _touching_patches(level_hole)
        if sources.sum() < 64:
            continue
        if matches is not None:
            first = _upscaled_vote(level, level_hole, matches, side)
        else:
            first = fill_smoothly(level, ~level_hole) if guess is None else _resized(guess, side)
        picture = bordered(_with_ones(np.where(level_hole[..., None], first, level)))
        matches = _initial_matches(matches, sources, targets)
        confidence = _confidence(level_hole)
        weights = bordered(confidence[..., None].repeat(4, 2))
        for round_ in range(ROUNDS):
            cost = np.empty((side, side), np.float32)
            sweeps = SWEEPS if side < FINEST else FINEST_SWEEPS
            match(picture, weights, sources, targets, matches, cost, sweeps, round_)
            vote(picture, confidence, level_hole, targets, matches)
        level = unbordered(picture)
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


def _with_ones(image: np.ndarray) -> np.ndarray:
    """An image (S, S, 3) with a fourth channel of ones."""
    return np.concatenate([image, np.ones_like(image[..., :1])], 2)


def _whole_patches(known: np.ndarray) -> np.ndarray:
    """Middles (S, S) bool of the patches that lie within what is known (S, S) bool, and within the picture."""
    return minimum_filter(known, 2 * RADIUS + 1, mode="constant", cval=False)


def _touching_patches(hole: np.ndarray) -> np.ndarray:
    """Middles (S, S) bool of the patches that touch a hole (S, S) bool."""
    return maximum_filter(hole, 2 * RADIUS + 1, mode="constant", cval=False)


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
    sources, targets = _whole_patches(~hole), _touching_patches(hole)
    picture = bordered(_with_ones(image))
    vote(picture, _confidence(hole), hole, targets, _initial_matches(matches, sources, targets))
    return unbordered(picture)
