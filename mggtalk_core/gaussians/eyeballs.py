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

ENOUGH_PIXELS, ENOUGH_IN_RING = 40, 4
"""From so many pixels on an eye tells its colours, and from so many on a ring."""

IRIS_ANGLE, DARK_IRIS = 0.37, 0.3
"""Half an iris's width seen from the centre of the head model's (large) eyeball, radians; and how bright one is, in
the white's brightness, that no photo shows."""

IN_THE_SHADE = 0.9
"""How bright an eyeball is beside the lids, in its brightness between them."""


def eyeball_colors(points: PointCloud, hidden: np.ndarray, head: HeadModel, skin: np.ndarray) -> np.ndarray:
    """Colours (n, 3) of hidden points of eyeballs with indices (n,), in a face with skin (3,) of that colour.

    An eye that is nearly closed in the photo is like the other one, both are a dark iris in a shaded white.
    """
    part, vertices = head.parts[points.faces], points.portrait.vertices
    pupils = head.landmarks_of(vertices)
    angles, profiles = {}, {}
    for eye, ring, iris in EYES:
        centre = vertices[head.part_vertices(eye)].mean(0)
        of_eye = np.flatnonzero(part == eye)
        angles[eye] = np.zeros(len(points))
        angles[eye][of_eye] = _angle(points.positions[of_eye] - centre, pupils[iris] - centre)
        seen = of_eye[points.origin[of_eye] == VISIBLE]
        if len(seen) >= ENOUGH_PIXELS:
            profiles[eye] = _profile(points, seen, angles[eye][seen], points.portrait.landmarks[list(ring)])
    white = np.array([0.8, 0.78, 0.76]) * min(1.15 * float(skin.mean()) + 0.15, 1) * 0.75
    unknown = np.array([[0, *(DARK_IRIS * white)], [IRIS_ANGLE, *(DARK_IRIS * white)], [IRIS_ANGLE + 0.05, *white]])
    colors = np.zeros((len(hidden), 3))
    for eye, other in ((LEFT_EYE, RIGHT_EYE), (RIGHT_EYE, LEFT_EYE)):
        where, *channels = profiles.get(eye, profiles.get(other, unknown)).T
        own = part[hidden] == eye
        at = angles[eye][hidden[own]]
        colors[own] = IN_THE_SHADE * np.stack([np.interp(at, where, channel) for channel in channels], 1)
    return colors


def _profile(points: PointCloud, seen: np.ndarray, angle: np.ndarray, lids: np.ndarray) -> np.ndarray:
    """Angle from the pupil and colour (r, 4) of the rings that the photo shows of an eye.

    `seen` (n,) are its points, `angle` (n,) rad where they are, `lids` (m, 2) px their outline. A ring has the median
    colour of those of its pixels that are farther from the lids than half of them: nearer are lashes and their shadow.
    """
    rows, columns = points.pixels[seen].T
    from_lids, _ = cKDTree(_densely(lids)).query(points.pixels[seen, ::-1] + 0.5)
    rings, ring_of = [], np.digitize(angle, RINGS)
    for number in range(1, len(RINGS)):
        inside = ring_of == number
        if inside.sum() >= ENOUGH_IN_RING:
            clear = inside & (from_lids >= np.median(from_lids[inside]))
            middle = 0.5 * (RINGS[number - 1] + RINGS[number])
            rings.append([middle, *np.median(points.portrait.image[rows[clear], columns[clear]], axis=0)])
    return np.array(rings)


def _angle(away: np.ndarray, axis: np.ndarray) -> np.ndarray:
    """Angles (n,) rad between directions (n, 3) and an axis (3,)."""
    cosine = away @ axis / (np.linalg.norm(away, axis=1) * np.linalg.norm(axis) + 1e-12)
    return np.arccos(cosine.clip(-1, 1))


def _densely(ring: np.ndarray) -> np.ndarray:
    """Points (8 n, D) along a closed line through points (n, D)."""
    steps = np.arange(8)[:, None, None] / 8
    return (ring + steps * (np.roll(ring, -1, axis=0) - ring)).reshape(-1, ring.shape[1])
