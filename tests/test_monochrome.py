"""What a grey or sepia photo hides has the photo's tint; colour photos are left alone."""

import numpy as np
import pytest

from mggtalk_core.assets import DEMO_PORTRAIT
from mggtalk_core.gaussians.monochrome import in_the_photos_tint
from mggtalk_core.media.image import read_photo
from mggtalk_core.pipeline import build_head
from mggtalk_core.types import VISIBLE

SEPIA = np.array([0.8, 1.0, 1.25])


@pytest.fixture(scope="module")
def photo():
    return read_photo(DEMO_PORTRAIT)


def test_colour_photos_are_left_alone(photo):
    colors = np.random.default_rng(0).random((100, 3))
    np.testing.assert_array_equal(in_the_photos_tint(colors, photo), colors)


def test_sepia_stays_sepia(photo):
    sepia = photo.mean(-1, keepdims=True) ** SEPIA
    colors = np.random.default_rng(0).random((100, 3))
    tinted = in_the_photos_tint(colors, sepia)
    np.testing.assert_allclose(tinted.mean(1), colors.mean(1), atol=1e-6)
    inside = (tinted.mean(1) > 0.2) & (tinted.mean(1) < 0.8)
    assert (tinted[inside, 0] > tinted[inside, 1]).all() and (tinted[inside, 1] > tinted[inside, 2]).all()


def test_a_grey_photo_s_mouth_is_grey(photo):
    """Gums, tongue and the lips' inner side were pink in it."""
    grey = np.repeat(photo.mean(-1, keepdims=True), 3, axis=2)
    head = build_head(grey, size=192)
    hidden = head.colors[head.origin != VISIBLE].numpy()
    assert np.ptp(hidden, axis=1).max() < 0.02
