"""Drive -> render -> track again: does each ARKit action come back as it was asked for?

    python tools/measure_actions.py PHOTO...

For each action (left and right together; gaze as both eyes to one side) and levels .35, .7, 1 above the portrait's own:
the tracker's change of score, and how far the tracked landmarks moved along the way the model moved them, per unit of
it. Then the action's travel at 1 (the farthest landmark, inter-ocular distances) and other scores that moved by more
than 0.15. A portrait whose own score of an action is above 0.35 is left out for it: nothing is left to ask.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mggtalk_core.gaussians.head import GaussianHead  # noqa: E402
from mggtalk_core.geometry.projection import project, to_camera  # noqa: E402
from mggtalk_core.headmodel.arkit import ARKIT_INDEX, ARKIT_NAMES  # noqa: E402
from mggtalk_core.headmodel.landmarks import inter_ocular_distance  # noqa: E402
from mggtalk_core.headmodel.model import load_head_model  # noqa: E402
from mggtalk_core.media.image import read_photo  # noqa: E402
from mggtalk_core.pipeline import build_head  # noqa: E402
from mggtalk_core.portrait.tracking import FaceTracker  # noqa: E402
from mggtalk_core.rendering.frames import render_frames  # noqa: E402
from mggtalk_core.types import Motion  # noqa: E402
from mggtalk_core.weights import load_model  # noqa: E402

SIZE = 512
LEVELS = (0.35, 0.7, 1.0)
MOVED, BUSY = 0.15, 0.35
GAZE = {
    "look left": ("eyeLookOutLeft", "eyeLookInRight"),
    "look right": ("eyeLookInLeft", "eyeLookOutRight"),
}


def action_groups() -> dict[str, list[int]]:
    """Actions by name: left and right together, except those that move the mouth to a side; eyes look the same way."""
    groups: dict[str, list[int]] = {}
    for index, name in enumerate(ARKIT_NAMES):
        base = name.removesuffix("Left").removesuffix("Right")
        paired = f"{base}Left" in ARKIT_INDEX and base not in ("jaw", "mouth")
        if base not in ("eyeLookIn", "eyeLookOut"):
            groups.setdefault(base if paired else name, []).append(index)
    return groups | {name: [ARKIT_INDEX[eye] for eye in eyes] for name, eyes in GAZE.items()}


def responses(head: GaussianHead, tracker: FaceTracker, groups: dict[str, list[int]]) -> tuple[np.ndarray, ...]:
    """Own scores (52,), changes of score (G, L, 52), landmark moves seen and driven (G, L, 478, 2) inter-ocular."""
    model, camera = load_head_model(), head.camera
    source, vertices, basis = (t.numpy() for t in (head.source_expression, head.vertices, head.expression_basis))
    asked = np.zeros((len(groups), len(LEVELS), 52), np.float32)
    for group, members in enumerate(groups.values()):
        asked[group][:, members] = np.array(LEVELS)[:, None]

    def projected(shape: np.ndarray) -> np.ndarray:
        return project(to_camera(model.landmarks_of(shape), camera), camera)[:, :2]

    expression = np.concatenate([source[None], source + asked.reshape(-1, 52)])
    still = np.zeros((len(expression), 3), np.float32)
    frames = render_frames(head, Motion(expression, still, still, 25.0), size=SIZE)
    found = [tracker.detect(rgb)[0] for rgb, _ in frames]
    rest, shape = found[0], (len(groups), len(LEVELS))
    iod = inter_ocular_distance(rest.landmarks)
    scores = np.array([face.scores - rest.scores for face in found[1:]]).reshape(*shape, 52)
    seen = np.array([face.landmarks - rest.landmarks for face in found[1:]]).reshape(*shape, 478, 2) / iod
    moves = [projected(vertices + np.tensordot(a, basis, 1)) - projected(vertices) for a in asked.reshape(-1, 52)]
    return rest.scores, scores, seen, np.array(moves).reshape(*shape, 478, 2) / iod


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", nargs="+")
    options = parser.parse_args()
    model, groups = load_model(), action_groups()
    heads = [build_head(read_photo(photo), model=model, size=SIZE) for photo in options.photos]
    with FaceTracker(max_faces=1) as tracker:
        own, scores, seen, driven = (np.array(x) for x in zip(*(responses(head, tracker, groups) for head in heads)))
    print("| action | portraits | score at .35 | .7 | 1 | landmarks at .35 | .7 | 1 | travel | also moves at 1 |")
    print("| --- |" + " ---: |" * 8 + " --- |")
    for group, (name, members) in enumerate(groups.items()):
        free = own[:, members].mean(1) < BUSY
        if not free.any():
            continue
        score = scores[free, group][:, :, members].mean((0, 2))
        along = (seen[free, group] * driven[free, group]).sum((0, 2, 3))
        power = (driven[free, group] ** 2).sum((0, 2, 3))
        landmarks = [f"{value:.2f}" for value in along / power] if power.min() > 1e-6 else ["-"] * len(LEVELS)
        travel = np.linalg.norm(driven[free, group, -1], axis=-1).mean(0).max()
        moved = scores[free, group, -1].mean(0)
        others = [i for i in np.argsort(-np.abs(moved)) if i not in members and abs(moved[i]) > MOVED]
        also = ", ".join(f"{ARKIT_NAMES[i]} {moved[i]:+.2f}" for i in others[:4])
        cells = [name, free.sum(), *(f"{value:.2f}" for value in score), *landmarks, f"{travel:.2f}", also]
        print("| " + " | ".join(map(str, cells)) + " |")


if __name__ == "__main__":
    main()
