"""Colours that are right in the photo's pose alone: at a person's edge, and on all slanted surface.

At the edge of hair the photo shows the background through it, its colour on it, or light from behind; skin mirrors it
there. As the head turns, that edge comes to face the camera, many times as wide, and would draw the old outline: blue
streaks before a blue wall, a glow in the middle of the head.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import binary_dilation, binary_erosion, gaussian_filter, label
from scipy.spatial.transform import Rotation

from ..geometry.blocks import block_pixels
from ..geometry.nearest_pixels import distance_to, distance_within
from ..geometry.pose_weights import smoothstep
from ..headmodel.model import HeadModel
from ..types import SOLID_ALPHA, SYMMETRIC, VISIBLE, PointCloud
from .edge import EDGE_REACH, colors_beside
from .frame_kernels import turn_points

if TYPE_CHECKING:
    from .head import GaussianHead

EDGE_TONE, LOOK = 1 / 28, 1 / 28
"""How far inside hair's outline its tone changes, and standard deviation of what is looked at around, crop sides."""

NO_HAIR = 1 / 100
"""Half the width of what is no hair, crop sides: the last pixels of a jaw do not look like skin either."""

BESIDE_SKIN = 1 / 50
"""Over such a distance from skin and ears, crop sides, changes begin: beside them pixels mix hair with skin."""

JEWEL = 0.1
"""Area of what is no hair either, as a share of the largest connected one."""

SOME_ALPHA = 0.05
"""Where a person begins."""

CELLS = 128
"""Cells per side, about, in which colours are summed up."""

LEAST_TINT = 0.05
"""A background that differs less in tint from the person has none to lose."""

FAR_INSIDE, OWN_RANGE = 0.1, (0.05, 0.95)
"""How near to the edge, 0 to 1, hair has its own colours only; and quantiles of these that tones keep between."""

RIDGE = 0.03
"""Variance of the nearness to the edge that is added to what is measured: in hair no wider than the edge little of its
tone is known to come from there."""

SLANTED = 0.9
"""Cosine of the angle between view and surface from which on it is not stretched much by turning to the camera."""

FACING = (0.03, 0.3)
"""Cosines that a surfel gains towards the camera between which its colour changes."""


def turned_changes(points: PointCloud, head: HeadModel) -> np.ndarray:
    """What the photo's colours gain (S, S, 3) where hair and skin at the edge have turned to the camera.

    Around each place colour is fitted as a constant and a part that grows towards the edge, which goes, of skin only
    the background's tint. Light is left out of it: fitted on skin, at the head's rim it is extrapolated, which made
    hair beside a face pale blue.
    """
    rows, columns = points.pixels.clip(0).T
    bare, of_head = points.depth_map.outline.bare, (points.origin == VISIBLE) & (points.pose_weight > 0.5)
    haired = _hair(points.portrait.alpha, bare)
    skin = np.flatnonzero(of_head & ((bare | points.depth_map.on_head) & ~haired)[rows, columns])
    hair = np.flatnonzero(of_head & haired[rows, columns])
    on_ears = _uncovered_ears(points, hair, head)
    ears, hair, bare = hair[on_ears], hair[~on_ears], bare.copy()
    bare[rows[ears], columns[ears]] = True
    inside = distance_within(points.portrait.alpha > SOLID_ALPHA)
    near = 1 - smoothstep(inside / (EDGE_TONE * len(inside)))
    changes = np.zeros_like(points.portrait.image)
    for chosen, change in ((hair, _hair_changes(points, hair, near, bare)), (skin, _skin_changes(points, skin, near))):
        at_rows, at_columns, block = block_pixels(points.pixels[chosen], points.steps[chosen])
        changes[at_rows, at_columns] = change[block]
    return changes


def _hair_changes(points: PointCloud, hair: np.ndarray, near: np.ndarray, skin: np.ndarray) -> np.ndarray:
    """Changes (n, 3) of points of hair, n indices, by how `near` (S, S) the edge is and where `skin` (S, S) bool is.

    What grows towards the edge goes, beside skin only the background's tint.
    """
    portrait, colors = points.portrait, points.colors[hair]
    rows, columns = points.pixels[hair].T
    near = near[rows, columns, None]
    inside, slope = _local_fit(colors, near, rows, columns, portrait.alpha > SOLID_ALPHA)
    texture = colors - inside - slope * near
    # Of texture at the edge the brightness stays, not its tint.
    grey = texture.mean(1, keepdims=True) * inside / inside.mean(1, keepdims=True).clip(1e-3)
    wanted = (inside + texture + near * (grey - texture)).clip(0, 1)
    share = smoothstep(distance_to(skin) / (BESIDE_SKIN * len(skin)))[rows, columns, None]
    tint = _without_tint(colors, inside, portrait.background[rows, columns])
    return near * (share * (wanted - colors) + (1 - share) * tint)


def _skin_changes(points: PointCloud, skin: np.ndarray, near: np.ndarray) -> np.ndarray:
    """Changes (n, 3) of points of skin, n indices, by how `near` (S, S) the edge is: the background's tint goes.

    Brightness stays: there it is the skin's light, and without it far cheeks had blots.
    """
    portrait, colors = points.portrait, points.colors[skin]
    rows, columns = points.pixels[skin].T
    near = near[rows, columns, None]
    inside, _ = _local_fit(colors, near, rows, columns, portrait.alpha > SOLID_ALPHA)
    return near * _without_tint(colors, inside, portrait.background[rows, columns])


def _without_tint(colors: np.ndarray, inside: np.ndarray, background: np.ndarray) -> np.ndarray:
    """What colours (n, 3) gain when they lose what they have more of the background's tint than those inside (n, 3).

    Brightness stays: beside ears it is skin that is mixed with hair there.
    """
    towards, away = ((some - some.mean(1, keepdims=True)) for some in (background - inside, colors - inside))
    towards = towards / np.linalg.norm(towards, axis=1, keepdims=True).clip(LEAST_TINT)
    return -(away * towards).sum(1, keepdims=True).clip(0) * towards


def softened(points: PointCloud, changes: np.ndarray) -> np.ndarray:
    """Changes (S, S, 3) with the loss of contrast beyond that of the photo's own pixels, on slanted surface.

    Splats overlap, so their colours were sharpened until together they showed the photo. Turned to the camera slanted
    surface spreads them out: that contrast would be grain on cheeks and ladders along hair.
    """
    portrait = points.portrait
    some = np.flatnonzero((points.origin == VISIBLE) & (points.pose_weight > 0.5) & (points.steps == 1))
    rows, columns = points.pixels[some].T
    slanted = -points.depth_map.normals[rows, columns, 2] < SLANTED
    inside = distance_within(portrait.alpha > SOLID_ALPHA)[rows, columns] > EDGE_REACH * len(portrait.image)
    some = some[slanted & inside]  # farther out colours are no longer the photo's, for the better
    chosen = np.zeros(portrait.alpha.shape, bool)
    chosen[tuple(points.pixels[some].T)] = True
    around, colors = colors_beside(portrait.image, chosen), np.empty_like(portrait.image)
    colors[tuple(points.pixels[some].T)] = points.colors[some]
    result = changes.copy()
    result[chosen] += colors[chosen].clip(around.min(0), around.max(0)) - colors[chosen]
    return result


def _local_fit(
    colors: np.ndarray, near: np.ndarray, rows: np.ndarray, columns: np.ndarray, known: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Constant (n, 3) and slope (n, 3) over `near` (n, 1) of colours (n, 3) around pixels at rows and columns (n,),
    where these are `known` (S, S) bool."""
    size = len(known)
    step = max(1, size // CELLS)
    cells = -(-size // step)
    where, known = rows // step * cells + columns // step, known[rows, columns]

    def around(values: np.ndarray) -> np.ndarray:
        """Sums (n, k) of values (n, k) around each."""
        sums = [np.bincount(where[known], column, cells**2).reshape(cells, cells) for column in values[known].T]
        return np.stack([gaussian_filter(one, LOOK * size / step).ravel()[where] for one in sums], 1)

    sums = around(np.column_stack([np.ones(len(near)), near, near**2, colors, near * colors]))
    mean_near, mean_square, mean, mean_product = np.split(sums[:, 1:] / sums[:, :1].clip(1e-9), (1, 2, 5), axis=1)
    slope = (mean_product - mean_near * mean) / (mean_square - mean_near**2 + RIDGE)
    constant, far_inside = mean - slope * mean_near, colors[near[:, 0] < FAR_INSIDE]
    if len(far_inside):
        constant = constant.clip(*np.quantile(far_inside, OWN_RANGE, axis=0))
    return constant, slope


def _uncovered_ears(points: PointCloud, hair: np.ndarray, head: HeadModel) -> np.ndarray:
    """Mask (n,) of some points, n indices, that are on an ear and look like the face rather than like hair."""
    on_ear = head.ears[head.faces[points.faces[hair]]].any(1)
    face = (points.origin == VISIBLE) & (points.expression_weight > 0.99) & head.outer_skin[points.faces]
    if not on_ear.any() or on_ear.all() or not face.any():
        return on_ear
    colors, uncovered = points.colors[hair], on_ear.copy()
    from_face, from_hair = (
        np.linalg.norm(colors[on_ear] - np.median(some, axis=0), axis=1)
        for some in (points.colors[face], colors[~on_ear])
    )
    uncovered[on_ear] = from_face < from_hair
    return uncovered


def _hair(alpha: np.ndarray, bare: np.ndarray) -> np.ndarray:
    """Pixels (S, S) bool of hair, and of what is worn like it, by the person's mask and its `bare` skin."""
    hair, width = (alpha > SOME_ALPHA) & ~bare, max(1, round(NO_HAIR * len(alpha)))
    broad = binary_dilation(binary_erosion(hair, iterations=width, border_value=1), iterations=width)
    part, _ = label(broad & hair)
    area = np.bincount(part.ravel())
    area[0] = 0
    return (area >= max(JEWEL * area.max(), 1))[part]


def as_turned(points: PointCloud, changes: np.ndarray) -> PointCloud:
    """The cloud with a photo that is changed like this (S, S, 3).

    Hidden surface comes to be seen beside edges that have turned, and takes its colours from them.
    """
    image = (points.portrait.image + changes).clip(0, 1)
    return replace(points, portrait=replace(points.portrait, image=image))


def of_points(points: PointCloud, changes: np.ndarray) -> np.ndarray:
    """Changes (N, 3) of points, visible and mirrored ones, of those (S, S, 3) of the pixels they come from."""
    from_pixels = (points.origin == VISIBLE) | (points.origin == SYMMETRIC)
    return np.where(from_pixels[:, None], changes[tuple(points.pixels.T)], 0).astype(np.float32)


@dataclass(frozen=True)
class TurningTone:
    """Colours at the photo's outline, from pose to pose."""

    points: np.ndarray  # (n,) indices of Gaussians
    changes: np.ndarray  # (n, 3) what their colours gain when turned to the camera
    normals: np.ndarray  # (n, 3) unit
    pose_weight: np.ndarray  # (n,)
    towards: np.ndarray  # (3,) unit, to the photo's camera

    @staticmethod
    def of(head: GaussianHead) -> TurningTone:
        """For a finished head."""
        changes = head.turned_changes.numpy()
        some = np.flatnonzero(changes.any(1))
        arrays = (changes, head.normals.numpy(), head.pose_weight.numpy())
        return TurningTone(some, *(array[some] for array in arrays), -head.viewmat[2, :3].numpy())

    @staticmethod
    def none() -> TurningTone:
        """For heads whose colours stay."""
        field = np.zeros((0, 3), np.float32)
        return TurningTone(np.zeros(0, int), field, field, field[:, 0], np.zeros(3, np.float32))

    def shade(self, colors: np.ndarray, rotation: np.ndarray) -> None:
        """Turn colours (N, 3) float32, in place, from the photo's pose by a rotation (3,), axis-angle rad."""
        before = (self.towards @ Rotation.from_rotvec(rotation).as_matrix() - self.towards).astype(np.float32)
        none, whole = (np.float32(cosine) for cosine in FACING)
        turn_points(colors, self.points, self.changes, self.normals, self.pose_weight, before, none, whole)
