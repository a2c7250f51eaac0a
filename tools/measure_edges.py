"""Where does the person end? Mask against the true matte of synthetic people.

    python tools/measure_edges.py MAKEHUMAN [--people 24]

Mean absolute error of the mask within 15 pixels (of 512) of the true edge, of the segmenter's own mask and of the
refined one, and how far to the right and down the refined mask lies, in pixels of 512.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from scipy.ndimage import distance_transform_edt

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mggtalk_core.headmodel.model import load_head_model  # noqa: E402
from mggtalk_core.portrait.parsing import coarse_person_mask, refine_edges  # noqa: E402
from mggtalk_core.training.makehuman import load_wardrobe  # noqa: E402
from mggtalk_core.training.synthetic import (  # noqa: E402
    head_camera,
    photograph,
    sample_background,
    sample_expression,
    sample_light,
    sample_person,
)

SIZES = (256, 512, 1024)
NEAR = 15 / 512
SEED = 4_000_000  # no training seed reaches this


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("makehuman", type=Path)
    parser.add_argument("--people", type=int, default=24)
    options = parser.parse_args()
    wardrobe, head = load_wardrobe(options.makehuman), load_head_model()
    print("| size | segmenter | refined | right | down |\n| ---: | ---: | ---: | ---: | ---: |")
    for size in SIZES:
        rows = []
        for index in range(options.people):
            rng = np.random.default_rng(SEED + index)
            person, light = sample_person(rng, wardrobe, head), sample_light(rng)
            camera = head_camera(rng.uniform(-20, 20), rng.uniform(-8, 8), size)
            expression, background = sample_expression(rng), sample_background(rng, size)
            view = photograph(person, expression, camera, light, background, wardrobe)
            coarse = coarse_person_mask(view.image)
            rows.append(_errors(coarse, refine_edges(view.image, coarse), view.alpha))
        segmenter, refined, right, down = np.mean(rows, 0)
        print(f"| {size} | {segmenter:.4f} | {refined:.4f} | {right:+.2f} | {down:+.2f} |", flush=True)


def _errors(coarse: np.ndarray, refined: np.ndarray, truth: np.ndarray) -> tuple[float, float, float, float]:
    """Error near the edge of two masks (S, S), and the second's shift in pixels of 512: the error along the slope."""
    size = len(truth)
    inside = truth > 0.5
    near = distance_transform_edt(inside) + distance_transform_edt(~inside) < NEAR * size
    outward = np.gradient(distance_transform_edt(~inside) - distance_transform_edt(inside))
    wrong = (refined - truth)[near]
    right, down = (2 * NEAR * 512 * (wrong * slope[near]).sum() / (slope[near] ** 2).sum() for slope in outward[::-1])
    return np.abs(coarse - truth)[near].mean(), np.abs(wrong).mean(), right, down


if __name__ == "__main__":
    main()
