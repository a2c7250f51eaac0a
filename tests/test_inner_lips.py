"""The inside of lips that the photo shows open: nothing of it before the teeth there, all of it as the lips close."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mggtalk_core.gaussians.inner_lips import CLOSED, PARTED, InnerLips
from mggtalk_core.geometry.surfels import MAX_OPACITY
from mggtalk_core.headmodel.arkit import ARKIT_INDEX
from mggtalk_core.headmodel.model import load_head_model
from mggtalk_core.rendering.frames import render_frames
from mggtalk_core.types import INTERIOR, Motion


@pytest.fixture(scope="module")
def smile(demo_head):
    """The demo head, whose photo shows its teeth, and its lips' inside."""
    lips = InnerLips.of(demo_head)
    assert len(lips.points) > 20
    return demo_head, lips


def opacities(head, lips, expression) -> np.ndarray:
    """Opacities (N,) with an expression (52,)."""
    filled = head.opacities.numpy().copy()
    lips.fill(filled, expression)
    return filled


def own_view(head, expression) -> np.ndarray:
    """The head (S, S, 3) 0..1 as the photo's camera sees it."""
    still = np.zeros((1, 3), np.float32)
    rgb, _ = next(render_frames(head, Motion(expression[None], still, still, 25.0), size=head.crop_size))
    return rgb / 255


def test_in_the_photos_expression_nothing_hangs_over_the_teeth(smile):
    head, lips = smile
    source = head.source_expression.numpy()
    np.testing.assert_array_equal(opacities(head, lips, source), head.opacities.numpy())
    shown = own_view(head, source)
    inside = load_head_model().mouth_interior[head.faces.numpy()] & (head.origin.numpy() == INTERIOR)
    without = torch.where(torch.from_numpy(inside), 0, head.opacities)
    assert np.abs(own_view(replace(head, opacities=without), source) - shown).max() < 0.08
    hanging = head.opacities.clone()
    hanging[lips.points] = MAX_OPACITY  # as it was
    assert np.abs(own_view(replace(head, opacities=hanging), source) - shown).max() > 0.15


def test_it_fills_lips_that_close_and_leaves_those_that_open(smile):
    head, lips = smile
    opening = head.source_expression.numpy().copy()
    opening[ARKIT_INDEX["jawOpen"]] += 0.3
    np.testing.assert_array_equal(opacities(head, lips, opening), head.opacities.numpy())
    closed = opacities(head, lips, np.zeros(52, np.float32))
    assert (closed[lips.points] > 0.9).mean() > 0.7
    others = np.ones(len(head), bool)
    others[lips.points] = False
    np.testing.assert_array_equal(closed[others], head.opacities.numpy()[others])


def test_opacity_follows_how_far_the_lips_have_parted_and_closed():
    openings = np.zeros((52, 2))
    openings[0] = 0.01, 0.005  # metres per coefficient, at two places
    source = np.zeros(52)
    source[0] = 1.0
    lips = InnerLips(np.array([1, 2]), np.eye(2), openings, source)

    def at(coefficient: float) -> np.ndarray:
        filled = np.float32([0.5, 0, 0])
        lips.fill(filled, np.array([coefficient] + [0.0] * 51))
        assert filled[0] == np.float32(0.5)
        return filled[1:]

    np.testing.assert_array_equal(at(1.0), 0)
    np.testing.assert_allclose(at(0.0), MAX_OPACITY)
    between = sum(PARTED) / 2
    first, second = at(between / 0.01)
    assert first == pytest.approx(MAX_OPACITY / 2)  # there lips have parted half as far as makes it vanish
    assert second > first
    barely = at(1 - sum(CLOSED) / 2 / 0.005)
    np.testing.assert_array_equal(barely, [0, at(1 - 0.12)[1]])
