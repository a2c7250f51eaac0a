"""Seen closer than in the photo a head has no grid, and is the photo's own view otherwise untouched."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mggtalk_core.rendering.frames import render_frames
from mggtalk_core.rendering.rasterizer import render
from mggtalk_core.rendering.semantics import EPS2D
from mggtalk_core.rendering.smoothing import SmoothingFilter
from mggtalk_core.types import Motion


def test_nothing_is_added_at_the_photos_distance_and_beyond(demo_head):
    smoothing, means = SmoothingFilter(demo_head), demo_head.positions.numpy()
    camera = demo_head.camera
    assert smoothing.variance(means, camera) == 0
    assert smoothing.variance(means, camera.resized(camera.width // 2, camera.height // 2)) == 0
    away = camera.viewmat[2, :3] * 0.2
    assert smoothing.variance(means + away, camera) == 0
    assert smoothing.variance(means - away, camera) > 0


@pytest.mark.parametrize("zoom", (1.5, 4))
def test_magnified_the_photos_low_pass_stays_as_large_as_it_was(demo_head, zoom):
    camera, means = demo_head.camera, demo_head.positions.numpy()
    closer = camera.resized(round(zoom * camera.width), round(zoom * camera.height))
    added = SmoothingFilter(demo_head).variance(means, closer)
    seen = demo_head.origin.numpy() == 0
    depth = (means @ camera.viewmat[2, :3] + camera.viewmat[2, 3])[seen].mean()
    low_pass = added * (closer.K[0, 0] / depth) ** 2 + EPS2D  # pixels^2 of the closer picture
    assert low_pass == pytest.approx(zoom**2 * EPS2D, rel=0.01)


def test_skin_seen_closer_has_no_grid(demo_head):
    """A white head on black: what is not white on its forehead are gaps between surfels."""
    white = replace(demo_head, colors=torch.ones_like(demo_head.colors), light=torch.zeros_like(demo_head.light))
    camera = white.camera.resized(384, 384)
    shown = white.origin == 0
    darkest = []
    for smooth in (False, True):
        covars = white.covars.numpy().copy()
        if smooth:
            SmoothingFilter(white).smooth(white.positions.numpy(), covars, camera)
        picture = render(
            white.positions[shown], None, None, white.opacities[shown], white.colors[shown],
            torch.from_numpy(camera.viewmat), torch.from_numpy(camera.K), 384, 384,
            covars=torch.from_numpy(covars)[shown],
        ).rgb.numpy()  # fmt: skip
        forehead = picture[120:150, 170:210]
        darkest.append(float(np.percentile(1 - forehead, 95)))
    assert darkest[1] < 0.5 * darkest[0], darkest


def test_frames_are_smoothed_where_the_head_comes_closer(demo_head, monkeypatch):
    still = np.zeros((2, 3), np.float32)
    closer = np.float32([[0, 0, 0], [0, 0, -0.3]])
    motion = Motion(demo_head.source_expression.numpy()[None].repeat(2, 0), still, closer, 25.0)
    smoothed = [frame for frame, _ in render_frames(demo_head, motion, size=demo_head.crop_size)]
    monkeypatch.setattr(SmoothingFilter, "smooth", lambda *_: None)
    raw = [frame for frame, _ in render_frames(demo_head, motion, size=demo_head.crop_size)]
    np.testing.assert_array_equal(smoothed[0], raw[0])
    assert np.abs(smoothed[1].astype(int) - raw[1]).mean() > 0.2
