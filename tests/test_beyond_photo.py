"""A photo that ends at the forehead gives a head with a crown before its own background, not a column of stripes."""

import numpy as np
import pytest

from mggtalk_core.assets import DEMO_PORTRAIT
from mggtalk_core.media.image import read_photo
from mggtalk_core.portrait.analysis import analyze_portrait
from mggtalk_core.portrait.beyond_photo import beyond_photo, with_crown
from mggtalk_core.portrait.crop import cut_square


@pytest.fixture(scope="module")
def tight(demo_portrait):
    """The demo photo cut to little more than the face, analysed, and its face in the photo (478, 2)."""
    to_photo = demo_portrait.crop_to_photo
    face = demo_portrait.landmarks[:468, :2] * to_photo[[0, 1], [0, 1]] + to_photo[:, 2]
    (left, top), (right, bottom) = face.min(0), face.max(0)
    across = right - left
    rows = slice(int(top - 0.02 * across), int(bottom + 0.35 * across))
    columns = slice(int(left - 0.4 * across), int(right + 0.4 * across))
    photo = np.ascontiguousarray(read_photo(DEMO_PORTRAIT)[rows, columns])
    return photo, analyze_portrait(photo, size=256)


def test_what_the_photo_shows_stays(tight):
    photo, portrait = tight
    to_photo, size = portrait.crop_to_photo, len(portrait.image)
    cut, _ = cut_square(photo, to_photo[:, 2] + to_photo[0, 0] * size / 2, to_photo[0, 0] * size, size)
    beyond = beyond_photo(to_photo, photo.shape[:2], size)
    assert 0.1 < beyond.mean() < 0.7
    np.testing.assert_allclose(portrait.image[~beyond], cut[~beyond], atol=1e-5)


def test_the_head_is_closed_by_hair(tight):
    photo, portrait = tight
    size = len(portrait.alpha)
    edge = int(np.argmin(beyond_photo(portrait.crop_to_photo, photo.shape[:2], size).all(1)))
    assert edge > size / 16
    width = (portrait.alpha > 0.5).sum(1)
    closed = int(np.flatnonzero(width)[0])
    assert closed < edge - size / 40  # the cut is not the head's end
    assert width[closed] < 0.9 * width[edge + 1]
    assert np.all(np.diff(width[closed:edge]) >= 0)
    # Stripes are alike from row to row; hair and background are not.
    across, down = (np.abs(np.diff(portrait.image[: edge - 1], axis=axis)).mean() for axis in (1, 0))
    assert down > 0.3 * across
    hair = portrait.image[closed + 2 : edge - size // 32][portrait.alpha[closed + 2 : edge - size // 32] > 0.95]
    skin = portrait.image[portrait.landmarks[[151, 9], 1].astype(int), portrait.landmarks[[151, 9], 0].astype(int)]
    assert hair.mean() < 0.75 * skin.mean()


def test_a_person_who_is_not_cut_gets_no_crown(demo_portrait):
    beyond = np.zeros(demo_portrait.alpha.shape, bool)
    same = with_crown(demo_portrait.alpha, beyond, demo_portrait.vertices, demo_portrait.camera)
    np.testing.assert_array_equal(same, demo_portrait.alpha)
