"""Picture alignment: a motion that was tracked a little wrong is corrected by the frame."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from mggtalk_core.errors import InputError
from mggtalk_core.geometry.projection import project, to_camera
from mggtalk_core.headmodel.arkit import ARKIT_INDEX
from mggtalk_core.motion import video
from mggtalk_core.motion.picture_alignment import PICTURE_SIZE, PictureAlignment
from mggtalk_core.motion.video import motion_of_faces, track_video
from mggtalk_core.portrait.tracking import FaceTracker
from mggtalk_core.rendering.frames import LiveRenderer, render_frames
from mggtalk_core.types import Motion


@pytest.fixture(scope="module")
def alignment(demo_head):
    return PictureAlignment(demo_head)


@pytest.fixture(scope="module")
def truth(demo_head):
    """A true motion (expression, rotation, translation)."""
    expression = demo_head.source_expression.numpy().copy()
    expression[ARKIT_INDEX["jawOpen"]] += 0.3
    expression[ARKIT_INDEX["mouthFunnel"]] += 0.2
    return expression, np.float32([0.03, 0.12, -0.02]), np.float32([0.002, -0.001, 0.0])


@pytest.fixture(scope="module")
def frame(demo_head, truth):
    """The crop of the demo photo with the head moved by `truth`, in place in the whole photo."""
    motion = Motion(*(value[None] for value in truth), fps=25.0)
    return next(render_frames(demo_head, motion, framing="paste"))[0]


WRONG = {"jawOpen": -0.1, "mouthFunnel": 0.08, "mouthSmileLeft": 0.06, "browInnerUp": 0.05}


@pytest.fixture(scope="module")
def tracked(truth):
    """The truth, with errors as large as those of landmarks."""
    expression = truth[0].copy()
    for name, error in WRONG.items():
        expression[ARKIT_INDEX[name]] += error
    return expression.clip(0, 1), truth[1] + np.float32([0.01, -0.02, 0.01]), truth[2] + np.float32([0.001, 0.001, 0])


def error(alignment, motion, truth) -> float:
    """Mean distance of the compared vertices, pixels of the small picture."""
    places = [
        project(to_camera(alignment._moved(e, Rotation.from_rotvec(r), t)[0], alignment.camera), alignment.camera)
        for e, r, t in (motion, truth)
    ]
    return float(np.linalg.norm((places[0] - places[1])[:, :2], axis=1).mean())


def test_the_error_of_tracking_is_mostly_removed(alignment, frame, tracked, truth):
    aligned = alignment.align(alignment.picture_of(frame), *tracked)
    assert error(alignment, tracked, truth) > 0.6
    assert error(alignment, aligned, truth) < 0.35 * error(alignment, tracked, truth)
    assert all(value.dtype == np.float32 for value in aligned) and 0 <= aligned[0].min() <= aligned[0].max() <= 1


def test_what_is_right_stays(alignment, frame, truth):
    assert error(alignment, alignment.align(alignment.picture_of(frame), *truth), truth) < 0.08


@pytest.mark.parametrize("change", ["darker", "warmer", "shaded"])
def test_light_is_not_motion(alignment, frame, tracked, truth, change):
    picture = frame.astype(np.float32)
    if change == "shaded":
        picture = picture * np.linspace(0.7, 1.1, frame.shape[1])[None, :, None]
    else:
        picture = picture * {"darker": np.float32([0.6] * 3), "warmer": np.float32([1.1, 1, 0.7])}[change]
    aligned = alignment.align(alignment.picture_of(picture.clip(0, 255).astype(np.uint8)), *tracked)
    assert error(alignment, aligned, truth) < 0.5 * error(alignment, tracked, truth)


def test_something_before_the_face_does_not_pull_it(alignment, demo_head, frame, tracked, truth):
    covered = frame.copy()
    side = demo_head.crop_to_photo[0, 0].item() * demo_head.crop_size
    left, top = demo_head.crop_to_photo[:, 2].tolist()
    covered[int(top + 0.45 * side) : int(top + 0.75 * side), int(left + 0.5 * side) : int(left + 0.8 * side)] = 90
    aligned = alignment.align(alignment.picture_of(covered), *tracked)
    assert error(alignment, aligned, truth) < 1.2 * error(alignment, tracked, truth)


def test_frames_of_an_unknown_person_are_aligned_too(demo_head, truth):
    rest = demo_head.source_expression.numpy()
    renderer = LiveRenderer(demo_head)
    camera = demo_head.camera.resized(2 * PICTURE_SIZE, 2 * PICTURE_SIZE)
    still = (rest, np.zeros(3, np.float32), np.zeros(3, np.float32))
    frames = [renderer.frame(*motion, camera)[0].copy() for motion in (still, truth, still)]
    motion = track_video(frames, 25.0, smoothing=0)
    assert motion.warnings == ()
    with FaceTracker(max_faces=3) as tracker:
        landmarks_alone = motion_of_faces([tracker.detect(frame)[0] for frame in frames], 25.0, smoothing=0)
    off, off_alone = (
        np.abs(found.rotation[1] - found.rotation[0] - truth[1]).max() for found in (motion, landmarks_alone)
    )
    assert off < 0.025 and off < off_alone


def test_a_first_frame_that_gives_no_head_leaves_the_landmarks(monkeypatch, demo_head):
    def refuse(*_, **__):
        raise InputError("the face is only 20 pixels large")

    monkeypatch.setattr(video, "analyze_portrait", refuse)
    frame = demo_head.photo.numpy()
    motion = track_video([frame] * 2, 25.0)
    assert len(motion) == 2 and "landmarks alone" in motion.warnings[0] and "20 pixels" in motion.warnings[0]
