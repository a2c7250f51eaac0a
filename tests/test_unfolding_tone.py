"""Closing lids, parting and closing lips: no stripes and beads on what unfolds or moves, nothing else changes."""

import numpy as np
import pytest
from conftest import shared_data

from mggtalk_core.assets import DEMO_PORTRAIT
from mggtalk_core.gaussians.light import Relighter
from mggtalk_core.gaussians.unfolding_tone import UnfoldingTone
from mggtalk_core.headmodel.arkit import ARKIT_INDEX
from mggtalk_core.headmodel.landmarks import LEFT_EYE_RING, RIGHT_EYE_RING
from mggtalk_core.headmodel.model import LEFT_EYE, LOWER_TEETH, RIGHT_EYE, SKIN, UPPER_TEETH, load_head_model
from mggtalk_core.media.image import read_photo
from mggtalk_core.pipeline import build_head
from mggtalk_core.types import VISIBLE

STILL = np.zeros(3, np.float32)
BLINK = ("eyeBlinkLeft", "eyeBlinkRight")
NEAR_EYE = 0.02


@pytest.fixture(scope="module")
def head():
    return build_head(read_photo(DEMO_PORTRAIT), size=256)


@pytest.fixture(scope="module")
def tone(head):
    return UnfoldingTone.of(head)


def acting(head, *names):
    expression = head.source_expression.numpy().copy()
    expression[[ARKIT_INDEX[name] for name in names]] = 1
    return expression


def shaded(head, tone, expression):
    colors = head.colors.numpy().copy()
    tone.shade(colors, expression)
    return colors


def near_landmarks(head, tone, indices, reach):
    """Which of the tone's points lie so near, metres, to landmarks."""
    marks = load_head_model().landmarks_of(head.vertices.numpy())[list(indices)]
    positions = head.positions.numpy()[tone.points]
    return tone.points[np.linalg.norm(positions[:, None] - marks, axis=2).min(1) < reach]


def roughness(colors, positions, points):
    """Mean difference of neighbours, left to right, at the median height of some points."""
    rows = points[np.abs(positions[points, 1] - np.median(positions[points, 1])) < 0.001]
    rows = rows[np.argsort(positions[rows, 0])]
    return np.abs(np.diff(colors[rows].mean(1))).mean()


def test_the_photo_s_expression_keeps_its_colours(head, tone):
    np.testing.assert_array_equal(shaded(head, tone, head.source_expression.numpy()), head.colors.numpy())


@pytest.mark.parametrize("ring", [LEFT_EYE_RING, RIGHT_EYE_RING])
def test_closed_lids_are_smooth(head, tone, ring):
    plain, closed = head.colors.numpy(), shaded(head, tone, acting(head, *BLINK))
    lid = near_landmarks(head, tone, ring[2:7], 0.006)
    assert len(lid) > 50
    positions = head.positions.numpy()
    assert roughness(closed, positions, lid) < 0.8 * roughness(plain, positions, lid)


def test_parted_lips_have_even_rims(head, tone):
    """What is far darker or brighter than the lips around it would become beads."""
    plain, open_jaw = head.colors.numpy(), shaded(head, tone, acting(head, "jawOpen"))
    rim = near_landmarks(head, tone, (13, 14, 82, 87, 312, 317), 0.003)
    assert len(rim) > 20
    assert open_jaw[rim].mean(1).std() < 0.8 * plain[rim].mean(1).std()


@pytest.fixture(scope="module")
def closed_lips():
    return build_head(read_photo(shared_data("dev/portraits/p05_woman_long_hair.jpg")), size=512)


def test_each_lip_keeps_its_own_colour_when_they_part(closed_lips):
    """p05: orange beads of the lower lip sat along the dark red upper one, and the other way round."""
    tone, model = UnfoldingTone.of(closed_lips), load_head_model()
    moved = shaded(closed_lips, tone, acting(closed_lips, "jawOpen"))
    rim = near_landmarks(closed_lips, tone, (13, 14, 82, 87, 312, 317), 0.0015)
    lower = model.below_mouth[closed_lips.faces.numpy()[rim]]
    assert min(lower.sum(), (~lower).sum()) > 20
    greens = [moved[rim[lip], 1] for lip in (~lower, lower)]  # her upper lip is red, the lower one orange
    assert greens[0].max() < greens[1].min()


def test_lips_that_stay_together_keep_the_line_between_them(closed_lips):
    tone, plain = UnfoldingTone.of(closed_lips), closed_lips.colors.numpy()
    rim = near_landmarks(closed_lips, tone, (13, 14), 0.0015)
    apart = np.abs(shaded(closed_lips, tone, acting(closed_lips, "jawOpen")) - plain)[rim].mean()
    raised = acting(closed_lips, "mouthShrugLower", "mouthShrugUpper")
    together = np.abs(shaded(closed_lips, tone, raised) - plain)[rim].mean()
    assert together < 0.5 * apart


def test_only_what_unfolds_changes(head, tone):
    """One eye closes alone; closing eyes leave the lips, an opening jaw the eyes."""
    plain = head.colors.numpy()
    left, right = (near_landmarks(head, tone, ring, NEAR_EYE) for ring in (LEFT_EYE_RING, RIGHT_EYE_RING))
    winking = shaded(head, tone, acting(head, "eyeBlinkLeft"))
    np.testing.assert_array_equal(winking[right], plain[right])
    assert (winking[left] != plain[left]).any()
    jaw = shaded(head, tone, acting(head, "jawOpen"))
    both = np.concatenate([left, right])
    np.testing.assert_array_equal(jaw[both], plain[both])
    changed = (jaw != plain).any(1)
    assert 20 < changed.sum() < 0.05 * len(head)


def test_frames_use_it(head, tone):
    """The colours that frames are drawn with."""
    relighter, closing = Relighter.of(head), acting(head, *BLINK)
    rested, closed = (relighter.colors(expression, STILL) for expression in (head.source_expression.numpy(), closing))
    expected = tone.changes * tone.unfolded(closing)[:, None]
    np.testing.assert_allclose((closed - rested)[tone.points], expected, atol=0.02)


def test_none_changes_nothing(head):
    colors = shaded(head, UnfoldingTone.none(), acting(head, *BLINK, "jawOpen"))
    np.testing.assert_array_equal(colors, head.colors.numpy())


@pytest.fixture(scope="module")
def smiling():
    return build_head(read_photo(shared_data("dev/portraits/p11_man_grayscale.jpg")), size=512)


def test_open_lips_lose_their_beads_when_they_move(smiling):
    """p11: bright pieces of teeth on his lower lip, pink ones of lip below the teeth of others."""
    tone, plain = UnfoldingTone.of(smiling), smiling.colors.numpy()
    np.testing.assert_array_equal(shaded(smiling, tone, smiling.source_expression.numpy()), plain)
    closing = smiling.source_expression.numpy() * 0.4
    moved = shaded(smiling, tone, closing)
    rim = near_landmarks(smiling, tone, (14, 87, 178, 317, 402), 0.002)
    skin = load_head_model().parts[smiling.faces.numpy()[rim]] == SKIN
    assert skin.sum() > 30
    positions = smiling.positions.numpy()
    assert roughness(moved, positions, rim[skin]) < 0.6 * roughness(plain, positions, rim[skin])
    assert moved[rim[skin]].mean(1).max() < plain[rim[skin]].mean(1).max() - 0.1


def test_teeth_behind_closed_lips_and_far_from_open_ones_keep_their_colours(smiling):
    model = load_head_model()
    closed = build_head(read_photo(shared_data("dev/portraits/p15_senator_bald.jpg")), size=256)
    changing = closed.faces.numpy()[UnfoldingTone.of(closed).points]
    assert np.isin(model.parts[changing], (SKIN, LEFT_EYE, RIGHT_EYE)).all()
    teeth = np.isin(model.parts[smiling.faces.numpy()], (UPPER_TEETH, LOWER_TEETH))
    changed = np.zeros(len(smiling), bool)
    changed[UnfoldingTone.of(smiling).points] = True
    shown = teeth & (smiling.origin.numpy() == VISIBLE)
    assert 0.05 < changed[shown].mean() < 0.6
    assert not changed[teeth & ~shown].any()
