"""A turned head ends in hair where the photo shows hair, else in a smooth line; the photo's own view is the same."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_dilation, gaussian_filter

from mggtalk_core.gaussians.sgp import predict_visible, prior_hidden_colors
from mggtalk_core.gaussians.strands import LONGEST, with_strands
from mggtalk_core.geometry.scalp import outline_pixels
from mggtalk_core.geometry.symmetry import select
from mggtalk_core.headmodel.model import load_head_model
from mggtalk_core.model import MGGTalkModel
from mggtalk_core.rendering.frames import render_frames
from mggtalk_core.types import INTERIOR, Motion


@pytest.fixture(scope="module")
def bare_points(demo_points):
    """The demo portrait with colours by rule and no strands."""
    return prior_hidden_colors(predict_visible(MGGTalkModel(), demo_points).points)


def drawn(head, yaw: float) -> tuple[np.ndarray, np.ndarray]:
    """Picture (256, 256, 3) and mask (256, 256), 0..1."""
    turned = np.radians([[0, yaw, 0]]).astype(np.float32)
    motion = Motion(head.source_expression.numpy()[None], turned, np.zeros((1, 3), np.float32), 25.0)
    frame, mask = next(render_frames(head, motion, size=256))
    return frame / 255, mask / 255


def test_strands_lie_on_the_hidden_scalp(bare_points):
    head = load_head_model()
    points = with_strands(bare_points, head)
    strands = np.arange(len(bare_points), len(points))
    assert 3000 < len(strands) < 15_000
    np.testing.assert_array_equal(points.positions[: len(bare_points)], bare_points.positions)
    scalp = bare_points.positions[(bare_points.origin == INTERIOR) & head.outer_skin[bare_points.faces]]
    nearest = np.linalg.norm(points.positions[strands[::50], None] - scalp, axis=2).min(1)
    assert nearest.max() < LONGEST
    assert points.positions[strands, 2].min() > 0.03 and points.positions[strands, 1].max() < 0.1
    again = with_strands(bare_points, head)
    np.testing.assert_array_equal(again.colors, points.colors)


def test_the_photos_own_view_does_not_show_them(bare_points, demo_head):
    strands = torch.arange(len(demo_head.positions)) >= len(bare_points)  # they come last
    assert strands.sum() > 3000
    hidden = replace(demo_head, opacities=torch.where(strands, 0.0, demo_head.opacities))
    assert (np.abs(drawn(demo_head, 0)[0] - drawn(hidden, 0)[0]).max(2) > 0.04).sum() < 20
    (with_them, loose), (without, smooth) = drawn(demo_head, 25), drawn(hidden, 25)
    around = binary_dilation(np.abs(with_them - without).max(2) > 0.04, iterations=3)

    def soft(mask: np.ndarray) -> int:
        return int((around & (mask > 0.1) & (mask < 0.9)).sum())

    assert soft(loose) > 2 * soft(smooth) > 0


def test_a_head_without_texture_gets_none(bare_points):
    """Bald heads and scarves end in a smooth line."""
    portrait = bare_points.portrait
    smooth = replace(portrait, image=gaussian_filter(portrait.image, (4, 4, 0)))
    assert len(with_strands(replace(bare_points, portrait=smooth), load_head_model())) == len(bare_points)


def test_grey_hair_stays_grey(bare_points):
    grey = np.repeat(bare_points.colors.mean(1, keepdims=True), 3, 1)
    image = np.repeat(bare_points.portrait.image.mean(2, keepdims=True), 3, 2)
    of_grey = replace(bare_points, colors=grey, portrait=replace(bare_points.portrait, image=image))
    colors = with_strands(of_grey, load_head_model()).colors
    assert len(colors) > len(grey) and np.ptp(colors, axis=1).max() < 1e-5
    strands = colors[len(grey) :, 0]
    assert strands.std() > 0.02


def test_strands_lie_as_the_photos_hair_does(bare_points):
    """Stripes down a hat go on behind it: what a strand covers is of one colour in the stripes it continues."""
    portrait, head = bare_points.portrait, load_head_model()
    size = len(portrait.image)
    rows, columns = np.mgrid[:size, :size]
    for across, turned in ((columns, 0), (rows, 1)):
        stripes = 0.4 + 0.2 * np.sin(2 * np.pi * across / 6)[..., None].repeat(3, 2)
        striped = replace(bare_points, portrait=replace(portrait, image=stripes.astype(np.float32)))
        strands = select(with_strands(striped, head), np.arange(len(bare_points), len(with_strands(striped, head))))
        middle = strands.positions[:, 2] < 0.12
        ends = [
            outline_pixels(strands.positions + sign * 0.3 * strands.axes[:, 0], portrait, strands.depth_map.outline)
            for sign in (-1, 1)
        ]
        lies = np.abs(ends[1].pixels - ends[0].pixels)[middle]
        assert np.median(lies[:, 1 - turned] / (lies[:, turned] + 1e-6)) < 0.5
