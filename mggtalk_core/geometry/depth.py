"""Depth and normals of the person in the crop: the fitted head where it is, a rounded silhouette elsewhere."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sparse
from scipy.ndimage import binary_dilation, binary_erosion, gaussian_filter, label, maximum, zoom
from scipy.sparse.linalg import spsolve
from scipy.spatial import ConvexHull

from ..headmodel.arkit import ARKIT_INDEX
from ..headmodel.landmarks import OVAL
from ..headmodel.model import SKIN, TONGUE, UPPER_TEETH, HeadModel, load_head_model
from ..types import DepthMap, Portrait
from .binding import bind_pixels, polygon_mask
from .coarse import enlarged
from .mesh_raster import at_points, rasterize_mesh, vertex_normals
from .nearest_pixels import distance_between, distance_to, distance_within, nearest_pixels
from .outline_depth import outline_depth
from .projection import project, to_camera, unproject
from .scalp import hair_outline

GRAZING = 0.3
"""Cosine of the viewing angle below which the head model's own depth is not used (it may be under hair)."""

OUTLINE_GROWTH = 1.04
"""The tracked face outline lies a little inside the face's edge."""

PROFILE_WIDTH = 1 / 32
"""Narrower than this, crop sides, what landmarks have beyond the oval is no profile but the oval's own inexactness."""

NECK_HALF_WIDTH = 0.045
"""The neck is taken to be bare this far to both sides of its middle, metres."""

SMALL_PIECE = 0.05
"""Pieces of known surface smaller than this, against the largest, are only used where they look like its skin."""

SKIN_LIKE = 0.12
"""Largest distance of the median colours (sRGB 0..1) then: bare ears differ by .05 to .11, covered ones by .4 to .6."""

FACE_DEPTH = 0.035
"""What lies less far behind the eyes is in front of the ears, metres."""

LIP_THICKNESS = 0.004
"""How far behind the surface of lips and cheeks teeth are at least, metres."""

OVERBITE = 0.0005
"""How far behind the front of the upper teeth lower ones and the tongue are at least with the mouth closed, metres."""

LIPS_SIZE = 512
"""Side of the pictures of lips that teeth are moved behind, pixels."""

CLOSED_MOUTHS = ({}, {"jawOpen": 0.7}, {"mouthFunnel": 0.7}, {"mouthPucker": 0.7})
"""Actions, from the face at rest, that make the mouth narrower than a smile."""

SOLVE_SIZE = 128
"""Grid side on which the silhouette is rounded: it is smooth, so it needs no more."""

RIM_CELLS, OUTSIDE_CELLS = 2, 0.5
"""How far inside the outline the grid's cells are trusted, and how far outside their first zero lies on average, in
cells."""


def head_prior_depth(portrait: Portrait) -> DepthMap:
    """Depth of the person from the fitted head model (paper: Depth Est., here without a depth network).

    On the head model: its depth. Elsewhere inside the person: (outline's depth - depth)^2 is interpolated by Laplace's
    equation, zero at the outline, so that depth rises like a circle's arc from the outline: hair becomes round.
    """
    head = load_head_model()
    face, barycentric, head_depth = bind_pixels(portrait, head)
    size = portrait.image.shape[0]
    on_model = face >= 0
    oval = _outlined(portrait, np.array(OVAL))
    profile = _profile(portrait, oval)
    face_area = oval | profile
    person = _person(portrait, head, face, face_area)

    normals = vertex_normals(to_camera(portrait.vertices, portrait.camera), head.faces)
    facing = np.zeros((size, size), np.float32)
    facing[on_model] = -at_points(normals[:, 2], head.faces[face[on_model]], barycentric[on_model])
    known = on_model & person & (facing > GRAZING) & binary_erosion(on_model, np.ones((5, 5)))
    elsewhere = known & ~face_area
    known[elsewhere] = _bare_neck(portrait, head, face[elsewhere], barycentric[elsewhere])
    known &= _bare_pieces(known, portrait.image)
    # A face in profile ends where the head model does, not in the plane of the ears: nothing lies behind its outline.
    profile &= person
    if profile.any():
        known |= profile & on_model
        head_depth = np.where(profile, _continued(head_depth, known), head_depth)
        known |= profile

    outline = outline_depth(portrait, head, person)
    rise = np.where(known, np.maximum(outline - np.where(known, head_depth, outline), 0) ** 2, 0.0)
    rise = _round_silhouette(rise, known, person)
    depth = np.where(known, head_depth, outline - np.sqrt(np.maximum(rise, 0)))
    # The head model's edge is where two different surfaces meet: smooth there, and where nothing is known.
    edge = binary_dilation(known, np.ones((5, 5))) & ~binary_erosion(known, np.ones((5, 5)))
    smooth = gaussian_filter(depth.astype(np.float32), size / 250)
    depth = np.where(known & ~edge, depth, smooth).astype(np.float32)

    depth = _behind_lips(portrait, head, depth, face, barycentric)

    rows, columns = nearest_pixels(on_model & person)
    return DepthMap(
        depth=np.where(person, depth, np.nan).astype(np.float32),
        normals=normals_from_depth(depth, portrait),
        on_head=known,
        face=np.where(person, face[rows, columns], -1).astype(np.int32),
        barycentric=barycentric[rows, columns],
        distance=distance_between(rows, columns),
        outline=hair_outline(portrait, known, head),
        source="head prior",
    )


def _bare_pieces(mask: np.ndarray, image: np.ndarray) -> np.ndarray:
    """The mask (S, S) without small pieces of another colour than the face: parts of ears with hair before them."""
    pieces, count = label(mask)
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)
    sizes[0] = 0
    kept = sizes >= SMALL_PIECE * sizes.max()
    face = np.median(image[pieces == sizes.argmax()], axis=0)
    for piece in np.flatnonzero(~kept)[1:]:
        color = np.median(image[pieces == piece], axis=0)
        kept[piece] = np.linalg.norm(color - face) < SKIN_LIKE
    return kept[pieces]


def _behind_lips(
    portrait: Portrait, head: HeadModel, depth: np.ndarray, face: np.ndarray, barycentric: np.ndarray
) -> np.ndarray:
    """Depth (S, S) m with teeth and tongue in the photo moved back along their rays, to where lips can close over them.

    A smile is wider than a mouth at rest: its teeth would come through the lips and cheeks that close in front of them.
    What goes up with the jaw comes to lie behind the upper teeth.
    """
    part = np.where(face >= 0, head.parts[face], SKIN)
    inside = part >= TONGUE
    if not inside.any():
        return depth
    camera, size = portrait.camera.resized(LIPS_SIZE, LIPS_SIZE), LIPS_SIZE
    in_front = portrait.vertices[head.faces].mean(1)[:, 2] < FACE_DEPTH
    outside = head.faces[head.outer_skin & in_front]
    rows, columns = np.nonzero(inside)
    points = unproject(columns + 0.5, rows + 0.5, depth[inside], portrait.camera)
    corners, weights = head.faces[face[inside]], barycentric[inside][..., None]
    back = np.zeros(len(points))
    closed = []
    for actions in CLOSED_MOUTHS:
        change = -np.tensordot(portrait.fit.expression, head.expression_basis, 1)
        for name, strength in actions.items():
            change += strength * head.expression_basis[ARKIT_INDEX[name]]
        skin, _, _ = rasterize_mesh(project(to_camera(portrait.vertices + change, camera), camera), outside, size, size)
        motion = (change[corners] * weights).sum(1) @ camera.viewmat[:3, :3].T
        moved = project(points + motion, camera)
        at_columns, at_rows = moved[:, :2].astype(int).clip(0, size - 1).T
        lips = _continued(skin, np.isfinite(skin))[at_rows, at_columns]  # also over the gap between them
        back = np.maximum(back, lips + LIP_THICKNESS - moved[:, 2])
        closed.append(moved)
    result = depth.copy()
    result[inside] += back.astype(depth.dtype)
    upper = part == UPPER_TEETH
    if upper.any():
        scale = len(depth) / size
        further = _out_of_upper_teeth(result, upper, inside, np.stack(closed) * [scale, scale, 1])
        result[inside] = depth[inside] + np.where(upper[inside], back, np.maximum(back, further)).astype(depth.dtype)
    return result


def _out_of_upper_teeth(depth: np.ndarray, upper: np.ndarray, inside: np.ndarray, closed: np.ndarray) -> np.ndarray:
    """How far (n,) m what a mouth shows comes out before the place behind its upper teeth that it has to close into.

    upper and inside (S, S) bool are the upper teeth and all of the n pixels, closed (k, n, 3) where these are in k
    closed mouths, pixels and m.
    """
    rows, columns = np.nonzero(inside)
    low, high = np.array([rows.min(), columns.min()]), np.array([rows.max(), columns.max()])
    window = tuple(slice(first, last + 1) for first, last in zip(low, high))
    teeth = _continued(depth[window], upper[window])
    rows, columns = np.moveaxis(closed[..., 1::-1].astype(int).clip(low, high) - low, 2, 0)
    return (teeth[rows, columns] + OVERBITE - closed[..., 2]).max(0)


def normals_from_depth(depth: np.ndarray, portrait: Portrait) -> np.ndarray:
    """Unit camera-frame normals (S, S, 3) that face the camera, of a depth map (S, S) m without holes."""
    x, y = _rays(depth, portrait.camera.K)
    footprint = depth / portrait.camera.K[0, 0]
    along_columns, along_rows = _slope(depth, 1), _slope(depth, 0)
    # The cross product of what `pixel_tangents` spans, over the footprint.
    towards = along_columns * x + along_rows * y + footprint
    length = np.sqrt(along_columns**2 + along_rows**2 + towards**2)
    return np.stack([along_columns / length, along_rows / length, -towards / length], -1).astype(np.float32)


def pixel_tangents(depth: np.ndarray, K: np.ndarray, max_slope: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Surface vectors (S, S, 3) m spanned by one pixel step along columns and along rows, camera frame.

    d/du of ray(u, v) * depth(u, v). Slopes are capped to `max_slope` (S, S) times the pixel's footprint.
    """
    x, y = _rays(depth, K)
    footprint = depth / K[0, 0]
    steepest = max_slope * footprint
    on_columns, on_rows = (_slope(depth, axis).clip(-steepest, steepest) for axis in (1, 0))
    along_columns = np.stack([x * on_columns + footprint, y * on_columns, on_columns], -1)
    along_rows = np.stack([x * on_rows, y * on_rows + footprint, on_rows], -1)
    return along_columns, along_rows


def _rays(depth: np.ndarray, K: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where rays through a picture's (S, S) pixels are one metre before the camera: x (S,), y (S, 1) m, its frame."""
    rows, columns = depth.shape
    x = (np.arange(columns) + 0.5 - K[0, 2]) / K[0, 0]
    y = (np.arange(rows) + 0.5 - K[1, 2]) / K[1, 1]
    return x.astype(depth.dtype), y[:, None].astype(depth.dtype)


def _slope(depth: np.ndarray, axis: int) -> np.ndarray:
    """Change of depth (S, S) m per pixel along an axis: the smaller one-sided difference (minmod).

    So a surfel beside a depth step lies on its own surface instead of bridging the step.
    """
    before = np.diff(depth, axis=axis, prepend=np.take(depth, [0], axis=axis))
    after = np.diff(depth, axis=axis, append=np.take(depth, [-1], axis=axis))
    return np.where(np.abs(before) < np.abs(after), before, after)


def _bare_neck(portrait: Portrait, head: HeadModel, face: np.ndarray, barycentric: np.ndarray) -> np.ndarray:
    """Mask (n,) of pixels, by triangle (n,) and barycentric (n, 3), in the middle of the neck: skin is the surface.

    Ears, scalp and the sides of the neck may lie under hair, a scarf or a collar, whose depth is another.
    """
    position = at_points(portrait.vertices, head.faces[face], barycentric)
    chin_height = head.landmarks_of(portrait.vertices)[152, 1]
    return (np.abs(position[:, 0]) < NECK_HALF_WIDTH) & (position[:, 1] > chin_height)


def _profile(portrait: Portrait, oval: np.ndarray) -> np.ndarray:
    """Pixels (S, S) bool of nose, lips and chin that a turned face shows against the background, beyond its oval."""
    beyond = _outlined(portrait, ConvexHull(portrait.landmarks).vertices) & ~oval
    pieces, count = label(beyond)
    width = 2 * maximum(distance_to(~beyond), pieces, range(count + 1))
    return (width > PROFILE_WIDTH * len(beyond))[pieces]


def _outlined(portrait: Portrait, outline: np.ndarray) -> np.ndarray:
    """Pixels (S, S) bool inside an outline of some landmarks (n,), a little grown."""
    centre = portrait.landmarks[list(OVAL)].mean(0)
    grown = centre + (portrait.landmarks[outline] - centre) * OUTLINE_GROWTH
    return polygon_mask(grown, portrait.image.shape[0])


def _continued(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Values (S, S) with those that are not known like the nearest that are."""
    rows, columns = nearest_pixels(known)
    return values[rows, columns]


def _person(portrait: Portrait, head: HeadModel, face: np.ndarray, face_area: np.ndarray) -> np.ndarray:
    """Person pixels: the mask, and the face itself also where the segmenter missed it."""
    centres = portrait.vertices[head.faces].mean(1)
    frontal = (centres[:, 1] < 0.125) & (centres[:, 2] < FACE_DEPTH)  # above the chin
    on_face = (face >= 0) & frontal[face] & face_area
    size = len(portrait.alpha)
    step = max(1, size // SOLVE_SIZE)
    coarse = portrait.alpha[step // 2 :: step, step // 2 :: step]
    near_mask = enlarged(gaussian_filter(coarse, NEAR_MASK * len(coarse)), step, size) > 0.3
    return (portrait.alpha > VISIBLE_ALPHA) | (on_face & near_mask)


NEAR_MASK = 1 / 50
"""Standard deviation, crop sides, by which the mask is blurred to tell where the segmenter can have missed the face."""


VISIBLE_ALPHA = 0.1
"""Mask value from which on a pixel gets a surfel, of that opacity."""


def _round_silhouette(rise: np.ndarray, known: np.ndarray, person: np.ndarray) -> np.ndarray:
    """Solve Laplace's equation for `rise` (S, S) inside the person, fixed where known and 0 outside."""
    step = max(1, rise.shape[0] // SOLVE_SIZE)
    sample = (slice(step // 2, None, step), slice(step // 2, None, step))
    whole, known, person, values = person, known[sample], person[sample], rise[sample]
    unknown = person & ~known
    count = int(unknown.sum())
    if count == 0:
        return rise
    number = np.full(unknown.shape, -1)
    number[unknown] = np.arange(count)
    rows, columns = np.nonzero(unknown)
    diagonal, right = np.full(count, 1e-6), np.zeros(count)
    entries: list[tuple[np.ndarray, np.ndarray]] = []
    for row_step, column_step in ((0, 1), (0, -1), (1, 0), (-1, 0)):
        r, c = rows + row_step, columns + column_step
        # Beyond the crop's edge the person goes on: no condition there. Off the person: 0, which adds nothing.
        inside = (r >= 0) & (r < unknown.shape[0]) & (c >= 0) & (c < unknown.shape[1])
        r, c = r.clip(0, unknown.shape[0] - 1), c.clip(0, unknown.shape[1] - 1)
        diagonal += inside
        right += np.where(inside & known[r, c], values[r, c], 0)
        linked = inside & unknown[r, c]
        entries.append((np.flatnonzero(linked), number[r, c][linked]))
    matrix = sparse.diags(diagonal) - sparse.csr_matrix(
        (
            np.ones(sum(len(i) for i, _ in entries)),
            (np.concatenate([i for i, _ in entries]), np.concatenate([j for _, j in entries])),
        ),
        shape=(count, count),
    )
    solved = np.where(known, values, 0.0)
    solved[unknown] = spsolve(matrix.tocsc(), right)
    factors = np.array(rise.shape) / solved.shape
    rise = zoom(solved, factors, order=1, mode="nearest", grid_mode=True)
    # Where the grid ends is stairs, which a turned head shows as a comb: beside the outline as it rises farther inside.
    beyond = OUTSIDE_CELLS * step
    distance = gaussian_filter(distance_within(whole), 1.0) + beyond
    beside = distance < RIM_CELLS * step + beyond
    rows, columns = nearest_pixels(~beside)
    return np.where(beside, rise[rows, columns] * distance / distance[rows, columns], rise)
