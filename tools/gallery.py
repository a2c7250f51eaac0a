"""Contact sheets: every portrait at a fixed list of expressions and views, to be looked at before and after a change.

    python tools/gallery.py PHOTO_OR_FOLDER... -o FOLDER [--size 512] [--checkpoint FILE]

One PNG per portrait; the photo comes first, then its reconstruction. A line per portrait gives seconds, Gaussians,
the source view's PSNR inside the head, its sharpness against the photo's, and warnings.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import laplace

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mggtalk_core.errors import InputError  # noqa: E402
from mggtalk_core.gaussians.head import GaussianHead  # noqa: E402
from mggtalk_core.headmodel.arkit import ARKIT_INDEX, ARKIT_NAMES  # noqa: E402
from mggtalk_core.media.image import read_photo  # noqa: E402
from mggtalk_core.pipeline import build_head  # noqa: E402
from mggtalk_core.portrait.analysis import analyze_portrait  # noqa: E402
from mggtalk_core.rendering.frames import render_frames  # noqa: E402
from mggtalk_core.types import Motion  # noqa: E402
from mggtalk_core.weights import load_model  # noqa: E402

EXPRESSIONS = {
    "jaw .3": {"jawOpen": 0.3},
    "jaw .7": {"jawOpen": 0.7},
    "funnel": {"mouthFunnel": 0.7, "jawOpen": 0.15},
    "pucker": {"mouthPucker": 0.8},
    "press": {"mouthPress": 0.7, "mouthRollLower": 0.3},
    "smile": {"mouthSmile": 0.7, "cheekSquint": 0.3},
    "half blink": {"eyeBlink": 0.5},
    "blink": {"eyeBlink": 1.0},
    "brows up": {"browInnerUp": 0.8, "browOuterUp": 0.8},
    "look left": {"eyeLookInRight": 0.7, "eyeLookOutLeft": 0.7},
}
VIEWS = {f"{name} {angle:+d}": (pitch, yaw, 0) for name, angle, pitch, yaw in (
    ("yaw", -30, 0, -30), ("yaw", -20, 0, -20), ("yaw", -10, 0, -10), ("yaw", 10, 0, 10), ("yaw", 20, 0, 20),
    ("yaw", 30, 0, 30), ("pitch", -10, -10, 0), ("pitch", 10, 10, 0))}  # fmt: skip
COLUMNS, TILE = 5, 320


def expression_of(head: GaussianHead, actions: dict[str, float]) -> np.ndarray:
    """The portrait's own expression (52,) with actions set; a name without side sets both."""
    expression = head.source_expression.numpy().copy()
    for name, value in actions.items():
        for full in (name, f"{name}Left", f"{name}Right"):
            if full in ARKIT_NAMES:
                expression[ARKIT_INDEX[full]] = value
    return expression


def frame(head: GaussianHead, size: int, actions: dict[str, float] | None = None, degrees=(0, 0, 0)) -> np.ndarray:
    """One rendered frame (size, size, 3) uint8."""
    motion = Motion(
        expression_of(head, actions or {})[None],
        np.radians(np.array([degrees], np.float32)),
        np.zeros((1, 3), np.float32),
        25.0,
    )
    return next(render_frames(head, motion, size=size))[0]


def sharpness(picture: np.ndarray, mask: np.ndarray) -> float:
    """Mean absolute Laplacian of the grey picture (H, W, 3) inside a mask."""
    return float(np.abs(laplace(picture.mean(2)))[mask].mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", nargs="+", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--checkpoint")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    photos = [p for path in options.photos for p in (sorted(path.iterdir()) if path.is_dir() else [path])]
    model = load_model(options.checkpoint)
    quality = []
    for path in photos:
        begin = time.perf_counter()
        try:
            photo = read_photo(path)
            head = build_head(photo, model=model, size=options.size)
        except InputError as error:
            print(f"{path.name}: refused: {error}")
            continue
        seconds = time.perf_counter() - begin
        portrait = analyze_portrait(photo, size=options.size, matting=model.matting, spectacles=model.spectacles)
        source = frame(head, options.size)
        inside = portrait.alpha > 0.5
        inside[int(portrait.landmarks[152, 1]) :] = False
        psnr = -10 * np.log10(((source / 255 - portrait.image)[inside] ** 2).mean())
        ratio = sharpness(source / 255, inside) / sharpness(portrait.image, inside)
        quality.append((psnr, ratio))
        print(f"{path.name}: {seconds:.1f} s, {len(head)} Gaussians, {psnr:.1f} dB, sharpness x{ratio:.2f}", end="")
        print("".join(f"; {warning}" for warning in head.warnings), flush=True)
        tiles = {"photo": np.round(portrait.image * 255).astype(np.uint8), "source view": source}
        tiles |= {name: frame(head, options.size, actions) for name, actions in EXPRESSIONS.items()}
        tiles |= {name: frame(head, options.size, degrees=degrees) for name, degrees in VIEWS.items()}
        _sheet(tiles).save(options.output / f"{path.stem}.png")
    if quality:
        median = np.median(quality, axis=0)
        print(f"median of {len(quality)}: {median[0]:.1f} dB inside the head, sharpness x{median[1]:.2f}")


def _sheet(tiles: dict[str, np.ndarray]) -> Image.Image:
    """Named pictures in a grid."""
    rows = -(-len(tiles) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * TILE, rows * TILE))
    for index, (name, picture) in enumerate(tiles.items()):
        tile = Image.fromarray(picture).resize((TILE, TILE), Image.Resampling.LANCZOS)
        ImageDraw.Draw(tile).text((5, 3), name, fill=(255, 255, 0), stroke_width=1, stroke_fill=(0, 0, 0))
        sheet.paste(tile, (index % COLUMNS * TILE, index // COLUMNS * TILE))
    return sheet


if __name__ == "__main__":
    main()
