"""Strands of hair on the hidden scalp: without them a turned head ends in a smooth line, like a helmet.

Long thin Gaussians a little off the scalp, in the tone of the hair below them. They lie as the photo's hair does that
the scalp continues there, and wear its texture; the rest is chance, the same every time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from scipy.ndimage import gaussian_filter

from ..geometry.interior import HIDDEN_MARGIN
from ..geometry.nearest_pixels import distance_within
from ..geometry.pose_weights import ramp
from ..geometry.scalp import SKULL_CENTRE, Continuation, above_neck, outline_pixels
from ..geometry.symmetry import concatenate, in_free_space, select
from ..geometry.within_outline import within_outline
from ..headmodel.model import HeadModel
from ..types import INTERIOR, SOLID_ALPHA, DepthMap, PointCloud, Portrait
from .hair import brightness, textured
from .hair_flow import flow_on_surface

CONTRAST = (0.022, 0.034)
"""Contrast of the photo's hair from pixel to pixel, as a share of its brightness, between which strands appear: bald
heads, scarves, white hair in the sun and small pictures have less. Read off the development portraits."""

CONTRAST_SCALE = 1 / 256
"""What is finer than this standard deviation counts for it, crop sides."""

ENOUGH_HAIR = 500
"""So many points of hidden scalp must continue hair with a texture."""

BLACK = 0.05
"""Added to brightness before it divides: black hair is not all noise."""

EVERY = 2
"""One in so many points of the scalp gets a strand: one in about 3 square millimetres where it is seen first."""

LENGTH, LONGER, LONGEST, WIDTH = 0.002, 0.09, 0.0045, 0.0005
"""Standard deviations of a strand, metres: along it (longer by so much per metre of the hair's thickness over the
skull, up to the longest) and across."""

UNEVEN, CURLED, STRAIGHT = (0.6, 1.4), 0.3, (0.1, 0.5)
"""Between these shares of that length a strand has its own; it has so little of it where hair lies in no direction, and
all where one is so clear."""

STAND_OFF = 0.6
"""How far strands stand off the scalp at most, in their lengths, about; one half by tufts, the other each by itself."""

TILT, STRAY, FLOW = 0.35, 0.5, 4.0
"""How steeply strands rise from the scalp at most (tangent), standard deviation, radians, of their direction, and how
much more than that the photo's hair counts where it is clear which way it lies."""

TUFT = 0.006
"""Width of tufts, metres: their strands lie alike."""

OPACITY, ENDS, REACH, PLACES, HALVINGS = 0.7, 2.5, 0.002, 7, 2
"""How opaque strands are in their middle, where they end, in standard deviations, how far they reach to the sides,
metres, at how many places along each it is made sure that the photo does not show it, and how often one that it would
show is cut in half before it is left out."""

TEXTURE_SCALE, BY_CHANCE = 1 / 96, 0.7
"""What is finer than this standard deviation, crop sides, is the hair's texture; how much of that of other places each
strand adds to its own's."""

SHADES = (0.65, 1.4)
"""How dark and how bright a strand may be against the scalp below it: a few farther off would be specks."""

CROWN = np.array([0.0, -0.10, 0.12], np.float32)
"""Where hair grows away from, canonical metres."""

BEHIND = 0.08
"""Strands lie so far behind the outline, metres: what a turn by 45 degrees shows."""

TEMPLES = (0.03, 0.05)
"""Depths, canonical metres, between which the scalp begins."""


def with_strands(points: PointCloud, head: HeadModel) -> PointCloud:
    """The cloud with strands over the hidden scalp, if the photo's hair has strands to be seen.

    The photo's own view does not show them.
    """
    portrait = points.portrait
    scalp = np.flatnonzero((points.origin == INTERIOR) & head.outer_skin[points.faces])
    continued = outline_pixels(points.positions[scalp], portrait, points.depth_map.outline)
    pixels = continued.pixels[textured(continued, len(portrait.image)) > 0.5]
    if len(pixels) < ENOUGH_HAIR:
        return points
    visible = ramp(contrast(portrait, pixels), CONTRAST)
    amount = visible * _covered(points, scalp, continued, head)
    grows = np.flatnonzero(amount > 0)[::EVERY]
    if not len(grows):
        return points
    strands = _grown(select(points, scalp[grows]), continued.pixels[grows], amount[grows, None])
    covering = _covering(points)
    for _ in range(HALVINGS):
        strands.axes[~_unseen(strands, covering), 0] /= 2
    return concatenate([points, select(strands, _unseen(strands, covering))])


def _grown(roots: PointCloud, pixels: np.ndarray, amount: np.ndarray) -> PointCloud:
    """A strand from each root, n points of the scalp that continue pixels (n, 2), as opaque as `amount` (n, 1) says."""
    thickness = roots.depth_map.outline.thickness.mean()
    length = np.clip(LENGTH + LONGER * thickness, LENGTH, LONGEST)
    chance = np.random.default_rng(0)
    tuft = _tufts(roots.positions, chance)

    def draw(distribution: Callable[[int], np.ndarray]) -> np.ndarray:
        """What strands draw (n, 1) from it: the mean of their tuft's draw and their own."""
        return (distribution(tuft.max() + 1)[tuft] + distribution(len(roots)))[:, None] / 2

    normal = _outward(roots)
    lie = np.sqrt(2) * STRAY * draw(chance.standard_normal)
    along = _across(roots.positions - CROWN, normal)
    along = np.cos(lie) * along + np.sin(lie) * np.cross(normal, along)
    flow = flow_on_surface(roots, pixels, along, np.cross(normal, along))
    clear = np.linalg.norm(flow, axis=1, keepdims=True)
    along = _unit(along + FLOW * flow)
    along = _unit(along + TILT * chance.random((len(roots), 1)) * normal)
    across = _unit(np.cross(normal, along))
    straight = CURLED + (1 - CURLED) * ramp(clear, STRAIGHT)
    own_length = WIDTH + (length - WIDTH) * straight
    own_length *= chance.uniform(*UNEVEN, (len(roots), 1))
    texture = _detail(roots.portrait, pixels, TEXTURE_SCALE)
    texture -= texture.mean()
    brighter = texture[:, None] + BY_CHANCE * draw(lambda count: texture[chance.integers(len(texture), size=count)])
    raised = amount * STAND_OFF * length * draw(chance.random)
    return replace(
        roots,
        positions=within_outline(roots.positions + raised * normal, roots.portrait).astype(np.float32),
        axes=np.stack([along * own_length, across * WIDTH, np.cross(along, across) * WIDTH], 1).astype(np.float32),
        colors=(roots.colors * (1 + brighter).clip(*SHADES)).clip(0, 1).astype(np.float32),
        opacities=(OPACITY * amount[:, 0]).astype(np.float32),
    )


def contrast(portrait: Portrait, pixels: np.ndarray) -> float:
    """How much, as a share of its brightness, hair at pixels (n, 2) differs from what is beside it: the median."""
    return float(np.median(np.abs(_detail(portrait, pixels, CONTRAST_SCALE))))


def _detail(portrait: Portrait, pixels: np.ndarray, scale: float) -> np.ndarray:
    """How much brighter (n,), as a share, the photo is at pixels (n, 2) than blurred by `scale`, crop sides."""
    grey = brightness(portrait.image)
    around = gaussian_filter(grey, scale * len(grey))
    rows, columns = pixels.astype(int).clip(0, len(grey) - 1).T
    return (grey - around)[rows, columns] / (around[rows, columns] + BLACK)


def _covering(points: PointCloud) -> DepthMap:
    """The depth of what the photo shows, where a strand behind it is out of sight: nowhere near the mask's edge."""
    portrait, depth_map = points.portrait, points.depth_map
    reach = REACH * portrait.camera.K[0, 0] / np.nanmedian(depth_map.depth)
    covers = distance_within(portrait.alpha > SOLID_ALPHA) > reach
    return replace(depth_map, depth=np.where(covers, depth_map.depth, np.nan))


def _unseen(strands: PointCloud, covering: DepthMap) -> np.ndarray:
    """Mask (n,) of strands that lie behind what the photo shows, all along."""
    places = strands.positions + np.linspace(-ENDS, ENDS, PLACES)[:, None, None] * strands.axes[:, 0]
    behind = in_free_space(places.reshape(-1, 3), strands.portrait, covering, HIDDEN_MARGIN)
    return behind.reshape(PLACES, -1).all(0)


def _covered(points: PointCloud, scalp: np.ndarray, continued: Continuation, head: HeadModel) -> np.ndarray:
    """How much (n,) 0..1 points of the scalp, n indices, are those that hair grows on."""
    positions = points.positions[scalp]
    grown = continued.shown & (continued.behind < BEHIND) & ~head.ears[head.faces[points.faces[scalp]]].any(1)
    return grown * above_neck(positions, points.depth_map.outline) * ramp(positions[:, 2], TEMPLES)


def _tufts(positions: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    """Number (n,) of the tuft that strands at positions (n, 3) m belong to; tufts mingle at their edges."""
    cells = np.round(positions / TUFT + 0.3 * chance.standard_normal(positions.shape)).astype(int)
    cells -= cells.min(0)
    return np.unique(np.ravel_multi_index(cells.T, cells.max(0) + 1), return_inverse=True)[1]


def _outward(points: PointCloud) -> np.ndarray:
    """Unit normals (n, 3) of surfels on the skull, pointing away from its middle."""
    normal = _unit(points.axes[:, 2])
    return normal * np.sign((normal * (points.positions - SKULL_CENTRE)).sum(1, keepdims=True))


def _across(vectors: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """Unit vectors (n, 3): what of vectors (n, 3) is perpendicular to unit normals (n, 3)."""
    return _unit(vectors - (vectors * normals).sum(1, keepdims=True) * normals)


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors (n, 3) of length 1."""
    return vectors / (np.linalg.norm(vectors, axis=1, keepdims=True) + 1e-9)
