"""A person's edge takes the background's colour in the photo; turned to the camera it has the person's."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter, maximum_filter, minimum_filter

from mggtalk_core.gaussians.head import GaussianHead
from mggtalk_core.gaussians.sgp import predict_invisible, predict_visible
from mggtalk_core.gaussians.turning_tone import _hair, _without_tint, softened, turned_changes
from mggtalk_core.geometry.dsgr import build_points, estimate_depth
from mggtalk_core.geometry.nearest_pixels import distance_within
from mggtalk_core.geometry.symmetry import select
from mggtalk_core.headmodel.model import load_head_model
from mggtalk_core.model import MGGTalkModel
from mggtalk_core.portrait.background import already
from mggtalk_core.rendering.frames import render_frames
from mggtalk_core.types import SOLID_ALPHA, VISIBLE, Motion

GLOW = np.array([0.0, 0.1, 0.35], np.float32)


def head_of(portrait) -> GaussianHead:
    points = build_points(portrait, estimate_depth(portrait))
    return predict_invisible(MGGTalkModel(), predict_visible(MGGTalkModel(), points))


def drawn(head: GaussianHead, yaw: float) -> np.ndarray:
    turned = np.radians([[0, yaw, 0]]).astype(np.float32)
    motion = Motion(head.source_expression.numpy()[None], turned, np.zeros((1, 3), np.float32), 25.0)
    return next(render_frames(head, motion, size=256))[0] / 255


@pytest.fixture(scope="module")
def glowing(demo_portrait, demo_points):
    """The demo portrait as if a blue wall shone into the edge of its hair."""
    size = len(demo_portrait.image)
    hair = _hair(demo_portrait.alpha, demo_points.depth_map.outline.bare)
    near = np.exp(-distance_within(demo_portrait.alpha > SOLID_ALPHA) / (0.01 * size)) * hair
    near = gaussian_filter(near.astype(np.float32), 1)
    return replace(demo_portrait, image=(demo_portrait.image + near[..., None] * GLOW).clip(0, 1))


@pytest.mark.parametrize("yaw", [-22, 22])
def test_an_edges_glow_goes_as_the_head_turns(demo_portrait, glowing, yaw):
    head = head_of(glowing)
    stays = replace(head, turned_changes=torch.zeros_like(head.turned_changes))
    np.testing.assert_array_equal(drawn(head, 0), drawn(stays, 0))
    truth, changed, unchanged = drawn(head_of(demo_portrait), yaw), drawn(head, yaw), drawn(stays, yaw)
    where = np.abs(unchanged - changed).max(2) > 0.04
    assert where.sum() > 500
    blue = [(picture[..., 2] - picture[..., 0])[where].mean() for picture in (truth, changed, unchanged)]
    assert blue[1] - blue[0] < 0.6 * (blue[2] - blue[0])


def test_skin_changes_its_tint_and_keeps_its_light(demo_points):
    """A blue wall's colour on a jaw's edge was a purple line across the turned cheek; without its light, a blot."""
    portrait, bare = demo_points.portrait, demo_points.depth_map.outline.bare
    size = len(bare)
    near = np.exp(-distance_within(portrait.alpha > SOLID_ALPHA) / (0.01 * size)) * bare
    tint = GLOW - GLOW.mean()
    blue = np.where((portrait.alpha < 0.5)[..., None], np.float32([0.2, 0.3, 0.8]), portrait.background)
    bluish = replace(
        demo_points, colors=(demo_points.colors + near[tuple(demo_points.pixels.T)][:, None] * tint).astype(np.float32),
        portrait=replace(portrait, filling=already(blue.astype(np.float32))),
    )  # fmt: skip
    changes = turned_changes(bluish, load_head_model())
    assert np.abs(changes[bare].mean(1)).max() < 1e-5
    edge = bare & (near > 0.25) & (np.abs(changes).max(2) > 0)
    assert edge.sum() > 100
    left = near[edge] + changes[edge] @ tint / (tint @ tint)  # shares of what was added
    assert left.mean() < 0.5 * near[edge].mean()


def test_slanted_surface_has_no_more_contrast_than_the_photo_as_it_turns(demo_points):
    """The cheeks' and the hair's: sharpened colours go beyond the photo's own, turned ones do not."""
    seen = select(demo_points, demo_points.origin == VISIBLE)
    points = predict_visible(MGGTalkModel(), seen).points
    image = points.portrait.image
    changes = softened(points, np.zeros_like(image))
    rows, columns = points.pixels.T
    darkest, brightest = (extreme(image, (3, 3, 1))[rows, columns] for extreme in (minimum_filter, maximum_filter))
    turned = points.colors + changes[rows, columns]

    def beyond(colors: np.ndarray) -> np.ndarray:
        return np.maximum(darkest - colors, colors - brightest).max(1)[changed]

    changed = changes[rows, columns].any(1)
    assert changed.mean() > 0.05 and beyond(points.colors).mean() > 0.01
    assert beyond(turned).max() < 1e-6
    facing = -points.depth_map.normals[rows, columns, 2]
    assert facing[changed].max() < 0.9


def test_jewels_and_the_last_pixels_of_a_jaw_are_no_hair():
    alpha, bare = np.ones((200, 200), np.float32), np.zeros((200, 200), bool)
    bare[80:] = True
    alpha[80:, :5], bare[80:, :7] = 0, False  # a jaw's edge
    bare[120:130, 50:60] = False  # a jewel
    hair = _hair(alpha, bare)
    assert hair[:80].all() and not hair[84:].any()


def test_hair_beside_ears_loses_the_walls_tint_not_the_skins():
    """Above the ears of official portraits the wall's blue came to the front (us_B001260)."""
    hair, wall, skin = np.float32([[0.2, 0.15, 0.12]]), np.float32([[0.35, 0.5, 0.95]]), np.float32([[0.8, 0.6, 0.5]])
    mixed = 0.6 * hair + 0.4 * wall
    cleaned = mixed + _without_tint(mixed, hair, wall)
    tint = lambda color: color - color.mean()  # noqa: E731
    np.testing.assert_allclose(tint(cleaned), tint(hair), atol=0.01)
    assert abs(cleaned.mean() - mixed.mean()) < 1e-6
    with_skin = 0.5 * hair + 0.5 * skin
    np.testing.assert_allclose(_without_tint(with_skin, hair, wall), 0, atol=1e-6)
    grey = np.float32([[0.6, 0.6, 0.6]])
    assert np.abs(_without_tint(with_skin, hair, grey)).max() < 0.02
