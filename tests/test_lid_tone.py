"""Closing lids: no stripes on what unfolds, nothing else changes."""

import numpy as np
import pytest

from mggtalk_core.assets import DEMO_PORTRAIT
from mggtalk_core.gaussians.lid_tone import LidTone
from mggtalk_core.gaussians.light import Relighter
from mggtalk_core.headmodel.arkit import ARKIT_INDEX
from mggtalk_core.media.image import read_photo
from mggtalk_core.pipeline import build_head

STILL = np.zeros(3, np.float32)


@pytest.fixture(scope="module")
def head():
    return build_head(read_photo(DEMO_PORTRAIT), size=256)


def with_closed(head, *sides):
    expression = head.source_expression.numpy().copy()
    for side in sides:
        expression[ARKIT_INDEX[f"eyeBlink{side}"]] = 1
    return expression


def roughness(colors, positions):
    """Mean difference of neighbours on a lid, left to right, among those at its edge's height."""
    order = np.argsort(positions[:, 0])
    return np.abs(np.diff(colors[order].mean(1))).mean()


def test_the_photo_s_expression_keeps_its_colours(head):
    """So do a wide open eye and a jaw."""
    plain = head.colors.numpy()
    tone = LidTone.of(head)
    wide = head.source_expression.numpy().copy()
    wide[[ARKIT_INDEX[name] for name in ("eyeWideLeft", "eyeWideRight", "jawOpen")]] = 1
    for expression in (head.source_expression.numpy(), wide):
        colors = plain.copy()
        tone.shade(colors, expression)
        np.testing.assert_array_equal(colors, plain)


def test_closed_lids_are_smooth(head):
    tone, plain = LidTone.of(head), head.colors.numpy()
    closed = plain.copy()
    tone.shade(closed, with_closed(head, "Left", "Right"))
    positions = head.positions.numpy()
    for lid in tone.lids:
        assert len(lid.points) > 50 and lid.closed(with_closed(head, "Left", "Right")) > 0.9
        near = lid.points[np.abs(positions[lid.points, 1] - np.median(positions[lid.points, 1])) < 0.001]
        before, after = (roughness(colors[near], positions[near]) for colors in (plain, closed))
        assert after < 0.8 * before
    changed = (closed != plain).any(1)
    assert changed.sum() < 0.05 * len(head)


def test_one_eye_closes_alone(head):
    tone, plain = LidTone.of(head), head.colors.numpy()
    winking = plain.copy()
    tone.shade(winking, with_closed(head, "Left"))
    right, left = tone.lids
    np.testing.assert_array_equal(winking[right.points], plain[right.points])
    assert (winking[left.points] != plain[left.points]).any()


def test_frames_use_it(head):
    """The colours that frames are drawn with."""
    relighter = Relighter.of(head)
    closing, (right, _) = with_closed(head, "Right"), LidTone.of(head).lids
    rested, closed = (relighter.colors(expression, STILL) for expression in (head.source_expression.numpy(), closing))
    np.testing.assert_allclose((closed - rested)[right.points], right.changes * right.closed(closing), atol=0.02)
