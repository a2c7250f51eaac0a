"""Lip landmarks from scores alone: how far from the tracked ones does an expression map put them?

    mggtalk preprocess --videos CLIPS -o TRACKED
    python tools/measure_expression_map.py TRACKED [MAP.safetensors]

Mean distance over the lips' landmarks and all frames against each clip's first, in inter-ocular distances, seen from
the front: of raw scores, of the map, and of the coefficients fitted to the landmarks themselves. Twice: as they are,
and with the lips' mean position taken out of both (the shape alone), which is what the first experiments measured.
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
    print(f"{'':45} scores   map      fitted   | shape alone")
    for clip in read_clips(folder):
        observed = canonical_landmarks(clip, head)[:, lips, :2]
        errors = []
        for coefficients in (clip.scores, expression_map(clip.scores), clip.expression):
            moved = np.tensordot(coefficients - coefficients[:1], basis, 1)
            error = (moved - (observed - observed[:1]))[1:]
            errors.append([float(np.linalg.norm(e, axis=-1).mean()) for e in (error, error - error.mean(1)[:, None])])
        rows.append(np.array(errors).T)  # (2, 3): whole, shape alone
        print(_line(f"{clip.name:32} {len(clip):4} frames", rows[-1]))
    print(_line("mean of clips", np.mean(rows, 0)))


def _line(name: str, errors: np.ndarray) -> str:
    whole, shape = ("   ".join(f"{value:.4f}" for value in row) for row in errors)
    return f"{name:45} {whole}   | {shape}"


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else EXPRESSION_MAP_FILE)
