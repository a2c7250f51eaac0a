"""Colours that are right in the photo's expression alone.

Skin that unfolds: the few rows of pixels of an open eye's lid, or of closed lips' rims, stretch to several times their
height as the eye closes and the lips part. Lashes would become stripes, the dark line between lips beads.
Rims of open lips, and teeth beside them: the contour between the two is never exact, and the pixels along it mix them.
As soon as the lips move, pieces of teeth would hang from lips, and pieces of lip from teeth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import cKDTree

from ..geometry.pose_weights import smoothstep
from ..headmodel.landmarks import INNER_LIP_LOWER, INNER_LIP_UPPER, LEFT_EYE_RING, RIGHT_EYE_RING, mouth_is_open
from ..headmodel.model import LOWER_TEETH, SKIN, UPPER_TEETH, HeadModel, load_head_model
from ..types import VISIBLE

if TYPE_CHECKING:
    from .head import GaussianHead

GROWTH = (1.1, 1.5)
"""Growth of a triangle since the photo between which its skin is smoothed."""

MOVED = (0.0003, 0.0015)
"""Distances, metres, from where it was in the photo between which the rim of open lips is."""

BEYOND_CORNERS = 0.002
"""How far, metres, beyond the corners of an eye or of the mouth skin is smoothed less and less: there may be hair."""

ALONG, ACROSS = 0.004, 0.0004
"""Standard deviations, metres, along an edge and across it, of what skin is smoothed by: stripes run across it, the
line of the lashes and the crease of the lid along it."""

LID_EDGE, LID_HEIGHT = -0.001, (0.006, 0.010)
"""Height, metres, of a lid's lower end above the line through its landmarks, and heights between which skin is smoothed
less and less: rims of spectacles are no lid."""

CLOSED_RIM, OPEN_RIM, LIP_RED = (0.003, 0.005), (0.0012, 0.0025), 0.0015
"""Distances, metres, from a lip's edge between which it is smoothed less and less, of lips that are closed in the photo
and of open ones; and the one whose colours the rim gets: nearer is the dark line between lips, or a mixture with the
teeth."""

TEETH_RIM, TEETH_INSIDE, TEETH_ALONG = (0.0015, 0.003), 0.002, 0.001
"""The same distances from an open lip's edge into the mouth: what teeth share with the lip becomes like the teeth
farther inside; and `ALONG` for them."""

LIP_CORNERS = (78, 308)
"""Landmarks at the ends of both lips' inner edges."""

ROWS, LONELY = 512, 1e-12
"""So many points are smoothed at once; and what a point far away weighs, for where there are none near."""


@dataclass(frozen=True)
class UnfoldingTone:
    """Colours of unfolding skin and of the rims of open lips, from frame to frame."""

    points: np.ndarray  # (n,) indices of Gaussians
    changes: np.ndarray  # (n, 3) what their colours gain when wholly unfolded
    corners: np.ndarray  # (n, 3) corners among `vertices` of their triangles, for teeth of the nearest lip's
    barycentric: np.ndarray  # (n, 3)
    triangles: np.ndarray  # (f, 3) all triangles around, corners among `vertices`
    vertices: np.ndarray  # (v, 3) m without expression
    basis: np.ndarray  # (52, v, 3) m
    areas: np.ndarray  # (f,) in the photo
    rest: np.ndarray  # (v, 3) m, vertices in the photo
    open_mouth: np.ndarray  # (n,) bool, points of lips that are open in the photo, and of teeth beside them

    @staticmethod
    def of(head: GaussianHead) -> UnfoldingTone:
        """For a finished head."""
        model, source = load_head_model(), head.source_expression.numpy()
        faces, positions, colors = head.faces.numpy(), head.positions.numpy(), head.colors.numpy()
        seen = np.flatnonzero((head.origin.numpy() == VISIBLE) & _bare(faces, model))
        landmarks = model.landmarks_of(head.vertices.numpy())
        changes = np.zeros((len(seen), 3), np.float32)
        for ring in (RIGHT_EYE_RING, LEFT_EYE_RING):
            lid = landmarks[list(ring[:9])]  # from corner to corner
            along, above = _beside(positions[seen], lid)
            weight = _between_corners(along, lid) * (1 - _ramp(above, LID_HEIGHT)) * (above > LID_EDGE)
            changes += _smoothed(along, above, above, colors[seen], weight)
        edges = [landmarks[[LIP_CORNERS[0], *lip, LIP_CORNERS[1]]] for lip in (INNER_LIP_UPPER, INNER_LIP_LOWER)]
        are_open = mouth_is_open(landmarks[:, :2])
        rim, lips = OPEN_RIM if are_open else CLOSED_RIM, np.zeros(len(seen), bool)
        for edge, side in zip(edges, (1, -1)):
            along, outward, weight = _beside_lip(positions[seen], edge, edges, side, rim)
            lips |= weight > 0
            changes += _smoothed(along, outward, np.maximum(outward, LIP_RED), colors[seen], weight)
        points, like, mouth = [seen], [seen], [lips & are_open]
        if are_open and lips.any():
            of_teeth = np.isin(model.parts[faces], (UPPER_TEETH, LOWER_TEETH))
            teeth = np.flatnonzero((head.origin.numpy() == VISIBLE) & of_teeth)
            shown = _at_lips(positions[teeth], head, edges)
            gained = np.zeros((len(teeth), 3), np.float32)
            for edge, side in zip(edges, (1, -1)):
                along, outward, weight = _beside_lip(shown, edge, edges, side, TEETH_RIM)
                inward = -outward
                wanted = np.maximum(inward, TEETH_INSIDE)
                gained += _smoothed(along, inward, wanted, colors[teeth], weight, TEETH_ALONG)
            _, nearest = cKDTree(positions[seen[lips]]).query(shown)
            points.append(teeth), like.append(seen[lips][nearest]), mouth.append(np.ones(len(teeth), bool))
            changes = np.concatenate([changes, gained])
        chosen = changes.any(1)
        points, like, mouth = (np.concatenate(each)[chosen] for each in (points, like, mouth))
        return UnfoldingTone._bound(head, model, source, points, changes[chosen], like, mouth)

    @staticmethod
    def _bound(
        head: GaussianHead, model: HeadModel, source: np.ndarray, points: np.ndarray, changes: np.ndarray,
        like: np.ndarray, open_mouth: np.ndarray,
    ) -> UnfoldingTone:  # fmt: skip
        """With the part of the head model that others (n,), `like` which points (n,) change, are bound to."""
        corners, barycentric = model.faces[head.faces.numpy()[like]], head.barycentric.numpy()[like]
        triangles = model.faces[np.isin(model.faces, np.unique(corners)).any(1)]
        needed = np.unique(triangles)
        vertices, basis = head.vertices.numpy()[needed], head.expression_basis.numpy()[:, needed]
        corners, triangles = (np.searchsorted(needed, part) for part in (corners, triangles))
        return UnfoldingTone(
            points, changes, corners, barycentric, triangles,
            vertices - np.tensordot(source, basis, 1), basis, _areas(vertices, triangles), vertices, open_mouth,
        )  # fmt: skip

    @staticmethod
    def none() -> UnfoldingTone:
        """For heads whose colours stay."""
        index, field = np.zeros((0, 3), int), np.zeros((0, 3), np.float32)
        basis, points = np.zeros((52, 0, 3)), index[:, 0]
        return UnfoldingTone(points, field, index, field, index, field, basis, field[:, 0], field, points > 0)

    def unfolded(self, expression: np.ndarray) -> np.ndarray:
        """How much (n,), 0..1, of its smooth colour each point has with an expression (52,)."""
        vertices = self.vertices + np.tensordot(expression, self.basis, 1)
        growth = _areas(vertices, self.triangles) / np.maximum(self.areas, 1e-10)
        share = np.zeros(len(vertices))
        np.maximum.at(share, self.triangles.ravel(), np.repeat(_ramp(growth, GROWTH), 3))
        moved = _ramp(np.linalg.norm(vertices - self.rest, axis=1), MOVED)
        unfolded, moved = ((each[self.corners] * self.barycentric).sum(1) for each in (share, moved))
        return np.where(self.open_mouth, np.maximum(unfolded, moved), unfolded)

    def shade(self, colors: np.ndarray, expression: np.ndarray) -> None:
        """Turn colours (N, 3), in place, from the source's expression to another (52,)."""
        share = self.unfolded(expression).astype(np.float32)
        some = share > 0
        points = self.points[some]
        colors[points] = (colors[points] + share[some, None] * self.changes[some]).clip(0, 1)


def _bare(faces: np.ndarray, model: HeadModel) -> np.ndarray:
    """Mask (N,) of what is bound to skin, not to the inside of the mouth, teeth or eyes."""
    return (model.parts[faces] == SKIN) & ~model.mouth_interior[faces]


def _at_lips(positions: np.ndarray, head: GaussianHead, edges: list[np.ndarray]) -> np.ndarray:
    """Where positions (n, 3) m are seen in the photo if they lie as far from the camera as lips' edges do."""
    rotation, offset = head.viewmat.numpy()[:3, :3], head.viewmat.numpy()[:3, 3]
    at_camera = positions @ rotation.T + offset
    depth = (np.concatenate(edges) @ rotation.T + offset)[:, 2].mean()
    return (at_camera * (depth / at_camera[:, 2:]) - offset) @ rotation


def _areas(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Twice the area (F,) of triangles."""
    a, b, c = (vertices[triangles[:, corner]] for corner in range(3))
    return np.linalg.norm(np.cross(b - a, c - a), axis=1)


def _ramp(value: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    return smoothstep((value - limits[0]) / (limits[1] - limits[0]))


def _beside(positions: np.ndarray, edge: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Metres along (n,) an edge (m, 3), from left to right in the photo, and above it (n,), of positions (n, 3)."""
    order = np.argsort(edge[:, 0])
    return positions[:, 0], np.interp(positions[:, 0], edge[order, 0], edge[order, 1]) - positions[:, 1]


def _beside_lip(
    positions: np.ndarray, edge: np.ndarray, edges: list[np.ndarray], side: int, rim: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of positions (n, 3): metres along a lip's edge and outward from it, and 0..1 how much they belong to its rim.

    `side` is 1 for the upper of both lips' `edges`, -1 for the lower; a point counts to the nearer one.
    """
    along, above = _beside(positions, edge)
    _, above_middle = _beside(positions, 0.5 * (edges[0] + edges[1]))
    outward = side * above
    return along, outward, _between_corners(along, edge) * (1 - _ramp(np.abs(outward), rim)) * (side * above_middle > 0)


def _between_corners(along: np.ndarray, edge: np.ndarray) -> np.ndarray:
    """1 between the ends of an edge, less beyond them, (n,)."""
    first, last = np.sort(edge[[0, -1], 0])
    return 1 - smoothstep(np.maximum(first - along, along - last) / BEYOND_CORNERS)


def _smoothed(
    along: np.ndarray, across: np.ndarray, wanted: np.ndarray, colors: np.ndarray, weight: np.ndarray,
    reach: float = ALONG,
) -> np.ndarray:  # fmt: skip
    """What colours (n, 3) gain, by a weight (n,), when they become those of their neighbours along an edge.

    `along` and `across` (n,), metres, say where they lie, `wanted` (n,) how far across the neighbours do, `reach` how
    far along.
    """
    change = np.zeros_like(colors)
    near = np.flatnonzero(weight > 0)
    for first in range(0, len(near), ROWS):
        part = near[first : first + ROWS]
        squares = ((along[part, None] - along[near]) / reach) ** 2
        kernel = np.exp(-0.5 * (squares + ((wanted[part, None] - across[near]) / ACROSS) ** 2)) + LONELY
        smooth = kernel @ colors[near] / kernel.sum(1, keepdims=True)
        change[part] = weight[part, None] * (smooth - colors[part])
    return change
