"""Lips and teeth end along smooth edges, not on the pixels' grid; nothing of one lip hangs over the other's side."""

import numpy as np
import pytest
from conftest import shared_data

from mggtalk_core.geometry.feature_edges import FARTHEST, _onto_edge, edge_offsets, moved_barycentric
from mggtalk_core.geometry.projection import project, to_camera
from mggtalk_core.headmodel.arkit import ARKIT_INDEX
from mggtalk_core.headmodel.landmarks import INNER_LIP_LOWER, INNER_LIP_UPPER
from mggtalk_core.headmodel.model import LOWER_TEETH, SKIN, UPPER_TEETH, load_head_model
from mggtalk_core.media.image import read_photo
from mggtalk_core.pipeline import analyze_portrait, build_head, estimate_depth
from mggtalk_core.types import INTERIOR, VISIBLE


def slanted(size=64, slope=0.2):
    """Pixels (size, size) below a slanted line, and their distances (size, size) px from it, positive below."""
    rows, columns = np.indices((size, size)) + 0.5
    distance = (rows - (20.3 + slope * columns)) / np.hypot(1, slope)
    return distance > 0, distance


def test_a_slanted_edge_loses_its_stairs():
    mask, distance = slanted()
    offsets = _onto_edge(mask)
    inward = np.array([-0.2, 1]) / np.hypot(1, 0.2)
    beside = np.zeros_like(mask)
    beside[1:] |= mask[1:] != mask[:-1]
    beside[:-1] |= mask[1:] != mask[:-1]
    beside[:, :9] = beside[:, -9:] = False  # the picture's border bends a blurred edge
    moved = distance + offsets @ inward
    assert np.abs(distance[beside]).std() > 0.2
    assert np.abs(moved[beside]).std() < 0.03
    np.testing.assert_allclose(np.abs(moved[beside]), 0.5, atol=0.1)
    assert not offsets[np.abs(distance) > 2].any()
    assert np.linalg.norm(offsets, axis=2).max() <= FARTHEST + 1e-6


def test_no_edge_no_offset():
    assert not _onto_edge(np.zeros((32, 32), bool)).any()
    assert not _onto_edge(np.ones((32, 32), bool)).any()


def test_a_lonely_pixel_stays():
    mask = np.zeros((32, 32), bool)
    mask[16, 16] = True
    assert not _onto_edge(mask)[16, 16].any()


def test_moved_barycentric_is_where_the_point_is_seen(demo_portrait):
    head = load_head_model()
    in_picture = project(to_camera(demo_portrait.vertices, demo_portrait.camera), demo_portrait.camera)[:, :2]
    face = head.landmark_faces[[13, 14, 0, 17]]
    offsets = np.array([[0.7, 0], [0, 0.7], [-0.5, 0.3], [0.1, -0.6]], np.float32)
    before = np.full((4, 3), 1 / 3, np.float32)
    after = moved_barycentric(demo_portrait, face, before, offsets, head)
    at = [(in_picture[head.faces[face]] * weights[..., None]).sum(1) for weights in (before, after)]
    still = (after == before).all(1)  # triangles seen edge-on
    assert still.sum() < 3
    np.testing.assert_allclose((at[1] - at[0])[~still], offsets[~still], atol=1e-3)
    np.testing.assert_allclose(after.sum(1), 1, atol=1e-5)


def test_only_edges_of_the_mouth_move(demo_portrait):
    depth_map = estimate_depth(demo_portrait)
    offsets = edge_offsets(demo_portrait, depth_map, load_head_model())
    rows, columns = np.nonzero(offsets.any(2))
    lips = demo_portrait.landmarks[list(INNER_LIP_UPPER + INNER_LIP_LOWER)]
    apart = np.linalg.norm(np.stack([columns, rows], 1)[:, None] + 0.5 - lips, axis=2).min(1)
    assert len(rows) > 40 and apart.max() < 0.04 * len(offsets)


def test_the_lower_lip_goes_with_the_jaw():
    head = load_head_model()
    jaw = head.expression_basis[ARKIT_INDEX["jawOpen"]][:, 1][head.faces].mean(1)
    lips = head.around_lips
    middle = np.abs(head.mean[head.faces].mean(1)[lips, 0]) < 0.01
    of_lower = head.below_mouth[lips]
    assert jaw[lips[middle & of_lower]].min() > jaw[lips[middle & ~of_lower]].max()
    assert (head.parts[lips] == SKIN).all() and 200 < len(lips) < 2000


@pytest.fixture(scope="module")
def closed():
    """p05, whose lips are closed: portrait and head."""
    photo = read_photo(shared_data("dev/portraits/p05_woman_long_hair.jpg"))
    return analyze_portrait(photo, size=512), build_head(photo, size=512)


def test_parted_lips_leave_the_teeth_free(closed):
    """With the jaw a little open nothing hidden of the upper lip is lower than where it ends in the photo."""
    portrait, head = closed
    model = load_head_model()
    faces, hidden = head.faces.numpy(), head.origin.numpy() == INTERIOR
    marks = model.landmarks_of(head.vertices.numpy())
    line = marks[list(INNER_LIP_UPPER)]
    positions = head.positions.numpy()
    near = (np.abs(positions[:, 0] - line[4, 0]) < 0.012) & (np.abs(positions[:, 1] - line[4, 1]) < 0.008)
    near &= positions[:, 2] < line[4, 2] + 0.008
    lips = hidden & near & (model.parts[faces] == SKIN)
    order = np.argsort(line[:, 0])
    below = positions[:, 1] - np.interp(positions[:, 0], line[order, 0], line[order, 1])
    upper = lips & ~model.below_mouth[faces]
    assert lips.sum() > 50 and below[upper].max() < 0.001
    teeth = hidden & (model.parts[faces] == UPPER_TEETH)
    lowest = np.percentile(positions[teeth & near, 1], 99) if (teeth & near).any() else positions[teeth, 1].max()
    assert 0.0005 < lowest - line[4, 1] < 0.004  # as parted lips at rest show them


def test_teeth_that_no_photo_shows_are_in_the_shade(closed):
    _, head = closed
    teeth = np.isin(load_head_model().parts[head.faces.numpy()], (UPPER_TEETH, LOWER_TEETH))
    brightness = head.colors.numpy()[teeth].mean(1)
    face = (head.origin.numpy() == VISIBLE) & (head.positions.numpy()[:, 2] < 0.01)
    skin = np.median(head.colors.numpy()[face].mean(1))
    assert 0.5 * skin < np.percentile(brightness, 90) < 1.2 * skin
