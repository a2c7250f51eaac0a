"""With the chin raised one sees a dark mouth, not the back of the head from inside."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mggtalk_core.gaussians.deformation import HeadDeformer
from mggtalk_core.geometry.binding import polygon_mask
from mggtalk_core.geometry.interior import throat
from mggtalk_core.geometry.projection import project, to_camera
from mggtalk_core.headmodel.arkit import ARKIT_INDEX
from mggtalk_core.headmodel.landmarks import INNER_LIP_RING
from mggtalk_core.headmodel.model import load_head_model
from mggtalk_core.rendering.frames import render_frames
from mggtalk_core.types import INTERIOR, Motion

CHIN_UP = np.array([np.radians(-15), 0, 0], np.float32)
GREEN = np.array([0, 1, 0], np.float32)


def test_no_back_of_the_head_in_a_raised_mouth(demo_head):
    model = load_head_model()
    behind = (demo_head.origin.numpy() == INTERIOR) & model.outer_skin[demo_head.faces.numpy()]
    behind &= demo_head.positions.numpy()[:, 2] > 0.06
    colors = demo_head.colors.numpy().copy()
    colors[behind] = GREEN
    background = torch.zeros_like(demo_head.background)
    background[..., 1] = 255
    painted = replace(demo_head, colors=torch.from_numpy(colors), background=background)
    expression = demo_head.source_expression.numpy().copy()
    expression[ARKIT_INDEX["jawOpen"]] = 0.5
    still = np.zeros((1, 3), np.float32)
    frame, _ = next(render_frames(painted, Motion(expression[None], CHIN_UP[None], still, 25.0), size=256))
    # Where the lips are then: landmarks follow as points do.
    change = np.tensordot(expression - demo_head.source_expression.numpy(), demo_head.expression_basis.numpy(), 1)
    lips = model.landmarks_of(demo_head.vertices.numpy() + change)[list(INNER_LIP_RING)]
    marks = replace(
        demo_head, positions=torch.from_numpy(lips), expression_weight=torch.zeros(len(lips)),
        pose_weight=torch.ones(len(lips)), faces=torch.zeros(len(lips), dtype=torch.int32),
        covars=demo_head.covars[: len(lips)], barycentric=demo_head.barycentric[: len(lips)],
        colors=demo_head.colors[: len(lips)], opacities=demo_head.opacities[: len(lips)],
        origin=demo_head.origin[: len(lips)], normals=demo_head.normals[: len(lips)],
    )  # fmt: skip
    moved, _ = HeadDeformer(marks).deform(demo_head.source_expression.numpy(), CHIN_UP, np.zeros(3))
    camera = demo_head.camera.resized(256, 256)
    mouth = polygon_mask(project(to_camera(np.asarray(moved), camera), camera)[:, :2], 256)
    red, green, blue = np.moveaxis(frame[mouth].astype(int), -1, 0)
    assert mouth.sum() > 150
    assert ((green > red + 60) & (green > blue + 60)).mean() < 0.02


@pytest.mark.parametrize("turn", [(0, 30, 0), (0, -30, 0), (-15, 0, 0), (15, 0, 0), (0, 0, 0)])
def test_the_wall_stays_in_the_head(demo_head, turn):
    """A wider one came out under chins."""
    model = load_head_model()
    wall = (demo_head.origin.numpy() == INTERIOR) & model.mouth_interior[demo_head.faces.numpy()]
    wall &= demo_head.positions.numpy()[:, 2] > 0.03
    colors = np.where(wall[:, None], GREEN, [0, 0, 1]).astype(np.float32)
    painted = replace(demo_head, colors=torch.from_numpy(colors), background=torch.zeros_like(demo_head.background))
    motion = Motion(
        demo_head.source_expression.numpy()[None], np.radians([turn]).astype(np.float32), np.zeros((1, 3)), 25.0
    )
    frame, _ = next(render_frames(painted, motion, size=256))
    assert wall.sum() > 100 and (frame[..., 1] > 60).sum() < 4


def test_the_wall_is_bound_to_the_mouth_and_deep():
    model = load_head_model()
    faces, barycentric, positions, axes = throat(model.mean, model)
    assert model.mouth_interior[faces].all() and len(faces) > 100
    lips = model.landmarks_of(model.mean)[list(INNER_LIP_RING), 2].max()
    assert (positions[:, 2] > lips + 0.03).all() and positions.shape == (len(faces), 3)
    assert axes.shape == (len(faces), 3, 3)
    np.testing.assert_allclose(barycentric.sum(1), 1)
