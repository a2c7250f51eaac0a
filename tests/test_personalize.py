"""Several photos: what a further picture shows is carried to the head, and only there."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mggtalk_core.assets import DEMO_PORTRAIT
from mggtalk_core.errors import InputError
from mggtalk_core.gaussians.deformation import HeadDeformer
from mggtalk_core.gaussians.light import Relighter
from mggtalk_core.gaussians.personalize import VIEW_SIZE, FurtherView, correct_colors, further_view, personalize
from mggtalk_core.gaussians.sgp import predict_invisible, predict_visible
from mggtalk_core.geometry.dsgr import build_points, estimate_depth
from mggtalk_core.media.image import read_photo
from mggtalk_core.model import MGGTalkModel
from mggtalk_core.motion.picture_alignment import PictureAlignment
from mggtalk_core.portrait.analysis import analyze_portrait
from mggtalk_core.rendering.rasterizer import render


@pytest.fixture(scope="module")
def photo():
    return read_photo(DEMO_PORTRAIT)


@pytest.fixture(scope="module")
def portrait(photo):
    return analyze_portrait(photo, size=128)


@pytest.fixture(scope="module")
def head(portrait):
    model = MGGTalkModel()
    return predict_invisible(model, predict_visible(model, build_points(portrait, estimate_depth(portrait))))


def picture_of(head, rotation):
    """The head as another photo would show it, turned."""
    camera = head.camera.resized(VIEW_SIZE, VIEW_SIZE)
    rotation = np.array(rotation, np.float32)
    means, covars = HeadDeformer(head).deform(head.source_expression.numpy(), rotation, np.zeros(3))
    colors = torch.from_numpy(np.array(Relighter.of(head).colors(head.source_expression.numpy(), rotation)))
    drawn = render(
        torch.from_numpy(means.copy()), None, None, head.opacities, colors, torch.from_numpy(camera.viewmat),
        torch.from_numpy(camera.K), VIEW_SIZE, VIEW_SIZE, covars=torch.from_numpy(covars.copy()),
    )  # fmt: skip
    return FurtherView(
        drawn.rgb.numpy(),
        drawn.alpha.numpy(),
        camera,
        head.source_expression.numpy(),
        rotation,
        np.zeros(3, np.float32),
    )


def test_a_picture_of_the_same_head_changes_almost_nothing(head):
    corrected = correct_colors(head, [picture_of(head, [0, 0.2, 0])])
    assert (corrected.colors - head.colors).abs().mean() < 0.003


def test_a_lasting_difference_is_learnt(head):
    """The true cheek on one side is redder than the first photo's guess: two pictures bring most of it over."""
    cheek = (head.positions[:, 0] > 0.02) & (head.positions[:, 1] > 0.0) & (head.positions[:, 1] < 0.07)
    cheek &= (head.origin == 0) & (head.pose_weight > 0.99)
    truth = head.colors.clone()
    truth[cheek] = (truth[cheek] + torch.tensor([0.12, -0.05, -0.05])).clamp(0, 1)
    true_head = replace(head, colors=truth)
    views = [picture_of(true_head, [0, 0.25, 0]), picture_of(true_head, [0, -0.1, 0])]
    corrected = correct_colors(head, views)
    before, after = ((c - truth)[cheek].abs().mean() for c in (head.colors, corrected.colors))
    assert after < 0.65 * before
    torso = head.pose_weight < 0.05
    torch.testing.assert_close(corrected.colors[torso], head.colors[torso], atol=1e-4, rtol=0)


def test_no_further_photo_no_change_and_no_face_one_sentence(head, portrait):
    assert personalize(head, portrait, []) is head
    with pytest.raises(InputError, match="photo 2"):
        personalize(head, portrait, [np.full((200, 200, 3), 0.5, np.float32)])


def test_the_same_photo_again_is_found_at_rest(photo, portrait, head):
    view = further_view(portrait, photo, PictureAlignment(head))
    assert np.degrees(np.linalg.norm(view.rotation)) < 3
    assert np.abs(view.expression - portrait.fit.expression).mean() < 0.05
