"""Which head-model triangle every pixel belongs to: what will move it."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image, ImageDraw
from scipy.ndimage import maximum_filter, minimum_filter

from ..headmodel.arkit import ARKIT_INDEX
from ..headmodel.landmarks import EYES, INNER_LIP_RING, OUTER_LIP, mouth_is_open
from ..headmodel.model import LOWER_TEETH, TONGUE, UPPER_TEETH, HeadModel
from ..types import Portrait
from .mesh_raster import rasterize_mesh
from .nearest_pixels import distance_between, nearest_pixels
from .open_mouth import open_mouth
from .projection import project, to_camera

MOUTH_DEPTH, BEYOND = 0.012, 0.2
"""Metres behind the lips that mouths are as deep as they are, and the share of what lies farther back that counts."""


def polygon_mask(points: np.ndarray, size: int) -> np.ndarray:
    """Inside of a polygon (n, 2) in pixels as a mask (size, size) bool."""
    canvas = Image.new("1", (size, size))
    ImageDraw.Draw(canvas).polygon([tuple(map(float, point)) for point in points], fill=1)
    return np.array(canvas, dtype=bool)


def bind_pixels(portrait: Portrait, head: HeadModel) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Triangle (S, S) int32 (-1 off the head), barycentric (S, S, 3) and depth (S, S) m of every head-model pixel.

    The fitted head is rasterised from the photo's camera, which separates lips, lids and eyeballs without any search.
    Only the mouth is corrected by the lip contours: inside of them pixels may only be teeth, tongue or cavity, outside
    never teeth or tongue, wherever the head model has them.
    """
    size = portrait.image.shape[0]
    points = project(to_camera(portrait.vertices, portrait.camera), portrait.camera)

    def rasterize(members: np.ndarray):
        index = np.flatnonzero(members)
        depth, face, barycentric = rasterize_mesh(points, head.faces[index], size, size)
        return depth, np.where(face >= 0, index[face], -1).astype(np.int32), barycentric

    depth, face, barycentric = rasterize(np.ones(len(head.faces), bool))

    def rebind(pixels: np.ndarray, members: np.ndarray) -> None:
        """Give pixels to the nearest of some triangles."""
        if not pixels.any():
            return
        other_depth, other_face, other_barycentric = rasterize(members)
        if not (other_face >= 0).any():
            return
        rows, columns = _nearest_pixels(other_face >= 0, pixels)
        face[pixels] = other_face[rows, columns]
        barycentric[pixels] = other_barycentric[rows, columns]
        depth[pixels] = other_depth[rows, columns]

    landmarks = portrait.landmarks
    inside_lips = polygon_mask(landmarks[list(INNER_LIP_RING)], size)
    if mouth_is_open(landmarks):
        rebind(inside_lips, (head.parts >= TONGUE) | head.mouth_interior)
        lips = polygon_mask(landmarks[list(OUTER_LIP)], size)
        mouth = open_mouth(portrait.image, landmarks, inside_lips, lips)
        rebind(mouth.upper, head.parts == UPPER_TEETH)
        rebind(mouth.lower, head.parts == LOWER_TEETH)
        rebind(mouth.lip, head.outer_skin & head.below_mouth)
        depth[inside_lips] = _near_lips(portrait, head, inside_lips, depth[inside_lips])
        inner_parts_outside = ~inside_lips & (face >= 0) & (head.parts[face] >= TONGUE)
    else:
        inner_parts_outside = (face >= 0) & ((head.parts[face] >= TONGUE) | head.mouth_interior[face])
    rebind(inner_parts_outside, (head.parts < TONGUE) & ~head.mouth_interior)
    _follow_neighbours(portrait, head, face, barycentric)
    return face, barycentric, depth


def _nearest_pixels(members: np.ndarray, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row and column (n,) of the nearest of some pixels (S, S) bool to each of n others (S, S) bool, in their order.

    Looked for around these alone, in a window that no nearer one can lie outside of.
    """
    rows, columns = np.nonzero(pixels)
    top, left, height, width = rows.min(), columns.min(), np.ptp(rows) + 1, np.ptp(columns) + 1
    margin = max(height, width)
    while True:
        begin = np.maximum([top - margin, left - margin], 0)
        window = tuple(slice(first, last + margin) for first, last in zip(begin, (top + height, left + width)))
        inside = members[window]
        if inside.any():
            nearest = nearest_pixels(inside)
            at = rows - begin[0], columns - begin[1]
            near_rows, near_columns = (index[at] for index in nearest)
            if distance_between(*nearest)[at].max() <= margin:
                return near_rows + begin[0], near_columns + begin[1]
        if inside.shape == members.shape:
            return near_rows, near_columns
        margin *= 2


def _near_lips(portrait: Portrait, head: HeadModel, inside_lips: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Depths (n,) m of the mouth's pixels without the far back: beyond MOUTH_DEPTH behind the lips it counts less.

    In the corners of a smile rays pass the side teeth and meet the molars, four centimetres behind the lips; as the
    head turned, the row of teeth tore there.
    """
    ring = to_camera(head.landmarks_of(portrait.vertices)[list(INNER_LIP_RING)], portrait.camera)
    lips = project(ring, portrait.camera)
    rows, columns = np.nonzero(inside_lips)
    squared = (columns[:, None] + 0.5 - lips[:, 0]) ** 2 + (rows[:, None] + 0.5 - lips[:, 1]) ** 2
    nearness = 1 / (squared + 1)
    farthest = (nearness * ring[:, 2]).sum(1) / nearness.sum(1) + MOUTH_DEPTH
    return np.where(depth > farthest, farthest + BEYOND * (depth - farthest), depth)


STRAY_MOTION = 0.0015
"""A pixel strays when an action moves it this much (metres) differently from the median around it."""

STRAY_ACTIONS = ("jawOpen", "mouthSmileLeft", "mouthSmileRight", "mouthFunnel", "eyeBlinkLeft", "eyeBlinkRight")


def _follow_neighbours(portrait: Portrait, head: HeadModel, face: np.ndarray, barycentric: np.ndarray) -> None:
    """Rebind single pixels that would leave their neighbours: at mouth and eye corners the model's folds show through.

    Real borders (between lips, between lids) are wider than the median's window and stay.
    """
    actions = head.expression_basis[[ARKIT_INDEX[name] for name in STRAY_ACTIONS], :, :2]
    size = face.shape[0]
    for ring, margin in ((OUTER_LIP, 0.3), (EYES, 0.15)):
        low, high = portrait.landmarks[list(ring)].min(0), portrait.landmarks[list(ring)].max(0)
        grow = margin * (high - low).max()
        left, top = (low - grow).astype(int).clip(0, size - 1)
        right, bottom = (high + grow).astype(int).clip(1, size)
        area = (slice(top, bottom), slice(left, right))
        on_model = face[area] >= 0
        motion = (actions[:, head.faces[face[area]]] * barycentric[area][None, ..., None]).sum(3)  # (A, h, w, 2)
        stray = on_model & (np.abs(motion - _medians_around(motion, STRAY_MOTION)).max((0, 3)) > STRAY_MOTION)
        if stray.any() and (on_model & ~stray).any():
            rows, columns = (index[stray] for index in nearest_pixels(on_model & ~stray))
            face[area][stray] = face[area][rows, columns]
            barycentric[area][stray] = barycentric[area][rows, columns]


def _medians_around(values: np.ndarray, least: float) -> np.ndarray:
    """Values (A, h, w, C), where those of the 5 x 5 around differ by more than `least` replaced by the median there."""
    around = np.pad(values, ((0, 0), (2, 2), (2, 2), (0, 0)), mode="edge")
    window = (1, 5, 5, 1)
    varied = maximum_filter(values, window, mode="nearest") - minimum_filter(values, window, mode="nearest") > least
    windows = sliding_window_view(around, (5, 5), axis=(1, 2))  # (A, h, w, C, 5, 5)
    result = values.copy()
    result[varied] = np.median(windows[varied].reshape(-1, 25), axis=1)
    return result
