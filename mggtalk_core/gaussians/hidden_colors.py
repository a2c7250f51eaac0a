"""Colours by rule for surface no pixel shows: mouth cavity, teeth, tongue, eyeballs, lids, the back of the head."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import binary_erosion

from ..geometry.binding import polygon_mask
from ..geometry.blocks import block_means
from ..geometry.mesh_raster import at_points, vertex_normals
from ..geometry.pose_weights import ramp, smoothstep
from ..geometry.scalp import above_neck, outline_pixels
from ..geometry.search_tree import AS_NEAR, search_tree
from ..headmodel.landmarks import LEFT_EYE_RING, RIGHT_EYE_RING, inter_ocular_distance
from ..headmodel.model import EAR_HEIGHTS, LEFT_EYE, LOWER_TEETH, RIGHT_EYE, SKIN, TONGUE, UPPER_TEETH, HeadModel
from ..types import INTERIOR, OBLIQUE, SOLID_ALPHA, VISIBLE, WORN, PointCloud, Portrait
from .eyeballs import eyeball_colors
from .hair import EDGE_WIDTH, continued_hair, hair_tones, sampled
from .mouth_light import DEEP, light_powers, width_in_photo

TOOTH_WHITE = np.array([1.0, 0.97, 0.92], np.float32)
BEHIND_LIPS = 0.75
"""How bright teeth are that no photo shows, in the brightness of a tooth in full light."""

UPPER_TOOTH_WIDTHS = (0.0085, 0.0065, 0.0075, 0.007, 0.007, 0.010)
LOWER_TOOTH_WIDTHS = (0.0053, 0.0059, 0.0069, 0.007, 0.007, 0.011)
"""From the middle outward, metres (mean crown widths in dental anatomy)."""

GAP_HALF_WIDTH, GAP_DARKNESS = 0.0005, 0.35
GUM_SHARE = 0.22
"""How much of a tooth strip's height is gum."""

TONGUE_SIDE, ARCH_MIDDLE, TURNED_IN = np.array([0.5, 0.38, 0.35], np.float32), np.array([0.0, 0.02]), 0.5
"""How bright side teeth are on the tongue's side, against their front; where a row's middle lies, x and z in canonical
metres; and the cosine towards it from which a tooth shows that side."""

SIDE_TEETH = (0.010, 0.016)
"""Distances from the middle plane, metres, between which the side teeth begin: a turned head with an open mouth shows
the inner side of the far ones, a pale slab beside the tongue."""

ENOUGH_TEETH = 60
"""Visible tooth pixels from which on their colour is trusted."""

ENOUGH_SKIN = 30_000
"""So many of the known points tell hidden skin its colour; more only take longer to find."""

ENOUGH_SCALP = 500
"""Hidden scalp is like the hair that goes on above it, or what the photo shows above the ears, if there are so many
points of these."""

SCALP_SHARE, SCALP_COUNT = 4, 32
"""One in so many points of scalp that continues the photo's hair tells what is below it its tone, so many together: the
nearest points that the photo shows are of ears or temples there."""

BEFORE_EARS = (0.03, 0.06)
"""Depths, canonical metres, between which hidden scalp begins: temples and cheeks are like what is nearest, or the dark
of the hair would show between the pixels of a cheek seen aslant."""

NECK_TOP, NECK_FRONT, ENOUGH_NECK = (0.03, 0.06), (0.03, 0.06), 50
"""Heights (metres below the eyes) and depths between which hidden skin becomes neck, and how many points of the neck
the photo must show: around the neck goes what it shows in the middle, not the collar or the hair beside it."""

AROUND_NECK = (0.3, 3.0, 0.3)
"""A neck's colours are looked up at the same height rather than near."""

BESIDE_CHIN = 0.02
"""Height above the chin, metres, over which the neck's colours begin to be those of the jaw before it."""

SAME_TINT, IN_SHADE = 0.12, (0.4, 1.2)
"""How far off, per colour, a tint may be from the face's, and how dark and bright its skin is on the neck."""

BEHIND_EAR, EAR_NEIGHBOURS = (0.02, 0.03), 32
"""So near to the hidden halves of ears, metres, hidden surface goes over into the colour of what lies so much farther
behind, and of so many points there: few would make streaks."""

SEEN_NEAR = (0.003, 0.006)
"""Distances, metres, from what the photo shows within which hidden surface is like it, hair or not: seen aslant, the
photo's pixels are that far apart, and between them it shows."""

LOBE = (0.55, 0.7)
"""Between these parts of an ear's height, from above, its own hidden side ceases to be like what lies behind: below
the hair it is seen against the background, and would be beads beside the lobe."""

CROWN_HEIGHT, BEHIND_TEMPLE = -0.09, (0.05, 0.08)
"""The crown is higher up than this, metres below the eyes, and scalp begins between these depths."""

LIGHTER = (1.8, 0.03)
"""Hidden scalp is at most so many times as bright as the crown's hair, and so much more."""

INNER_MOUTH = np.array([1.0, 0.8, 0.78], np.float32)
"""Tint of the mouth's inside against the lips. What MouthTone learned on clips was about the same for everyone: an
inside 1.6 times as bright as lips in deep shade, which near the lips is their inner side."""

BARE_LIPS = np.array([0.85, 0.65, 0.65], np.float32)
"""Lips without make-up against the skin."""

INNER_LIP_WIDTH = 0.006
"""Length, metres, over which the lips' inner side goes over into the dark of the mouth."""

MOUTH_DEPTH = 0.05
"""Length, metres, over which the mouth darkens inward."""

LID_REACH = 0.026
"""Skin within this distance of an eyeball's centre is eyelid, metres."""


def hidden_colors(points: PointCloud, hidden: np.ndarray, head: HeadModel) -> np.ndarray:
    """Colours (n, 3) sRGB 0..1 for the points with indices `hidden` (n,)."""
    portrait = points.portrait
    part = head.parts[points.faces[hidden]]
    cavity = head.mouth_interior[points.faces[hidden]]
    positions = points.positions[hidden]
    normals = _normals(points, hidden, head)
    skin, lips = _skin_color(points, head), _lip_color(portrait)
    mouth = width_in_photo(portrait, head)
    inward = np.clip((positions[:, 2] - head.mouth_centre(portrait.vertices)[2]) / MOUTH_DEPTH, 0, 1)[:, None]

    colors = np.zeros((len(hidden), 3), np.float32)
    wet = 0.42 + 0.28 * np.exp(-inward[cavity] * MOUTH_DEPTH / INNER_LIP_WIDTH)
    colors[cavity] = 0.5 * (lips + skin * BARE_LIPS) * INNER_MOUTH * wet * np.exp(-2 * inward[cavity])
    frontal = 0.55 + 0.45 * np.clip(-normals[:, 2:], 0, 1)
    shade = (0.3 + 0.7 * frontal) * np.exp(-np.clip(inward - 0.25, 0, 1))
    enamel, gum = _enamel_color(points, head, skin, mouth), lips * [1, 0.75, 0.75] * 0.9
    for row, widths in ((UPPER_TEETH, UPPER_TOOTH_WIDTHS), (LOWER_TEETH, LOWER_TOOTH_WIDTHS)):
        teeth = part == row
        colors[teeth] = _row_of_teeth(positions[teeth], row == UPPER_TEETH, widths, enamel, gum) * shade[teeth]
        colors[teeth] *= 1 - (1 - TONGUE_SIDE) * _on_tongues_side(positions[teeth], normals[teeth])
    tongue = part == TONGUE
    upward = 0.5 + 0.5 * np.clip(-0.5 * normals[:, 1:2] - 0.7 * normals[:, 2:], 0, 1)
    colors[tongue] = (lips * [1, 0.8, 0.8] * upward * np.exp(-1.5 * inward))[tongue]
    eyes = (part == LEFT_EYE) | (part == RIGHT_EYE)
    colors[eyes] = eyeball_colors(points, hidden[eyes], head, skin)
    colors *= mouth ** light_powers(points.faces[hidden], head)[:, None]
    surface = (part == SKIN) & ~cavity
    colors[surface] = _skin_colors(points, positions[surface], head)
    return colors.clip(0, 1)


def behind_ears(points: PointCloud, head: HeadModel) -> np.ndarray:
    """Colours (N, 3) with those of hidden surface behind the ears like the hair, or skin, that follows farther behind;
    lobes are skin on both sides.

    What the network makes of these places is the mean of ear and hair: a pale patch on dark-haired people.
    """
    hidden = np.flatnonzero((points.origin == INTERIOR) & head.outer_skin[points.faces])
    positions, of_ears = points.positions[hidden], head.ears[head.faces[points.faces[hidden]]].any(1)
    colors = points.colors.copy()
    if not of_ears.any():
        return colors
    ears = positions[of_ears]
    distance, nearest = search_tree(ears).query(positions, distance_upper_bound=BEHIND_EAR[0], workers=-1)
    beside = np.isfinite(distance)
    beside[beside] = positions[beside, 2] >= ears[nearest[beside], 2]
    around = hidden[~beside]
    farther = positions[beside] + [0, 0, BEHIND_EAR[1]]
    _, nearest = search_tree(points.positions[around]).query(farther, k=EAR_NEIGHBOURS, workers=-1)
    amount = 1 - smoothstep(distance[beside, None] / BEHIND_EAR[0])
    height = (positions[beside, 1:2] - ears[:, 1].min()) / np.ptp(ears[:, 1])
    amount *= _apart_from_the_seen(points, positions[beside])[:, None]
    amount *= 1 - of_ears[beside, None] * ramp(height, LOBE)
    behind = hidden[beside]
    colors[behind] += amount * (points.colors[around[nearest]].mean(1) - colors[behind])
    return colors


def _apart_from_the_seen(points: PointCloud, positions: np.ndarray) -> np.ndarray:
    """How far (n,) 0..1 positions (n, 3) m are from all points that the photo shows."""
    low, high = positions.min(0, initial=np.inf) - SEEN_NEAR[1], positions.max(0, initial=-np.inf) + SEEN_NEAR[1]
    around = (points.origin == VISIBLE) & ((points.positions > low) & (points.positions < high)).all(1)
    seen = search_tree(points.positions[around])  # of all points it would take longest
    distance, _ = seen.query(positions, distance_upper_bound=SEEN_NEAR[1], workers=-1)
    return ramp(distance, SEEN_NEAR)


def under_dark_hair(points: PointCloud, head: HeadModel) -> np.ndarray:
    """Colours (N, 3) with hidden scalp no lighter than hair can be where the crown's is so dark.

    Who has dark hair on top has it behind, too; cropped short above the ears it shows skin, which both the rule that
    continues the nearest colours and the network take for a bald head.
    """
    hidden = np.flatnonzero((points.origin == INTERIOR) & head.outer_skin[points.faces])
    positions = points.positions[hidden]
    continued = outline_pixels(positions, points.portrait, points.depth_map.outline)
    crown = continued.shown & (positions[:, 1] < CROWN_HEIGHT)
    colors = points.colors.copy()
    if crown.sum() < ENOUGH_SCALP:
        return colors
    tones = hair_tones(points)
    typical = sampled(tones, continued.typical[crown] * len(tones) / len(points.portrait.image))
    gain, margin = LIGHTER
    highest = gain * np.median(typical.mean(1)) + margin
    scalp = above_neck(positions, points.depth_map.outline)
    scalp *= ramp(positions[:, 2], BEHIND_TEMPLE)
    darker = np.minimum(highest / colors[hidden].mean(1).clip(1e-3), 1)
    colors[hidden] *= (1 - scalp * (1 - darker))[:, None].astype(np.float32)
    return colors


def _on_tongues_side(positions: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """How much (n, 1), 0..1, teeth at canonical positions (n, 3) m, unit normals (n, 3), are side teeth that show their
    inner side."""
    inner = ARCH_MIDDLE - positions[:, [0, 2]]
    turned_in = (normals[:, [0, 2]] * inner).sum(1) / np.linalg.norm(inner, axis=1).clip(1e-6)
    aside = (np.abs(positions[:, 0]) - SIDE_TEETH[0]) / (SIDE_TEETH[1] - SIDE_TEETH[0])
    return (smoothstep(aside) * smoothstep(turned_in / TURNED_IN))[:, None]


def _row_of_teeth(
    positions: np.ndarray, upper: bool, widths: tuple[float, ...], enamel: np.ndarray, gum: np.ndarray
) -> np.ndarray:
    """Unshaded colours (n, 3) of one row of teeth at canonical positions (n, 3) m: enamel, gaps between teeth, gum.

    The head model has one smooth strip per row; where teeth part is drawn by their anatomical widths.
    """
    if not len(positions):
        return np.zeros((0, 3), np.float32)
    middle = 0.5 * (positions[:, 0].min() + positions[:, 0].max())
    gaps = np.concatenate([[0.0], np.cumsum(widths)])
    from_gap = np.abs(np.abs(positions[:, :1] - middle) - gaps).min(1)
    dark = GAP_DARKNESS * np.exp(-((from_gap / GAP_HALF_WIDTH) ** 2))
    height = (positions[:, 1] - positions[:, 1].min()) / (np.ptp(positions[:, 1]) + 1e-9)
    from_gum = height if upper else 1 - height  # y points down
    gum_share = np.clip((GUM_SHARE + 0.05 - from_gum) / 0.1, 0, 1)[:, None]
    return enamel * (1 - dark[:, None]) * (1 - gum_share) + gum * gum_share


def _enamel_color(points: PointCloud, head: HeadModel, skin: np.ndarray, mouth: float) -> np.ndarray:
    """Tooth colour (3,) without expression: that of teeth in the photo, whose mouth is so wide, or a fitting white."""
    shown = (points.origin == VISIBLE) & np.isin(head.parts[points.faces], (UPPER_TEETH, LOWER_TEETH))
    if shown.sum() > ENOUGH_TEETH:
        return np.percentile(points.colors[shown], 80, axis=0) / mouth**DEEP
    return BEHIND_LIPS * (0.35 * skin + 0.65 * TOOTH_WHITE * min(1.35 * float(skin.mean()) + 0.2, 0.97))


def _normals(points: PointCloud, chosen: np.ndarray, head: HeadModel) -> np.ndarray:
    """Outward unit normals (n, 3) of the head model where points are bound, canonical frame."""
    normals = vertex_normals(points.portrait.vertices, head.faces)
    return at_points(normals, head.faces[points.faces[chosen]], points.barycentric[chosen])


def _skin_color(points: PointCloud, head: HeadModel) -> np.ndarray:
    """Median colour (3,) of the visible face."""
    face = (points.origin == VISIBLE) & (head.parts[points.faces] == SKIN) & (points.expression_weight > 0.99)
    front = face & (points.positions[:, 1] < 0.1) & (points.positions[:, 2] < 0.035)
    return np.median(points.colors[front if front.any() else face], axis=0)


def _lip_color(portrait) -> np.ndarray:
    """Mean colour (3,) at the middle of both lips."""
    size = portrait.image.shape[0]
    columns, rows = portrait.landmarks[[0, 17, 37, 267, 84, 314]].astype(int).clip(0, size - 1).T
    return portrait.image[rows, columns].mean(0)


def _skin_colors(points: PointCloud, positions: np.ndarray, head: HeadModel) -> np.ndarray:
    """Hidden skin and hair: the mean of the nearest known colours, but for scalp, neck and eyelids."""
    outer = head.outer_skin[points.faces]  # not the teeth beside a lip
    shown = ~np.isin(points.origin, (INTERIOR, OBLIQUE, WORN)) & outer
    known = shown & _away_from_the_edge(points)
    known = known if known.any() else shown
    colors = np.zeros((len(positions), 3), np.float32)
    share = np.zeros(len(positions))
    above_ears = known & (points.positions[:, 1] < EAR_HEIGHTS[0])
    haired = above_ears.sum() > ENOUGH_SCALP
    if haired:
        share, texture = continued_hair(points, positions)
        colors[share > 0] = texture
        below = (share > 0) & (positions[:, 1] > EAR_HEIGHTS[0])
        share[below] *= _apart_from_the_seen(points, positions[below])
    plain = share < 1
    near = _nearest_colors(points, known, positions[plain])
    if haired:
        hair = above_neck(positions[plain], points.depth_map.outline)
        hair *= ramp(positions[plain, 2], BEFORE_EARS)
        asked = np.flatnonzero(hair)
        hair[asked] *= _apart_from_the_seen(points, positions[plain][asked])
        scalp = np.flatnonzero(share > 0.5)
        if len(scalp) > ENOUGH_SCALP:
            scalp = scalp[::SCALP_SHARE]
            _, nearest = search_tree(positions[scalp]).query(positions[plain][asked], k=SCALP_COUNT, workers=-1)
            near[asked] += hair[asked, None] * (colors[scalp[nearest]].mean(1) - near[asked])
        else:
            _mix(near, hair, points, above_ears, positions[plain])
    share = share[plain, None]
    colors[plain] = share * colors[plain] + (1 - share) * near

    rows, columns = points.pixels.clip(0).T
    chin_height = head.landmarks_of(points.portrait.vertices)[152, 1]
    bare_neck = known & (points.origin == VISIBLE) & points.depth_map.on_head[rows, columns]
    bare_neck &= points.positions[:, 1] > chin_height
    if bare_neck.sum() > ENOUGH_NECK:
        low = ramp(positions[:, 1], NECK_TOP)
        neck = low * ramp(positions[:, 2], NECK_FRONT)
        _mix(colors, neck, points, bare_neck, positions, importance=AROUND_NECK)
    # What the photo shows above the chin's height is a jaw; a collar beside the chin is no neck either.
    jaw = known & (points.origin == VISIBLE) & (points.expression_weight > 0.9) & (head.parts[points.faces] == SKIN)
    jaw &= (points.positions[:, 1] > NECK_TOP[0]) & points.depth_map.on_head[rows, columns]
    jaw[jaw] = _skin_toned(points, jaw, head)
    if jaw.sum() > ENOUGH_NECK:
        above_chin = 1 - ramp(positions[:, 1], (chin_height - BESIDE_CHIN, chin_height))
        high = above_chin * ramp(positions[:, 1], NECK_TOP) * ramp(positions[:, 2], NECK_FRONT)
        _mix(colors, high, points, jaw, positions, importance=AROUND_NECK)

    lid_source = (points.origin == VISIBLE) & (head.parts[points.faces] == SKIN) & (points.expression_weight > 0.9)
    lid_source &= ~_eyes_and_lashes(points.portrait)[rows, columns]
    vertices = points.portrait.vertices
    centres = np.array([vertices[head.part_vertices(part)].mean(0) for part in (LEFT_EYE, RIGHT_EYE)])
    on_lid = np.linalg.norm(positions[:, None] - centres, axis=2).min(1) < LID_REACH
    if on_lid.any():
        above = positions[on_lid] + np.array([0, -0.007, -0.005], np.float32)
        low, high = above.min(0) - LID_REACH, above.max(0) + LID_REACH
        lid_source &= ((points.positions > low) & (points.positions < high)).all(1)
        if lid_source.any():
            _, nearest = search_tree(points.positions[lid_source]).query(above, k=12, eps=AS_NEAR, workers=-1)
            colors[on_lid] = points.colors[lid_source][nearest].mean(1) * 0.95
    return colors


def _skin_toned(points: PointCloud, chosen: np.ndarray, head: HeadModel) -> np.ndarray:
    """Mask (n,) of some points (N,) bool that look like the face's skin, in its light or in shade."""
    skin = _skin_color(points, head)
    colors = points.colors[chosen]
    brightness = colors.mean(1) / skin.mean()
    tint = colors / colors.mean(1, keepdims=True).clip(0.01) - skin / skin.mean()
    return (np.abs(tint).max(1) < SAME_TINT) & (brightness > IN_SHADE[0]) & (brightness < IN_SHADE[1])


def _away_from_the_edge(points: PointCloud) -> np.ndarray:
    """Mask (N,) of points whose pixels are surely the person's."""
    alpha = points.portrait.alpha
    solid = binary_erosion(alpha > SOLID_ALPHA, iterations=round(EDGE_WIDTH * len(alpha)), border_value=1)
    rows, columns = points.pixels.clip(0).T
    return solid[rows, columns]


def _eyes_and_lashes(portrait: Portrait) -> np.ndarray:
    """Pixels (S, S) bool inside the lids' outlines, grown by a lash's length."""
    size = len(portrait.image)
    eyes = np.zeros((size, size), bool)
    for ring in (RIGHT_EYE_RING, LEFT_EYE_RING):
        outline = portrait.landmarks[list(ring)]
        grow = 0.08 * inter_ocular_distance(portrait.landmarks)
        centre = outline.mean(0)
        direction = outline - centre
        length = np.linalg.norm(direction, axis=1, keepdims=True) + 1e-9
        eyes |= polygon_mask(centre + direction * (1 + grow / length), size)
    return eyes


def _mix(
    colors: np.ndarray,
    amount: np.ndarray,
    points: PointCloud,
    known: np.ndarray,
    positions: np.ndarray,
    importance: tuple[float, float, float] = (1, 1, 1),
) -> None:
    """Move colours (n, 3), in place, by an amount (n,) 0..1 towards those of the nearest of some points (N,)."""
    some = amount > 0
    nearest = _nearest_colors(points, known, positions[some], importance)
    colors[some] += amount[some, None] * (nearest - colors[some])


def _nearest_colors(
    points: PointCloud, known: np.ndarray, positions: np.ndarray, importance: tuple[float, float, float] = (1, 1, 1)
) -> np.ndarray:
    """Mean colour (n, 3) of the eight points of a mask (N,) nearest to positions (n, 3), a little darker.

    `importance` stretches the axes along which distance counts. Colours are the photo's: the splats' are sharpened,
    which at the person's edge goes far beyond it.
    """
    known = np.flatnonzero(known)
    known = known[:: -(-len(known) // ENOUGH_SKIN)]
    tree = search_tree(points.positions[known] * importance)
    _, nearest = tree.query(positions * importance, k=8, eps=AS_NEAR, workers=-1)
    rows, columns = points.pixels[known].T
    colors = block_means(points.portrait.image, rows, columns, points.steps[known])
    return colors[nearest].mean(1) * 0.97
