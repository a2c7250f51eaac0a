"""Lids that unfold: few rows of pixels, with lashes across them, stretch over the closed eye and would be stripes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..geometry.pose_weights import smoothstep
from ..headmodel.arkit import ARKIT_INDEX
from ..headmodel.landmarks import LEFT_EYE_RING, RIGHT_EYE_RING
from ..headmodel.model import SKIN, HeadModel, load_head_model
from ..types import VISIBLE

if TYPE_CHECKING:
    from .head import GaussianHead

STRETCH = (1.1, 1.5)
"""Growth of a triangle when both eyes close, between which its skin is smoothed."""

BEYOND_CORNERS, ABOVE_EDGE = 0.002, (0.006, 0.010)
"""How far, metres, beyond the eye's corners skin is smoothed less and less, and between which heights above the lid's
edge: hair beside the eye and the rims of spectacles are not lid."""

ALONG, ACROSS = 0.004, 0.0004
"""Standard deviations, metres, along the lid and across it, of what its closed skin is smoothed by: stripes run across
it, the dark line of the lashes and the crease along it."""

CLOSED = 0.7
"""Lost share of the source's opening from which on an eye counts as closed."""

ROWS = 512
"""So many points are smoothed at once."""

EYES = (("eyeBlinkRight", RIGHT_EYE_RING), ("eyeBlinkLeft", LEFT_EYE_RING))
EDGE, UPPER, LOWER = slice(9), 4, 12
"""Places in a ring of landmarks: the upper edge from corner to corner, its middle and the lower edge's."""


@dataclass(frozen=True)
class Lid:
    """One eye's upper lid."""

    points: np.ndarray  # (n,) indices of Gaussians that stretch when it closes
    changes: np.ndarray  # (n, 3) what their colours gain until it is closed
    opening: np.ndarray  # (3,) m from the middle of the lower lid's edge to the upper's, without expression
    opening_basis: np.ndarray  # (52, 3) m what expressions add to it
    source_aperture: float  # m, that the head's colours are of

    def closed(self, expression: np.ndarray) -> float:
        """How far, 0..1, the eye is closed from how open the source has it."""
        aperture = np.linalg.norm(self.opening + expression @ self.opening_basis)
        return float(np.clip((1 - aperture / self.source_aperture) / CLOSED, 0, 1))


@dataclass(frozen=True)
class LidTone:
    """The upper lids' colours, from frame to frame."""

    lids: tuple[Lid, ...]

    @staticmethod
    def of(head: GaussianHead) -> LidTone:
        """For a finished head."""
        model, source = load_head_model(), head.source_expression.numpy()
        vertices, basis = head.vertices.numpy(), head.expression_basis.numpy()
        faces, positions, colors = head.faces.numpy(), head.positions.numpy(), head.colors.numpy()
        growth = _growth(vertices, basis, source, model)[faces]
        unfolds = smoothstep((growth - STRETCH[0]) / (STRETCH[1] - STRETCH[0]))
        unfolds *= (model.parts[faces] == SKIN) & (head.origin.numpy() == VISIBLE)
        lids = []
        for _, ring in EYES:
            edge = model.landmarks_of(vertices)[list(ring[EDGE])]
            along, above = _on_lid(positions, edge)
            weight = unfolds * _between_corners(along, edge) * (
                1 - smoothstep((above - ABOVE_EDGE[0]) / (ABOVE_EDGE[1] - ABOVE_EDGE[0]))
            )
            points = np.flatnonzero(weight)
            smooth = _smoothed(along[points], above[points], colors[points])
            changes = weight[points, None] * (smooth - colors[points])
            opening, opening_basis = (_across(field, ring, model) for field in (vertices, basis))
            at_rest, aperture = opening - source @ opening_basis, float(np.linalg.norm(opening))
            lids.append(Lid(points, changes.astype(np.float32), at_rest, opening_basis, aperture))
        return LidTone(tuple(lids))

    def shade(self, colors: np.ndarray, expression: np.ndarray) -> None:
        """Turn colours (N, 3) of the lids, in place, from the source's expression to another (52,)."""
        for lid in self.lids:
            closed = np.float32(lid.closed(expression))
            if closed > 0:
                colors[lid.points] = (colors[lid.points] + closed * lid.changes).clip(0, 1)


def _growth(vertices: np.ndarray, basis: np.ndarray, source: np.ndarray, model: HeadModel) -> np.ndarray:
    """By how much (F,) the area of triangles grows from the source's expression (52,) until the eyes are closed."""
    closing = np.zeros_like(source)
    for name, _ in EYES:
        closing[ARKIT_INDEX[name]] = 1 - source[ARKIT_INDEX[name]]
    closed = vertices + np.tensordot(closing, basis, 1)
    return _areas(closed, model.faces) / np.maximum(_areas(vertices, model.faces), 1e-10)


def _areas(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Twice the area (F,) of triangles."""
    a, b, c = (vertices[faces[:, corner]] for corner in range(3))
    return np.linalg.norm(np.cross(b - a, c - a), axis=1)


def _across(field: np.ndarray, ring: tuple[int, ...], model: HeadModel) -> np.ndarray:
    """From the lower to the upper lid's edge (..., 3) in a per-vertex field (..., V, 3)."""
    landmarks = model.landmarks_of(field)
    return landmarks[..., ring[UPPER], :] - landmarks[..., ring[LOWER], :]


def _on_lid(positions: np.ndarray, edge: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Metres to the left (n,) and above the lid's edge (n,) of positions (n, 3), as the face is seen from the front."""
    order = np.argsort(edge[:, 0])
    return positions[:, 0], np.interp(positions[:, 0], edge[order, 0], edge[order, 1]) - positions[:, 1]


def _between_corners(along: np.ndarray, edge: np.ndarray) -> np.ndarray:
    """1 between the corners of an eye, less beyond them, (n,)."""
    first, last = np.sort(edge[[0, -1], 0])
    return 1 - smoothstep(np.maximum(first - along, along - last) / BEYOND_CORNERS)


def _smoothed(along: np.ndarray, above: np.ndarray, colors: np.ndarray) -> np.ndarray:
    """Colours (n, 3) of points on a lid smoothed along it."""
    x, y = along / ALONG, above / ACROSS
    smooth = np.empty_like(colors)
    for first in range(0, len(x), ROWS):
        part = np.s_[first : first + ROWS]
        near = np.exp(-0.5 * ((x[part, None] - x) ** 2 + (y[part, None] - y) ** 2))
        smooth[part] = near @ colors / near.sum(1, keepdims=True)
    return smooth
