"""Steps in depth: one does not look between the photo's pixels into the head; its own view stays as it was."""

from dataclasses import replace

import numpy as np
import pytest

from mggtalk_core.geometry.projection import project, to_camera
from mggtalk_core.geometry.steps import SPACING, behind_steps
from mggtalk_core.geometry.symmetry import select
from mggtalk_core.types import VISIBLE

BEHIND = 0.012
"""How much farther off the right half of the picture is made, metres: about twelve pixels of the demo."""


@pytest.fixture(scope="module")
def halved(demo_points):
    """What the demo shows, its right half farther off."""
    middle = len(demo_points.portrait.image) // 2
    visible = select(demo_points, (demo_points.origin == VISIBLE) & (demo_points.pixels[:, 0] >= 0))
    depth = demo_points.depth_map.depth.copy()
    depth[:, middle:] += BEHIND
    return replace(visible, depth_map=replace(visible.depth_map, depth=depth)), middle


def test_a_step_is_closed_down_to_its_foot(halved):
    visible, middle = halved
    walls = behind_steps(visible)
    pixels = project(to_camera(walls.positions, visible.portrait.camera), visible.portrait.camera)
    at_step = walls.pixels[:, 1] + walls.steps >= middle
    at_step &= walls.pixels[:, 1] < middle
    assert at_step.sum() > 100
    depth, footprint = visible.depth_map.depth, np.nanmedian(visible.depth_map.depth) / visible.portrait.camera.K[0, 0]
    rows = walls.pixels[at_step, 0]
    for row in np.unique(rows):
        below = np.sort(pixels[at_step, 2][rows == row] - depth[row, middle - 1]) / footprint
        assert 0 < below[0] < 1.5 * SPACING and np.diff(below).max(initial=0) < 1.5 * SPACING
        assert below[-1] < (depth[row, middle] - depth[row, middle - 1]) / footprint + SPACING
    np.testing.assert_array_equal(np.unique(walls.origin), [VISIBLE])


def test_what_closes_steps_lies_behind_the_pixels_it_belongs_to(halved, demo_points):
    """There it is out of the photo's sight, and has the colour of what is before it."""
    visible, _ = halved
    walls, camera = behind_steps(visible), visible.portrait.camera
    columns, rows, z = project(to_camera(walls.positions, camera), camera).T
    at = walls.pixels + 0.5 * walls.steps[:, None]
    assert np.abs(np.stack([rows, columns], 1) - at).max() <= 0.5 * walls.steps.max() + 0.5 + 1e-3
    assert (z > visible.depth_map.depth[tuple(walls.pixels.T)] + 1e-4).all()
    assert len(behind_steps(select(visible, visible.pose_weight < 0.5))) == 0


def test_face_and_edge_are_left_out(halved):
    """Lips and lids part as they move; the edge's colours are mixed with the wall's."""
    visible, middle = halved
    portrait, walls = visible.portrait, behind_steps(visible)
    brow, chin = portrait.landmarks[[9, 152], 1]
    assert portrait.alpha[tuple(walls.pixels.T)].min() > 0.9
    rows = walls.pixels[np.abs(walls.pixels[:, 1] - middle) < 3, 0]
    on_head = visible.depth_map.on_head[int(brow) : int(chin) - 3, middle]
    assert (rows < brow).sum() > 30 and on_head.mean() > 0.95
    assert ((rows > brow) & (rows < chin - 3)).sum() < 10
