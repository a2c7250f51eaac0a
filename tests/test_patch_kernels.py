"""Patch-based completion's loops against the plain formulas."""

import numpy as np

from mggtalk_core.portrait.patch_kernels import RADIUS, _distance, bordered, unbordered, vote

SIDE = 24
RNG = np.random.default_rng(0)
IMAGE, CONFIDENCE = RNG.random((SIDE, SIDE, 3), np.float32), RNG.random((SIDE, SIDE), np.float32)
PICTURE = bordered(np.concatenate([IMAGE, np.ones((SIDE, SIDE, 1), np.float32)], 2))


def patch(values: np.ndarray, row: int, column: int) -> np.ndarray:
    """The 7 x 7 values around a pixel, 0 beyond the border."""
    margin = ((RADIUS, RADIUS), (RADIUS, RADIUS)) + ((0, 0),) * (values.ndim - 2)
    return np.pad(values, margin)[row : row + 2 * RADIUS + 1, column : column + 2 * RADIUS + 1]


def test_a_picture_keeps_its_colours_within_the_margins():
    np.testing.assert_array_equal(unbordered(PICTURE), IMAGE)


def test_patches_differ_by_their_confident_squares():
    weights = bordered(CONFIDENCE[..., None].repeat(4, 2))
    for (row, column), (other_row, other_column) in (((0, 0), (10, 12)), ((23, 5), (3, 20)), ((8, 23), (12, 3))):
        weight = patch(CONFIDENCE, row, column)[..., None]
        expected = (weight * (patch(IMAGE, row, column) - patch(IMAGE, other_row, other_column)) ** 2).sum()
        got = _distance(PICTURE, weights, row, column, other_row, other_column, np.float32(1e30))
        np.testing.assert_allclose(got, expected, rtol=1e-5)
        assert _distance(PICTURE, weights, row, column, other_row, other_column, np.float32(0.1)) >= 0.1


def test_a_hole_is_the_mean_of_what_its_patches_say():
    hole = np.zeros((SIDE, SIDE), bool)
    hole[:4, 9:13] = True
    targets = np.zeros_like(hole)
    targets[: 4 + RADIUS, 9 - RADIUS : 13 + RADIUS] = True
    matches = RNG.integers(8, SIDE - RADIUS, (SIDE, SIDE, 2)).astype(np.int32)
    picture = PICTURE.copy()
    vote(picture, CONFIDENCE, hole, targets, matches)
    expected = IMAGE.copy()
    for row, column in np.argwhere(hole):
        colors, weights = [], []
        for y, x in np.argwhere(targets):
            if max(abs(y - row), abs(x - column)) <= RADIUS:
                other_row, other_column = matches[y, x]
                colors.append(IMAGE[other_row + row - y, other_column + column - x])
                weights.append(CONFIDENCE[y, x] ** 2)
        expected[row, column] = np.average(colors, 0, weights)
    np.testing.assert_allclose(unbordered(picture), expected, atol=1e-5)
