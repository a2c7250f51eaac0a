"""SGP, symmetric Gaussian prediction: from points to a head of Gaussians, first what is seen, then what is hidden."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.ndimage import binary_erosion, distance_transform_edt, maximum_filter, minimum_filter, uniform_filter
from scipy.spatial import cKDTree
from torch import nn

from ..geometry.blocks import block_means
from ..geometry.scalp import goes_on_behind
from ..geometry.surfels import MAX_OPACITY
from ..geometry.symmetry import select
from ..headmodel.model import HeadModel, load_head_model
from ..headmodel.personal import personal_expression_basis
from ..model import MGGTalkModel
from ..rendering.rasterizer import render
from ..types import INTERIOR, SOLID_ALPHA, VISIBLE, DepthMap, PointCloud, Portrait
from .decoders import apply_residual, hidden_inputs, mouth_part, toned, visible_inputs
from .densify import add_children, parent_inputs
from .head import GaussianHead, covars_from_axes
from .hidden_colors import hidden_colors
from .identity_encoder import encoder_input, sample_features
from .light import fit_light, lit_normals, surface_normals

SHARPENING_ITERATIONS = 8

SHARPENING_STEP = 0.8
"""Van Cittert relaxation: how much of the remaining error one iteration adds."""

EDGE_WIDTH, EDGE_REACH, EDGE_LOOK, EDGE_MARGIN = 1 / 170, 1 / 100, 1 / 64, 0.05
"""Width of the person's edge, whose colours are not trusted, how far outward that holds (beyond are loose hair and
guesses), and how far around those inside of it are looked at, in crop sides; and how much darker or brighter than those
an edge's colour may be."""

ENOUGH_PIXELS = 512
"""Pixels per side, about, that are asked how dark and bright a person is near the edge."""

GRAZING = 0.5
"""Cosine of the angle between view and surface below which the photo sees it at a grazing angle."""

SMOOTH, SPREAD, TINT_MARGIN, SHADE_MARGIN, TINT_PIXELS = 0.1, 2.5, 0.01, 0.05, 256
"""Where the person's colours inside of an edge vary less than this part of their brightness, a foreign tint shows (in
hair's texture it doesn't, and the photo's colours may be its own); how many of their standard deviations, and of these
margins (sRGB), an edge's tint and brightness may differ from theirs; and pixels per side, about, that are asked."""

COLOR_TRUST = (0.2, 0.9)
"""Mask values between which a pixel's colour error begins to count: where the mask is low, it is the background's."""


@dataclass(frozen=True)
class VisibleGaussians:
    """G_d: parameters of the visible points; the others still wait for theirs."""

    points: PointCloud  # all points, colours of the visible ones final


def predict_visible(model: MGGTalkModel, points: PointCloud) -> VisibleGaussians:
    """Parameters of what the photo shows (paper: Gauss. Dec.).

    Prior: surfels as built, with colours sharpened until rendering them reproduces the photo (Van Cittert iteration,
    1931): neighbouring splats overlap, which blurs, and only their colours are free.
    """
    visible = np.flatnonzero(points.origin == VISIBLE)
    colors, opacities = points.colors.copy(), points.opacities.copy()
    colors[visible], opacities[visible] = _reproduce_photo(select(points, visible))
    points = replace(points, colors=colors, opacities=opacities)
    if model.gaussian_decoder is not None:
        points = _decode_visible(model, points)
    return VisibleGaussians(points)


def _reproduce_photo(seen: PointCloud) -> tuple[np.ndarray, np.ndarray]:
    """Colours (N, 3) and opacities (N,) with which visible surfels render to the photo and its mask.

    Each surfel owns a pixel or a block of them; what these lack on average is added to it, again and again.
    """
    portrait = seen.portrait
    size = portrait.image.shape[0]
    rows, columns = seen.pixels.T
    covars, means = torch.from_numpy(covars_from_axes(seen.axes)), torch.from_numpy(seen.positions)
    viewmat, K = torch.from_numpy(portrait.camera.viewmat), torch.from_numpy(portrait.camera.K)
    background = torch.from_numpy(portrait.background)
    alpha = portrait.alpha[rows, columns]
    low, high = COLOR_TRUST
    color_step = SHARPENING_STEP * np.clip((alpha - low) / (high - low), 0, 1)[:, None]
    soft = seen.opacities < MAX_OPACITY  # elsewhere the surface is solid, whatever the mask says
    darkest, brightest = (bound[rows, columns] for bound in color_range(portrait, seen.depth_map))
    tints = edge_tints(portrait, seen.depth_map)
    number = tints.number[rows, columns]
    tinted, number = np.flatnonzero(number >= 0), number[number >= 0]
    colors, opacities = seen.colors.copy(), seen.opacities.copy()
    for _ in range(SHARPENING_ITERATIONS):
        rendered = render(
            means, None, None, torch.from_numpy(opacities), torch.from_numpy(colors), viewmat, K, size, size,
            background, covars=covars,
        )  # fmt: skip
        missing_alpha = alpha - rendered.alpha.numpy()[rows, columns]
        opacities = np.where(soft, opacities + SHARPENING_STEP * missing_alpha, opacities).clip(0.01, MAX_OPACITY)
        missing_color = block_means(portrait.image - rendered.rgb.numpy(), rows, columns, seen.steps)
        colors = np.clip(colors + color_step * missing_color, darkest, brightest)
        colors[tinted] = tints.kept(colors[tinted], number)
    return colors.astype(np.float32), opacities.astype(np.float32)


def color_range(portrait: Portrait, depth_map: DepthMap) -> tuple[np.ndarray, np.ndarray]:
    """Darkest and brightest colour (S, S, 3) each that a pixel's splat may have: 0 to 1, with two exceptions.

    Where the photo sees the surface at a grazing angle, no more than the pixels around: turned into view, such a splat
    is many pixels wide, and contrast that made the photo sharp becomes grain.
    Near the person's edge, no more than the person has farther inside. Edge pixels are half background, and a matte is
    never exact: unbounded, they come out in colours that nobody has, a line across the head as soon as it turns.
    """
    image, size = portrait.image, len(portrait.image)
    darkest, brightest = np.zeros_like(image), np.ones_like(image)
    grazing = -depth_map.normals[..., 2] < GRAZING
    around = (3, 3, 1)
    darkest[grazing] = minimum_filter(image, around)[grazing]
    brightest[grazing] = maximum_filter(image, around)[grazing]
    solid, edge, nearest = _edge(portrait)
    if not solid.any():
        return darkest, brightest
    step = max(1, size // ENOUGH_PIXELS)
    nearest = tuple(nearest // step)
    window = (2 * max(1, round(EDGE_LOOK * size / step)) + 1,) * 2 + (1,)
    some, inside = image[::step, ::step], solid[::step, ::step, None]
    lowest = minimum_filter(np.where(inside, some, 1), window)[nearest] - EDGE_MARGIN
    highest = maximum_filter(np.where(inside, some, 0), window)[nearest] + EDGE_MARGIN
    darkest[edge], brightest[edge] = lowest.clip(0, 1), highest.clip(0, 1)
    return darkest, brightest


def _edge(portrait: Portrait) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels (S, S) bool farther inside the person and of the person's edge; and (2, n) for each of the edge's n, in
    their order, the nearest of the former."""
    size = len(portrait.image)
    solid = binary_erosion(portrait.alpha > SOLID_ALPHA, iterations=max(1, round(EDGE_WIDTH * size)), border_value=1)
    distance, nearest = distance_transform_edt(~solid, return_indices=True)
    edge = (distance > 0) & (distance < EDGE_REACH * size)
    return solid, edge, nearest[:, edge]


@dataclass(frozen=True)
class EdgeTints:
    """Colours of the person inside of n pixels of the edge."""

    number: np.ndarray  # (S, S) int, which of the n a pixel is, -1: none
    mean: np.ndarray  # (n, 3)
    precision: np.ndarray  # (n, 3, 3) inverse covariance, margins added

    def kept(self, colors: np.ndarray, number: np.ndarray) -> np.ndarray:
        """Colours (m, 3) for the pixels of some numbers (m,), those far from the mean moved towards it."""
        away = colors - self.mean[number]
        distance = np.sqrt(np.einsum("ni,nij,nj->n", away, self.precision[number], away))[:, None]
        return self.mean[number] + away * (SPREAD / np.maximum(distance, SPREAD))


def edge_tints(portrait: Portrait, depth_map: DepthMap) -> EdgeTints:
    """The colours that a bald head, or smooth hair, has inside of its edge, where the head goes on behind the outline.

    A matte that is half a pixel wide of the truth mixes the background's tint into the edge. Darkest and brightest
    colour leave room for it (red as in the shade, blue as in the light), and on a turned head it draws the old outline.
    """
    image, size = portrait.image, len(portrait.image)
    solid, edge, nearest = _edge(portrait)
    rows, columns = np.nonzero(edge)
    chosen = (-depth_map.normals[rows, columns, 2] < GRAZING) & solid.any()
    chosen &= goes_on_behind(rows, columns, depth_map.outline, size)
    step = max(1, size // TINT_PIXELS)
    window = (2 * max(1, round(EDGE_LOOK * size / step)) + 1,) * 2 + (1,)
    some, inside = image[::step, ::step], solid[::step, ::step, None].astype(np.float32)
    i, j = np.triu_indices(3)
    sums = uniform_filter(np.concatenate([inside, inside * some, inside * some[..., i] * some[..., j]], 2), window)
    sums = sums[tuple(nearest[:, chosen] // step)].astype(np.float64)
    sums /= np.maximum(sums[:, :1], 1e-6)
    mean, covariance = sums[:, 1:4], np.empty((len(sums), 3, 3))
    covariance[:, i, j] = covariance[:, j, i] = sums[:, 4:] - mean[:, i] * mean[:, j]
    brightness = np.linalg.norm(mean, axis=1)
    smooth = (np.trace(covariance, axis1=1, axis2=2) < (SMOOTH * brightness) ** 2) & (brightness > TINT_MARGIN)
    mean, covariance, brightness = mean[smooth], covariance[smooth], brightness[smooth]
    shade = mean / brightness[:, None]
    spread = covariance + TINT_MARGIN**2 * np.eye(3) + SHADE_MARGIN**2 * shade[:, :, None] * shade[:, None, :]
    number = np.full(edge.shape, -1)
    number[rows[chosen][smooth], columns[chosen][smooth]] = np.arange(len(mean))
    return EdgeTints(number, mean, np.linalg.inv(spread))


def predict_invisible(model: MGGTalkModel, visible: VisibleGaussians) -> GaussianHead:
    """Parameters of what the photo hides, given what it shows (paper: Sym-Gauss. Dec.), and the finished head.

    Prior: symmetric points wear the colour they mirror; inner mouth, eyes and hidden skin are coloured by rule.
    """
    head = load_head_model()
    points = prior_hidden_colors(visible.points)
    portrait = points.portrait
    normals = surface_normals(points, head)
    if model.sym_gaussian_decoder is not None:
        points = _decode_hidden(model, points, normals, head)
    if model.mouth_tone is not None:
        points = _toned_mouth(model, points, head)
    if model.densify is not None:
        points = _densified(model, points, normals)
        normals = surface_normals(points, head)
    expression_basis = personal_expression_basis(head, portrait.vertices, portrait.fit.expression)
    if model.deformation is not None:
        expression_basis = expression_basis + _action_residual(model, points)
    return GaussianHead(
        positions=torch.from_numpy(points.positions),
        covars=torch.from_numpy(covars_from_axes(points.axes)),
        colors=torch.from_numpy(points.colors),
        opacities=torch.from_numpy(points.opacities),
        faces=torch.from_numpy(points.faces),
        barycentric=torch.from_numpy(points.barycentric),
        expression_weight=torch.from_numpy(points.expression_weight),
        pose_weight=torch.from_numpy(points.pose_weight),
        origin=torch.from_numpy(points.origin),
        normals=torch.from_numpy(lit_normals(points, normals)),
        light=torch.from_numpy(fit_light(points, normals, head)),
        vertices=torch.from_numpy(portrait.vertices),
        triangles=torch.from_numpy(head.faces),
        expression_basis=torch.from_numpy(expression_basis),
        source_expression=torch.from_numpy(portrait.fit.expression),
        neck=torch.from_numpy(head.neck),
        viewmat=torch.from_numpy(portrait.camera.viewmat),
        K=torch.from_numpy(portrait.camera.K),
        background=torch.from_numpy(np.round(portrait.background * 255).astype(np.uint8)),
        alpha=torch.from_numpy(np.round(portrait.alpha * 255).astype(np.uint8)),
        photo=torch.from_numpy(np.round(portrait.photo * 255).astype(np.uint8)),
        crop_to_photo=torch.from_numpy(portrait.crop_to_photo),
        warnings=portrait.warnings,
    )


def prior_hidden_colors(points: PointCloud) -> PointCloud:
    """The cloud with colours by rule on the interior points, given the visible ones."""
    colors = points.colors.copy()
    hidden = np.flatnonzero(points.origin == INTERIOR)
    colors[hidden] = hidden_colors(points, hidden, load_head_model())
    return replace(points, colors=colors)


@torch.no_grad()
def _decode_visible(model: MGGTalkModel, points: PointCloud) -> PointCloud:
    head = load_head_model()
    inputs = visible_inputs(points, surface_normals(points, head), head)
    features, code = identity_of(model, points, inputs.pixels, model.gaussian_decoder)
    residual = model.gaussian_decoder(inputs.features.to(model.device), features, code)
    return apply_residual(points, points.origin == VISIBLE, residual.cpu())


@torch.no_grad()
def _decode_hidden(model: MGGTalkModel, points: PointCloud, normals: np.ndarray, head: HeadModel) -> PointCloud:
    hidden = points.origin != VISIBLE
    inputs = hidden_inputs(points, np.flatnonzero(hidden), normals, head)
    features, code = identity_of(model, points, inputs.pixels, model.sym_gaussian_decoder)
    residual = model.sym_gaussian_decoder(
        inputs.features[None].to(model.device), features[None], code, inputs.head_map.to(model.device),
        inputs.directions[None].to(model.device),
    )  # fmt: skip
    # Mouth and eyes keep the prior's colours: what was learned there is an average of teeth, tongue and dark, which
    # scores better (+0.8 dB on real mouths) and looks like a grey plug.
    outer = head.outer_skin[points.faces[hidden]]
    decoded = apply_residual(points, hidden, residual.cpu().where(torch.from_numpy(outer)))
    hidden[hidden] = outer & (decoded.colors[hidden] != points.colors[hidden]).any(1)
    return _as_varied_as_nearby(decoded, hidden, points.colors)


@torch.no_grad()
def _toned_mouth(model: MGGTalkModel, points: PointCloud, head: HeadModel) -> PointCloud:
    """The cloud with the tone of teeth, tongue and cavity that this face and its light call for."""
    _, code = identity_of(model, points, torch.zeros((1, 2), dtype=torch.int64), model.mouth_tone)
    part = np.where(points.origin == VISIBLE, -1, mouth_part(points.faces, head))
    colors = toned(torch.from_numpy(points.colors), torch.from_numpy(part), model.mouth_tone(code).cpu())
    return replace(points, colors=colors.clamp(0, 1).numpy())


NEARBY_SHARE, NEARBY_COUNT, NEARBY_MARGIN = 16, 16, 0.015
"""One in so many visible points is asked for its colour; how many of these, the nearest, a hidden point is compared
with; and how far from the prior a decoded colour may be where they are all alike."""


def _as_varied_as_nearby(points: PointCloud, chosen: np.ndarray, prior: np.ndarray) -> PointCloud:
    """Chosen points (N,) bool changed from their prior colours (N, 3) no more than the photo's colours vary near them.

    The network knows brown hair and brown skin; a grey photo, a bald or a white-haired head is the photo's to decide.
    """
    shown = np.flatnonzero((points.origin == VISIBLE) & (points.pose_weight > 0.5))[::NEARBY_SHARE]
    _, near = cKDTree(points.positions[shown]).query(
        points.positions[chosen], k=range(1, min(NEARBY_COUNT, len(shown)) + 1), workers=-1
    )
    spread = np.sqrt(points.colors[shown[near]].var(1).sum(1, keepdims=True)) + NEARBY_MARGIN
    shades = np.cov(points.colors[shown], rowvar=False)
    among_shades = shades @ np.linalg.inv(shades + NEARBY_MARGIN**2 * np.eye(3))  # a grey photo has no other direction
    change = (points.colors[chosen] - prior[chosen]) @ among_shades.T.astype(np.float32)
    size = np.linalg.norm(change, axis=1, keepdims=True)
    colors = points.colors.copy()
    colors[chosen] = prior[chosen] + change * (spread / np.maximum(size, spread))
    return replace(points, colors=colors)


@torch.no_grad()
def _densified(model: MGGTalkModel, points: PointCloud, normals: np.ndarray) -> PointCloud:
    """The cloud with children (paper: Densify)."""
    features, code = identity_of(model, points, torch.from_numpy(points.pixels.clip(0)), model.densify)
    inputs = parent_inputs(points, normals).to(model.device)
    return add_children(points, model.densify(inputs, features, code).cpu())


@torch.no_grad()
def _action_residual(model: MGGTalkModel, points: PointCloud) -> np.ndarray:
    """This person's corrections of the actions (52, V, 3) m (paper: Deformation)."""
    _, code = identity_of(model, points, torch.zeros((1, 2), dtype=torch.int64), model.deformation)
    return model.deformation(code).cpu().numpy()


def identity_of(
    model: MGGTalkModel, points: PointCloud, pixels: torch.Tensor, asking: nn.Module
) -> tuple[torch.Tensor, torch.Tensor]:
    """Identity features (n, F) at pixels (n, 2) and the person's code (1, C), on the model's device.

    Zeros of the sizes the `asking` network expects when the model has no identity encoder (an ablation).
    """
    if model.identity_encoder is None:
        return (
            torch.zeros(len(pixels), asking.features, device=model.device),
            torch.zeros(1, asking.code, device=model.device),
        )
    portrait = points.portrait
    image, alpha = torch.from_numpy(portrait.image), torch.from_numpy(portrait.alpha)
    inputs = encoder_input(image, alpha, torch.from_numpy(points.depth_map.normals)).to(model.device)
    feature_map, code = model.identity_encoder(inputs)
    return sample_features(feature_map, pixels.to(model.device), len(portrait.image)), code
