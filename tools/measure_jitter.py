"""Does a driven head shake more than the person who drives it? Frame-to-frame jitter of the tracked landmarks.

    python tools/measure_jitter.py CLIP... [--frames 75] [--size 384]

Each clip drives the head built from its own first frame; real and rendered frames are tracked alike. Jitter is the RMS
of the landmarks' second difference over time (what moves at a frame's pace; a steady motion has none), in thousandths
of the inter-ocular distance, by region. The last column is the largest difference of two frames of a still head
(0..255).
"""

from __future__ import annotations

import argparse
import sys
from itertools import islice
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mggtalk_core.headmodel.landmarks import EYES, INNER_FACE, LIPS, inter_ocular_distance  # noqa: E402
from mggtalk_core.media.video_reader import VideoReader  # noqa: E402
from mggtalk_core.motion.video import DrivingPerson, track_around, track_video  # noqa: E402
from mggtalk_core.pipeline import build_head  # noqa: E402
from mggtalk_core.portrait.analysis import analyze_portrait  # noqa: E402
from mggtalk_core.portrait.tracking import FaceTracker, TrackedFace  # noqa: E402
from mggtalk_core.rendering.frames import render_frames  # noqa: E402
from mggtalk_core.types import Motion  # noqa: E402
from mggtalk_core.weights import load_model  # noqa: E402

REGIONS = {"face": INNER_FACE, "lips": np.array(LIPS), "eyes": np.array(EYES)}


def jitter(landmarks: np.ndarray) -> list[float]:
    """RMS second difference by region of landmarks (T, 478, 2), thousandths of the inter-ocular distance."""
    scale = 1000 / np.mean([inter_ocular_distance(frame) for frame in landmarks])
    second = np.diff(landmarks, 2, axis=0) * scale
    return [float(np.sqrt((second[:, index] ** 2).sum(-1).mean())) for index in REGIONS.values()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--frames", type=int, default=75)
    parser.add_argument("--size", type=int, default=384)
    options = parser.parse_args()
    model, size = load_model(), options.size
    print(f"{'clip':28s} real {' '.join(REGIONS)} | rendered {' '.join(REGIONS)} | lip gap r | still head")
    for path in options.clips:
        reader = VideoReader(path)
        frames = [frame.rgb for frame in islice(reader.frames(reader.fps), options.frames)]
        photo = frames[0].astype(np.float32) / 255
        head = build_head(photo, model=model, size=size)
        portrait = analyze_portrait(photo, size=size, matting=model.matting, spectacles=model.spectacles)
        with FaceTracker(max_faces=3) as tracker:
            faces, face = [], None
            for frame in frames:
                face = track_around(tracker, frame, face) or face
                faces.append(face)
            person = DrivingPerson.from_portrait(portrait, head)
            motion = track_video(frames, float(reader.fps), person=person, missing="previous")
            shown, face = [], None
            for rendered, _ in render_frames(head, motion, size=size):
                face = track_around(tracker, rendered, face) or face
                shown.append(face)
        rest = Motion(motion.expression[:1].repeat(3, 0), motion.rotation[:1].repeat(3, 0),
                      motion.translation[:1].repeat(3, 0), motion.fps)  # fmt: skip
        still = [rgb.astype(int) for rgb, _ in render_frames(head, rest, size=size)]
        change = max(np.abs(still[0] - other).max() for other in still[1:])
        real, drawn = (np.array([f.landmarks for f in group]) for group in (faces, shown))
        r = np.corrcoef(_lip_gap(faces), _lip_gap(shown))[0, 1]
        columns = " | ".join(" ".join(f"{value:5.1f}" for value in jitter(marks)) for marks in (real, drawn))
        print(f"{path.name:28s} {columns} | {r:.3f} | {change}", flush=True)


def _lip_gap(faces: list[TrackedFace]) -> list[float]:
    return [(f.landmarks[14, 1] - f.landmarks[13, 1]) / inter_ocular_distance(f.landmarks) for f in faces]


if __name__ == "__main__":
    main()
