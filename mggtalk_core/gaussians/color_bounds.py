"""What a network may make of hidden colours: the photo's shades, and beside what the photo shows nothing far off."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from ..geometry.interior import unfolding
from ..geometry.scalp import outline_pixels
from ..geometry.search_tree import search_tree
from ..headmodel.model import HeadModel
from ..types import INTERIOR, VISIBLE, PointCloud
from .hair import sampled, textured

SHADES_SHARE, SHADES_MARGIN = 16, 0.015
"""One in so many visible points is asked for its colour, and how far from each other these are at least taken to be."""

NEARBY_COUNT = 16
"""So many of them, the nearest, tell how much the photo's colours vary somewhere."""

HUES, DARK = (0.1, 0.9), 0.05
"""Quantiles of a photo's tints that learned colours keep between, and brightness below which there is none."""

BESIDE = (0.006, 0.016)
"""Distances, metres, from what the photo shows between which what was learned becomes free of that."""

FOLDED_SHARE = 0.5
"""How much of what was learned counts in the folds of lids and lips: it lightens the inside of closed lips, which is
right without make-up (.3 dB of the mouth on two development clips) and wrong with it."""

TONE_SHARE, TONE_COUNT = 4, 8
"""One in so many points of the hidden scalp tells what was learned of its tone, so many of them together."""


def bounded_change(points: PointCloud, chosen: np.ndarray, change: np.ndarray, head: HeadModel) -> np.ndarray:
    """Of learned changes of colour (n, 3) of some points (N,) bool, what a photo's head may have."""
    shown = np.flatnonzero((points.origin == VISIBLE) & (points.pose_weight > 0.5))[::SHADES_SHARE]
    change = in_the_photos_shades(points.colors[shown], change)
    change = in_the_photos_hues(points.colors[shown], points.colors[chosen], change)
    positions, tree = points.positions[chosen], search_tree(points.positions[shown])
    distance, nearest = tree.query(positions, distance_upper_bound=BESIDE[1], workers=-1)
    # The parts of lids and lips that unfold are in no picture from another side: little was learned there.
    folded = (points.origin[chosen] == INTERIOR) & unfolding(points.portrait.vertices, head)[points.faces[chosen]]
    alone = folded & np.isinf(distance)
    nearest[alone] = tree.query(positions[alone])[1]
    near = folded | np.isfinite(distance)
    small = as_varied_as_nearby(points.colors[shown], tree, nearest[near], change[near])
    # Beside what the photo shows a step in colour would draw the old outline.
    free = ((distance[near] - BESIDE[0]) / (BESIDE[1] - BESIDE[0])).clip(0, 1)[:, None]
    learned = change[near]
    change[near] = np.where(folded[near, None], FOLDED_SHARE * small, small + (learned - small) * free)
    return as_hair(points, chosen, change)


def as_hair(points: PointCloud, chosen: np.ndarray, change: np.ndarray) -> np.ndarray:
    """Changes of colour (n, 3) of some points (N,) bool, smooth and in the hair's own shades where it goes on behind.

    The network sees no strands there, so that it learned to take them away, down to the mean: a plastic cap. And it
    goes towards the mean of all people's hair, which the face's shades would allow: brown hair would be red behind.
    """
    positions, portrait = points.positions[chosen], points.portrait
    continued = outline_pixels(positions, portrait, points.depth_map.outline)
    share = textured(continued, len(portrait.image)) * (points.origin[chosen] == INTERIOR)
    of_hair = np.flatnonzero(share)
    asked = of_hair[::TONE_SHARE]
    if len(asked) < TONE_COUNT:
        return change
    _, near = search_tree(positions[asked]).query(positions[of_hair], k=TONE_COUNT, workers=-1)
    learned = in_the_photos_shades(sampled(portrait.image, continued.pixels[asked]), change[asked])[near].mean(1)
    bounded = change.copy()
    bounded[of_hair] += share[of_hair, None].astype(np.float32) * (learned - change[of_hair])
    return bounded


def in_the_photos_shades(colors: np.ndarray, change: np.ndarray) -> np.ndarray:
    """Changes of colour (n, 3) without what lies in directions a photo's colours (m, 3) don't have: grey stays grey."""
    shades = np.cov(colors, rowvar=False)
    among_shades = shades @ np.linalg.inv(shades + SHADES_MARGIN**2 * np.eye(3))
    return change @ among_shades.T.astype(np.float32)


def in_the_photos_hues(colors: np.ndarray, before: np.ndarray, change: np.ndarray) -> np.ndarray:
    """Changes (n, 3) of colours `before` (n, 3) that lead to no stronger tint than a photo's colours (m, 3) have.

    Skin darkened by what all skin varies in would be maroon, not brown hair.
    """

    def tint(some: np.ndarray) -> np.ndarray:
        return some / some.mean(1, keepdims=True).clip(DARK)

    after = (before + change).clip(0, 1)
    tints, own = tint(after), tint(before)
    lowest, highest = np.quantile(tint(colors), HUES, axis=0)
    tints = tints.clip(np.minimum(lowest, own), np.maximum(highest, own))
    return tint(tints) * after.mean(1, keepdims=True) - before


def as_varied_as_nearby(colors: np.ndarray, tree: cKDTree, nearest: np.ndarray, change: np.ndarray) -> np.ndarray:
    """Changes of colour (n, 3) no larger than a photo's colours (m, 3), whose positions are in a tree, vary around the
    `nearest` (n,) of them to each."""
    asked, of_asked = np.unique(nearest, return_inverse=True)
    _, near = tree.query(tree.data[asked], k=range(1, min(NEARBY_COUNT, len(colors)) + 1), workers=-1)
    spread = (np.sqrt(colors[near].var(1).sum(1, keepdims=True)) + SHADES_MARGIN)[of_asked]
    return change * (spread / np.maximum(np.linalg.norm(change, axis=1, keepdims=True), spread))
