"""Turn -> render -> fit again: does the head's yaw come back as it was asked for?

    python tools/measure_yaw.py PHOTO...
    python tools/measure_yaw.py --people 8 --assets MAKEHUMAN

Turns from -25 to 25 degrees in steps of 5, fitted with the person's own landmarks, relative to the frame at 0. With
`--people`, synthetic people: photographed from every side, which shows what the measure itself gets wrong on true
heads, and as the heads built from their frontal pictures.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mggtalk_core.headmodel.model import load_head_model  # noqa: E402
from mggtalk_core.media.image import read_photo  # noqa: E402
from mggtalk_core.motion.video import DrivingPerson  # noqa: E402
from mggtalk_core.pipeline import build_head  # noqa: E402
from mggtalk_core.portrait.analysis import analyze_portrait  # noqa: E402
from mggtalk_core.portrait.tracking import FaceTracker  # noqa: E402
from mggtalk_core.rendering.frames import render_frames  # noqa: E402
from mggtalk_core.training.makehuman import Wardrobe, load_wardrobe  # noqa: E402
from mggtalk_core.training.synthetic import (  # noqa: E402
    head_camera,
    photograph,
    sample_expression,
    sample_light,
    sample_person,
)
from mggtalk_core.types import Motion, Portrait  # noqa: E402
from mggtalk_core.weights import load_model  # noqa: E402

SIZE = 512
YAWS = np.arange(-25, 26, 5)
FIRST_SEED = 2_000_000
"""Of the synthetic people: no training gets there."""

CALM = 0.2
"""Share of their random expressions: a portrait's."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", nargs="*", type=Path)
    parser.add_argument("--people", type=int, default=0, help="so many synthetic people")
    parser.add_argument("--assets", type=Path, help="MakeHuman's asset folder, for --people")
    arguments = parser.parse_args()
    print("| portrait | slope | worst, degrees | error at each yaw |\n| --- | ---: | ---: | --- |")
    for path in arguments.photos:
        photo = read_photo(path)
        portrait = analyze_portrait(photo, size=SIZE)
        report(path.name, turned_head(photo), portrait, *in_photo(portrait))
    wardrobe = load_wardrobe(arguments.assets) if arguments.people else None
    for number in range(arguments.people):
        pictures = photographed(number, wardrobe)
        photo = pictures[len(YAWS) // 2].astype(np.float32) / 255
        portrait = analyze_portrait(photo, size=SIZE)
        report(f"person {number}, photographed", pictures, portrait, 1.0, np.zeros(2))
        report(f"person {number}, built from the frontal picture", turned_head(photo), portrait, *in_photo(portrait))


def in_photo(portrait: Portrait) -> tuple[float, np.ndarray]:
    """Scale and offset (2,) of the portrait's crop in its photo, whose pixels the fit uses."""
    return portrait.crop_to_photo[0, 0], portrait.crop_to_photo[:, 2]


def turned_head(photo: np.ndarray) -> Iterator[np.ndarray]:
    """Frames (512, 512, 3) uint8 of the head built from a photo, at every yaw."""
    head = build_head(photo, model=load_model(), size=SIZE)
    turns = np.zeros((len(YAWS), 3), np.float32)
    turns[:, 1] = np.radians(YAWS)
    rest = np.repeat(head.source_expression.numpy()[None], len(YAWS), 0)
    return (rgb for rgb, _ in render_frames(head, Motion(rest, turns, 0 * turns, 25.0), size=SIZE))


def photographed(number: int, wardrobe: Wardrobe) -> list[np.ndarray]:
    """Pictures (512, 512, 3) uint8 of a synthetic person at every yaw, under a light that turns with the head."""
    rng = np.random.default_rng(FIRST_SEED + number)
    person, light = sample_person(rng, wardrobe, load_head_model()), sample_light(rng)
    expression = CALM * sample_expression(rng)
    background = np.full((SIZE, SIZE, 3), 0.5, np.float32)
    pictures = []
    for yaw in YAWS:
        camera = head_camera(-yaw, 0, SIZE)  # turns the head by +yaw in `Motion`'s axes
        turned = light.turned(camera.viewmat[:3, :3])
        view = photograph(person, expression, camera, turned, background, wardrobe, seed=1)
        pictures.append(np.round(255 * view.image.clip(0, 1)).astype(np.uint8))
    return pictures


def report(name: str, frames: Iterable[np.ndarray], portrait: Portrait, scale: float, offset: np.ndarray) -> None:
    """Print the row of one head."""
    person = DrivingPerson.from_portrait(portrait)
    with FaceTracker(max_faces=1) as tracker:
        fits = [person.fit(tracker.detect(rgb)[0].moved(scale, offset), None) for rgb in frames]
    yaw = [Rotation.from_matrix(person.rest.rotation.T @ fit.rotation).as_rotvec()[1] for fit in fits]
    yaw = np.degrees(yaw) - np.degrees(yaw[len(YAWS) // 2])
    error = yaw - YAWS
    shown = " ".join(f"{value:+.1f}" for value in error)
    slope = np.polyfit(YAWS, yaw, 1)[0]
    print(f"| {name} | {slope:.3f} | {np.abs(error).max():.1f} | {shown} |", flush=True)


if __name__ == "__main__":
    main()
