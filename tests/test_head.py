"""The head: does it look like the photo, and does it do what it is asked? Seen again by the tracker."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from mggtalk_core.errors import InputError
from mggtalk_core.gaussians.deformation import HeadDeformer, deform_torch
from mggtalk_core.gaussians.head import GaussianHead, covar_matrices
from mggtalk_core.headmodel.arkit import ARKIT_INDEX, ARKIT_NAMES
from mggtalk_core.motion.audio.mouth import mouth_rig
from mggtalk_core.motion.onto_portrait import lip_aperture, onto_portrait
from mggtalk_core.motion.video import DrivingPerson
from mggtalk_core.portrait.tracking import FaceTracker
from mggtalk_core.rendering.frames import render_frames
from mggtalk_core.types import Motion


def _motion(head, frames=1, rotation=(0, 0, 0), **actions):
    """The head's own expression with some actions set, turned by degrees."""
    expression = np.tile(head.source_expression.numpy(), (frames, 1))
    for name, value in actions.items():
        for index in (ARKIT_INDEX[n] for n in ARKIT_NAMES if n in (name, f"{name}Left", f"{name}Right")):
            expression[:, index] = value
    turned = np.tile(np.radians(rotation), (frames, 1)).astype(np.float32)
    return Motion(expression, turned, np.zeros((frames, 3), np.float32), 25.0)


def _seen(head, **what):
    """The tracker's view of a rendered frame."""
    rgb, _ = next(render_frames(head, _motion(head, **what), size=384))
    with FaceTracker(max_faces=1) as tracker:
        return tracker.detect(rgb)[0]


def test_the_source_view_is_the_photo(demo_head, demo_portrait):
    rgb, alpha = next(render_frames(demo_head, _motion(demo_head), size=256))
    head = demo_portrait.alpha > 0.5
    head[int(demo_portrait.landmarks[152, 1]) :] = False
    error = (rgb / 255.0 - demo_portrait.image)[head]
    assert -10 * np.log10((error**2).mean()) > 33
    assert np.abs(alpha / 255.0 - demo_portrait.alpha).mean() < 0.02


def test_saving_keeps_every_pixel(demo_head, tmp_path):
    demo_head.save(tmp_path / "head.safetensors")
    loaded = GaussianHead.load(tmp_path / "head.safetensors")
    one, two = (next(render_frames(h, _motion(h, jawOpen=0.4), size=128))[0] for h in (demo_head, loaded))
    assert np.abs(one.astype(int) - two).max() <= 2  # the basis is stored as float16
    assert [file.name for file in tmp_path.iterdir()] == ["head.safetensors"]


def test_other_files_are_not_heads(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"not a head")
    with pytest.raises(InputError, match="x.safetensors"):
        GaussianHead.load(tmp_path / "x.safetensors")


def test_the_jaw_opens_the_mouth_and_blinks_close_the_eyes(demo_head):
    def lips(face):
        return np.linalg.norm(face.landmarks[13] - face.landmarks[14])

    def lids(face):
        return np.linalg.norm(face.landmarks[159] - face.landmarks[145])

    rest, opened, closed = _seen(demo_head), _seen(demo_head, jawOpen=0.6), _seen(demo_head, eyeBlink=1.0)
    assert lips(opened) > 2 * lips(rest)
    assert lids(closed) < 0.5 * lids(rest)
    assert opened.scores[ARKIT_INDEX["jawOpen"]] > rest.scores[ARKIT_INDEX["jawOpen"]] + 0.2
    assert closed.scores[ARKIT_INDEX["eyeBlinkLeft"]] > rest.scores[ARKIT_INDEX["eyeBlinkLeft"]] + 0.25


@pytest.mark.parametrize("yaw", [-20, 10, 20])
def test_yaw_turns_the_head_as_far_as_asked(demo_head, demo_portrait, yaw):
    """Fitted again, not MediaPipe's matrix: that reads 0.8 of the fit's yaw on real videos and less here."""
    crop = replace(demo_portrait, crop_to_photo=np.array([[1.5, 0, 0], [0, 1.5, 0]]))  # frames of 384 px
    person = DrivingPerson.from_portrait(crop)
    rest, turned = (
        person.relative(person.fit(_seen(demo_head, rotation=(0, angle, 0)), None))[1][1] for angle in (0, yaw)
    )
    assert np.degrees(turned - rest) == pytest.approx(yaw, abs=2.5)


def test_rounded_lips_keep_no_smile(demo_head):
    """The demo photo smiles; saying "ah" keeps part of it, "oo" none."""
    smile = [ARKIT_INDEX["mouthSmileLeft"], ARKIT_INDEX["mouthSmileRight"]]
    asked = Motion(np.zeros((3, 52), np.float32), np.zeros((3, 3), np.float32), np.zeros((3, 3), np.float32), 25.0)
    asked.expression[1, ARKIT_INDEX["jawOpen"]] = 0.4
    asked.expression[2, ARKIT_INDEX["mouthPucker"]] = 1.0
    rest, ah, oo = onto_portrait(asked, demo_head).expression[:, smile].mean(1)
    assert rest > 0.2 and ah == pytest.approx(rest) and oo == 0


def test_lips_meet_on_an_open_smile(demo_head):
    """The demo photo shows teeth; a motion that says "closed" must close it, and "open" open it as on any head."""
    assert lip_aperture(demo_head, demo_head.source_expression.numpy()[None])[0] > 0.03
    asked = Motion(np.zeros((2, 52), np.float32), np.zeros((2, 3), np.float32), np.zeros((2, 3), np.float32), 25.0)
    asked.expression[1, ARKIT_INDEX["jawOpen"]] = 0.3
    fitted = onto_portrait(asked, demo_head)
    np.testing.assert_allclose(
        lip_aperture(demo_head, fitted.expression), mouth_rig().aperture_of(asked.expression), atol=0.01
    )
    rgb, _ = next(render_frames(demo_head, fitted, size=384))
    with FaceTracker(max_faces=1) as tracker:
        marks = tracker.detect(rgb)[0].landmarks
    eyes = np.linalg.norm(marks[33] - marks[263])
    assert np.linalg.norm(marks[13] - marks[14]) / eyes < 0.03


def test_a_side_view_is_not_turned_to_its_hidden_side(demo_head):
    asked = Motion(np.zeros((3, 52), np.float32), np.zeros((3, 3), np.float32), np.zeros((3, 3), np.float32), 25.0)
    asked.rotation[:, 1] = np.radians([-20, 0, 20])
    np.testing.assert_allclose(np.degrees(onto_portrait(asked, demo_head).rotation[:, 1]), [-20, 0, 20], atol=1.5)
    turned = torch.from_numpy(Rotation.from_euler("y", -40, degrees=True).as_matrix().astype(np.float32))
    viewmat = demo_head.viewmat.clone()
    viewmat[:3, :3] = turned
    limited = onto_portrait(asked, replace(demo_head, viewmat=viewmat))
    yaw = np.degrees(limited.rotation[:, 1])
    assert yaw[0] == pytest.approx(-20, abs=0.1) and 16 < yaw[2] < 17  # 25 degrees, softly
    assert "hidden side" in limited.warnings[-1]


def test_the_compiled_deformation_equals_torch(demo_head):
    expression = np.random.default_rng(0).random(52).astype(np.float32) * 0.6
    rotation, translation = np.array([0.1, -0.2, 0.05], np.float32), np.array([0.01, 0.0, -0.02], np.float32)
    means, covars = HeadDeformer(demo_head).deform(expression, rotation, translation)
    reference = deform_torch(demo_head, *(torch.from_numpy(a) for a in (expression, rotation, translation)))
    np.testing.assert_allclose(means, reference[0].numpy(), atol=2e-6)
    scale = reference[1].abs().max()
    assert (torch.from_numpy(np.array(covars)) - reference[1]).abs().max() / scale < 1e-4


def test_rest_is_the_identity(demo_head):
    means, covars = HeadDeformer(demo_head).deform(demo_head.source_expression.numpy(), np.zeros(3), np.zeros(3))
    np.testing.assert_allclose(means, demo_head.positions.numpy(), atol=1e-6)
    np.testing.assert_allclose(covars, demo_head.covars.numpy(), atol=1e-10, rtol=1e-3)


def test_export_has_the_same_covariances(demo_head):
    some = replace(demo_head, **{name: getattr(demo_head, name)[:500] for name in (
        "positions", "covars", "opacities", "colors", "faces", "origin")})  # fmt: skip
    gaussians = some.gaussians()
    w, x, y, z = gaussians.quats.double().unbind(1)
    rotation = torch.stack([
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ], 1).reshape(-1, 3, 3)  # fmt: skip
    covars = rotation @ torch.diag_embed(gaussians.scales.double() ** 2) @ rotation.transpose(1, 2)
    expected = covar_matrices(some.covars).double()
    assert ((covars - expected).abs().amax((1, 2)) < 1e-3 * expected.abs().amax((1, 2)) + 1e-13).all()


def test_paste_puts_the_head_back_into_the_untouched_photo(demo_head):
    rgb, alpha = next(render_frames(demo_head, _motion(demo_head), framing="paste"))
    photo = demo_head.photo.numpy()
    assert rgb.shape == photo.shape and alpha.shape == photo.shape[:2]
    (scale, _, left), (_, _, top) = demo_head.crop_to_photo.numpy()
    side = scale * demo_head.crop_size
    outside = np.ones(photo.shape[:2], bool)
    outside[max(0, int(top)) : int(top + side) + 1, max(0, int(left)) : int(left + side) + 1] = False
    assert np.array_equal(rgb[outside], photo[outside])
    assert np.abs(rgb.astype(int) - photo).mean() < 3


def test_rendering_in_pieces_is_rendering_whole(demo_head):
    motion = _motion(demo_head, frames=4)
    motion.expression[:, ARKIT_INDEX["jawOpen"]] = [0, 0.2, 0.4, 0.6]
    whole = [rgb for rgb, _ in render_frames(demo_head, motion, size=96)]
    pieces = [rgb for start in (0, 2) for rgb, _ in render_frames(demo_head, motion, size=96, start=start, count=2)]
    assert np.array_equal(whole, pieces)
    with pytest.raises(InputError, match="no frames"):
        next(render_frames(demo_head, motion, start=4))
