"""SGP, symmetric Gaussian prediction: from points to a head of Gaussians, first what is seen, then what is hidden."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from ..geometry.symmetry import select
from ..headmodel.model import load_head_model
from ..model import MGGTalkModel
from ..rendering.rasterizer import render
from ..types import INTERIOR, VISIBLE, PointCloud
from .hidden_colors import hidden_colors
from .head import GaussianHead, covars_from_axes

SHARPENING_ITERATIONS = 4

SHARPENING_STEP = 0.8
"""Van Cittert relaxation: how much of the remaining error one iteration adds to the colours."""


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
    seen = select(points, visible)
    rows, columns = seen.pixels.T
    colors = seen.colors.copy()
    target = portrait.image[rows, columns]
    covars = torch.from_numpy(covars_from_axes(seen.axes))
    means, opacities = torch.from_numpy(seen.positions), torch.from_numpy(seen.opacities)
    viewmat, K = torch.from_numpy(portrait.camera.viewmat), torch.from_numpy(portrait.camera.K)
    background = torch.from_numpy(portrait.background)
    # At soft edges the colour is mostly someone else's: nothing to learn from the difference there.
    trust = (portrait.alpha[rows, columns] > 0.9)[:, None] * np.float32(SHARPENING_STEP)
    size = portrait.image.shape[0]
    for _ in range(SHARPENING_ITERATIONS):
        rendered = render(
            means, None, None, opacities, torch.from_numpy(colors), viewmat, K, size, size, background, covars=covars
        )
        colors = np.clip(colors + trust * (target - rendered.rgb.numpy()[rows, columns]), 0, 1)
    all_colors = points.colors.copy()
    all_colors[visible] = colors
    return VisibleGaussians(replace(points, colors=all_colors))


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
