"""The person's edge: what of its colours is the background's, told by both together."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import shared_data

from mggtalk_core.gaussians.edge import Edge, TowardsBackground, colors_around
from mggtalk_core.gaussians.sgp import predict_visible
from mggtalk_core.geometry.dsgr import build_points, estimate_depth
from mggtalk_core.media.image import read_photo
from mggtalk_core.model import MGGTalkModel
from mggtalk_core.portrait.analysis import analyze_portrait
from mggtalk_core.types import VISIBLE

SIZE = 256
HAIR, WALL = np.array([0.4, 0.3, 0.12]), np.array([0.75, 0.75, 0.78])
RADIUS = 80.0


@pytest.fixture(scope="module")
def distance():
    return np.hypot(*(np.mgrid[:SIZE, :SIZE] + 0.5 - SIZE / 2))


@pytest.fixture(scope="module")
def hair(distance):
    """A head of hair with bright and dark strands before a grey wall, its edge two pixels wide."""
    strands = np.sin(np.arctan2(*(np.mgrid[:SIZE, :SIZE] + 0.5 - SIZE / 2)) * 60)[..., None]
    share = np.clip((RADIUS - distance) / 2 + 0.5, 0, 1)[..., None]
    return (share * HAIR * (1 + 0.5 * strands) + (1 - share) * WALL).astype(np.float32)


def test_colours_around_are_those_of_the_known_pixels_nearby(distance, hair):
    known = distance < 60
    places = np.array([[SIZE // 2, SIZE // 2 - 59], [SIZE // 2, SIZE // 2]])
    mean, covariance = colors_around(hair, known, places)
    np.testing.assert_allclose(mean / mean.sum(1, keepdims=True), [HAIR / HAIR.sum()] * 2, atol=0.01)
    assert (np.linalg.eigvalsh(covariance)[:, 2] > 0.01).all()  # the strands
    assert (np.linalg.eigvalsh(covariance)[:, :2] < 1e-4).all()  # of one tint


def test_a_lone_known_pixel_is_its_own_surroundings():
    image = np.random.default_rng(0).random((512, 512, 3)).astype(np.float32)
    known = np.zeros((512, 512), bool)
    known[101, 201] = True  # not on the coarser grid
    mean, covariance = colors_around(image, known, np.array([[101], [201]]))
    np.testing.assert_allclose(mean[0], image[101, 201], atol=1e-6)
    np.testing.assert_allclose(covariance[0], 0, atol=1e-6)


def test_strands_stay_and_a_mixture_with_the_wall_goes(distance, hair):
    alpha = np.clip((RADIUS + 1 - distance) / 3 + 0.5, 0, 1)
    edge = Edge.of(alpha, np.zeros(alpha.shape, bool))
    beside = np.broadcast_to(WALL, (edge.pixels.sum(), 3))
    towards = TowardsBackground.of(hair, beside, edge)
    outermost = (towards.number >= 0) & (distance > RADIUS)
    number = towards.number[outermost]
    number = number[towards.doubt[number] > 0.8]
    assert len(number) > 30
    bright = np.tile(1.3 * HAIR, (len(number), 1))
    np.testing.assert_allclose(towards.kept(bright, number), bright, atol=0.02)
    mixed = 0.6 * HAIR + 0.4 * WALL
    kept = towards.kept(np.tile(mixed, (len(number), 1)), number)
    tint = kept / kept.sum(1, keepdims=True)
    assert np.abs(tint - HAIR / HAIR.sum()).max() < 0.5 * np.abs(mixed / mixed.sum() - HAIR / HAIR.sum()).max()


@pytest.mark.parametrize("name", ["p02_man_beard_glasses.jpg", "p18_astronaut.png"])
def test_no_line_of_the_wall_where_the_hair_ended_in_the_photo(name):
    """Yellow in p02's black hair, grey in p18's, as soon as the head turned."""
    portrait = analyze_portrait(read_photo(shared_data("dev/portraits/" + name)), size=512)
    points = predict_visible(MGGTalkModel(), build_points(portrait, estimate_depth(portrait))).points
    edge = Edge.of(portrait.alpha, np.zeros(portrait.alpha.shape, bool))
    towards = TowardsBackground.of(portrait.image, portrait.background[edge.pixels], replace(edge, doubt=edge.doubt**0))
    rows, columns = points.pixels.clip(0).T
    hair = (points.origin == VISIBLE) & (rows < portrait.landmarks[[33, 263], 1].min()) & (points.opacities > 0.5)
    at_edge = hair & (towards.number[rows, columns] >= 0)
    number = towards.number[rows, columns][at_edge]
    share = towards.share(points.colors[at_edge], number)
    assert at_edge.sum() > 1000
    assert (share > 0.1).mean() < 0.06  # .26 and .45


def test_the_head_model_is_not_opaque_beyond_the_person(demo_portrait):
    """Such pixels are the wall's, and were beads along the old outline; holes in a face are a mask's errors."""
    alpha, size = demo_portrait.alpha.copy(), len(demo_portrait.alpha)
    crown = np.flatnonzero((alpha > 0.5).any(1))[0] + round(0.2 * size)
    alpha[:crown] = np.minimum(alpha[:crown], 0.12)
    row, column = demo_portrait.landmarks[4, ::-1].astype(int)
    alpha[row - 4 : row + 4, column - 4 : column + 4] = 0.12
    portrait = replace(demo_portrait, alpha=alpha)
    points = build_points(portrait, estimate_depth(portrait))
    rows, columns = points.pixels.T
    visible, on_model = points.origin == VISIBLE, points.depth_map.distance[rows, columns] == 0
    beyond = visible & on_model & (rows < crown - 2)
    in_hole = visible & (abs(rows - row) < 4) & (abs(columns - column) < 4)
    assert beyond.sum() > 100 and in_hole.sum() > 20
    assert np.median(points.opacities[beyond]) < 0.2 and points.opacities[in_hole].min() > 0.9
