"""Hidden head-model surface: mouth cavity, teeth, tongue, eyeballs, the lids' other half, the back of the head."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from ..headmodel.arkit import ARKIT_INDEX
from ..headmodel.landmarks import INNER_LIP_LOWER, INNER_LIP_RING, INNER_LIP_UPPER, mouth_is_open
from ..headmodel.model import LEFT_EYE, LOWER_TEETH, RIGHT_EYE, SKIN, TONGUE, UPPER_TEETH, HeadModel
from ..types import INTERIOR, DepthMap, PointCloud, Portrait
from .binding import polygon_mask
from .mesh_raster import at_points, rasterize_mesh, vertex_normals
from .pose_weights import head_pose_weight, shoulder_tops
from .projection import project, to_camera
from .scalp import hair_thickness
from .surfels import MAX_OPACITY
from .symmetry import in_free_space
from .within_outline import within_outline

HIDDEN_MARGIN = 0.0012
"""How far behind the visible surface hidden surface must lie, metres: nearer, it would shine through."""

CAVITY_SPACING, TEETH_SPACING, TONGUE_SPACING, EYE_SPACING, SKIN_SPACING = 0.0020, 0.0007, 0.0018, 0.0008, 0.0018
"""Distance between sampled points, metres; finer where the eye looks."""

THROAT_SPACING, THROAT_DEPTH, BESIDE_TONGUE = 0.004, 0.75, 0.006
"""Distance between the points of the wall at the back of the mouth, metres, how deep in the mouth it stands, and how
far it goes on beside the tongue, metres: wider, it comes out under chins (.1 to .2 dB of the head on two dev clips)."""

DETAIL_SPACING = 0.0012
"""The same for skin around eyes and mouth, which unfolds when they close and open, and for scalp that comes into view
first."""

BEHIND_OUTLINE = 0.05
"""So far behind the outline of the head, metres, comes into view when it turns by 30 degrees."""

BEFORE_OUTLINE = 0.02
"""Scalp that the photo shows begins to bend out of its sight so far before the plane of the outline, metres."""

TEETH_SHOW = 0.001
"""So much farther down than the head model's, metres, are upper teeth that closed lips hide. Parted lips at rest show 2
(men) to 3.5 mm (women) of them on average (Vig and Brundo 1978), half a millimetre of the head model's; all of it lost
.2 dB of the mouth on development clips."""

OVER_OTHER_LIP, LIP_DEPTH = 0.0003, 0.008
"""How far closed lips may reach over each other behind the line between them, and how deep they are there, metres."""

OUTSIDE_TEST_SIZE = 256
OUTSIDE_TEST_STRENGTH = 0.7
OUTSIDE_TEST_ACTIONS = (
    (), ("mouthSmileLeft", "mouthSmileRight"), ("mouthFunnel",), ("mouthPucker",), ("jawOpen",),
    ("mouthStretchLeft", "mouthStretchRight"), ("mouthFrownLeft", "mouthFrownRight"), ("mouthLeft",), ("mouthRight",),
    ("mouthPressLeft", "mouthPressRight"),
)  # fmt: skip
"""What is tried on the mouth to see whether its inside comes through the skin, and how strongly."""

GRAZING, BACKING = 0.4, 0.002
"""Where the photo sees skin at a grazing angle (cosine) its pixels are far apart on a turned head: so far behind it,
metres, lies a second layer, or one would look through it into the head."""

LIP_INSIDE = 0.010
"""So near to the inner edges of open lips, metres, lies their inside: it turns out before the teeth as a smile ends."""

EAR_RELIEF = 0.1
"""How much of their height above the skull is left of the hidden halves of ears."""

SPREAD = 0.76
"""Standard deviation of a surfel in units of the spacing: points spread by area lie up to 1.7 times farther apart."""

ROUNDNESS = 0.5
"""How far hidden skin is moved from its flat triangles onto the tangent planes of their corners: half-way there lies a
sphere through these."""

COLLAR_HEIGHT = 0.16
"""Below this height (metres under the eyes) the photo's clothes are the surface, not the head model's neck."""

NECK_HALF_WIDTH = 0.065
"""Farther from the middle than this, metres, what is below the chin is shoulder, which the photo's clothes are too."""


def interior_points(portrait: Portrait, depth_map: DepthMap, head: HeadModel, chin_height: float) -> PointCloud:
    """Points on head-model surface that no pixel shows; colours are left to the decoder (black here).

    The inside of open lips, which would hang over the teeth, has no opacity (`InnerLips` gives it some).
    """
    outline = depth_map.outline
    vertices = flat_ears(portrait.vertices + hair_thickness(portrait, outline, head), head)
    if not mouth_is_open(portrait.landmarks):
        vertices[head.part_vertices(UPPER_TEETH), 1] += TEETH_SHOW
    seen = np.zeros(len(head.faces), bool)
    on_model = depth_map.distance == 0
    seen[np.unique(depth_map.face[on_model & (depth_map.face >= 0)])] = True

    corners = vertices[head.faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.linalg.norm(normals, axis=1, keepdims=True) + 1e-12
    facing = -(normals @ portrait.camera.viewmat[:3, :3].T)[:, 2]
    centres = corners.mean(1)
    backed = seen & head.outer_skin & (np.abs(facing) < GRAZING) & (centres[:, 1] < chin_height)
    backed &= ~head.ears[head.faces].any(1)
    # Of triangles that the photo sees in part the rest goes on behind its outline.
    deepest = to_camera(corners.reshape(-1, 3), portrait.camera)[:, 2].reshape(-1, 3).max(1)
    goes_on = (centres[:, 1] < 0) & (deepest > outline.centre[2] - BEFORE_OUTLINE) & ~head.ears[head.faces].any(1)
    skin = (head.parts == SKIN) & (~seen | goes_on)
    cavity = head.mouth_interior & ~seen
    eyes = ((head.parts == LEFT_EYE) | (head.parts == RIGHT_EYE)) & ~seen & (centres[:, 2] < 0.012)
    unfolds = unfolding(vertices, head)
    detailed = unfolds.copy()
    behind = to_camera(centres, portrait.camera)[:, 2] - outline.centre[2]
    detailed |= (centres[:, 1] < 0) & (np.abs(behind) < BEHIND_OUTLINE)
    shoulder = (centres[:, 1] > chin_height) & (np.abs(centres[:, 0]) > NECK_HALF_WIDTH)
    skin &= ~head.mouth_interior & (centres[:, 1] < COLLAR_HEIGHT) & ~shoulder
    groups = (
        (cavity, CAVITY_SPACING),
        ((head.parts == UPPER_TEETH) | (head.parts == LOWER_TEETH), TEETH_SPACING),
        (head.parts == TONGUE, TONGUE_SPACING),
        (eyes, EYE_SPACING),
        (backed, SKIN_SPACING),
        (skin & ~detailed, SKIN_SPACING),
        (skin & detailed, DETAIL_SPACING),
    )
    sampled = [sample_faces(vertices, head.faces, np.flatnonzero(group), spacing) for group, spacing in groups]
    sampled.append(throat(vertices, head))
    faces, barycentric, positions, axes = (np.concatenate(parts) for parts in zip(*sampled))
    curved = (skin & ~unfolds)[faces]
    of_curved, at_vertices = head.faces[faces[curved]], vertex_normals(vertices, head.faces[head.outer_skin])
    positions[curved], axes[curved] = rounded(
        positions[curved], axes[curved], barycentric[curved], vertices[of_curved], at_vertices[of_curved]
    )
    own = backed[faces]
    positions[own] -= BACKING * normals[faces[own]]
    outer = head.outer_skin[faces]
    positions[outer] = within_outline(positions[outer], portrait)
    keep = in_free_space(positions, portrait, depth_map, HIDDEN_MARGIN) | _outside_picture(positions, portrait)
    flesh = head.mouth_interior[faces]
    in_mouth = (head.parts[faces] >= TONGUE) | flesh
    keep[in_mouth] &= stays_in_mouth(portrait, head, faces[in_mouth], barycentric[in_mouth])
    covered = covered_in_mouth(positions, faces, portrait, depth_map, head)
    if mouth_is_open(portrait.landmarks):
        edges = head.landmarks_of(portrait.vertices)[list(INNER_LIP_RING)]
        shown = covered & ~(flesh & (cKDTree(edges).query(positions)[0] <= LIP_INSIDE))
        keep &= covered | flesh
    else:
        shown = covered
        keep &= covered & ~over_other_lip(positions, faces, portrait, head)
    faces, barycentric, positions, axes, shown = (array[keep] for array in (faces, barycentric, positions, axes, shown))
    count = len(faces)
    return PointCloud(
        positions=positions.astype(np.float32),
        axes=axes.astype(np.float32),
        colors=np.zeros((count, 3), np.float32),
        opacities=np.where(shown, MAX_OPACITY, 0).astype(np.float32),
        faces=faces.astype(np.int32),
        barycentric=barycentric.astype(np.float32),
        expression_weight=np.ones(count, np.float32),
        pose_weight=head_pose_weight(positions, chin_height, shoulder_tops(portrait, chin_height)),
        origin=np.full(count, INTERIOR, np.uint8),
        pixels=np.full((count, 2), -1, np.int32),
        steps=np.ones(count, np.uint8),
        portrait=portrait,
        depth_map=depth_map,
    )


def covered_in_mouth(
    positions: np.ndarray, faces: np.ndarray, portrait: Portrait, depth_map: DepthMap, head: HeadModel
) -> np.ndarray:
    """Mask (n,) of points at positions (n, 3) m, canonical, whose whole splat the photo hides; True outside the mouth.

    A splat is seen about a spacing to the side of its centre, beside lips and teeth; closed lips are deeper at their
    corners.
    """
    teeth = np.isin(head.parts[faces], (UPPER_TEETH, LOWER_TEETH))
    rest = (head.parts[faces] == TONGUE) | head.mouth_interior[faces]
    covered = np.ones(len(positions), bool)
    for some, spacing in ((teeth, TEETH_SPACING), (rest, CAVITY_SPACING)):
        covered[some] = in_free_space(positions[some], portrait, depth_map, HIDDEN_MARGIN, reach=spacing)
    return covered


def over_other_lip(positions: np.ndarray, faces: np.ndarray, portrait: Portrait, head: HeadModel) -> np.ndarray:
    """Mask (n,) of points of either closed lip at positions (n, 3) m, canonical, that lie behind the other.

    The head model's lips overlap where they meet. Parted, they would hang millimetres before the teeth.
    """
    marks = head.landmarks_of(portrait.vertices)
    line = 0.5 * (marks[list(INNER_LIP_UPPER)] + marks[list(INNER_LIP_LOWER)])
    line = line[np.argsort(line[:, 0])]
    x, y, z = positions.T
    over = (y - np.interp(x, line[:, 0], line[:, 1])) * np.where(head.below_mouth[faces], -1, 1)
    at_line = (x > line[0, 0]) & (x < line[-1, 0]) & (z < np.interp(x, line[:, 0], line[:, 2]) + LIP_DEPTH)
    return at_line & (head.parts[faces] == SKIN) & (over > OVER_OTHER_LIP) & (over < LIP_DEPTH)


def flat_ears(vertices: np.ndarray, head: HeadModel) -> np.ndarray:
    """A head's vertices (V, 3) m, canonical, with its ears laid against the skull.

    Of an ear the photo shows, or mirrors, the half that it sees; that is never quite where the head model's is, whose
    other half would come into view behind it as a second ear.
    """
    flat = vertices.copy()
    for side in (-1, 1):
        ear = head.ears & (side * head.mean[:, 0] > 0)
        around = np.unique(head.faces[ear[head.faces].any(1)])
        skull = np.abs(vertices[around[~ear[around]], 0]).mean()
        width = np.abs(vertices[ear, 0])
        flat[ear, 0] = side * np.minimum(width, skull + EAR_RELIEF * (width - skull))
    return flat


def unfolding(vertices: np.ndarray, head: HeadModel) -> np.ndarray:
    """Mask (F,) of a head's triangles around eyes and mouth: their hidden parts unfold when these close and open."""
    centres = vertices[head.faces].mean(1)
    eye_centres = np.array([vertices[head.part_vertices(part)].mean(0) for part in (LEFT_EYE, RIGHT_EYE)])
    near_eye = np.linalg.norm(centres[:, None] - eye_centres, axis=2).min(1) < 0.028
    return near_eye | head.around_mouth(centres, vertices)


def stays_in_mouth(portrait: Portrait, head: HeadModel, faces: np.ndarray, barycentric: np.ndarray) -> np.ndarray:
    """Mask (n,) of inner-mouth points that no strong mouth action pushes out through the skin, seen from the photo.

    The head model's cavity is wider than its lips: smiling or rounding, its sides would come through the cheeks.
    """
    size = OUTSIDE_TEST_SIZE
    camera = portrait.camera.resized(size, size)
    outside = head.faces[head.outer_skin]
    keep = np.ones(len(faces), bool)
    for names in OUTSIDE_TEST_ACTIONS:
        change = head.expression_basis[[ARKIT_INDEX[name] for name in names]].sum(0) * OUTSIDE_TEST_STRENGTH
        vertices = project(to_camera(portrait.vertices + change, camera), camera)
        skin_depth, _, _ = rasterize_mesh(vertices, outside, size, size)
        lips = polygon_mask(head.landmarks_of(vertices)[list(INNER_LIP_RING), :2], size)
        pixels = at_points(vertices, head.faces[faces], barycentric)
        columns, rows = pixels[:, :2].astype(int).clip(0, size - 1).T
        keep &= lips[rows, columns] | (pixels[:, 2] > skin_depth[rows, columns] + HIDDEN_MARGIN)
    return keep


def sample_faces(
    vertices: np.ndarray, faces: np.ndarray, members: np.ndarray, spacing: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Points spread over some triangles: face (n,), barycentric (n, 3), position (n, 3) m, surfel axes (n, 3, 3) m.

    Points per triangle follow its area; within it they are a low-discrepancy sequence (R2, Roberts 2018), the same
    every time.
    """
    corners = vertices[faces[members]]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area = 0.5 * np.linalg.norm(normal, axis=1)
    counts = np.maximum((area / spacing**2).astype(int), 1)
    triangle = np.repeat(np.arange(len(members)), counts)
    within = np.arange(len(triangle)) - np.repeat(np.cumsum(counts) - counts, counts)
    r = np.sqrt((0.5 + within * 0.7548776662466927) % 1)
    s = (0.5 + within * 0.5698402909980532) % 1
    barycentric = np.stack([1 - r, r * (1 - s), r * s], 1)
    positions = (corners[triangle] * barycentric[..., None]).sum(1)

    edge = corners[:, 1] - corners[:, 0]
    edge = edge / (np.linalg.norm(edge, axis=1, keepdims=True) + 1e-12)
    normal = normal / (np.linalg.norm(normal, axis=1, keepdims=True) + 1e-12)
    across = np.cross(normal, edge)
    extent = SPREAD * spacing
    axes = np.stack([edge * extent, across * extent, normal * 0.2 * extent], 1)
    return members[triangle], barycentric, positions, axes[triangle]


def throat(vertices: np.ndarray, head: HeadModel) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A wall across the back of the mouth of a head (V, 3) m, canonical, bound to the mouth's nearest triangles.

    As `sample_faces` gives points: face (n,), barycentric (n, 3), position (n, 3) m, surfel axes (n, 3, 3) m.
    The head model's mouth is open there: with the chin raised one would see the back of the head from inside.
    """
    inside = np.flatnonzero(head.mouth_interior)
    corners, tongue = vertices[head.faces[inside]], vertices[head.part_vertices(TONGUE)]
    (_, top, front), (_, _, back) = (limit(corners, axis=(0, 1)) for limit in (np.min, np.max))
    (left, _, _), (right, bottom, _) = tongue.min(0), tongue.max(0)  # the mouth is wider, and open below
    x, y = np.meshgrid(
        np.arange(left - BESIDE_TONGUE, right + BESIDE_TONGUE, THROAT_SPACING), np.arange(top, bottom, THROAT_SPACING)
    )
    positions = np.stack([x, y, np.full_like(x, front + THROAT_DEPTH * (back - front))], -1).reshape(-1, 3)
    _, nearest = cKDTree(corners.mean(1)).query(positions)
    axes = np.tile(np.diag([1, 1, 0.2]) * SPREAD * THROAT_SPACING, (len(positions), 1, 1))
    return inside[nearest], np.full((len(positions), 3), 1 / 3), positions, axes


def rounded(
    positions: np.ndarray, axes: np.ndarray, barycentric: np.ndarray, corners: np.ndarray, normals: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Positions (n, 3) m and surfel axes (n, 3, 3) m of points on flat triangles, on the round surface these stand for.

    `corners` (n, 3, 3) m and their unit `normals` (n, 3, 3) are those of each point's triangle, `barycentric` (n, 3)
    where on it the point lies. Phong tessellation (Boubekeur and Alexa 2008): the mean of the point's projections onto
    the corners' tangent planes. The scalp's triangles are up to 2 cm wide: a head turned by 20 degrees shows them.
    """
    height = ((positions[:, None] - corners) * normals).sum(2, keepdims=True)
    onto_planes = ((positions[:, None] - height * normals) * barycentric[..., None]).sum(1)
    normal = (normals * barycentric[..., None]).sum(1)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True) + 1e-12
    extent = np.linalg.norm(axes, axis=2, keepdims=True)
    across = np.cross(normal, axes[:, 0])
    across /= np.linalg.norm(across, axis=1, keepdims=True) + 1e-12
    directions = np.stack([np.cross(across, normal), across, normal], 1)
    return positions + ROUNDNESS * (onto_planes - positions), directions * extent


def _outside_picture(positions: np.ndarray, portrait: Portrait) -> np.ndarray:
    """Mask (N,) of positions (N, 3) beyond the crop's sides and lower edge.

    Not above it: hair that is cut there goes on (`above_photo`), and where none is, the photo has seen the head end.
    """
    pixels = project(to_camera(positions, portrait.camera), portrait.camera)[:, :2]
    size = len(portrait.image)
    columns, rows = pixels.T
    return (rows >= 1) & ~((pixels > 1) & (pixels < size - 1)).all(1)
