"""How far real faces move per unit of the tracker's score, beside the head model's actions.

    python tools/measure_real_travel.py CLIPS

CLIPS is a folder that `mggtalk preprocess` wrote. Lengths on each frame (inter-ocular distances, head upright, frames
within a few degrees of the clip's median pose, the clip's median taken off) are regressed on the scores; each cell is
real / model. Scores are noisy, so the real values are rather too small.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from safetensors import safe_open

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mggtalk_core.headmodel.arkit import ARKIT_INDEX  # noqa: E402
from mggtalk_core.headmodel.landmarks import LEFT_IRIS, RIGHT_IRIS  # noqa: E402
from mggtalk_core.headmodel.model import load_head_model  # noqa: E402

ACTIONS = (
    "jawOpen", "mouthFunnel", "mouthPucker", "mouthSmile", "mouthStretch", "mouthLowerDown", "mouthUpperUp",
    "mouthPress", "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper", "mouthClose", "eyeBlink",
    "eyeSquint", "eyeWide", "eyeLookDown", "eyeLookUp", "browDown", "browInnerUp", "browOuterUp",
)  # fmt: skip
HEIGHTS = {
    "lower lip": ((14,), (2,)), "upper lip": ((2,), (13,)), "lip gap": ((14,), (13,)), "lids": ((145, 374), (159, 386)),
    "inner brow": ((33, 263), (107, 336)), "outer brow": ((33, 263), (70, 300)), "lower red": ((17,), (14,)),
    "upper red": ((13,), (0,)),
}  # fmt: skip
"""Lengths as the height of some landmarks below others; red is the lip's visible part."""
YAW, PITCH = 5.0, 4.0


def lengths(landmarks: np.ndarray) -> np.ndarray:
    """HEIGHTS and the mouth's width of landmarks (T, 478, 2): (T, 9) inter-ocular distances, roll removed."""
    across = landmarks[:, LEFT_IRIS] - landmarks[:, RIGHT_IRIS]
    scale = np.linalg.norm(across, axis=1)[:, None]
    down = np.stack([-across[:, 1], across[:, 0]], 1) / scale
    height = np.einsum("tpk,tk->tp", landmarks, down) / scale
    rows = [height[:, list(low)].mean(1) - height[:, list(high)].mean(1) for low, high in HEIGHTS.values()]
    return np.stack([*rows, np.linalg.norm(landmarks[:, 61] - landmarks[:, 291], axis=1) / scale[:, 0]], 1)


def columns(name: str) -> list[int]:
    """Indices of an action, both sides when it has sides."""
    return [ARKIT_INDEX[full] for full in ((name,) if name in ARKIT_INDEX else (f"{name}Left", f"{name}Right"))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path)
    seen, scored = [], []
    for path in sorted(parser.parse_args().clips.glob("*.safetensors")):
        with safe_open(str(path), "numpy") as file:
            scores, landmarks, turn = (file.get_tensor(name) for name in ("scores", "landmarks", "rotation"))
        yaw, pitch = np.degrees(np.arctan2(-turn[:, 0, 2], turn[:, 2, 2])), np.degrees(np.arcsin(turn[:, 1, 2]))
        usual = (np.abs(yaw - np.median(yaw)) < YAW) & (np.abs(pitch - np.median(pitch)) < PITCH)
        if usual.any():
            for rows, values in ((seen, lengths(landmarks[usual])), (scored, scores[usual])):
                rows.append(values - np.median(values, 0))
    scores = np.concatenate(scored)
    given = np.stack([scores[:, columns(name)].mean(1) for name in ACTIONS], 1)
    real = np.linalg.solve(given.T @ given + np.eye(len(ACTIONS)), given.T @ np.concatenate(seen))
    head = load_head_model()
    rest, actions = head.landmarks_of(head.mean)[None, :, :2], head.landmarks_of(head.expression_basis)[..., :2]
    print(f"{len(scores)} frames; real / model\n")
    print("| action | " + " | ".join([*HEIGHTS, "width"]) + " |\n| --- |" + " ---: |" * (len(HEIGHTS) + 1))
    for name, row in zip(ACTIONS, real):
        ours = (lengths(rest + actions[columns(name)].sum(0)) - lengths(rest))[0]
        print(f"| {name} | " + " | ".join(f"{a:+.2f} / {b:+.2f}" for a, b in zip(row, ours)) + " |")


if __name__ == "__main__":
    main()
