"""DSGR: depth, surfels, mirrored and hidden points."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt, median_filter

from mggtalk_core.geometry.binding import MOUTH_DEPTH, _medians_around, _near_lips, _nearest_pixels, polygon_mask
from mggtalk_core.geometry.blocks import block_means, block_pixels, surfel_blocks
from mggtalk_core.geometry.depth import _round_silhouette
from mggtalk_core.geometry.dsgr import build_points
from mggtalk_core.geometry.feature_edges import edge_offsets
from mggtalk_core.geometry.mesh_raster import rasterize_mesh
from mggtalk_core.geometry.nearest_pixels import distance_to, distance_within, nearest_pixels
from mggtalk_core.geometry.pose_weights import TORSO_FOLLOWS, head_pose_weight, shoulder_tops
from mggtalk_core.geometry.projection import project, to_camera, to_canonical, unproject
from mggtalk_core.geometry.surfels import visible_points
from mggtalk_core.geometry.symmetry import mirror_points, select
from mggtalk_core.headmodel.landmarks import INNER_LIP_RING
from mggtalk_core.headmodel.model import load_head_model
from mggtalk_core.types import INTERIOR, SYMMETRIC, VISIBLE


def test_a_slanted_triangle_has_perspective_correct_depth():
    points = np.array([[2.0, 2.0, 1.0], [62.0, 2.0, 3.0], [2.0, 62.0, 1.0]])
    depth, face, barycentric = rasterize_mesh(points, np.array([[0, 1, 2]]), 64, 64)
    # 1 / z is linear in the picture
    assert depth[10, 20] == pytest.approx(1 / (1 + (1 / 3 - 1) * (20.5 - 2) / 60), rel=1e-4)
    assert face[10, 20] == 0 and face[60, 60] == -1 and np.isinf(depth[60, 60])
    np.testing.assert_allclose(barycentric[face == 0].sum(1), 1, atol=1e-5)


def test_projection_round_trip(demo_portrait):
    camera = demo_portrait.camera
    points = np.random.default_rng(0).uniform(-0.1, 0.1, (50, 3))
    pixels = project(to_camera(points, camera), camera)
    back = to_canonical(unproject(pixels[:, 0], pixels[:, 1], pixels[:, 2], camera), camera)
    np.testing.assert_allclose(back, points, atol=1e-5)


def test_the_nose_is_nearest_and_hair_lies_behind(demo_points):
    depth = demo_points.depth_map.depth
    landmarks = demo_points.portrait.landmarks.astype(int)
    nose = depth[landmarks[1, 1], landmarks[1, 0]]
    assert nose < np.nanpercentile(depth, 3)
    hair = depth[landmarks[10, 1] - 25, landmarks[10, 0]]
    assert 0.01 < hair - nose < 0.2


def of_pixels(points):
    """A cloud's visible points without those that close steps in depth."""
    head, portrait = load_head_model(), points.portrait
    return visible_points(portrait, points.depth_map, head, head.landmarks_of(portrait.vertices)[152, 1])


def test_every_person_pixel_is_covered_once(demo_points):
    visible = of_pixels(demo_points)
    covered = np.zeros(demo_points.depth_map.depth.shape, int)
    for (row, column), step in zip(visible.pixels, visible.steps):
        covered[row : row + step, column : column + step] += 1
    assert np.array_equal(covered == 1, np.isfinite(demo_points.depth_map.depth))
    assert covered.max() == 1


def test_every_pixel_of_a_block_is_found():
    """Of blocks of two by two only the first row was, once."""
    pixels, steps = np.array([[0, 0], [0, 4], [0, 6], [2, 4]]), np.array([4, 2, 1, 2])
    number = np.full((4, 8), -1)
    rows, columns, block = block_pixels(pixels, steps)
    number[rows, columns] = block
    assert len(rows) == (steps**2).sum()
    expected = np.full((4, 8), -1)
    for index, ((row, column), step) in enumerate(zip(pixels, steps)):
        expected[row : row + step, column : column + step] = index
    np.testing.assert_array_equal(number, expected)


def test_blocks_keep_detail_and_merge_flat_ground():
    image = np.full((16, 16, 3), 0.5, np.float32)
    image[:8, :8] = np.random.default_rng(0).random((8, 8, 3))
    depth = np.ones((16, 16))
    keep = np.zeros((16, 16), bool)
    keep[8:, :8] = True
    rows, columns, steps = surfel_blocks(image, depth, depth * 1e-3, keep)
    assert (steps[(rows < 8) & (columns < 8)] == 1).all()
    assert (steps[(rows >= 8) & (columns < 8)] == 1).all()
    assert (steps[columns >= 8] == 4).all()
    means = block_means(image, rows, columns, steps)
    np.testing.assert_allclose(means[steps == 4], 0.5, atol=1e-6)


def test_visible_points_project_to_their_pixels(demo_points):
    visible = of_pixels(demo_points)
    camera = visible.portrait.camera
    pixels = project(to_camera(visible.positions, camera), camera)[:, 1::-1]
    rows, columns = visible.pixels.T
    offsets = edge_offsets(visible.portrait, visible.depth_map, load_head_model())[rows, columns, ::-1]
    offsets[visible.steps > 1] = 0
    np.testing.assert_allclose(pixels, visible.pixels + 0.5 * visible.steps[:, None] + offsets, atol=0.05)
    assert 20 < offsets.any(1).sum() < 0.02 * len(visible)


def test_mirroring_twice_comes_home(demo_points):
    head = load_head_model()
    some = select(demo_points, np.flatnonzero((demo_points.origin == VISIBLE) & (demo_points.pose_weight > 0.9))[::50])
    there = mirror_points(some, head)
    back = mirror_points(there, head)
    np.testing.assert_allclose(back.positions, some.positions, atol=1e-5)
    assert np.abs(there.positions[:, 0] + some.positions[:, 0]).mean() < 0.01  # about the x = 0 plane


def test_hidden_points_are_hidden(demo_points):
    camera = demo_points.portrait.camera
    size = camera.width
    for origin in (SYMMETRIC, INTERIOR):
        chosen = demo_points.positions[demo_points.origin == origin]
        columns, rows, depth = project(to_camera(chosen, camera), camera).T
        inside = (columns > 1) & (columns < size - 1) & (rows > 1) & (rows < size - 1)
        seen = demo_points.depth_map.depth[rows[inside].astype(int), columns[inside].astype(int)]
        assert (depth[inside] > seen).all()


def test_symmetry_and_filter_do_what_their_names_say(demo_points):
    portrait, depth_map = demo_points.portrait, demo_points.depth_map
    without = build_points(portrait, depth_map, symmetry=False)
    unfiltered = build_points(portrait, depth_map, voxel_filter=False)
    count = [int((p.origin == SYMMETRIC).sum()) for p in (without, demo_points, unfiltered)]
    assert count[0] == 0 < count[1] < count[2]


def test_the_head_turns_and_the_torso_follows_a_little():
    chin = 0.11
    points = np.array([[0, 0, -0.04], [0, -0.1, 0.05], [0.0, 0.1, 0.0], [0, 0.3, 0.05], [0.2, 0.25, 0.05]])
    weights = head_pose_weight(points, chin)
    assert weights[:3].min() > 0.95 and np.allclose(weights[3:], TORSO_FOLLOWS)
    down = head_pose_weight(np.stack([np.zeros(50), np.linspace(0, 0.3, 50), np.zeros(50)], 1), chin)
    assert (np.diff(down) <= 1e-6).all()


def test_shoulders_begin_where_the_photo_shows_background_above_them(demo_portrait):
    """A jacket that turned with the head tore beside the neck; hair that reaches the shoulders must still turn."""
    chin = float(load_head_model().landmarks_of(demo_portrait.vertices)[152, 1])
    tops = shoulder_tops(demo_portrait, chin)
    assert ((chin - 0.04 < tops) & (tops < chin + 0.03)).all()
    long_hair = replace(demo_portrait, alpha=np.ones_like(demo_portrait.alpha))
    assert np.isinf(shoulder_tops(long_hair, chin)).all()
    below = np.array([[-0.09, tops[0] + 0.02, 0.07], [0.09, tops[1] + 0.02, 0.07]])
    assert head_pose_weight(below, chin).min() > 0.8
    assert np.allclose(head_pose_weight(below, chin, tops), TORSO_FOLLOWS)
    above = below - [0, 0.05, 0]
    np.testing.assert_array_equal(head_pose_weight(above, chin, tops), head_pose_weight(above, chin))


def test_shoulders_stay_as_the_head_turns(demo_points):
    chin = float(load_head_model().landmarks_of(demo_points.portrait.vertices)[152, 1])
    tops = shoulder_tops(demo_points.portrait, chin)
    x, y = demo_points.positions[:, 0], demo_points.positions[:, 1]
    shoulders = (np.abs(x) > 0.08) & (y > np.where(x < 0, *tops)) & (demo_points.origin == VISIBLE)
    assert shoulders.sum() > 500 and demo_points.pose_weight[shoulders].max() < TORSO_FOLLOWS + 1e-6
    mirrored = demo_points.positions[demo_points.origin == SYMMETRIC]
    assert head_pose_weight(mirrored, chin, tops).min() > 0.85  # none laid on the other shoulder


def test_mouths_are_not_deep_in_their_corners(demo_portrait):
    """Side teeth drawn where the molars are tore off the front ones as a smiling head turned."""
    head = load_head_model()
    inside = polygon_mask(demo_portrait.landmarks[list(INNER_LIP_RING)], 256)
    ring = to_camera(head.landmarks_of(demo_portrait.vertices)[list(INNER_LIP_RING)], demo_portrait.camera)[:, 2]
    molars = np.full(inside.sum(), ring.max() + 0.05)
    near = _near_lips(demo_portrait, head, inside, molars)
    assert near.min() > ring.min() + MOUTH_DEPTH and near.max() < ring.max() + MOUTH_DEPTH + 0.012
    front_teeth = np.full(inside.sum(), ring.min() + 0.003)
    np.testing.assert_array_equal(_near_lips(demo_portrait, head, inside, front_teeth), front_teeth)


def test_medians_are_those_of_a_median_filter_where_they_matter():
    values = np.random.default_rng(0).normal(size=(3, 20, 30, 2)).astype(np.float32)
    values[:, :, 15:] = 0.5
    usual = median_filter(values, size=(1, 5, 5, 1), mode="nearest")
    np.testing.assert_array_equal(_medians_around(values, 1e-3), usual)


@pytest.mark.parametrize("place", [(slice(20, 24), slice(30, 33)), (slice(0, 2), slice(60, 64))])
def test_the_nearest_pixels_are_looked_for_as_far_as_they_are(place):
    members, pixels = np.zeros((2, 64, 64), bool)
    pixels[place] = True
    for at in ((60, 2), (5, 40), (21, 36)):  # from far to near
        members[at] = True
        rows, columns = _nearest_pixels(members, pixels)
        assert members[rows, columns].all()
        own = np.argwhere(pixels)
        found = np.hypot(*(own.T - [rows, columns]))
        np.testing.assert_allclose(found, distance_transform_edt(~members)[pixels])


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (33, 47)])
@pytest.mark.parametrize("share", [0.01, 0.3, 1])
def test_nearest_pixels_are_the_nearest(shape, share):
    """As scipy finds them; where none is marked nothing is near."""
    marked = np.random.default_rng(0).random(shape) < share
    marked[-1, -1] = True
    rows, columns = nearest_pixels(marked)
    assert marked[rows, columns].all()
    expected = distance_transform_edt(~marked)
    np.testing.assert_allclose(distance_to(marked), expected, rtol=1e-6)
    np.testing.assert_array_equal(distance_within(~marked), distance_to(marked))
    assert distance_to(np.zeros(shape, bool)).min() > 10_000


def test_depth_rises_evenly_from_a_round_outline():
    """The grid on which it is solved is four pixels wide: its stairs showed as a comb along turned ears."""
    rows, columns = np.mgrid[:512, :512] + 0.5
    radius = np.hypot(rows - 256, columns - 256)
    disc = radius < 200.3
    rise = _round_silhouette(np.where(radius < 100, 0.0025, 0.0), radius < 100, disc)
    depth = np.sqrt(rise.clip(0))
    ring = (radius > 198.5) & (radius < 199.5)
    assert depth[ring].std() < 0.08 * depth[ring].mean()
    assert 0 < depth[ring].mean() < depth[(radius > 150) & (radius < 151)].mean() < 0.05
