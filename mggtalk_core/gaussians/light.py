"""Light as second-order spherical harmonics: fitted once on the source, then re-applied as the head turns.

Ramamoorthi and Hanrahan 2001: nine coefficients per colour describe how any distant light shades a matte surface, to
within a few percent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial.transform import Rotation

from ..geometry.mesh_raster import at_points, vertex_normals
from ..headmodel.model import SKIN, HeadModel
from ..types import INTERIOR, VISIBLE, PointCloud, is_shown
from .frame_kernels import at_least_8, relight_points
from .mouth_light import MouthLight
from .turning_tone import TurningTone
from .unfolding_tone import UnfoldingTone

if TYPE_CHECKING:
    from .head import GaussianHead

SH_TERMS = 9


def sh_basis(normals: np.ndarray) -> np.ndarray:
    """Polynomial spherical harmonics up to order 2, (..., 9), of unit normals (..., 3); unnormalised."""
    x, y, z = np.moveaxis(normals, -1, 0)
    return np.stack([np.ones_like(x), x, y, z, x * y, y * z, x * z, x * x - y * y, 3 * z * z - 1], -1)


FRONT_HEIGHT, FRONT_DEPTH = 0.13, 0.06
"""Skin above this y and before this z, metres, shows the light: below the chin lies shadow, behind the ears hair."""

ENOUGH_SKIN = 20_000
"""Of more points than this every second, third, ... is asked."""

PRIOR_SHARE = 0.15
"""Weight of the assumption that unseen directions are lit like the mean, relative to all that is seen."""

QUADRATIC_RIDGE = 0.03
"""Ridge on the second-order terms, per observation: beards and blushes are not light."""

MIN_LIGHT = 0.35
"""The fitted light is never taken as darker than this share of its mean: extrapolation overshoots."""

MAX_CHANGE = 1.6
"""Turning makes nothing brighter or darker than by this factor."""

_DIRECTIONS = np.stack(
    [
        np.sqrt(1 - np.linspace(-0.98, 0.98, 64) ** 2) * np.cos(np.arange(64) * 2.399963),
        np.sqrt(1 - np.linspace(-0.98, 0.98, 64) ** 2) * np.sin(np.arange(64) * 2.399963),
        np.linspace(-0.98, 0.98, 64),
    ],
    1,
)
"""Directions all around (64, 3), a Fibonacci spiral."""


def surface_normals(points: PointCloud, head: HeadModel) -> np.ndarray:
    """Outward unit normals (N, 3), canonical: of the surfel where it came from pixels, else of the head model."""
    normals = -points.axes[:, 2]
    inside = points.origin == INTERIOR
    of_vertices = vertex_normals(points.portrait.vertices, head.faces)
    normals[inside] = at_points(of_vertices, head.faces[points.faces[inside]], points.barycentric[inside])
    return (normals / (np.linalg.norm(normals, axis=1, keepdims=True) + 1e-12)).astype(np.float32)


def lit_normals(points: PointCloud, normals: np.ndarray) -> np.ndarray:
    """Normals (N, 3) by which light shades: hidden ones that face away from the photo's camera turned to its side.

    No visible skin tells how light falls from behind, and hidden surface has the colours of what is beside it: lit like
    that it stays alike as the head turns.
    """
    away = points.portrait.camera.viewmat[2, :3]
    behind = np.where(is_shown(points.origin), 0, np.maximum(normals @ away, 0))
    flat = normals - behind[:, None] * away
    return (flat / (np.linalg.norm(flat, axis=1, keepdims=True) + 1e-6)).astype(np.float32)


def fit_light(points: PointCloud, normals: np.ndarray, head: HeadModel) -> np.ndarray:
    """Light coefficients (9, 3): colour the visible facial skin has, on average, by the direction it faces.

    Robust ridge regression; it includes the skin's mean colour, so only ratios of it mean light.
    """
    position = points.positions
    skin = (points.origin == VISIBLE) & (points.expression_weight > 0.99) & (head.parts[points.faces] == SKIN)
    skin &= (position[:, 1] < FRONT_HEIGHT) & (position[:, 2] < FRONT_DEPTH)
    skin = np.flatnonzero(skin)
    if len(skin) < 100:
        return np.concatenate([np.full((1, 3), 0.5), np.zeros((SH_TERMS - 1, 3))]).astype(np.float32)
    skin = skin[:: -(-len(skin) // ENOUGH_SKIN)]
    basis, colors = sh_basis(normals[skin].astype(np.float64)), points.colors[skin].astype(np.float64)
    unseen, mean = sh_basis(_DIRECTIONS), np.median(colors, axis=0)
    ridge = np.diag(np.r_[0, 0, 0, 0, np.full(5, QUADRATIC_RIDGE * len(basis))])
    share = PRIOR_SHARE * len(basis) / len(_DIRECTIONS)
    weights = np.ones(len(basis))
    for _ in range(4):
        left = basis.T @ (basis * weights[:, None]) + share * unseen.T @ unseen + ridge
        right = basis.T @ (colors * weights[:, None]) + share * unseen.T @ np.broadcast_to(mean, (len(unseen), 3))
        light = np.linalg.solve(left, right)
        residual = np.abs(colors - basis @ light).mean(1)
        # Eyes, brows, lips and beard are other colours than skin, mostly darker.
        weights = 1 / (1 + (residual / (1.5 * np.median(residual) + 1e-6)) ** 2)
    return light.astype(np.float32)


def turned_light(light: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """Coefficients (9, 3) with which a normal n is lit as `rotation @ n` is by `light`."""
    return _DIRECTIONS_PSEUDOINVERSE @ (sh_basis(_DIRECTIONS @ rotation.T) @ light)


_DIRECTIONS_PSEUDOINVERSE = np.linalg.pinv(sh_basis(_DIRECTIONS))


class Relighter:
    """Colours of one head as it turns under the photo's light; per frame nine terms per point and colour."""

    def __init__(
        self,
        colors: np.ndarray,
        normals: np.ndarray,
        pose_weight: np.ndarray,
        light: np.ndarray,
        mouth: MouthLight,
        skin: UnfoldingTone,
        hair: TurningTone,
    ):
        self._mouth, self._skin, self._hair = mouth, skin, hair
        self._count = len(colors)
        self._light = light
        self._floor = (MIN_LIGHT * np.maximum(light[0], 1e-3)).astype(np.float32)
        at_rest = 1 / np.maximum(sh_basis(normals).astype(np.float32) @ light, self._floor)
        self._points = tuple(at_least_8(array) for array in (colors, normals, at_rest, pose_weight))

    @staticmethod
    def of(head: GaussianHead) -> Relighter:
        """For a finished head."""
        arrays = (head.colors, head.normals, head.pose_weight, head.light)
        tones = (MouthLight.of(head), UnfoldingTone.of(head), TurningTone.of(head))
        return Relighter(*(array.numpy() for array in arrays), *tones)

    def colors(self, expression: np.ndarray, rotation: np.ndarray) -> np.ndarray:
        """Colours (N, 3) float32 0..1 with an expression (52,), the head turned by `rotation` (3,), axis-angle rad."""
        light = turned_light(self._light, Rotation.from_rotvec(rotation).as_matrix())
        constants = tuple(np.float32(value) for value in (*light.ravel(), *self._floor, 1 / MAX_CHANGE, MAX_CHANGE))
        relit = np.empty_like(self._points[0])
        relight_points(*self._points, constants, relit)
        self._mouth.shade(relit, expression)
        self._skin.shade(relit, expression)
        self._hair.shade(relit, rotation)
        return relit[: self._count]
