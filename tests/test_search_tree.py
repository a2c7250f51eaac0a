"""Nearest points, found faster than by scipy's default tree, are the same points."""

import numpy as np
from scipy.spatial import cKDTree

from mggtalk_core.geometry.search_tree import AS_NEAR, search_tree


def test_the_nearest_points_are_those_of_scipys_default_tree():
    rng = np.random.default_rng(0)
    front = rng.normal(size=(2000, 3)) * [1, 1, 0.1]
    behind = rng.normal(size=(300, 3)) + [0, 0, 2]
    distance, nearest = search_tree(front).query(behind, k=8)
    expected_distance, expected = cKDTree(front).query(behind, k=8)
    np.testing.assert_array_equal(nearest, expected)
    np.testing.assert_array_equal(distance, expected_distance)


def test_points_for_a_mean_are_about_as_near():
    rng = np.random.default_rng(0)
    front, behind = rng.normal(size=(2000, 3)) * [1, 1, 0.1], rng.normal(size=(300, 3)) + [0, 0, 2]
    nearest, _ = search_tree(front).query(behind, k=8)
    about, _ = search_tree(front).query(behind, k=8, eps=AS_NEAR)
    assert (about <= nearest * (1 + AS_NEAR) + 1e-9).all()
