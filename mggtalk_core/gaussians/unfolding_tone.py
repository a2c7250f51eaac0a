"""Colours that are right in the photo's expression alone.

Skin that unfolds: the few rows of pixels of an open eye's lid, or of closed lips' rims, stretch to several times their
height as the eye closes and the lips part. Lashes would become stripes, the dark line between lips beads.
Rims of open lips, and teeth beside them: the contour between the two is never exact, and the pixels along it mix them.
As soon as the lips move, pieces of teeth would hang from lips, and pieces of lip from teeth.
Eyeballs beside the lids: lashes and their shadow would stay on the eye when it turns or the lids open."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.spatial import cKDTree

from ..geometry.pose_weights import ramp, smoothstep
from ..geometry.projection import to_camera, to_canonical
from ..headmodel.landmarks import (
    INNER_LIP_LOWER,
    INNER_LIP_UPPER,
    LEFT_EYE_RING,
    LIP_CORNERS,
    LOWER_LIDS,
    RIGHT_EYE_RING,
    UPPER_LIDS,
    mouth_is_open,
)
from ..headmodel.model import LEFT_EYE, LOWER_TEETH, RIGHT_EYE, UPPER_TEETH, HeadModel, load_head_model
from ..types import INTERIOR, is_shown
from .inner_lips import at_places, lip_openings

if TYPE_CHECKING:
    from .head import GaussianHead

GROWTH = (1.1, 1.5)
"""Growth of a triangle since the photo between which its skin is smoothed."""

MOVED = (0.0003, 0.0015)
"""Distances, metres, to the side or up and down, from where they were in the photo between which rims of open lips, and
eyeballs, are."""

PARTED = (0.001, 0.003)
"""Gaps, metres, between lips that are closed in the photo over which the line between them goes."""

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

EYEBALL_RIM, LIKE_HIDDEN = (0.001, 0.0025), 6
"""Distances, metres, from lids' edges between which an eyeball's colours are lashes' and shadows' less and less; and so
many of the hidden points nearest to it tell a point's colour."""

PLACES = INNER_LIP_UPPER + UPPER_LIDS + LOWER_LIDS
"""Where it is asked how far lips and lids have opened."""

ROWS, LONELY = 512, 1e-12
"""So many points are smoothed at once; and what a point far away weighs, for where there are none near."""


class _Changing(NamedTuple):
    """Some of a head's points whose colours change; the fields are `UnfoldingTone`'s."""

    points: np.ndarray  # (n,)
    like: np.ndarray  # (n,) those whose motion tells how much, for teeth their nearest lip's
    changes: np.ndarray  # (n, 3)
    moving: np.ndarray  # (n,)
    uncovered: np.ndarray  # (n, k)


@dataclass(frozen=True)
class UnfoldingTone:
    """Colours of unfolding skin and of the rims of lips and eyeballs, from frame to frame."""

    points: np.ndarray  # (n,) indices of Gaussians
    changes: np.ndarray  # (n, 3) what their colours gain when wholly unfolded
    corners: np.ndarray  # (n, 3) corners among `vertices` of their triangles, for teeth of the nearest lip's
    barycentric: np.ndarray  # (n, 3)
    triangles: np.ndarray  # (f, 3) all triangles around, corners among `vertices`
    vertices: np.ndarray  # (v, 3) m without expression
    basis: np.ndarray  # (52, v, 3) m
    areas: np.ndarray  # (f,) in the photo
    rest: np.ndarray  # (v, 3) m, vertices in the photo
    moving: np.ndarray  # (n,) bool, points that change as they move: open lips, teeth beside them, eyeballs
    uncovered: np.ndarray  # (n, k) the share of their change that points have when lips or lids open, at k places
    openings: np.ndarray  # (52, k) m, by how much lips and lids open there
    source: np.ndarray  # (52,) the photo's expression

    @staticmethod
    def of(head: GaussianHead) -> UnfoldingTone:
        """For a finished head."""
        model = load_head_model()
        part, visible = model.parts[head.faces.numpy()], is_shown(head.origin.numpy())
        landmarks = model.landmarks_of(head.vertices.numpy())
        edges = [landmarks[[LIP_CORNERS[0], *lip, LIP_CORNERS[1]]] for lip in (INNER_LIP_UPPER, INNER_LIP_LOWER)]
        are_open = mouth_is_open(landmarks[:, :2])
        skin = np.flatnonzero(visible & model.outer_skin[head.faces.numpy()])
        changing = [_of_skin(head, model, skin, landmarks, edges, are_open)]
        rims = changing[0].points[changing[0].moving]
        if len(rims):
            teeth = np.flatnonzero(visible & np.isin(part, (UPPER_TEETH, LOWER_TEETH)))
            changing.append(_of_teeth(head, teeth, rims, edges))
        for eye in (LEFT_EYE, RIGHT_EYE):
            seen = np.flatnonzero(visible & (part == eye))
            hidden = np.flatnonzero((head.origin.numpy() == INTERIOR) & (part == eye))
            if len(seen) and len(hidden) >= LIKE_HIDDEN:
                changing.append(_of_eyeball(head, seen, hidden, landmarks))
        return UnfoldingTone._bound(head, model, _Changing(*(np.concatenate(each) for each in zip(*changing))))

    @staticmethod
    def _bound(head: GaussianHead, model: HeadModel, changing: _Changing) -> UnfoldingTone:
        """With the part of the head model that points which change like others are bound to."""
        corners = model.faces[head.faces.numpy()[changing.like]]
        barycentric = head.barycentric.numpy()[changing.like]
        triangles = model.faces[np.isin(model.faces, np.unique(corners)).any(1)]
        needed = np.unique(triangles)
        vertices, basis = head.vertices.numpy()[needed], head.expression_basis.numpy()[:, needed]
        without_expression = vertices - np.tensordot(head.source_expression.numpy(), basis, 1)
        corners, triangles = (np.searchsorted(needed, part) for part in (corners, triangles))
        actions = head.expression_basis.numpy()
        down = model.landmarks_of(actions)[..., 1]
        lids = [-down[:, list(UPPER_LIDS)], down[:, list(LOWER_LIDS)]]
        openings = np.concatenate([lip_openings(actions, model), *lids], 1)
        return UnfoldingTone(
            changing.points, changing.changes, corners, barycentric, triangles, without_expression, basis,
            _areas(vertices, triangles), vertices, changing.moving, changing.uncovered, openings,
            head.source_expression.numpy(),
        )  # fmt: skip

    @staticmethod
    def none() -> UnfoldingTone:
        """For heads whose colours stay."""
        index, field = np.zeros((0, 3), int), np.zeros((0, 3), np.float32)
        basis, points, places = np.zeros((52, 0, 3)), index[:, 0], np.zeros((52, 0))
        return UnfoldingTone(
            points, field, index, field, index, field, basis, field[:, 0], field, points > 0, places[:0], places,
            np.zeros(52),
        )  # fmt: skip

    def unfolded(self, expression: np.ndarray) -> np.ndarray:
        """How much (n,), 0..1, of its smooth colour each point has with an expression (52,)."""
        vertices = self.vertices + np.tensordot(expression, self.basis, 1)
        growth = _areas(vertices, self.triangles) / np.maximum(self.areas, 1e-10)
        share = np.zeros(len(vertices))
        np.maximum.at(share, self.triangles.ravel(), np.repeat(ramp(growth, GROWTH), 3))
        sideways = (vertices - self.rest)[:, :2]  # closing lids push eyeballs back, which uncovers nothing
        moved = ramp(np.linalg.norm(sideways, axis=1), MOVED)
        unfolded, moved = ((each[self.corners] * self.barycentric).sum(1) for each in (share, moved))
        opened = self.uncovered @ ramp((expression - self.source) @ self.openings, PARTED)
        return np.maximum(np.maximum(unfolded, opened), np.where(self.moving, moved, 0))

    def shade(self, colors: np.ndarray, expression: np.ndarray) -> None:
        """Turn colours (N, 3), in place, from the source's expression to another (52,)."""
        share = self.unfolded(expression).astype(np.float32)
        some = share > 0
        points = self.points[some]
        colors[points] = (colors[points] + share[some, None] * self.changes[some]).clip(0, 1)


def _of_skin(
    head: GaussianHead, model: HeadModel, skin: np.ndarray, landmarks: np.ndarray, edges: list[np.ndarray],
    are_open: bool,
) -> _Changing:  # fmt: skip
    """Lids and rims of lips among points (n,) of skin."""
    positions, colors = head.positions.numpy()[skin], head.colors.numpy()[skin]
    lower = model.below_mouth[head.faces.numpy()[skin]]
    changes, on_rim = _of_rims(positions, colors, edges, lower, OPEN_RIM if are_open else CLOSED_RIM, LIP_RED, ALONG)
    changes += _of_lids(positions, colors, landmarks)
    some = changes.any(1)
    uncovered = np.zeros((some.sum(), len(PLACES)))
    if not are_open:
        rim = on_rim[some]
        uncovered[rim, : len(INNER_LIP_UPPER)] = _between_lips(positions[some][rim], lower[some][rim], edges)
    return _Changing(skin[some], skin[some], changes[some], on_rim[some] & are_open, uncovered)


def _of_teeth(head: GaussianHead, teeth: np.ndarray, rims: np.ndarray, edges: list[np.ndarray]) -> _Changing:
    """Those of points (n,) of teeth that lie beside open lips, whose rims are points (m,)."""
    shown = _at_lips(head.positions.numpy()[teeth], head, edges)
    lower = _beside(shown, 0.5 * (edges[0] + edges[1]))[1] < 0
    changes, beside = _of_rims(
        shown, head.colors.numpy()[teeth], edges, lower, TEETH_RIM, TEETH_INSIDE, TEETH_ALONG, outward=-1
    )
    some = changes.any(1)
    _, nearest = cKDTree(head.positions.numpy()[rims]).query(shown[some])
    return _Changing(teeth[some], rims[nearest], changes[some], beside[some], np.zeros((some.sum(), len(PLACES))))


def _of_lids(positions: np.ndarray, colors: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """What colours (n, 3) of skin at positions (n, 3) m gain on lids that unfold."""
    changes = np.zeros_like(colors)
    for ring in (RIGHT_EYE_RING, LEFT_EYE_RING):
        lid = landmarks[list(ring[:9])]  # from corner to corner
        along, above = _beside(positions, lid)
        weight = _between_corners(along, lid) * (1 - ramp(above, LID_HEIGHT)) * (above > LID_EDGE)
        changes += _smoothed(along, above, above, colors, weight, ALONG)
    return changes


def _of_rims(
    positions: np.ndarray, colors: np.ndarray, edges: list[np.ndarray], lower: np.ndarray, rim: tuple[float, float],
    beyond: float, reach: float, outward: int = 1,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """What colours (n, 3) at positions (n, 3) m gain beside the upper and the lower lip's `edges`, and where (n,) bool.

    Within a `rim` of either edge they become those that lie `beyond` m away from it, smoothed over `reach` m along it;
    on its lip's side, or with `outward` -1 on the teeth's. `lower` (n,) bool are those that the lower edge's lip takes
    along: where lips touch, the picture alone does not tell.
    """
    changes, on_rim = np.zeros_like(colors), np.zeros(len(colors), bool)
    for edge, up, own in zip(edges, (1, -1), (~lower, lower)):
        along, above = _beside(positions, edge)
        away = outward * up * above
        weight = _between_corners(along, edge) * (1 - ramp(np.abs(away), rim)) * own
        on_rim |= weight > 0
        changes += _smoothed(along, away, np.maximum(away, beyond), colors, weight, reach)
    return changes, on_rim


def _between_lips(positions: np.ndarray, lower: np.ndarray, edges: list[np.ndarray]) -> np.ndarray:
    """How much (n, k) closed lips' points at positions (n, 3) m lose the line between the lips where these part, at the
    k landmarks of the edges between the corners; `lower` (n,) bool are those of the lower lip."""
    away = np.where(lower, -_beside(positions, edges[1])[1], _beside(positions, edges[0])[1])
    return at_places(positions, edges[0][1:-1]) * (1 - ramp(np.abs(away), OPEN_RIM))[:, None]


def _of_eyeball(head: GaussianHead, seen: np.ndarray, hidden: np.ndarray, landmarks: np.ndarray) -> _Changing:
    """Those of an eyeball's points that the photo sees (n,) beside lids.

    They become like what is hidden (m,) next to them, without lashes and their shadow, as the eye turns or lids open.
    """
    positions, colors = head.positions.numpy(), head.colors.numpy()
    lids = landmarks[list(UPPER_LIDS + LOWER_LIDS), :2]
    from_lids, nearest = cKDTree(lids).query(positions[seen, :2])
    _, like = cKDTree(positions[hidden]).query(positions[seen], k=LIKE_HIDDEN)
    weight = 1 - ramp(from_lids, EYEBALL_RIM)
    changes = weight[:, None] * (colors[hidden[like]].mean(1) - colors[seen])
    uncovered = np.zeros((len(seen), len(PLACES)))
    uncovered[np.arange(len(seen)), len(INNER_LIP_UPPER) + nearest] = 1
    some = changes.any(1)
    return _Changing(seen[some], seen[some], changes[some], np.ones(some.sum(), bool), uncovered[some])


def _at_lips(positions: np.ndarray, head: GaussianHead, edges: list[np.ndarray]) -> np.ndarray:
    """Where positions (n, 3) m are seen in the photo if they lie as far from the camera as lips' edges do."""
    at_camera = to_camera(positions, head.camera)
    depth = to_camera(np.concatenate(edges), head.camera)[:, 2].mean()
    return to_canonical(at_camera * (depth / at_camera[:, 2:]), head.camera)


def _areas(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Twice the area (F,) of triangles."""
    a, b, c = (vertices[triangles[:, corner]] for corner in range(3))
    return np.linalg.norm(np.cross(b - a, c - a), axis=1)


def _beside(positions: np.ndarray, edge: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Metres along (n,) an edge (m, 3), from left to right in the photo, and above it (n,), of positions (n, 3)."""
    order = np.argsort(edge[:, 0])
    return positions[:, 0], np.interp(positions[:, 0], edge[order, 0], edge[order, 1]) - positions[:, 1]


def _between_corners(along: np.ndarray, edge: np.ndarray) -> np.ndarray:
    """1 between the ends of an edge, less beyond them, (n,)."""
    first, last = np.sort(edge[[0, -1], 0])
    return 1 - smoothstep(np.maximum(first - along, along - last) / BEYOND_CORNERS)


def _smoothed(
    along: np.ndarray, across: np.ndarray, wanted: np.ndarray, colors: np.ndarray, weight: np.ndarray, reach: float
) -> np.ndarray:
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
