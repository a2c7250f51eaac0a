"""SGP, symmetric Gaussian prediction: from points to a head of Gaussians, first what is seen, then what is hidden."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from ..geometry.surfels import MAX_OPACITY
from ..geometry.symmetry import select
from ..headmodel.model import load_head_model
from ..model import MGGTalkModel
from ..rendering.rasterizer import render
from ..types import INTERIOR, VISIBLE, PointCloud
from .hidden_colors import hidden_colors
from .head import GaussianHead, covars_from_axes

SHARPENING_ITERATIONS = 8

SHARPENING_STEP = 0.8
"""Van Cittert relaxation: how much of the remaining error one iteration adds."""

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
    portrait = points.portrait
    visible = np.flatnonzero(points.origin == VISIBLE)
    colors, opacities = points.colors.copy(), points.opacities.copy()
    colors[visible], opacities[visible] = _reproduce_photo(select(points, visible))
    return VisibleGaussians(replace(points, colors=colors, opacities=opacities))


def _reproduce_photo(seen: PointCloud) -> tuple[np.ndarray, np.ndarray]:
    """Colours (N, 3) and opacities (N,) with which visible surfels render to the photo and its mask.

    Each surfel owns one pixel; what that pixel lacks is added to it, again and again.
    """
    portrait = seen.portrait
    size = portrait.image.shape[0]
    rows, columns = seen.pixels.T
    covars, means = torch.from_numpy(covars_from_axes(seen.axes)), torch.from_numpy(seen.positions)
    viewmat, K = torch.from_numpy(portrait.camera.viewmat), torch.from_numpy(portrait.camera.K)
    background = torch.from_numpy(portrait.background)
    target, alpha = portrait.image[rows, columns], portrait.alpha[rows, columns]
    low, high = COLOR_TRUST
    color_step = SHARPENING_STEP * np.clip((alpha - low) / (high - low), 0, 1)[:, None]
    soft = seen.opacities < MAX_OPACITY  # elsewhere the surface is solid, whatever the mask says
    colors, opacities = seen.colors.copy(), seen.opacities.copy()
    for _ in range(SHARPENING_ITERATIONS):
        rendered = render(
            means, None, None, torch.from_numpy(opacities), torch.from_numpy(colors), viewmat, K, size, size,
            background, covars=covars,
        )  # fmt: skip
        missing_alpha = alpha - rendered.alpha.numpy()[rows, columns]
        opacities = np.where(soft, opacities + SHARPENING_STEP * missing_alpha, opacities).clip(0.01, MAX_OPACITY)
        colors = np.clip(colors + color_step * (target - rendered.rgb.numpy()[rows, columns]), 0, 1)
    return colors.astype(np.float32), opacities.astype(np.float32)


def predict_invisible(model: MGGTalkModel, visible: VisibleGaussians) -> GaussianHead:
    """Parameters of what the photo hides, given what it shows (paper: Sym-Gauss. Dec.), and the finished head.

    Prior: symmetric points wear the colour they mirror; inner mouth, eyes and hidden skin are coloured by rule.
    """
    head = load_head_model()
    points = visible.points
    portrait = points.portrait
    colors = points.colors.copy()
    hidden = np.flatnonzero(points.origin == INTERIOR)
    colors[hidden] = hidden_colors(points, hidden, head)
    return GaussianHead(
        positions=torch.from_numpy(points.positions),
        covars=torch.from_numpy(covars_from_axes(points.axes)),
        colors=torch.from_numpy(colors),
        opacities=torch.from_numpy(points.opacities),
        faces=torch.from_numpy(points.faces),
        barycentric=torch.from_numpy(points.barycentric),
        expression_weight=torch.from_numpy(points.expression_weight),
        pose_weight=torch.from_numpy(points.pose_weight),
        origin=torch.from_numpy(points.origin),
        vertices=torch.from_numpy(portrait.vertices),
        triangles=torch.from_numpy(head.faces),
        expression_basis=torch.from_numpy(head.expression_basis),
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
