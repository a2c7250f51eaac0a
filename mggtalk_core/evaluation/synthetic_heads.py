"""Held-out synthetic people: what the source hides, seen from the side; depth; the grid of splats seen closer.

Each person is photographed once, the pipeline builds the head from that picture, and the same person, photographed from
both sides under a light that turns with the head, is the truth no clip has. The people's seeds start where training
never gets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from ..gaussians.head import GaussianHead
from ..gaussians.opacities import Opacities
from ..geometry.dsgr import estimate_depth
from ..geometry.projection import project, to_camera
from ..headmodel.model import load_head_model
from ..model import MGGTalkModel
from ..rendering.rasterizer import render
from ..rendering.smoothing import SmoothingFilter
from ..training.makehuman import load_wardrobe
from ..training.synthetic import photograph
from ..training.synthetic_pairs import Scene, make_scene, witness
from ..types import Camera
from ..weights import load_model
from .image_metrics import psnr
from .protocols import ABLATIONS, SOFT_SIGMA, check_ablations, make_report, variants_of

FIRST_SEED = 1_000_000
SIDES = (-35.0, 35.0)
"""Degrees of yaw from the source."""

HIDDEN_BEHIND = 0.006
"""Metres behind the surface the source sees from which on a point is hidden from it."""

ZOOM = 3
"""How much closer the grid is looked for. Twice as close, a pixel lies as far from the splats on either side, and the
shortest period can't be seen."""

BLOCKS = (1, 2, 4)
"""Sides, source pixels, of the blocks that Gaussians stand for: a grid would show at these periods."""


def synthetic_heads(
    assets: str | Path,
    *,
    people: int = 10,
    size: int = 256,
    checkpoint: str | None = None,
    ablate: Sequence[str] = (),
    progress: Callable[[int, int], None] | None = None,
) -> dict:
    """Compares heads of people never trained on with the truth, variants as in `protocols.self_reenactment`.

    Args:
        assets: MakeHuman's asset folder.

    Raises:
        InputError: no such folder, or an unknown ablation.
    """
    check_ablations(ablate)
    model, wardrobe = load_model(checkpoint), load_wardrobe(Path(assets))
    model = replace(model, matting=None)  # their masks are simulated: the true one, as wrong as real ones
    present = [name for name in ablate if not ABLATIONS[name] or getattr(model, ABLATIONS[name]) is not None]
    persons = []
    for number in range(people):
        scene = make_scene(np.random.default_rng(FIRST_SEED + number), wardrobe, size)
        prior_depth = estimate_depth(scene.portrait).depth
        scale, error_of = _depth_truth(scene, prior_depth)
        sides = [_side(scene, wardrobe, yaw, size, scale) for yaw in SIDES]
        closer = scene.view.camera.resized(ZOOM * size, ZOOM * size)
        background = np.zeros((ZOOM * size, ZOOM * size, 3), np.float32)
        true_grid = grid_energy(
            photograph(scene.person, scene.expression, closer, scene.light, background, wardrobe).image, scene, size
        )
        rows = {}
        for variant in variants_of(scene.portrait, model, present, lambda _, same=scene.portrait: same):
            if variant.head is None or not variant.expression or variant.landmarks_alone:
                continue
            scores = [_side_scores(variant.head, *side, variant.blur) for side in sides]
            row = {name: float(np.nanmean([score[name] for score in scores])) for name in scores[0]}
            near = _drawn(variant.head, scene.portrait.camera.resized(ZOOM * size, ZOOM * size))
            row["grid"] = grid_energy(near, scene, size) / true_grid
            refined = variant.name != "without geo-refine" and "prior" not in variant.name
            depth = estimate_depth(scene.portrait, model=model if refined else MGGTalkModel()).depth
            rows[variant.name] = {**row, **error_of(depth)}
        persons.append({"clip": f"person {FIRST_SEED + number}", "frames": len(SIDES), "variants": rows})
        if progress:
            progress(number + 1, people)
    settings = {"people": people, "size": size, "yaw": SIDES[1], "checkpoint": model.checkpoint}
    return make_report("held-out synthetic people", persons, settings, {})


def _depth_truth(scene: Scene, prior: np.ndarray) -> tuple[float, Callable[[np.ndarray], dict[str, float]]]:
    """The scale of true to prior depth (a photo does not tell it), and the error of a depth map in millimetres."""
    known = np.isfinite(prior) & np.isfinite(scene.view.depth) & (scene.portrait.alpha > 0.5)
    known[int(scene.portrait.landmarks[152, 1]) :] = False  # below the chin are clothes, which are left as they are
    face = known & scene.view.on_head
    scale = float(np.median((scene.view.depth / prior)[face]))

    def error_of(depth: np.ndarray) -> dict[str, float]:
        error = 1000 * np.abs(scene.view.depth / scale - depth)
        return {"depth_mm": float(error[known].mean()), "skin_depth_mm": float(error[face].mean())}

    return scale, error_of


def _side(scene: Scene, wardrobe, yaw: float, size: int, scale: float):
    """Truth (S, S, 3) from a side over black, its camera in the fitted frame, the head's pixels and the hidden ones."""
    view, camera = witness(scene, wardrobe, yaw, 0.0, size, scale)
    rows, columns = np.nonzero(np.isfinite(view.depth) & (view.alpha > 0.99))
    depth = view.depth[rows, columns]
    rays = np.column_stack([columns + 0.5, rows + 0.5, np.ones(len(rows))]) @ np.linalg.inv(camera.K).T
    points = (np.column_stack([rays * depth[:, None], np.ones(len(rows))]) @ np.linalg.inv(camera.viewmat).T)[:, :3]
    source = scene.portrait.camera
    pixels = project(to_camera(points, source), source)
    column, row = np.floor(pixels[:, :2]).astype(int).clip(0, size - 1).T
    seen = scene.view.depth[row, column] / scale
    above_chin = points[:, 1] < load_head_model().landmarks_of(scene.portrait.vertices)[152, 1]
    behind = np.isnan(seen) | (pixels[:, 2] > seen + HIDDEN_BEHIND)
    head, hidden = np.zeros((2, size, size), bool)
    head[rows, columns] = above_chin
    hidden[rows, columns] = above_chin & behind
    return view.image, camera, head, hidden


def _drawn(head: GaussianHead, camera: Camera) -> np.ndarray:
    """The head at rest (S, S, 3) over black."""
    means, covars = head.positions.numpy(), head.covars.numpy().copy()
    SmoothingFilter(head).smooth(means, covars, camera)
    seen = Opacities.of(head).seen_by(camera, head.source_expression.numpy(), np.zeros(3))
    drawn = render(
        head.positions, None, None, torch.from_numpy(seen), head.colors, torch.from_numpy(camera.viewmat),
        torch.from_numpy(camera.K), camera.width, camera.height, covars=torch.from_numpy(covars),
    )  # fmt: skip
    return drawn.rgb.numpy().clip(0, 1)


def _side_scores(head: GaussianHead, truth, camera: Camera, on_head, hidden, blur: float) -> dict[str, float]:
    picture = _drawn(head, camera)
    if blur:
        picture = gaussian_filter(picture, (blur, blur, 0))
    soft = gaussian_filter(picture, (SOFT_SIGMA, SOFT_SIGMA, 0))
    return {
        "psnr_hidden": psnr(picture, truth, hidden),
        "psnr_hidden_soft": psnr(soft, truth, hidden),
        "psnr_head": psnr(picture, truth, on_head),
    }


def grid_energy(picture: np.ndarray, scene: Scene, size: int) -> float:
    """How much a face seen three times as large has of the splats' periods, relative to the frequencies around them.

    The face's square under a Hann window; along rows and columns, the power at the frequencies of blocks of 1, 2 and 4
    source pixels over the mean of their neighbours'; the largest of these counts. 1 is a picture without a grid.
    """
    centre = ZOOM * scene.view.landmarks[:468].mean(0)
    half = int(ZOOM * 0.55 * np.ptp(scene.view.landmarks[:468, 0]) // 2)
    column, row = centre.astype(int).clip(half, ZOOM * size - half)
    patch = picture[row - half : row + half, column - half : column + half].mean(2)
    window = np.hanning(len(patch))
    power = np.abs(np.fft.fft2((patch - patch.mean()) * window[:, None] * window)) ** 2
    worst = 0.0
    for spectrum in (power[:, :3].sum(1), power[:3].sum(0)):
        for block in BLOCKS:
            bin_ = round(len(patch) / (ZOOM * block))
            around = np.r_[spectrum[bin_ - 8 : bin_ - 2], spectrum[bin_ + 3 : bin_ + 9]]
            worst = max(worst, float(spectrum[bin_ - 1 : bin_ + 2].mean() / around.mean()))
    return worst
