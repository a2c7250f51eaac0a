"""Drive -> render -> track again: does each ARKit action come back with the score it was asked for?

    python tools/measure_actions.py PHOTO... [--level 0.7]

Prints for each action the tracker's response per unit asked (mean over the portraits and sides) at half and full level,
and the other scores that moved by more than 0.15. ACTION_STRENGTH in tools/bake_head_model.py was chosen with it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from gallery import frame  # noqa: E402

from mggtalk_core.headmodel.arkit import ARKIT_INDEX, ARKIT_NAMES  # noqa: E402
from mggtalk_core.media.image import read_photo  # noqa: E402
from mggtalk_core.pipeline import build_head  # noqa: E402
from mggtalk_core.portrait.tracking import FaceTracker  # noqa: E402
from mggtalk_core.weights import load_model  # noqa: E402

SIZE = 512
MOVED = 0.15


def action_groups() -> dict[str, list[int]]:
    """Actions by name, left and right together, except those that move the mouth to a side."""
    groups: dict[str, list[int]] = {}
    for index, name in enumerate(ARKIT_NAMES):
        base = name.removesuffix("Left").removesuffix("Right")
        paired = f"{base}Left" in ARKIT_INDEX and base not in ("jaw", "mouth")
        groups.setdefault(base if paired else name, []).append(index)
    return groups


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", nargs="+")
    parser.add_argument("--level", type=float, default=0.7)
    options = parser.parse_args()
    model = load_model()
    heads = [build_head(read_photo(photo), model=model, size=SIZE) for photo in options.photos]
    with FaceTracker(max_faces=1) as tracker:
        rest = [tracker.detect(frame(head, SIZE))[0].scores for head in heads]
        for name, members in action_groups().items():
            line, moved = [], np.zeros(52)
            for level in (options.level / 2, options.level):
                responses = []
                for head, before in zip(heads, rest):
                    source = head.source_expression.numpy()
                    asked = {ARKIT_NAMES[i]: min(source[i] + level, 1.0) for i in members}
                    step = np.mean([asked[ARKIT_NAMES[i]] - source[i] for i in members])
                    found = tracker.detect(frame(head, SIZE, asked))
                    if found and step > 0.05:
                        change = found[0].scores - before
                        responses.append(change[members].mean() / step)
                        moved += change / len(heads)
                line.append(f"{np.mean(responses):5.2f}" if responses else "  -  ")
            others = [i for i in np.argsort(-np.abs(moved)) if i not in members and abs(moved[i]) > 2 * MOVED]
            also = ", ".join(f"{ARKIT_NAMES[i]} {moved[i] / 2:+.2f}" for i in others[:4])
            print(f"{name:16s} {' '.join(line)}   {also}", flush=True)


if __name__ == "__main__":
    main()
