"""What lids hide of the eyeballs: iris and white go on around the pupil as the photo shows them between the lids."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from ..headmodel.landmarks import LEFT_EYE_RING, LEFT_IRIS, RIGHT_EYE_RING, RIGHT_IRIS
from ..headmodel.model import LEFT_EYE, RIGHT_EYE, HeadModel
from ..types import VISIBLE, PointCloud

EYES = ((LEFT_EYE, LEFT_EYE_RING, LEFT_IRIS), (RIGHT_EYE, RIGHT_EYE_RING, RIGHT_IRIS))

RINGS = np.arange(0, 1.25, 0.05)
"""Limits of rings around the pupil, radians seen from the eyeball's centre."""

IN_THE_SHADE = 0.9
"""How bright an eyeball is beside the lids, in its brightness between them."""

ENOUGH_PIXELS, ENOUGH_IN_RING = 40, 4
"""From so many pixels on an eye, or a ring of it, tells its colours."""


def eyeball_colors(points: PointCloud, hidden: np.ndarray, head: HeadModel, skin: np.ndarray) -> np.ndarray:
    """Colours (n, 3) of hidden points of eyeballs with indices (n,), beside skin (3,) of that colour.

    As many rings around the pupil as there are; each has the median colour of those of its pixels that are farther
    from the lids than half of them: nearer are lashes and their shadow. Eyes that are nearly closed get a shaded white.
    """
    white = np.array([0.8, 0.78, 0.76]) * min(1.15 * float(skin.mean()) + 0.15, 1) * 0.75
    colors = np.tile(white, (len(hidden), 1))
    part, portrait = head.parts[points.faces], points.portrait
    for eye, ring, iris in EYES:
        seen, of_eye = np.flatnonzero((points.origin == VISIBLE) & (part == eye)), part[hidden] == eye
        if len(seen) < ENOUGH_PIXELS:
            continue
        centre = portrait.vertices[head.part_vertices(eye)].mean(0)
        at = points.pixels[seen, ::-1] + 0.5
        pupil = points.positions[seen[np.linalg.norm(at - portrait.landmarks[iris], axis=1).argmin()]] - centre
        seen_at, hidden_at = (
            _angle(points.positions[some] - centre, pupil) for some in (seen, hidden[of_eye])
        )
        rows, columns = points.pixels[seen].T
        from_lids, _ = cKDTree(_densely(portrait.landmarks[list(ring)])).query(at)
        rings, ring_of = [], np.digitize(seen_at, RINGS)
        for number in range(1, len(RINGS)):
            inside = ring_of == number
            if inside.sum() >= ENOUGH_IN_RING:
                clear = inside & (from_lids >= np.median(from_lids[inside]))
                middle = 0.5 * (RINGS[number - 1] + RINGS[number])
                rings.append([middle, *np.median(portrait.image[rows[clear], columns[clear]], axis=0)])
        where, *channels = np.array(rings).T
        colors[of_eye] = IN_THE_SHADE * np.stack([np.interp(hidden_at, where, channel) for channel in channels], 1)
    return colors


def _angle(away: np.ndarray, axis: np.ndarray) -> np.ndarray:
    """Angles (n,) rad between directions (n, 3) and an axis (3,)."""
    cosine = away @ axis / (np.linalg.norm(away, axis=1) * np.linalg.norm(axis) + 1e-12)
    return np.arccos(cosine.clip(-1, 1))


def _densely(ring: np.ndarray) -> np.ndarray:
    """Points (8 n, D) along a closed line through points (n, D)."""
    steps = np.arange(8)[:, None, None] / 8
    return (ring + steps * (np.roll(ring, -1, axis=0) - ring)).reshape(-1, ring.shape[1])
