"""Turn -> render -> fit again: does the head's yaw come back as it was asked for?

    python tools/measure_yaw.py PHOTO...

Turns from -25 to 25 degrees in steps of 5, fitted with the person's own landmarks, relative to the frame at 0.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mggtalk_core.media.image import read_photo  # noqa: E402
from mggtalk_core.motion.video import DrivingPerson  # noqa: E402
from mggtalk_core.pipeline import build_head  # noqa: E402
from mggtalk_core.portrait.analysis import analyze_portrait  # noqa: E402
from mggtalk_core.portrait.tracking import FaceTracker  # noqa: E402
from mggtalk_core.rendering.frames import render_frames  # noqa: E402
from mggtalk_core.types import Motion  # noqa: E402
from mggtalk_core.weights import load_model  # noqa: E402

SIZE = 512
YAWS = np.arange(-25, 26, 5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", nargs="+", type=Path)
    model = load_model()
    print("| portrait | slope | worst, degrees | error at each yaw |\n| --- | ---: | ---: | --- |")
    for path in parser.parse_args().photos:
        photo = read_photo(path)
        head = build_head(photo, model=model, size=SIZE)
        portrait = analyze_portrait(photo, size=SIZE)
        person = DrivingPerson.from_portrait(portrait)
        scale, offset = portrait.crop_to_photo[0, 0], portrait.crop_to_photo[:, 2]
        turns = np.zeros((len(YAWS), 3), np.float32)
        turns[:, 1] = np.radians(YAWS)
        rest = np.repeat(head.source_expression.numpy()[None], len(YAWS), 0)
        frames = render_frames(head, Motion(rest, turns, 0 * turns, 25.0), size=SIZE)
        with FaceTracker(max_faces=1) as tracker:
            fits = [person.fit(tracker.detect(rgb)[0].moved(scale, offset), None) for rgb, _ in frames]
        yaw = [Rotation.from_matrix(person.rest.rotation.T @ fit.rotation).as_rotvec()[1] for fit in fits]
        yaw = np.degrees(yaw) - np.degrees(yaw[len(YAWS) // 2])
        error = yaw - YAWS
        shown = " ".join(f"{value:+.1f}" for value in error)
        slope = np.polyfit(YAWS, yaw, 1)[0]
        print(f"| {path.name} | {slope:.3f} | {np.abs(error).max():.1f} | {shown} |", flush=True)


if __name__ == "__main__":
    main()
