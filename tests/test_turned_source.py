"""Photos in three-quarter view: turned to the camera, their far half gives way to the near half's mirror image."""

import numpy as np
import pytest
import torch

from mggtalk_core.evaluation.image_metrics import psnr
from mggtalk_core.gaussians.far_half import FarHalf
from mggtalk_core.gaussians.head import GaussianHead
from mggtalk_core.gaussians.opacities import Opacities
from mggtalk_core.gaussians.sgp import predict_invisible, predict_visible
from mggtalk_core.geometry.dsgr import build_points, estimate_depth
from mggtalk_core.geometry.projection import project, to_camera
from mggtalk_core.geometry.substitutes import FACING, SEEN_OBLIQUELY, _comparison, facing_camera
from mggtalk_core.geometry.symmetry import select
from mggtalk_core.headmodel.model import load_head_model
from mggtalk_core.model import MGGTalkModel
from mggtalk_core.portrait.analysis import analyze_portrait
from mggtalk_core.rendering.camera import orbit
from mggtalk_core.rendering.frames import render_frames
from mggtalk_core.rendering.rasterizer import render
from mggtalk_core.types import OBLIQUE, SUBSTITUTE, SYMMETRIC, Camera, Motion, PointCloud, Portrait

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
    seen = Opacities.of(head).seen_by(camera, head.source_expression.numpy(), np.zeros(3))
    drawn = render(
        head.positions, None, None, torch.from_numpy(seen), head.colors, torch.from_numpy(camera.viewmat),
        torch.from_numpy(camera.K), camera.width, camera.height, covars=head.covars,
    ).rgb.numpy()  # fmt: skip
    columns, rows = project(to_camera(head.vertices.numpy(), camera), camera)[:, :2].astype(int).T
    return drawn[rows.clip(0, camera.height - 1), columns.clip(0, camera.width - 1)]


def test_turned_to_the_camera_both_halves_are_alike(turned, points, demo_portrait, monkeypatch):
    model, head_model = MGGTalkModel(), load_head_model()
    as_seen = without_substitutes(turned, monkeypatch)
    far = facing_camera(turned, head_model) < SEEN_OBLIQUELY
    in_front = facing_camera(demo_portrait, head_model) > FACING
    skin = np.isin(np.arange(len(far)), head_model.faces[head_model.outer_skin])
    far = np.flatnonzero(far & in_front & skin & (head_model.mirror_vertices >= 0))
    unlike = []
    for cloud in (points, as_seen):
        colors = colors_at_vertices(predict_invisible(model, predict_visible(model, cloud)), demo_portrait.camera)
        unlike.append(np.abs(colors[far] - colors[head_model.mirror_vertices[far]]).mean())
    assert len(far) > 200
    assert unlike[0] < 0.8 * unlike[1]


def test_the_photo_is_reproduced_as_if_nothing_had_given_way(turned, points, monkeypatch):
    model, errors = MGGTalkModel(), []
    for cloud in (points, without_substitutes(turned, monkeypatch)):
        head = predict_invisible(model, predict_visible(model, cloud))
        errors.append(psnr(frame(head, 0.0)[0], turned.image, turned.alpha > 0.5))
    assert errors[0] > errors[1] - 0.2


def frame(head: GaussianHead, yaw: float) -> tuple[np.ndarray, np.ndarray]:
    """rgb and alpha 0..1 of the head turned by a yaw, degrees, from where the photo has it."""
    motion = Motion(head.source_expression.numpy()[None], np.radians([[0, yaw, 0]]).astype(np.float32),
                    np.zeros((1, 3), np.float32), 25.0)  # fmt: skip
    rgb, alpha = next(render_frames(head, motion, size=head.crop_size))
    return rgb / 255, alpha / 255


def test_one_far_half_fades_into_the_other_as_the_head_turns(turned, points):
    model = MGGTalkModel()
    head = predict_invisible(model, predict_visible(model, points))
    towards = -np.sign(YAW)
    far_half, none = FarHalf.of(head), np.zeros(3)
    assert far_half.turned(none, head.camera) == 0
    assert far_half.turned(np.radians([0, -20 * towards, 0]), head.camera) == 0  # farther away still
    assert far_half.turned(np.radians([0, 20 * towards, 0]), head.camera) == 1
    around = far_half.turned(none, orbit(head.camera, np.radians(10), 0.0))
    back = far_half.turned(none, orbit(head.camera, np.radians(-10), 0.0))
    assert sorted([around, back]) == [0, pytest.approx(0.5, abs=0.02)]  # as a camera goes around it

    seen = [Opacities.of(head).seen_by(head.camera, head.source_expression.numpy(), np.radians([0, yaw * towards, 0]))
            for yaw in (0, 10, 20)]  # fmt: skip
    oblique, substitutes = (head.origin.numpy() == origin for origin in (OBLIQUE, SUBSTITUTE))
    np.testing.assert_allclose(seen[0][oblique], head.opacities.numpy()[oblique], atol=1e-6)
    assert seen[0][substitutes].max() == 0 and seen[2][oblique].max() == 0
    np.testing.assert_allclose(seen[2][substitutes], head.opacities.numpy()[substitutes], atol=1e-6)
    assert ((1 - seen[1][substitutes]) * (1 - seen[1][oblique].max()) < 0.05).all()  # nothing is seen through both
    exported = head.gaussians().opacities.numpy()
    np.testing.assert_array_equal(exported, seen[2])  # who looks at a file may look from anywhere

    saved_earlier = head.without(OBLIQUE)
    shown = Opacities.of(saved_earlier).seen_by(head.camera, head.source_expression.numpy(), none)
    kept = saved_earlier.origin.numpy() == SUBSTITUTE
    np.testing.assert_array_equal(shown[kept], saved_earlier.opacities.numpy()[kept])

    solid = frame(head, 6.0 * towards)[1] > 0.98
    assert (frame(head, 10.0 * towards)[1][solid & (frame(head, 14.0 * towards)[1] > 0.98)] > 0.9).mean() > 0.99


def without_substitutes(portrait: Portrait, monkeypatch: pytest.MonkeyPatch) -> PointCloud:
    """The portrait's points if its far half is left as the photo shows it."""
    def as_seen(visible: PointCloud, _) -> tuple[PointCloud, PointCloud, PointCloud]:
        none = select(visible, np.zeros(0, int))
        return visible, none, none

    monkeypatch.setattr("mggtalk_core.geometry.dsgr.with_substitutes", as_seen)
    return build_points(portrait, estimate_depth(portrait))


def test_only_one_side_gives_way(turned, points):
    substitutes = points.positions[points.origin == SUBSTITUTE]
    assert len(substitutes) > 500
    assert (np.sign(substitutes[:, 0]) == np.sign(np.median(substitutes[:, 0]))).mean() > 0.99
    away = turned.camera.viewmat[2, 0]
    assert np.sign(np.median(substitutes[:, 0])) == np.sign(away)


def far_and_near() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions (n, 3) m along a cheek and colours (n, 3) of the far and the near half there."""
    rng = np.random.default_rng(0)
    positions = np.column_stack([np.zeros(3000), np.linspace(0, 0.1, 3000), np.zeros(3000)])
    near = np.array([0.8, 0.6, 0.5]) * rng.uniform(0.95, 1.05, (3000, 1))
    return positions, near * np.array([0.84, 0.8, 0.76]), near


def test_hair_over_one_half_neither_gives_way_nor_darkens_skin():
    positions, far, near = far_and_near()
    rng = np.random.default_rng(0)
    over_far, over_near = positions[:, 1] < 0.03, positions[:, 1] > 0.07
    far[over_far] = rng.uniform(0.05, 0.2, (over_far.sum(), 1))
    near[over_near] = rng.uniform(0.05, 0.1, (over_near.sum(), 1))
    places = np.array([[0, 0.01, 0], [0, 0.05, 0], [0, 0.09, 0]])
    same, tone = _comparison(places, positions, far, near)
    assert same[1] > 0.95 and max(same[0], same[2]) < 0.3
    np.testing.assert_allclose(tone[1], [0.84, 0.8, 0.76], atol=0.03)


def test_tone_follows_the_light_over_the_far_half_but_not_its_sheen():
    positions, far, near = far_and_near()
    far *= np.linspace(1.2, 0.85, 3000)[:, None]
    places = np.array([[0, 0.0, 0], [0, 0.1, 0]])
    _, tone = _comparison(places, positions, far, near)
    assert tone[0].mean() > 0.9 and tone[1].mean() < 0.75
    _, shining = _comparison(places, positions, 0.9 * near + 0.25, near)
    assert 1.1 < shining.mean() < 1.35  # the colours' mean is 1.35 times as bright


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
