"""Driving by video: a motion rendered on the demo head is read back from the frames."""

import numpy as np
import pytest

from mggtalk_core.errors import InputError
from mggtalk_core.headmodel.arkit import ARKIT_INDEX
from mggtalk_core.motion.audio.mouth import mouth_rig
from mggtalk_core.motion.onto_portrait import lip_aperture, onto_portrait
from mggtalk_core.motion.video import DrivingPerson, track_video
from mggtalk_core.rendering.frames import render_frames
from mggtalk_core.types import Motion


@pytest.fixture(scope="module")
def clip(demo_head):
    """A known motion and its frames."""
    frames = 24
    time = np.arange(frames) / 8
    expression = np.tile(demo_head.source_expression.numpy(), (frames, 1))
    expression[:, ARKIT_INDEX["jawOpen"]] = 0.3 + 0.3 * np.sin(2 * np.pi * time / 1.5)
    rotation = np.stack([0 * time, 0.15 * np.sin(2 * np.pi * time / 3), 0 * time], 1).astype(np.float32)
    motion = Motion(expression.astype(np.float32), rotation, np.zeros((frames, 3), np.float32), 8.0)
    return motion, [rgb for rgb, _ in render_frames(demo_head, motion, size=256)]


def test_the_motion_is_read_back(clip):
    motion, frames = clip
    found = track_video(frames, motion.fps, smoothing=0)
    jaw = ARKIT_INDEX["jawOpen"]
    assert np.corrcoef(found.expression[:, jaw], motion.expression[:, jaw])[0, 1] > 0.95
    asked = np.degrees(motion.rotation[:, 1] - motion.rotation[0, 1])
    seen = np.degrees(found.rotation[:, 1])
    assert np.corrcoef(asked, seen)[0, 1] > 0.98
    assert np.abs(asked - seen).max() < 4
    assert len(found) == len(frames) and found.warnings == ()


def test_another_face_opens_its_mouth_as_far_as_the_driving_one(clip, demo_head):
    """A coefficient parts everybody's lips by another amount: mouths driven by real clips opened half as far."""
    motion, frames = clip
    found = track_video(frames, motion.fps, smoothing=0)
    shown = lip_aperture(demo_head, motion.expression)
    moved = lip_aperture(demo_head, onto_portrait(found, demo_head).expression)
    np.testing.assert_allclose(moved, mouth_rig().aperture_of(found.expression), atol=0.01)
    assert np.corrcoef(shown, moved)[0, 1] > 0.99
    assert 0.8 < np.polyfit(shown, moved, 1)[0] < 1.2
    assert np.abs(shown - moved).mean() < 0.04


def test_narrow_eyes_of_the_driving_person_stay_theirs_but_blinks_come_over(demo_head):
    lids = [ARKIT_INDEX["eyeBlinkLeft"], ARKIT_INDEX["eyeBlinkRight"]]
    expression = np.tile(demo_head.source_expression.numpy(), (8, 1))
    expression[:, lids] = 0.35
    expression[5, lids] = 1.0
    still = np.zeros((8, 3), np.float32)
    frames = [rgb for rgb, _ in render_frames(demo_head, Motion(expression, still, still, 8.0), size=256)]
    found = track_video(frames, 8.0, smoothing=0).expression[:, lids].mean(1)
    assert np.delete(found, 5).max() < 0.12  # 0.35 of their own
    assert found[5] > 0.4


def test_a_known_person_starts_from_rest(clip, demo_portrait):
    _, frames = clip
    person = DrivingPerson.from_portrait(demo_portrait)
    _, rotation, translation = person.relative(person.fit(person.rest_face, None))
    assert np.degrees(np.abs(rotation)).max() < 0.5 and np.abs(translation).max() < 0.002


@pytest.mark.parametrize("missing", ["interpolate", "previous", "neutral"])
def test_frames_without_a_face_are_filled_and_reported(clip, missing):
    motion, frames = clip
    gap = [frames[0], frames[3], np.zeros_like(frames[0]), np.zeros_like(frames[0]), frames[6]]
    found = track_video(gap, motion.fps, missing=missing, smoothing=0)
    jaw = found.expression[:, ARKIT_INDEX["jawOpen"]]
    assert len(found) == 5 and "2 of 5" in found.warnings[0] and "2, 3" in found.warnings[0]
    if missing == "interpolate":
        np.testing.assert_allclose(jaw[2:4], jaw[1] + (jaw[4] - jaw[1]) * np.array([1, 2]) / 3, atol=1e-5)
    else:
        np.testing.assert_allclose(jaw[2:4], jaw[1] if missing == "previous" else 0, atol=1e-6)


def test_missing_faces_can_be_an_error(clip):
    _, frames = clip
    with pytest.raises(InputError, match=r"no face in frame 1 \(0.12 s\)"):
        track_video([frames[0], np.zeros_like(frames[0])], 8.0, missing="error")
    with pytest.raises(InputError, match="no face found in any frame"):
        track_video([np.zeros((64, 64, 3), np.uint8)] * 3, 8.0)
    with pytest.raises(InputError, match="no frames"):
        track_video([], 8.0)
