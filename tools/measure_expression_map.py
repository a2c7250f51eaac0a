"""Lip landmarks from scores alone: how far from the tracked ones does an expression map put them?

    mggtalk preprocess --videos CLIPS -o TRACKED
    python tools/measure_expression_map.py TRACKED [MAP.safetensors]

Mean distance over the lips' landmarks and all frames against each clip's first, in inter-ocular distances, seen from
the front: of the raw scores, of the map, and of the coefficients fitted to the landmarks themselves.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mggtalk_core.headmodel.expression_map import EXPRESSION_MAP_FILE, load_expression_map  # noqa: E402
from mggtalk_core.headmodel.landmarks import LIPS  # noqa: E402
from mggtalk_core.headmodel.model import load_head_model  # noqa: E402
from mggtalk_core.training.clips import read_clips  # noqa: E402
from mggtalk_core.training.expression_map import canonical_landmarks, inter_ocular_metres  # noqa: E402


def main(folder: Path, map_file: Path) -> None:
    """Print one row per clip, then the mean of the clips."""
    head, expression_map, lips = load_head_model(), load_expression_map(map_file), list(LIPS)
    basis = head.landmarks_of(head.expression_basis)[:, lips, :2] / inter_ocular_metres(head)
    rows = []
    for clip in read_clips(folder):
        observed = canonical_landmarks(clip, head)[:, lips, :2]
        observed = observed - observed[:1]
        row = []
        for coefficients in (clip.scores, expression_map(clip.scores), clip.expression):
            moved = np.tensordot(coefficients - coefficients[:1], basis, 1)
            row.append(float(np.linalg.norm(moved - observed, axis=-1)[1:].mean()))
        rows.append(row)
        print(f"{clip.name:32} {len(clip):4} frames   scores {row[0]:.4f}   map {row[1]:.4f}   fitted {row[2]:.4f}")
    means = np.mean(rows, 0)
    print(f"{'mean of clips':45} scores {means[0]:.4f}   map {means[1]:.4f}   fitted {means[2]:.4f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else EXPRESSION_MAP_FILE)
