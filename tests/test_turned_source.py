"""Photos in three-quarter view: their far half, seen in a few pixels, gives way to the near half's mirror image."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_erosion

from mggtalk_core.evaluation.image_metrics import psnr
from mggtalk_core.gaussians.head import GaussianHead
from mggtalk_core.gaussians.sgp import predict_invisible, predict_visible
from mggtalk_core.geometry.dsgr import build_points, estimate_depth
from mggtalk_core.geometry.projection import project, to_camera
from mggtalk_core.geometry.symmetry import FACING, OBLIQUE, _tone, facing_camera, select
from mggtalk_core.headmodel.model import load_head_model
from mggtalk_core.model import MGGTalkModel
from mggtalk_core.portrait.analysis import analyze_portrait
from mggtalk_core.rendering.frames import render_frames
from mggtalk_core.rendering.rasterizer import render
from mggtalk_core.types import SUBSTITUTE, SYMMETRIC, Camera, Motion, PointCloud, Portrait

YAW = 38


@pytest.fixture(scope="module")
def turned(demo_head):
    """The demo head photographed at that yaw, analysed."""
    return photographed(demo_head, YAW)


def photographed(head: GaussianHead, yaw: float) -> Portrait:
    """A head's picture at a yaw, degrees, analysed."""
    rotation = np.radians([[0, yaw, 0]]).astype(np.float32)
    motion = Motion(head.source_expression.numpy()[None], rotation, np.zeros((1, 3), np.float32), 25.0)
    photo, _ = next(render_frames(head, motion, size=256))
    return analyze_portrait(photo.astype(np.float32) / 255, size=256)


@pytest.fixture(scope="module")
def points(turned):
    return build_points(turned, estimate_depth(turned))


def colors_at_vertices(head: GaussianHead, camera: Camera) -> np.ndarray:
    """What (V, 3) a camera in the canonical frame sees where the head model's vertices are."""
    drawn = render(
        head.positions, None, None, head.opacities, head.colors, torch.from_numpy(camera.viewmat),
        torch.from_numpy(camera.K), camera.width, camera.height, covars=head.covars,
    ).rgb.numpy()  # fmt: skip
    columns, rows = project(to_camera(head.vertices.numpy(), camera), camera)[:, :2].astype(int).T
    return drawn[rows.clip(0, camera.height - 1), columns.clip(0, camera.width - 1)]


def test_turned_to_the_camera_both_halves_are_alike(turned, points, demo_portrait, monkeypatch):
    model, head_model = MGGTalkModel(), load_head_model()
    as_seen = without_substitutes(turned, monkeypatch)
    far = facing_camera(turned, head_model) < OBLIQUE
    in_front = facing_camera(demo_portrait, head_model) > FACING
    skin = np.isin(np.arange(len(far)), head_model.faces[head_model.outer_skin])
    far = np.flatnonzero(far & in_front & skin & (head_model.mirror_vertices >= 0))
    unlike = []
    for cloud in (points, as_seen):
        colors = colors_at_vertices(predict_invisible(model, predict_visible(model, cloud)), demo_portrait.camera)
        unlike.append(np.abs(colors[far] - colors[head_model.mirror_vertices[far]]).mean())
    assert len(far) > 200
    assert unlike[0] < 0.8 * unlike[1]


def test_the_photo_is_still_reproduced(turned, points, monkeypatch):
    model, errors = MGGTalkModel(), []
    for cloud in (points, without_substitutes(turned, monkeypatch)):
        head = predict_invisible(model, predict_visible(model, cloud))
        drawn = render(
            head.positions, None, None, head.opacities, head.colors, torch.from_numpy(turned.camera.viewmat),
            torch.from_numpy(turned.camera.K), 256, 256, torch.from_numpy(turned.background), covars=head.covars,
        ).rgb.numpy()  # fmt: skip
        errors.append(psnr(drawn, turned.image, turned.alpha > 0.5))
    assert errors[0] > errors[1] - 4.5  # the half that gave way is the other one's image


def without_substitutes(portrait: Portrait, monkeypatch: pytest.MonkeyPatch) -> PointCloud:
    """The portrait's points if its far half is left as the photo shows it."""
    as_seen = lambda visible, _: (visible, select(visible, np.zeros(0, int)))  # noqa: E731
    monkeypatch.setattr("mggtalk_core.geometry.dsgr.with_substitutes", as_seen)
    return build_points(portrait, estimate_depth(portrait))


def test_only_one_side_gives_way(turned, points):
    substitutes = points.positions[points.origin == SUBSTITUTE]
    assert len(substitutes) > 500
    assert (np.sign(substitutes[:, 0]) == np.sign(np.median(substitutes[:, 0]))).mean() > 0.99
    away = turned.camera.viewmat[2, 0]
    assert np.sign(np.median(substitutes[:, 0])) == np.sign(away)


def test_the_far_half_stays_within_the_photos_outline(turned, points):
    """Faces are narrower than the fitted ones at times; 5 pixels here."""
    narrower = replace(turned, alpha=(binary_erosion(turned.alpha > 0.5, iterations=5)).astype(np.float32))
    cloud = build_points(narrower, estimate_depth(narrower))
    substitutes = cloud.positions[cloud.origin == SUBSTITUTE]
    below_eyes = substitutes[:, 1] > 0.03
    columns, rows = project(to_camera(substitutes[below_eyes], turned.camera), turned.camera)[:, :2].astype(int).T
    assert (narrower.alpha[rows, columns] > 0.5).all()
    assert len(substitutes) > 0.8 * (points.origin == SUBSTITUTE).sum()


def test_hair_over_the_far_half_does_not_darken_its_skin():
    rng = np.random.default_rng(0)
    near = np.array([0.8, 0.6, 0.5]) * rng.uniform(0.95, 1.05, (400, 1))
    far = near * np.array([0.9, 0.8, 0.7])
    far[:180] = rng.uniform(0.05, 0.3, (180, 1))
    np.testing.assert_allclose(_tone(far, near), [0.9, 0.8, 0.7], atol=0.03)


def test_a_frontal_photo_keeps_all_it_shows(demo_points):
    assert not (demo_points.origin == SUBSTITUTE).any()


@pytest.mark.parametrize("yaw", [-18, 18])
def test_no_mirrored_lips_hang_in_the_far_corner_of_a_slightly_turned_mouth(demo_head, yaw):
    head, portrait = load_head_model(), photographed(demo_head, yaw)
    cloud = build_points(portrait, estimate_depth(portrait))
    mirrored = cloud.positions[cloud.origin == SYMMETRIC]
    mirrored = mirrored[head.around_mouth(mirrored, portrait.vertices)]
    far = (mirrored[:, 0] - head.mouth_centre(portrait.vertices)[0]) * portrait.camera.viewmat[2, 0] > 0
    assert not far.any()
