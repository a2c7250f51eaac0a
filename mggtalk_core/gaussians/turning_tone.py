"""Colours of hair that are right in the photo's pose alone.

At the edge of hair the photo shows the background through it, its colour on it, or light from behind. As the head
turns, that edge comes to face the camera, many times as wide, and would draw the old outline: blue streaks before a
blue wall, a glow in the middle of the head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import binary_dilation, binary_erosion, gaussian_filter, label
from scipy.spatial.transform import Rotation

from ..geometry.blocks import MAX_STEP
from ..geometry.mask_distance import distance_within
from ..geometry.pose_weights import smoothstep
from ..types import SOLID_ALPHA, SYMMETRIC, VISIBLE, PointCloud

if TYPE_CHECKING:
    from .head import GaussianHead

EDGE_TONE, LOOK = 1 / 28, 1 / 28
"""How far inside hair's outline its tone changes, and standard deviation of what is looked at around, crop sides."""

NO_HAIR = 1 / 100
"""Half the width of what is no hair, crop sides: the last pixels of a jaw do not look like skin either."""

JEWEL = 0.1
"""Area of what is no hair either, as a share of the largest connected one."""

SOME_ALPHA = 0.05
"""Where a person begins."""

CELLS = 128
"""Cells per side, about, in which colours are summed up."""

RIDGE = 0.01
"""Variance of the nearness to the edge that is added to what is measured: in hair no wider than the edge little of its
tone is known to come from there."""

FACING = (0.03, 0.3)
"""Cosines that a surfel gains towards the camera between which its colour changes."""

MIN_SHADE = 0.05
"""Light, sRGB, at which colours are still divided by it."""


def turned_changes(points: PointCloud, shade: np.ndarray) -> np.ndarray:
    """What the photo's colours gain (S, S, 3) where hair at the edge has turned to the camera.

    `shade` (N, 3) is the light on the points. Around each place colour without light is fitted as a constant and a part
    that grows towards the edge, which goes.
    """
    portrait = points.portrait
    size = len(portrait.image)
    rows, columns = points.pixels.clip(0).T
    haired = _hair(portrait.alpha, points.depth_map.outline.bare)
    hair = np.flatnonzero((points.origin == VISIBLE) & (points.pose_weight > 0.5) & haired[rows, columns])
    rows, columns = rows[hair], columns[hair]
    solid = portrait.alpha > SOLID_ALPHA
    near = 1 - smoothstep(distance_within(solid)[rows, columns, None] / (EDGE_TONE * size))
    light = shade[hair].clip(MIN_SHADE)
    plain = points.colors[hair] / light
    step = max(1, size // CELLS)
    cells = -(-size // step)
    where, known = rows // step * cells + columns // step, solid[rows, columns]

    def around(values: np.ndarray) -> np.ndarray:
        """Sums (n, k) of values (n, k) of the points that are known, around each."""
        sums = [np.bincount(where[known], column, cells**2).reshape(cells, cells) for column in values[known].T]
        return np.stack([gaussian_filter(one, LOOK * size / step).ravel()[where] for one in sums], 1)

    sums = around(np.column_stack([np.ones(len(near)), near, near**2, plain, near * plain]))
    mean_near, mean_square, mean, mean_product = np.split(sums[:, 1:] / sums[:, :1].clip(1e-9), (1, 2, 5), axis=1)
    slope = (mean_product - mean_near * mean) / (mean_square - mean_near**2 + RIDGE)
    inside = mean - slope * mean_near
    texture = plain - inside - slope * near
    # Of texture at the edge the brightness stays, not its tint.
    grey = texture.mean(1, keepdims=True) * inside / inside.mean(1, keepdims=True).clip(1e-3)
    wanted = ((inside + texture + near * (grey - texture)) * light).clip(0, 1)
    changes = np.zeros_like(portrait.image)
    for down, right in np.ndindex(MAX_STEP, MAX_STEP):  # all pixels of the blocks that points stand for
        covered = points.steps[hair] > max(down, right)
        changes[rows[covered] + down, columns[covered] + right] = (near * (wanted - points.colors[hair]))[covered]
    return changes


def _hair(alpha: np.ndarray, bare: np.ndarray) -> np.ndarray:
    """Pixels (S, S) bool of hair, and of what is worn like it, by the person's mask and its `bare` skin."""
    hair, width = (alpha > SOME_ALPHA) & ~bare, max(1, round(NO_HAIR * len(alpha)))
    broad = binary_dilation(binary_erosion(hair, iterations=width, border_value=1), iterations=width)
    part, _ = label(broad & hair)
    area = np.bincount(part.ravel())
    area[0] = 0
    return (area >= max(JEWEL * area.max(), 1))[part]


def of_points(points: PointCloud, changes: np.ndarray) -> np.ndarray:
    """Changes (N, 3) of points, visible and mirrored ones, of those (S, S, 3) of the pixels they come from."""
    from_pixels = (points.origin == VISIBLE) | (points.origin == SYMMETRIC)
    return np.where(from_pixels[:, None], changes[tuple(points.pixels.T)], 0).astype(np.float32)


@dataclass(frozen=True)
class TurningTone:
    """Colours of hair at the photo's outline, from pose to pose."""

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

    def turned(self, rotation: np.ndarray) -> np.ndarray:
        """How much (n,), 0..1, each point has turned to the camera by a rotation (3,), axis-angle rad."""
        before = self.towards @ Rotation.from_rotvec(rotation).as_matrix() - self.towards
        gain = self.pose_weight * (self.normals @ before.astype(np.float32))
        return smoothstep((gain - FACING[0]) / (FACING[1] - FACING[0]))

    def shade(self, colors: np.ndarray, rotation: np.ndarray) -> None:
        """Turn colours (N, 3), in place, from the photo's pose by a rotation (3,), axis-angle rad."""
        amount = self.turned(rotation)
        some = amount > 0
        points = self.points[some]
        colors[points] = (colors[points] + amount[some, None] * self.changes[some]).clip(0, 1)
