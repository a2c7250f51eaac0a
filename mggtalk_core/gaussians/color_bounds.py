"""What a network may make of hidden colours: the photo's shades, and beside what the photo shows nothing far off."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from ..geometry.interior import unfolding
from ..headmodel.model import HeadModel
from ..types import INTERIOR, VISIBLE, PointCloud

SHADES_SHARE, SHADES_MARGIN = 16, 0.015
"""One in so many visible points is asked for its colour, and how far from each other these are at least taken to be."""

NEARBY_COUNT = 16
"""So many of them, the nearest, tell how much the photo's colours vary somewhere."""

BESIDE = (0.006, 0.016)
"""Distances, metres, from what the photo shows between which what was learned becomes free of that."""

FOLDED_SHARE = 0.5
"""How much of what was learned counts in the folds of lids and lips: it lightens the inside of closed lips, which is
right without make-up (.3 dB of the mouth on two development clips) and wrong with it."""


def bounded_change(points: PointCloud, chosen: np.ndarray, change: np.ndarray, head: HeadModel) -> np.ndarray:
    """Of learned changes of colour (n, 3) of some points (N,) bool, what a photo's head may have."""
    shown = np.flatnonzero((points.origin == VISIBLE) & (points.pose_weight > 0.5))[::SHADES_SHARE]
    change = in_the_photos_shades(points.colors[shown], change)
    small, distance = as_varied_as_nearby(points, shown, points.positions[chosen], change)
    # Beside what the photo shows a step in colour would draw the old outline.
    change = small + (change - small) * ((distance - BESIDE[0]) / (BESIDE[1] - BESIDE[0])).clip(0, 1)[:, None]
    # The parts of lids and lips that unfold are in no picture from another side: little was learned there.
    folded = (points.origin[chosen] == INTERIOR) & unfolding(points.portrait.vertices, head)[points.faces[chosen]]
    change[folded] = FOLDED_SHARE * small[folded]
    return change


def in_the_photos_shades(colors: np.ndarray, change: np.ndarray) -> np.ndarray:
    """Changes of colour (n, 3) without what lies in directions a photo's colours (m, 3) don't have: grey stays grey."""
    shades = np.cov(colors, rowvar=False)
    among_shades = shades @ np.linalg.inv(shades + SHADES_MARGIN**2 * np.eye(3))
    return change @ among_shades.T.astype(np.float32)


def as_varied_as_nearby(
    points: PointCloud, shown: np.ndarray, positions: np.ndarray, change: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Changes of colour (n, 3) at positions (n, 3) m no larger than the colours of the points shown (m,) vary near
    there, and how far (n,) m the nearest of these is."""
    count = range(1, min(NEARBY_COUNT, len(shown)) + 1)
    distance, near = cKDTree(points.positions[shown]).query(positions, k=count, workers=-1)
    spread = np.sqrt(points.colors[shown[near]].var(1).sum(1, keepdims=True)) + SHADES_MARGIN
    small = change * (spread / np.maximum(np.linalg.norm(change, axis=1, keepdims=True), spread))
    return small, distance[:, 0]
