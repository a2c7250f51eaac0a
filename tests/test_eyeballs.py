"""Wide eyes and looks to the side show whole irises and whites, not lashes and glints that the lids left there."""

from dataclasses import replace

import numpy as np
import pytest

from mggtalk_core.assets import DEMO_PORTRAIT
from mggtalk_core.gaussians.eyeballs import eyeball_colors
from mggtalk_core.gaussians.unfolding_tone import UnfoldingTone
from mggtalk_core.headmodel.arkit import ARKIT_INDEX
from mggtalk_core.headmodel.model import LEFT_EYE, RIGHT_EYE, load_head_model
from mggtalk_core.media.image import read_photo
from mggtalk_core.pipeline import build_head
from mggtalk_core.types import INTERIOR, VISIBLE

IRIS, WHITE = 0.3, (0.55, 0.8)
"""Angles from the pupil, radians, that are surely iris and surely white on the head model's large eyeballs."""


@pytest.fixture(scope="module")
def head():
    return build_head(read_photo(DEMO_PORTRAIT), size=512)


def eyeball(head, eye):
    """Points of an eyeball: indices, those hidden among them, angles from the pupil."""
    model = load_head_model()
    points = np.flatnonzero(model.parts[head.faces.numpy()] == eye)
    centre = head.vertices.numpy()[model.part_vertices(eye)].mean(0)
    away = head.positions.numpy()[points] - centre
    iris = model.landmarks_of(head.vertices.numpy())[473 if eye == LEFT_EYE else 468] - centre
    angle = np.arccos((away @ iris / np.linalg.norm(away, axis=1) / np.linalg.norm(iris)).clip(-1, 1))
    return points, head.origin.numpy()[points] == INTERIOR, angle


@pytest.mark.parametrize("eye", [LEFT_EYE, RIGHT_EYE])
def test_under_the_lids_the_iris_is_round_and_the_white_even(head, eye):
    points, hidden, angle = eyeball(head, eye)
    brightness = head.colors.numpy()[points].mean(1)
    iris = brightness[hidden & (angle < IRIS)]
    white = brightness[hidden & (angle > WHITE[0]) & (angle < WHITE[1])]
    assert len(white) > 50 and white.std() < 0.08
    assert len(iris) == 0 or iris.mean() < 0.75 * white.mean()  # of some eyes the lids hide no iris


@pytest.mark.parametrize("closed", [(LEFT_EYE,), (LEFT_EYE, RIGHT_EYE)])
def test_an_eye_that_is_closed_in_the_photo_has_an_iris(demo_points, closed):
    """It is like the other one, or dark where none is known."""
    model = load_head_model()
    part = model.parts[demo_points.faces]
    origin = demo_points.origin.copy()
    origin[np.isin(part, closed)] = INTERIOR
    points = replace(demo_points, origin=origin)
    hidden = np.flatnonzero((origin == INTERIOR) & (part == LEFT_EYE))
    brightness = eyeball_colors(points, hidden, model, np.array([0.7, 0.5, 0.4])).mean(1)
    centre = points.portrait.vertices[model.part_vertices(LEFT_EYE)].mean(0)
    away = points.positions[hidden] - centre
    iris = model.landmarks_of(points.portrait.vertices)[473] - centre
    angle = np.arccos(away @ iris / np.linalg.norm(away, axis=1) / np.linalg.norm(iris))
    white = brightness[(angle > WHITE[0]) & (angle < WHITE[1])]
    assert (angle < IRIS).sum() > 20 and brightness[angle < IRIS].mean() < 0.75 * white.mean()


@pytest.mark.parametrize("action", ["eyeWideLeft", "eyeLookOutLeft"])
def test_uncovered_eyeballs_lose_lashes_and_shadow(head, action):
    """Beside the lids what is seen becomes like what is hidden; the other eye stays."""
    tone = UnfoldingTone.of(head)
    expression = head.source_expression.numpy().copy()
    expression[ARKIT_INDEX[action]] = 1
    plain, shaded = head.colors.numpy(), head.colors.numpy().copy()
    tone.shade(shaded, expression)
    left, _, _ = eyeball(head, LEFT_EYE)
    right, _, _ = eyeball(head, RIGHT_EYE)
    seen = left[head.origin.numpy()[left] == VISIBLE]
    changed = (shaded[seen] != plain[seen]).any(1)
    assert 10 < changed.sum() < len(seen)
    np.testing.assert_array_equal(shaded[right], plain[right])


def test_a_blink_leaves_the_eyeball(head):
    tone = UnfoldingTone.of(head)
    expression = head.source_expression.numpy().copy()
    expression[[ARKIT_INDEX["eyeBlinkLeft"], ARKIT_INDEX["eyeBlinkRight"]]] = 1
    plain, shaded = head.colors.numpy(), head.colors.numpy().copy()
    tone.shade(shaded, expression)
    for eye in (LEFT_EYE, RIGHT_EYE):
        points, _, _ = eyeball(head, eye)
        assert np.abs(shaded[points] - plain[points]).max() < 0.02
