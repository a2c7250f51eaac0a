"""Lips tracked through a clip: MediaPipe's VIDEO mode, whose landmarks tremble less than those of single images.

For measuring and learning only. Driving a head from video needs fitted coefficients (motion/video.py), not these.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..headmodel.arkit import ARKIT_INDEX
from ..media.audio import read_audio
from ..media.video_reader import VideoReader
from ..model_files import find_model_file
from .lip_sync import LipCurves, tracked_curves

LEAST_FOUND = 0.9
"""A clip whose face is lost more often than this says little about its lips."""


def track_lips(path: str | Path) -> LipCurves:
    """Lip curves of the largest face in a clip, on the clock of its sound.

    Raises:
        InputError: not a video, or no face in more than a tenth of the frames.
    """
    reader = VideoReader(path)
    frames = ((frame.time, frame.rgb) for frame in reader)
    return track_lips_of_frames(frames, 1 / float(reader.fps), str(path), reader.audio_delay)


def track_lips_of_frames(
    frames: Iterable[tuple[float, np.ndarray]], frame_s: float, name: str, delay: float = 0.0
) -> LipCurves:
    """Lip curves of the largest face in frames: rising times in seconds and pictures (H, W, 3) uint8.

    Args:
        frame_s: how long the last frame lasts, seconds.
        name: what an error calls them.
        delay: seconds taken off the times.

    Raises:
        InputError: no face in more than a tenth of the frames.
    """
    import mediapipe
    from mediapipe.tasks.python import BaseOptions, vision

    options = vision.FaceLandmarkerOptions(
        base_options=BaseOptions(model_asset_buffer=find_model_file("face_landmarker.task").read_bytes()),
        running_mode=vision.RunningMode.VIDEO,
        output_face_blendshapes=True,
        min_face_detection_confidence=0.3,
        min_face_presence_confidence=0.3,
        min_tracking_confidence=0.3,
    )
    landmarks, scores, times = [], [], []
    with vision.FaceLandmarker.create_from_options(options) as landmarker:
        last = -1
        for time, rgb in frames:
            last = max(last + 1, round(1000 * time))  # MediaPipe wants rising whole milliseconds
            image = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(rgb))
            result = landmarker.detect_for_video(image, last)
            points, shapes = np.full((478, 2), np.nan, np.float32), np.zeros(52, np.float32)
            if result.face_landmarks:
                height, width = rgb.shape[:2]
                points[:] = [(point.x * width, point.y * height) for point in result.face_landmarks[0]]
                for shape in result.face_blendshapes[0]:
                    if shape.category_name in ARKIT_INDEX:
                        shapes[ARKIT_INDEX[shape.category_name]] = shape.score
            landmarks.append(points)
            scores.append(shapes)
            times.append(time - delay)
    landmarks = np.array(landmarks)
    found = float(np.isfinite(landmarks[:, 0, 0]).mean())
    if found < LEAST_FOUND:
        raise InputError(f"{name}: a face in only {found:.0%} of the frames; give a clip that shows the speaker")
    return tracked_curves(landmarks, np.array(scores), np.array(times), times[-1] + frame_s)


def clip_sound(path: str | Path) -> tuple[np.ndarray, int]:
    """Mono samples (n,) and sample rate of a clip."""
    audio = read_audio(path)
    return audio.mono(), audio.sample_rate
