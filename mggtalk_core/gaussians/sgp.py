"""SGP, symmetric Gaussian prediction: from points to a head of Gaussians, first what is seen, then what is hidden."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from ..geometry.blocks import block_means
from ..geometry.surfels import MAX_OPACITY
from ..geometry.symmetry import select
from ..headmodel.model import HeadModel, load_head_model
from ..headmodel.personal import personal_expression_basis
from ..model import MGGTalkModel
from ..rendering.rasterizer import render
from ..types import INTERIOR, VISIBLE, WORN, PointCloud, is_hidden, is_shown
from .color_bounds import bounded_change
from .decoders import apply_residual, hidden_inputs, mouth_part, toned, visible_inputs
from .densify import add_children, parent_inputs
from .edge import Edge, TowardsBackground
from .edge_colors import color_range, edge_tints
from .head import GaussianHead, covars_from_axes
from .hidden_colors import behind_ears, hidden_colors, under_dark_hair
from .identity_encoder import encoder_input, sample_features
from .light import fit_light, lit_normals, surface_normals
from .monochrome import in_the_photos_tint
from .strands import with_strands
from .turning_tone import as_turned, of_points, softened, turned_changes

SHARPENING_ITERATIONS = 8

SHARPENING_STEP = 0.8
"""Van Cittert relaxation: how much of the remaining error one iteration adds."""

CONTRAST_FLOOR = 0.02
"""Squared difference, sRGB, of spectacles from the face behind them below which it tells less and less how much of a
pixel is theirs."""

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
    visible = np.flatnonzero(is_shown(points.origin))
    colors, opacities = points.colors.copy(), points.opacities.copy()
    colors[visible], opacities[visible] = _reproduce_photo(select(points, visible))
    worn = np.flatnonzero((points.origin == WORN) & (points.pixels[:, 0] >= 0))
    if len(worn):
        shown = replace(points, colors=colors, opacities=opacities)
        colors[worn], opacities[worn] = _reproduce_spectacles(shown, visible, worn)
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
    edge = Edge.of(portrait.alpha, seen.depth_map.outline.bare)
    darkest, brightest = (bound[rows, columns] for bound in color_range(portrait, seen.depth_map, edge))
    tints = edge_tints(portrait, seen.depth_map, edge)
    number = tints.number[rows, columns]
    tinted, number = np.flatnonzero(number >= 0), number[number >= 0]
    towards = TowardsBackground.of(portrait.image, portrait.background[edge.pixels], edge)
    beside = towards.number[rows, columns]
    at_edge, beside = np.flatnonzero(beside >= 0), beside[beside >= 0]
    # What is taken out of an edge's colours shows through it instead, or the photo's own view would be harder than it.
    share = towards.share(portrait.image[rows, columns][at_edge], beside)
    alpha[at_edge] *= 1 - share
    soft[at_edge] |= share > 0
    soft = np.flatnonzero(soft)
    soft_rows, soft_columns = rows[soft], columns[soft]
    colors, opacities = seen.colors.copy(), seen.opacities.copy()
    wanted = block_means(portrait.image, rows, columns, seen.steps)
    for _ in range(SHARPENING_ITERATIONS):
        rendered = render(
            means, None, None, torch.from_numpy(opacities), torch.from_numpy(colors), viewmat, K, size, size,
            background, covars=covars,
        )  # fmt: skip
        missing_alpha = alpha[soft] - rendered.alpha.numpy()[soft_rows, soft_columns]
        opacities[soft] = (opacities[soft] + SHARPENING_STEP * missing_alpha).clip(0.01, MAX_OPACITY)
        missing_color = wanted - block_means(rendered.rgb.numpy(), rows, columns, seen.steps)
        colors = np.clip(colors + color_step * missing_color, darkest, brightest)
        colors[tinted] = tints.kept(colors[tinted], number)
        colors[at_edge] = towards.kept(colors[at_edge], beside).clip(0, 1)
    return colors.astype(np.float32), opacities


def _reproduce_spectacles(points: PointCloud, visible: np.ndarray, worn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Colours (n, 3) and opacities (n,) with which points of spectacles, `worn` (n,), before the `visible` ones render
    to the photo.

    Rims are narrow and dark: where colours can't get darker, opacities tell how far they reach.
    """
    camera, portrait = points.portrait.camera, points.portrait
    both = select(points, np.concatenate([visible, worn]))
    size, colors, opacities = len(portrait.image), both.colors.copy(), both.opacities.copy()
    rows, columns = points.pixels[worn].T
    own_colors, own_opacities = colors[len(visible) :], opacities[len(visible) :]
    means, covars = torch.from_numpy(both.positions), torch.from_numpy(covars_from_axes(both.axes))
    view = (torch.from_numpy(camera.viewmat), torch.from_numpy(camera.K), size, size)
    background, behind = torch.from_numpy(portrait.background), portrait.image[rows, columns]
    for _ in range(SHARPENING_ITERATIONS):
        rendered = render(
            means, None, None, torch.from_numpy(opacities), torch.from_numpy(colors), *view, background, covars=covars
        )
        missing = (portrait.spectacles.image - rendered.rgb.numpy())[rows, columns]
        before = own_colors - behind
        share = (missing * before).sum(1) / ((before**2).sum(1) + CONTRAST_FLOOR)
        own_opacities[:] = (own_opacities + SHARPENING_STEP * share).clip(0.01, MAX_OPACITY)
        own_colors[:] = (own_colors + SHARPENING_STEP * missing).clip(0, 1)
    return own_colors, own_opacities


def predict_invisible(model: MGGTalkModel, visible: VisibleGaussians) -> GaussianHead:
    """Parameters of what the photo hides, given what it shows (paper: Sym-Gauss. Dec.), and the finished head.

    Prior: symmetric points wear the colour they mirror; inner mouth, eyes and hidden skin are coloured by rule.
    """
    head = load_head_model()
    portrait, normals = visible.points.portrait, surface_normals(visible.points, head)
    changes = turned_changes(visible.points, head)
    points = prior_hidden_colors(as_turned(visible.points, changes))
    if model.sym_gaussian_decoder is not None:
        points = _decode_hidden(model, points, normals, head)
    points = replace(points, colors=behind_ears(points, head))
    points = with_strands(replace(points, colors=under_dark_hair(points, head)), head)
    points = replace(points, portrait=portrait)
    normals = surface_normals(points, head)
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
        turned_changes=torch.from_numpy(of_points(points, softened(visible.points, changes))),
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
    colors[hidden] = in_the_photos_tint(hidden_colors(points, hidden, load_head_model()), points.portrait.image)
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
    # Mouth and eyes keep the prior's colours: what was learned there is an average of teeth, tongue and dark, which
    # scores better (+0.8 dB on real mouths) and looks like a grey plug.
    hidden = is_hidden(points) & head.outer_skin[points.faces]
    inputs = hidden_inputs(points, np.flatnonzero(hidden), normals, head)
    features, code = identity_of(model, points, inputs.pixels, model.sym_gaussian_decoder)
    residual = model.sym_gaussian_decoder(
        inputs.features[None].to(model.device), features[None], code, inputs.head_map.to(model.device),
        inputs.directions[None].to(model.device),
    )  # fmt: skip
    decoded = apply_residual(points, hidden, residual.cpu())
    hidden[hidden] = (decoded.colors[hidden] != points.colors[hidden]).any(1)
    change = bounded_change(points, hidden, decoded.colors[hidden] - points.colors[hidden], head)
    colors = points.colors.copy()
    colors[hidden] = (colors[hidden] + change).clip(0, 1)
    return replace(decoded, colors=colors)


@torch.no_grad()
def _toned_mouth(model: MGGTalkModel, points: PointCloud, head: HeadModel) -> PointCloud:
    """The cloud with the tone of teeth, tongue and cavity that this face and its light call for."""
    _, code = identity_of(model, points, torch.zeros((1, 2), dtype=torch.int64), model.mouth_tone)
    part = np.where(is_shown(points.origin), -1, mouth_part(points.faces, head))
    colors = toned(torch.from_numpy(points.colors), torch.from_numpy(part), model.mouth_tone(code).cpu())
    return replace(points, colors=colors.clamp(0, 1).numpy())


@torch.no_grad()
def _densified(model: MGGTalkModel, points: PointCloud, normals: np.ndarray) -> PointCloud:
    """The cloud with children (paper: Densify)."""
    parents = np.flatnonzero(points.origin == VISIBLE)
    features, code = identity_of(model, points, torch.from_numpy(points.pixels[parents]), model.densify)
    inputs = parent_inputs(points, normals)[parents].to(model.device)
    return add_children(points, parents, model.densify(inputs, features, code).cpu())


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
