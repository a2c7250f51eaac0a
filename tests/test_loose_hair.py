"""Locks that the segmenter leaves on a plain wall belong to the head; what goes on along the wall does not."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import binary_dilation

from mggtalk_core.gaussians.sgp import predict_invisible, predict_visible
from mggtalk_core.geometry.dsgr import build_points, estimate_depth
from mggtalk_core.model import MGGTalkModel
from mggtalk_core.portrait.background import begin_removing_person
from mggtalk_core.portrait.loose_hair import with_loose_hair
from mggtalk_core.rendering.frames import render_frames
from mggtalk_core.types import Motion

WALL, LOCK = np.array([0.55, 0.62, 0.75], np.float32), np.array([0.12, 0.09, 0.08], np.float32)


def line(start: np.ndarray, end: np.ndarray, size: int) -> np.ndarray:
    """Mask (S, S) bool of a line, 3 px wide, between two row, column positions."""
    mask = np.zeros((size, size), bool)
    rows, columns = np.linspace(start, end, 4 * size).round().astype(int).T
    mask[rows, columns] = True
    return binary_dilation(mask)


@pytest.fixture(scope="module")
def before_a_wall(demo_portrait):
    """The demo portrait before a plain wall, a curved lock at its side and a pole from its top to the border."""
    alpha, size = demo_portrait.alpha, len(demo_portrait.alpha)
    row = size // 3
    side = np.array([row, np.flatnonzero(alpha[row] > 0.5).max()])
    top = np.array([np.flatnonzero(alpha[:, size // 2] > 0.5).min(), size // 2])
    lock = line(side, side + [-9, 10], size) | line(side + [-9, 10], side + [2, 15], size)
    pole = line(top, np.array([0, top[1]]), size)
    person = alpha[..., None]
    wall = WALL + np.random.default_rng(0).normal(0, 0.006, (size, size, 1))
    behind = np.where((lock | pole)[..., None], LOCK, wall)
    image = demo_portrait.image * person + behind * (1 - person)
    clear = ~binary_dilation(alpha > 0.05, iterations=4)
    return image.clip(0, 1).astype(np.float32), alpha, lock & clear, pole & clear


def test_a_lock_is_the_persons_and_a_pole_is_not(before_a_wall):
    image, alpha, lock, pole = before_a_wall
    found = with_loose_hair(image, alpha)
    assert lock.sum() > 50
    assert pole.sum() > 20
    assert (found[lock] > 0.7).mean() > 0.9
    np.testing.assert_array_equal(found[pole], alpha[pole])
    beside = ~binary_dilation(lock, iterations=6)
    assert (found - alpha)[beside].sum() < 10


def test_a_tuft_does_not_make_its_own_wall(before_a_wall):
    """Dense hair was most of what the wall's colour was taken from beside it, and so no longer unlike it."""
    image, alpha, _, _ = before_a_wall
    size = len(alpha)
    row = size // 3
    roots = [(r, np.flatnonzero(alpha[r] > 0.5).max() - 2) for r in range(row - 24, row + 24, 7)]
    strands = [line(np.array(root), np.add(root, [-8, size / 12]), size) for root in roots]
    tuft = np.any(strands, axis=0)
    clear = ~binary_dilation(alpha > 0.05, iterations=4)
    image = np.where((tuft & clear)[..., None], 0.5 * (LOCK + WALL), image).astype(np.float32)
    found = with_loose_hair(image, alpha)
    assert (tuft & clear).sum() > 150
    assert (found[tuft & clear] > 0.3).mean() > 0.8


def test_bricks_are_not_taken_for_hair(before_a_wall):
    image, alpha, _, _ = before_a_wall
    size = len(alpha)
    rows, columns = np.indices((size, size))
    mortar = (rows % 16 < 3) | ((columns + rows // 16 % 2 * 12) % 24 < 3)
    bricks = np.where(mortar, 0.8, 0.4)[..., None] * np.ones(3)
    image = (image * alpha[..., None] + bricks * (1 - alpha[..., None])).astype(np.float32)
    np.testing.assert_array_equal(with_loose_hair(image, alpha), alpha)


def test_a_lock_leaves_the_wall_as_the_head_turns(demo_portrait, before_a_wall):
    image, alpha, lock, _ = before_a_wall
    left = []
    for mask in (alpha, with_loose_hair(image, alpha)):
        portrait = replace(demo_portrait, image=image, alpha=mask, filling=begin_removing_person(image, mask))
        points = build_points(portrait, estimate_depth(portrait))
        head = predict_invisible(MGGTalkModel(), predict_visible(MGGTalkModel(), points))
        motion = Motion(
            np.repeat(head.source_expression.numpy()[None], 2, 0),
            np.radians([[0, 0, 0], [0, 20, 0]]).astype(np.float32), np.zeros((2, 3), np.float32), 25.0,
        )  # fmt: skip
        own, turned = (frame / 255 for frame, _ in render_frames(head, motion, size=len(alpha)))
        assert np.abs(own - image)[lock].mean() < 0.06
        left.append((np.abs(turned - WALL)[lock].max(1) > 0.15).mean())
    assert left[0] > 0.7
    assert left[1] < 0.3
