"""Hair over the hidden scalp, from the outline that the photo shows: the back of the head continues what is seen.

The head model's skull is bald and of average size. Left as it is, a second, smaller (or larger) head comes into view
behind the hair when the head turns.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import binary_fill_holes, binary_opening, binary_propagation, gaussian_filter1d, maximum_filter1d
from scipy.spatial import cKDTree

from ..headmodel.model import EAR_HEIGHTS, SKIN, HeadModel
from ..portrait.skin import NEIGHBOURS, face_skin, like_skin, samples
from ..types import SOLID_ALPHA, Outline, Portrait
from .mesh_raster import rasterize_mesh
from .pose_weights import ramp
from .projection import project, to_camera, to_canonical
from .search_tree import search_tree

SILHOUETTE_DEPTH = 0.075
"""Where the person's outline lies behind the eyes: about the plane of the ears, metres."""

SKULL_CENTRE = np.array([0.0, -0.025, SILHOUETTE_DEPTH], np.float32)
"""Middle of the skull's widest section, canonical metres."""

DIRECTIONS = 144
"""Directions around the head in which its outline is looked up."""

THINNEST, THICKEST = -0.012, 0.045
"""Limits of the thickness, metres: wider is a hat's brim or hair that hangs beside the head."""

SPLAT_RADIUS = 0.0025
"""How far the splats of the scalp reach beyond it, metres: they must end where the person does."""

NAPE = (0.02, 0.09)
"""Heights between which hair becomes thin, metres below the eyes."""

EDGE_WIDTH = 1 / 100
"""Width of the person's edge, crop sides: its colours are mixed with the background's."""

BESIDE_HEAD = 0.006
"""Beside the ears only what reaches farther than this beyond the head model is hair, metres."""

COARSE = 128
"""Pixels per side, about, that are asked whether they look like skin or hair."""

BALD = 0.3
"""Where more of the outline than this looks like the face's skin, nothing tells hair from skin."""

LIKE_HAIR, LOCK = 0.08, 1 / 48
"""Colours so near to hair's (sRGB) are hair's, too; and width beside the head, crop sides, from which on these are hair
that hangs there."""

SHORT, LONG = 0.04, 0.08
"""How far below the eyes hair hangs, metres: short hair ends at the ears, and behind longer hair no neck is seen."""

NAPE_LINE, TO_NAPE = 0.025, (0.08, 0.12)
"""How much farther down than beside the ears hair grows on the nape, metres, and the depths between."""

WIDE = 1 / 20
"""Width of hair, crop sides, from which on it has a texture; where it is narrower below the ears' upper ends, that of
the hair above goes on, to and fro."""

HAIR_LINE = (0.02, 0.06)
"""Heights between which hidden scalp beside the ears goes over into skin, metres below the eyes."""

BEHIND = (-0.02, 0.0)
"""Depths between which the hair begins, metres behind the outline's plane."""

TYPICAL = 1 / 16
"""Width along the outline, crop sides, whose colour is that of the hair on the back of the head."""

STAND_OFF, HANGING = 0.001, 0.5
"""How far mirrored hair behind the outline's plane may stand off the scalp, metres, and by how much more per metre
below the skull's widest section: above it hair lies on the head, from there on it hangs down."""


def hair_thickness(portrait: Portrait, outline: Outline, head: HeadModel) -> np.ndarray:
    """Offsets (V, 3) m, canonical, that move the hidden scalp onto the hair the photo's outline tells of.

    In the outline's plane the moved scalp ends where the person does, and goes on from there to the back with
    thickness blended into the mean of all directions. Face, ears and neck are not moved.
    """
    away, angle, edge_on = _around(portrait.vertices, portrait, outline)
    at_outline = _in_direction(angle, outline.thickness, outline)
    amount = edge_on * at_outline + (1 - edge_on) * outline.thickness.mean()
    amount *= ~head.ears
    amount *= ramp(away[:, 2], BEHIND)
    amount *= 1 - ramp(portrait.vertices[:, 1], NAPE)
    length = np.linalg.norm(away, axis=1)
    return ((amount / length)[:, None] * away @ portrait.camera.viewmat[:3, :3]).astype(np.float32)


def onto_scalp(positions: np.ndarray, portrait: Portrait, outline: Outline, head: HeadModel) -> np.ndarray:
    """Positions (N, 3) m, canonical, with those behind the outline's plane that float off the moved scalp laid on it.

    The photo can't contradict them there: of what is mirrored from a turned head's far rim only the end that tucks in
    behind the person is kept, a sliver that no hair connects to the head, and a spike as soon as the head turns.
    """
    away, _, _ = _around(positions, portrait, outline)
    behind = np.flatnonzero((away[:, 2] > 0) & (positions[:, 1] < NAPE[1]))
    offset = positions[behind] - SKULL_CENTRE
    scalp = np.unique(head.faces[head.outer_skin])
    scalp = scalp[(head.mean[scalp, 1] < NAPE[1]) & ~head.ears[scalp]]
    surface = portrait.vertices[scalp] + hair_thickness(portrait, outline, head)[scalp] - SKULL_CENTRE
    radius, distance = np.linalg.norm(surface, axis=1), np.linalg.norm(offset, axis=1)
    apart, nearest = cKDTree(surface / radius[:, None]).query(offset / distance[:, None], k=8)
    weight = 1 / (apart**2 + 1e-4)
    farthest = (weight * radius[nearest]).sum(1) / weight.sum(1) + STAND_OFF + HANGING * offset[:, 1].clip(0)
    result = positions.copy()
    result[behind] = SKULL_CENTRE + offset * np.minimum(farthest / distance, 1)[:, None]
    return result


@dataclass(frozen=True)
class Continuation:
    """What n points of hidden scalp continue of the photo."""

    pixels: np.ndarray  # (n, 2) row and column of what each continues
    typical: np.ndarray  # (n, 2) row and column in the hair, or bare scalp, along the outline
    behind: np.ndarray  # (n,) m along the scalp from the outline
    width: np.ndarray  # (n,) px of the hair in that direction
    shown: np.ndarray  # (n,) bool, whether the photo has hair there
    share: np.ndarray  # (n,) 0..1, how much of it goes on there rather than neck


def outline_pixels(positions: np.ndarray, portrait: Portrait, outline: Outline) -> Continuation:
    """What hidden scalp (N, 3) m, canonical, continues.

    What is some way behind the outline, along the scalp, looks like what is as far before it, in the picture: texture
    goes on around the head without a seam, back and forth over the width of the hair.
    """
    away, angle, _ = _around(positions, portrait, outline)
    angle, other = _towards_hair(positions, angle, outline, len(portrait.image))
    end, hair = (_in_direction(angle, what, outline) for what in (outline.end, outline.hair))
    size = len(portrait.image)
    edge = EDGE_WIDTH * size
    width = np.maximum(hair - edge, 1)
    arc = np.maximum(np.arctan2(away[:, 2], np.hypot(away[:, 0], away[:, 1])), 0) * np.linalg.norm(away, axis=1)

    def pixels(inward: np.ndarray) -> np.ndarray:
        columns, rows = outline.middle[:, None] + (end - inward) * np.stack([np.cos(angle), np.sin(angle)])
        return np.stack([rows, columns], 1)

    return Continuation(
        pixels=pixels(edge + width - np.abs(arc / outline.pixel % (2 * width) - width)),
        typical=pixels(edge + 0.5 * np.minimum(width, TYPICAL * size)),
        behind=arc,
        width=width,
        shown=(hair > 2 * edge) & (away[:, 2] > BEHIND[0]),
        share=np.where(other, above_neck(positions, outline), 1),
    )


def _towards_hair(
    positions: np.ndarray, angle: np.ndarray, outline: Outline, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Directions (N,) rad in which to look for what positions (N, 3) m continue, and a mask (N,) of those that are not
    the positions' own directions, `angle` (N,)."""
    wide = outline.hair > WIDE * size
    other = (positions[:, 1] > EAR_HEIGHTS[0]) & (_in_direction(angle, outline.hair, outline) <= WIDE * size)
    if not wide.any():
        return angle, np.zeros(len(angle), bool)
    turn = lambda to: np.angle(np.exp(1j * to))  # noqa: E731
    apart = turn(outline.angles[wide] - outline.angles[:, None])
    nearest = apart[np.arange(len(apart)), np.abs(apart).argmin(1)]
    direction = np.round((angle[other] + np.pi) * len(apart) / (2 * np.pi)).astype(int) % len(apart)
    towards = angle.copy()
    towards[other] = turn(outline.angles[direction] + nearest[direction] * 2)
    return towards, other


def above_neck(positions: np.ndarray, outline: Outline) -> np.ndarray:
    """How much (N,) 0..1 hidden scalp at positions (N, 3) m, canonical, is rather haired than neck."""
    lower = np.maximum(outline.hangs, NAPE_LINE * ramp(positions[:, 2], TO_NAPE))
    return 1 - ramp(positions[:, 1] - lower, HAIR_LINE)


def goes_on_behind(rows: np.ndarray, columns: np.ndarray, outline: Outline, size: int) -> np.ndarray:
    """Mask (n,) of pixels of a crop (S, S) in whose direction hair, or bare scalp, goes on behind the outline."""
    angle = np.arctan2(rows + 0.5 - outline.middle[1], columns + 0.5 - outline.middle[0])
    return _in_direction(angle, outline.hair, outline) > 2 * EDGE_WIDTH * size


def hair_outline(portrait: Portrait, on_head: np.ndarray, head: HeadModel) -> Outline:
    """The photo's outline around the head; `on_head` (S, S) bool are pixels that show bare face or neck."""
    camera, size = portrait.camera, len(portrait.image)
    centre = to_camera(SKULL_CENTRE[None], camera)[0]
    above_neck = (head.mean[head.faces, 1] < EAR_HEIGHTS[1]).all(1)
    skin = (head.parts == SKIN) & above_neck
    ear = head.ears[head.faces].any(1)
    points = project(to_camera(portrait.vertices, camera), camera)
    skull, ears = (np.isfinite(rasterize_mesh(points, head.faces[skin & part], size, size)[0]) for part in (~ear, ear))
    person = binary_fill_holes(portrait.alpha > 0.5)
    middle = (camera.K[:2, :2] @ centre[:2] + centre[2] * camera.K[:2, 2]) / centre[2]
    pixel = centre[2] / camera.K[0, 0]

    angles = np.linspace(-np.pi, np.pi, DIRECTIONS, endpoint=False)
    direction = np.stack([np.cos(angles), np.sin(angles)], 1)
    reach = np.arange(int(0.5 * size))
    columns, rows = np.floor(middle + direction[:, None] * reach[:, None]).astype(int).transpose(2, 0, 1)
    inside = (columns >= 0) & (columns < size) & (rows >= 0) & (rows < size)
    columns, rows = columns.clip(0, size - 1), rows.clip(0, size - 1)

    def last(mask: np.ndarray) -> np.ndarray:
        return np.where(mask[rows, columns] & inside, reach, 0).max(1)

    skull_end, ear_end = last(skull), last(ears)
    beyond = ~(person[rows, columns] & inside) & (reach > (skull_end + THINNEST / pixel)[:, None])
    person_end = np.where(beyond.any(1), beyond.argmax(1), len(reach))
    thickness = ((person_end - skull_end) * pixel - SPLAT_RADIUS).clip(THINNEST, THICKEST)

    ends = np.column_stack([direction * (skull_end * pixel)[:, None], np.zeros(DIRECTIONS)]) + centre
    height = to_canonical(ends, camera)[:, 1]
    above_ears = height < EAR_HEIGHTS[0]
    thickness[above_ears] = gaussian_filter1d(thickness[above_ears], 2.0, mode="nearest")
    thickness = np.interp(angles, angles[above_ears], thickness[above_ears], period=2 * np.pi)
    beside = (person_end - np.maximum(ear_end, skull_end)) * pixel > BESIDE_HEAD
    ring = (reach < (person_end - EDGE_WIDTH * size)[:, None]) & (reach > (person_end - 3 * EDGE_WIDTH * size)[:, None])
    around = ring & above_ears[:, None]
    skin = face_skin(portrait.image, portrait.alpha > SOLID_ALPHA, portrait.landmarks)
    edge = np.stack([rows[around], columns[around]])
    hair_colors = samples(portrait.image[tuple(edge)])
    bare = binary_propagation(on_head, mask=on_head | _like_face(portrait, skin, hair_colors))
    hangs = _hangs(portrait, skull, bare, edge, skin, hair_colors, middle, pixel)
    haired = above_ears | (beside & (height < EAR_HEIGHTS[1] + hangs))
    face_end = np.where(ring | (reach > person_end[:, None]), 0, np.where(bare[rows, columns], reach, 0)).max(1)
    face_end = maximum_filter1d(face_end, 5, mode="wrap")
    hair = np.where(haired, person_end - np.maximum(face_end, np.where(above_ears, 0, ear_end)), 0)
    return Outline(angles, centre, middle, pixel, person_end.astype(float), hair.astype(float), thickness, hangs, bare)


def _hangs(
    portrait: Portrait, skull: np.ndarray, bare: np.ndarray, edge: np.ndarray, skin: np.ndarray, hair: np.ndarray,
    middle: np.ndarray, pixel: float,
) -> float:
    """How much farther down than SHORT hair hangs beside the head, metres, the mean of both sides.

    Hair looks like some colours (n, 3) rather than like skin's (m, 3), and hangs together with that at rows and columns
    `edge` (2, k). The head model covers the pixels `skull` (S, S) bool; `middle` (2,) and `pixel` are the outline's.
    """
    if min(len(skin), len(hair)) < NEIGHBOURS:
        return 0.0
    step = max(1, len(portrait.image) // COARSE)
    like = ((portrait.alpha > SOLID_ALPHA) & ~bare)[::step, ::step]
    colors = portrait.image[::step, ::step][like]
    distance, _ = search_tree(hair).query(colors, k=NEIGHBOURS, workers=-1)
    like[like] = (distance.mean(1) < LIKE_HAIR) & ~like_skin(colors, skin, hair)
    seed = np.zeros_like(like)
    seed[tuple(edge // step)] = True
    locks = binary_propagation(seed & like, mask=like) & ~skull[::step, ::step]
    height = SKULL_CENTRE[1] + (np.arange(len(locks)) * step - middle[1]) * pixel
    column = round(middle[0] / step)
    lowest = [
        height[side.sum(1) > LOCK * len(locks)].max(initial=SHORT) for side in (locks[:, :column], locks[:, column:])
    ]
    return float(np.clip(lowest, SHORT, LONG).mean() - SHORT)


def _like_face(portrait: Portrait, skin: np.ndarray, hair: np.ndarray) -> np.ndarray:
    """Pixels (S, S) bool that look like the face's skin (m, 3) rather than like hair (n, 3); none on bald heads."""
    image, person = portrait.image, portrait.alpha > SOLID_ALPHA
    if min(len(skin), len(hair)) < NEIGHBOURS or like_skin(hair[1::2], skin, hair[::2]).mean() > BALD:
        return np.zeros_like(person)
    step = max(1, len(image) // COARSE)
    some, some_person = (each[::step, ::step] for each in (image, person))
    bare = np.zeros_like(some_person)
    bare[some_person] = like_skin(some[some_person], skin, hair)
    return binary_opening(bare).repeat(step, 0).repeat(step, 1)[: len(image), : len(image)]


def _in_direction(angle: np.ndarray, values: np.ndarray, outline: Outline) -> np.ndarray:
    """Values (N,) in directions (N,) rad of what the outline has in its own directions (n,)."""
    return np.interp(angle, outline.angles, values, period=2 * np.pi)


def _around(positions: np.ndarray, portrait: Portrait, outline: Outline) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of positions (N, 3) m, canonical: offsets (N, 3) m from the outline's centre in the camera's axes, directions
    (N,) rad in the image plane, and how far (N,) 0..1 they lie in the outline's plane rather than before or behind."""
    away = to_camera(positions, portrait.camera) - outline.centre
    angle = np.arctan2(away[:, 1], away[:, 0])
    return away, angle, np.hypot(away[:, 0], away[:, 1]) / np.linalg.norm(away, axis=1)
