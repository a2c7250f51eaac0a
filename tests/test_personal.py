"""Fitting one person through the differentiable rasterizer: it starts at the prior and gets closer to the frames."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mggtalk_core.assets import DEMO_PORTRAIT
from mggtalk_core.gaussians.sgp import predict_invisible, predict_visible
from mggtalk_core.geometry.dsgr import build_points, estimate_depth
from mggtalk_core.media.image import read_photo
from mggtalk_core.model import MGGTalkModel
from mggtalk_core.portrait.analysis import analyze_portrait
from mggtalk_core.rendering.frames import render_frames
from mggtalk_core.training.personal import PersonalHead, fit_person
from mggtalk_core.types import Motion

SIZE = 96


@pytest.fixture(scope="module")
def head():
    portrait, model = analyze_portrait(read_photo(DEMO_PORTRAIT), size=SIZE), MGGTalkModel()
    return predict_invisible(model, predict_visible(model, build_points(portrait, estimate_depth(portrait))))


@pytest.fixture(scope="module")
def motion(head):
    expression = np.repeat(head.source_expression.numpy()[None], 3, 0)
    expression[1:, 17] = 0.3, 0.5  # jawOpen
    rotation = np.array([[0, 0, 0], [0, 0.15, 0], [0.1, -0.1, 0]], np.float32)
    return Motion(expression, rotation, np.zeros((3, 3), np.float32), 25.0)


def frame(motion, index):
    rows = (motion.expression, motion.rotation, motion.translation)
    return [torch.from_numpy(row[index]) for row in rows]


def test_unfitted_it_is_the_head_as_rendered(head, motion):
    expected = [rgb for rgb, _ in render_frames(head, motion, size=SIZE, background=(0, 0, 0))]
    for index in range(3):
        with torch.no_grad():
            rgb, _ = PersonalHead(head)(*frame(motion, index))
        difference = np.abs(rgb.numpy() * 255 - expected[index])
        assert np.mean(difference) < 1.0 and np.percentile(difference, 99) < 12


def test_fitting_brings_the_pictures_closer(head, motion):
    """Frames of a redder person: after a few steps held-out-free error falls, and most of it is in the colours."""
    redder = replace(head, colors=(head.colors * torch.tensor([1.15, 0.95, 0.9])).clamp(0, 1))
    frames = [rgb.astype(np.float32) / 255 for rgb, _ in render_frames(redder, motion, size=SIZE)]
    mask = [np.ones((SIZE, SIZE), np.float32)] * 3
    losses = []
    person = fit_person(head, motion, frames, mask, steps=40, progress=lambda step, loss: losses.append(loss))
    assert np.mean(losses[-6:]) < 0.6 * np.mean(losses[:6])
    assert person.color[:, 0].mean() > 0 > person.color[:, 2].mean()
