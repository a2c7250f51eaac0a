"""The teacher of spectacles: made-up ones, put on the fitted heads of photos whose people wear none."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter, shift, zoom
from torch.nn.functional import binary_cross_entropy_with_logits

from ..geometry.mesh_raster import rasterize_mesh
from ..geometry.projection import project, to_camera
from ..headmodel.model import load_head_model
from ..media.image import read_photo
from ..portrait.analysis import analyze_portrait
from ..portrait.spectacles import (
    RIM,
    TEMPLE,
    WINDOW_HEIGHT,
    WINDOW_WIDTH,
    SpectaclesUNet,
    cut_window,
    window_to_crop,
)
from ..types import Portrait
from .synthetic_pairs import read_sample
from .trainer import Settings, Stage

PAIRS = 6
"""Spectacles made up for each photo."""

BARE_SHARE = 0.3
"""Share of training pictures without any: most people wear none, and brows are no rims."""

FINER = 3
"""They are drawn so many times as large."""

BEFORE = 0.004
"""Metres nearer than they lie that they are seen at: the fitted head is not exact."""

MIRRORING = 0.4
"""Share of dark lenses that mirror what is before them."""

DARK = 0.6
"""Opacity from which on a lens is dark."""

LENS_POINTS, TEMPLE_POINTS = 48, 12

BRIDGE, LEFT_EAR, RIGHT_EAR, PUPILS = 168, 454, 234, (468, 473)
"""Landmarks."""

LENS = 3
"""Part number beside RIM and TEMPLE: lenses, dark or not."""


@dataclass(frozen=True)
class Look:
    """How made-up spectacles look; colours (3,) sRGB."""

    color: np.ndarray
    amount: float  # opacity of rims and temples
    mottled: float  # how much their colour varies
    shine: float
    lens: np.ndarray
    tint: float  # opacity of lenses
    mirrors: bool  # whether they show what is before them
    shadow: float


def make_spectacles_sample(seed: int, *, photos: tuple[Path, ...]) -> dict[str, np.ndarray]:
    """A photo's window with PAIRS made-up pairs of spectacles, their masks, and as it is; uint8."""
    rng = np.random.default_rng(seed)
    portrait = analyze_portrait(read_photo(photos[seed]), size=512)
    window = cut_window(portrait.image, portrait.camera).permute(1, 2, 0).numpy()
    elsewhere = Image.fromarray(_bytes(read_photo(photos[rng.integers(len(photos))])))
    worn = [_wearing(rng, portrait, window, elsewhere) for _ in range(PAIRS)]
    pictures, masks = (np.stack(layers) for layers in zip(*worn))
    return {"bare": _bytes(window), "pictures": _bytes(pictures), "masks": _bytes(masks)}


def _wearing(
    rng: np.random.Generator, portrait: Portrait, window: np.ndarray, elsewhere: Image.Image
) -> tuple[np.ndarray, np.ndarray]:
    """The window (h, w, 3) with spectacles, which may mirror another photo, and masks (h, w, 3) of their parts."""
    vertices, faces, parts, rimless = _shape(rng, load_head_model().landmarks_of(portrait.vertices))
    look = _look(rng)
    share = _coverage(portrait, vertices, faces, parts, dark=look.tint > DARK)
    rim, temple, lens = share[RIM], share[TEMPLE], share[LENS]
    edge = np.abs(lens - gaussian_filter(lens, 0.8)) * 2 if rimless else np.zeros_like(lens)
    frame = np.maximum(rim + temple, edge.clip(0, 0.6))
    picture = window * (1 - look.shadow * _blurred(shift(rim + temple, (rng.uniform(1, 5), rng.uniform(-2, 2))), 1.5))
    brightness = _blurred(window.mean(-1), 8)[..., 0]
    light = (brightness / max(np.median(brightness), 0.05)).clip(0.4, 1.6)[..., None]
    lens_color = look.lens * light * (1 - rng.uniform(0, 0.6) * np.linspace(1, 0, WINDOW_HEIGHT)[:, None, None])
    lens_color = lens_color + rng.uniform(0, 0.7) * _patches(rng, 12)
    if look.mirrors:
        lens_color = _reflection(rng, elsewhere)
    tint = (lens * look.tint)[..., None]
    picture = picture * (1 - tint) + lens_color * tint
    picture = picture + (lens[..., None] * rng.uniform(0, 0.5) * (rng.random() < 0.5)) * _patches(rng, 10) ** 2
    color = look.color * light * (1 + look.mottled * (2 * _patches(rng, 3) - 1)) + look.shine * _patches(rng, 2.5) ** 2
    amount = (frame * look.amount)[..., None]
    picture = picture * (1 - amount) + color * amount
    dark = lens * (look.tint > DARK)
    masks = np.stack([np.maximum(rim, edge.clip(0, 0.6)) * look.amount, temple * look.amount, dark], -1)
    return picture.clip(0, 1), masks.clip(0, 1)


def _shape(
    rng: np.random.Generator, landmarks: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, bool]:
    """Vertices (n, 3) m, faces (m, 3), their parts (m,), and whether lenses have no rim, for landmarks (478, 3) m."""
    pupils = np.abs(landmarks[list(PUPILS), 0]).mean()
    bridge = landmarks[BRIDGE]
    angles = np.linspace(0, 2 * np.pi, LENS_POINTS, endpoint=False)
    middle = pupils + rng.uniform(-0.001, 0.006)
    width = 2 * (middle - rng.uniform(0.007, 0.012))
    height = width * rng.uniform(0.45, 1.05)
    power = 2 / rng.uniform(2, 5)
    x = np.sign(np.cos(angles)) * np.abs(np.cos(angles)) ** power
    y = np.sign(np.sin(angles)) * np.abs(np.sin(angles)) ** power
    x = x * (1 - rng.uniform(-0.05, 0.25) * y)
    y = y - rng.uniform(-0.1, 0.3) * x.clip(0) ** 2 * (y < 0) + rng.uniform(-0.1, 0.2) * x.clip(None, 0) ** 2 * (y > 0)
    centre = rng.uniform(-0.003, 0.009)
    kind = rng.choice(["full", "half", "browline", "rimless"], p=[0.57, 0.14, 0.11, 0.18])
    thick = np.exp(rng.uniform(np.log(0.0006), np.log(0.006)))
    rim = np.full(LENS_POINTS, thick)
    if kind == "browline":
        rim *= 1 + rng.uniform(0.5, 3) * (0.5 - 0.5 * y).clip(0, 1) ** 2
    if kind == "half":
        rim *= (0.3 - y).clip(0, 0.5) * 2
    if kind == "rimless":
        rim *= 0.0
    inner = np.stack([width / 2 * x, height / 2 * y], 1)
    outward = inner / np.linalg.norm(inner, axis=1, keepdims=True)
    outer = inner + rim[:, None] * outward

    wrap, tilt, stand = rng.uniform(0.3, 3.5), np.tan(np.radians(rng.uniform(0, 14))), rng.uniform(0.001, 0.007)

    def placed(points: np.ndarray, side: int) -> np.ndarray:
        """A lens's own plane (k, 2) -> (k, 3): x outward from the person's middle."""
        px, py = points[:, 0] + middle, points[:, 1] + centre
        return np.stack([side * px, py, bridge[2] - stand + wrap * px**2 + tilt * (py - bridge[1])], 1)

    pieces: list[tuple[np.ndarray, np.ndarray, int]] = []

    def ribbon(first: np.ndarray, second: np.ndarray, part: int, closed: bool = False) -> None:
        count = len(first)
        at = np.arange(count if closed else count - 1)
        after = (at + 1) % count
        quads = [np.stack([at, after, at + count], 1), np.stack([after, after + count, at + count], 1)]
        pieces.append((np.concatenate([first, second]), np.concatenate(quads), part))

    solid = max(thick, rng.uniform(0.0008, 0.0018))
    temple_height = min(solid * rng.uniform(0.8, 2.0), 0.009)
    level, reach = rng.uniform(-0.45, 0.05), rng.uniform(0.45, 1.0) if rng.random() < 0.6 else 1.0
    bridge_level, arch = rng.uniform(-0.4, 0.0), rng.uniform(0, 0.004)
    for side, ear in ((1, landmarks[LEFT_EAR]), (-1, landmarks[RIGHT_EAR])):
        if kind != "rimless":
            ribbon(placed(inner, side), placed(outer, side), RIM, closed=True)
        hub = np.repeat(placed(np.zeros((1, 2)), side), LENS_POINTS, axis=0)
        ribbon(placed(inner, side), hub, LENS, closed=True)
        begin = outer[np.abs(outer[:, 1] / height - level + 10 * (outer[:, 0] < 0)).argmin()]
        hinge = placed(begin[None] + [rng.uniform(0.001, 0.004), 0], side)[0] + [0, 0, 0.004]
        half = temple_height / 2
        below, above = (placed(begin + [[-0.001, y], [0.003, y]], side) for y in (half, -half))
        ribbon(below, above, RIM)
        end = np.array([ear[0] + side * rng.uniform(0.0, 0.004), ear[1] - rng.uniform(0.014, 0.026), ear[2] + 0.02])
        along = np.linspace(0, reach, TEMPLE_POINTS)[:, None]
        middle_line = hinge + (end - hinge) * along
        up, out = np.array([0, temple_height / 2, 0]), np.array([side * 0.0008, 0, 0])
        ribbon(middle_line - up, middle_line + up, TEMPLE)
        ribbon(middle_line - out - up, middle_line + out - up, TEMPLE)
    ends = np.linspace(-1, 1, 9)
    inner_end = middle + inner[:, 0].min() + 0.0005
    bridge_thick = solid * rng.uniform(0.7, 1.6)
    for lift in (0.0, 0.01)[: 2 if rng.random() < 0.12 else 1]:
        line_y = centre + bridge_level * height / 2 - arch * (1 - ends**2) - lift
        line_z = bridge[2] - stand + tilt * (line_y - bridge[1]) - 0.002
        line = np.stack([ends * inner_end, line_y, line_z], 1)
        ribbon(line - [0, bridge_thick / 2, 0], line + [0, bridge_thick / 2, 0], RIM)

    starts = np.cumsum([0] + [len(points) for points, _, _ in pieces])
    vertices = np.concatenate([points for points, _, _ in pieces])
    faces = np.concatenate([index + start for (_, index, _), start in zip(pieces, starts)])
    parts = np.concatenate([np.full(len(index), part) for _, index, part in pieces])
    return vertices, faces, parts, kind in ("rimless", "half")


def _coverage(
    portrait: Portrait, vertices: np.ndarray, faces: np.ndarray, parts: np.ndarray, dark: bool
) -> dict[int, np.ndarray]:
    """Share (h, w) of each of the window's pixels that shows each part, where head or dark lenses do not hide it."""
    to_window = np.linalg.inv(np.vstack([window_to_crop(portrait.camera), [0, 0, 1]]))[:2]
    height, width = WINDOW_HEIGHT * FINER, WINDOW_WIDTH * FINER

    def depths(points: np.ndarray, triangles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        seen = project(to_camera(points, portrait.camera), portrait.camera)
        seen[:, :2] = (seen[:, :2] @ to_window[:, :2].T + to_window[:, 2]) * FINER
        return rasterize_mesh(seen, triangles, height, width)[:2]

    head_depth, _ = depths(portrait.vertices, load_head_model().faces)
    result = {}
    covered = np.zeros((height, width), bool)
    for part in (RIM, LENS, TEMPLE) if dark else (RIM, TEMPLE, LENS):  # what stands before what
        depth, face = depths(vertices, faces[parts == part])
        seen = (face >= 0) & (depth - BEFORE < head_depth) & ~covered
        covered |= seen
        result[part] = seen.reshape(WINDOW_HEIGHT, FINER, WINDOW_WIDTH, FINER).mean((1, 3), dtype=np.float32)
    return result


COLORS = {
    "black": (0.07, 0.07, 0.08), "brown": (0.22, 0.13, 0.08), "navy": (0.08, 0.1, 0.22), "silver": (0.6, 0.6, 0.62),
    "gold": (0.66, 0.52, 0.3), "gunmetal": (0.25, 0.25, 0.27), "tortoise": (0.36, 0.2, 0.1), "red": (0.6, 0.1, 0.12),
    "clear": (0.8, 0.75, 0.72), "grey": (0.42, 0.42, 0.45),
}  # fmt: skip
COLOR_SHARES = (0.3, 0.13, 0.07, 0.12, 0.1, 0.1, 0.07, 0.03, 0.04, 0.04)


def _look(rng: np.random.Generator) -> Look:
    name = rng.choice(list(COLORS), p=COLOR_SHARES)
    metal, sunglasses = name in ("silver", "gold", "gunmetal"), rng.random() < 0.2
    return Look(
        color=(np.array(COLORS[name]) * rng.uniform(0.6, 1.3) + rng.normal(0, 0.03, 3)).clip(0, 1),
        amount=rng.uniform(0.35, 0.7) if name == "clear" else rng.uniform(0.8, 1.0),
        mottled=rng.uniform(0.3, 0.8) if name == "tortoise" else rng.uniform(0, 0.3),
        shine=rng.uniform(0.1, 0.7) if metal else rng.uniform(0, 0.5) * (rng.random() < 0.6),
        lens=rng.uniform(0.02, 0.25, 3),
        tint=rng.uniform(0.8, 1.0) if sunglasses else rng.uniform(0, 0.3) * (rng.random() < 0.4),
        mirrors=sunglasses and rng.random() < MIRRORING,
        shadow=rng.uniform(0, 0.35),
    )


def _reflection(rng: np.random.Generator, elsewhere: Image.Image) -> np.ndarray:
    """What lenses mirror (h, w, 3): a part of a photo, as wide and low as spectacles show it, brighter or darker."""
    width, height = (int(side * rng.uniform(0.5, 1)) for side in elsewhere.size)
    left, top = (int(rng.integers(side - part + 1)) for side, part in zip(elsewhere.size, (width, height)))
    part = elsewhere.resize((WINDOW_WIDTH // 3, WINDOW_HEIGHT // 2), box=(left, top, left + width, top + height))
    tiled = np.tile(np.asarray(part, np.float32) / 255, (3, 4, 1))  # both lenses mirror about the same
    row, column = rng.integers(WINDOW_HEIGHT // 2), rng.integers(WINDOW_WIDTH // 3)
    window = tiled[row : row + WINDOW_HEIGHT, column : column + WINDOW_WIDTH]
    tint = rng.uniform(0.3, 1.2) * rng.uniform(0.7, 1.2, 3)
    return (window * tint + rng.uniform(0, 0.1)).clip(0, 1)


def _patches(rng: np.random.Generator, size: float) -> np.ndarray:
    """Smooth noise (h, w, 1), 0..1, with patches of about so many pixels."""
    coarse = rng.random((int(WINDOW_HEIGHT / size) + 2, int(WINDOW_WIDTH / size) + 2))
    fine = zoom(coarse, size * 1.2, order=1)[:WINDOW_HEIGHT, :WINDOW_WIDTH]
    return ((fine - 0.25) * 2).clip(0, 1)[..., None].astype(np.float32)


def _blurred(plane: np.ndarray, sigma: float) -> np.ndarray:
    return gaussian_filter(plane, sigma)[..., None]


def _bytes(picture: np.ndarray) -> np.ndarray:
    return np.round(picture.clip(0, 1) * 255).astype(np.uint8)


def spectacles_stage(settings: Settings, train: list[Path], test: list[Path], device: torch.device) -> Stage:
    """Trained on pictures as photos arrive: mirrored, blurred, compressed, in other colours; some bare."""
    network = SpectaclesUNet(**(settings.networks or {}).get("spectacles", {}))
    data, others = [read_sample(path) for path in train], [read_sample(path) for path in test]

    def batches(rng: np.random.Generator) -> Iterator[dict[str, torch.Tensor]]:
        while True:
            rows = [_example(rng, data[rng.integers(len(data))]) for _ in range(settings.batch)]
            pictures, masks = (torch.from_numpy(np.stack(layers)) for layers in zip(*rows))
            yield {"pictures": pictures, "masks": masks}

    def loss(networks, batch) -> dict[str, torch.Tensor]:
        logits, truth = networks["spectacles"](batch["pictures"]), batch["masks"]
        entropy = binary_cross_entropy_with_logits(logits, truth)
        dice = 1 - _overlap(logits.sigmoid(), truth).mean()
        return {"loss": 10 * entropy + dice, "dice": dice.detach()}

    def validate(networks) -> dict[str, float]:
        overlaps, false = [], []
        for sample in others:
            pictures = torch.from_numpy(np.concatenate([sample["pictures"], sample["bare"][None]])).to(device)
            masks = networks["spectacles"](pictures.permute(0, 3, 1, 2).float() / 255 - 0.5).sigmoid()
            truth = torch.from_numpy(sample["masks"]).to(device).permute(0, 3, 1, 2).float() / 255
            overlaps.append(_overlap(masks[:-1], truth).cpu().numpy())
            false.append(masks[-1].mean((1, 2)).cpu().numpy())
        rim, temple, dark = np.concatenate(overlaps).reshape(-1, PAIRS, 3).mean((0, 1))
        return {"rims": float(rim), "temples": float(temple), "dark_lenses": float(dark),
                "seen_where_none": float(np.mean(false))}  # fmt: skip

    def picture(networks) -> np.ndarray:
        rows = []
        for sample in others[:8]:
            inputs = torch.from_numpy(sample["pictures"][:2]).to(device).permute(0, 3, 1, 2).float() / 255
            masks = networks["spectacles"](inputs - 0.5).sigmoid()
            truth = torch.from_numpy(sample["masks"][:2]).to(device).permute(0, 3, 1, 2).float() / 255
            rows.append(torch.cat([*inputs, *masks, *truth], 2))
        return torch.cat(rows, 1).permute(1, 2, 0).cpu().numpy()

    return Stage({"spectacles": network}, batches, loss, validate, picture, device)


def _overlap(masks: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Soft Dice (B, C) of masks (B, C, H, W)."""
    return (2 * (masks * truth).sum((2, 3)) + 20) / (masks.sum((2, 3)) + truth.sum((2, 3)) + 20)


def _example(rng: np.random.Generator, sample: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Picture (3, h, w), less a half, and masks (3, h, w) for training."""
    if rng.random() < BARE_SHARE:
        picture, masks = sample["bare"], np.zeros((3, WINDOW_HEIGHT, WINDOW_WIDTH), np.float32)
    else:
        pair = rng.integers(PAIRS)
        picture, masks = sample["pictures"][pair], sample["masks"][pair].transpose(2, 0, 1).astype(np.float32) / 255
    values = _as_photo(rng, picture).transpose(2, 0, 1)
    if rng.random() < 0.5:
        values, masks = values[..., ::-1], masks[..., ::-1]
    if rng.random() < 0.1:
        values = np.broadcast_to(values.mean(0, keepdims=True), values.shape)
    gain, lift = rng.uniform(0.7, 1.25) * rng.uniform(0.9, 1.1, (3, 1, 1)), rng.uniform(-0.06, 0.06)
    values = (values * gain + lift).clip(0, 1) - 0.5
    move = tuple(rng.integers(-8, 9, 2))
    return tuple(np.ascontiguousarray(np.roll(layers, move, (1, 2)), np.float32) for layers in (values, masks))


def _as_photo(rng: np.random.Generator, picture: np.ndarray) -> np.ndarray:
    """A picture (h, w, 3) uint8 as 0..1, some of them softer, noisy and compressed."""
    image = Image.fromarray(picture)
    if rng.random() < 0.4:
        scale = rng.uniform(0.45, 1)
        small = image.resize((int(WINDOW_WIDTH * scale), int(WINDOW_HEIGHT * scale)), Image.Resampling.BOX)
        image = small.resize(image.size, Image.Resampling.BICUBIC)
    if rng.random() < 0.5:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=int(rng.integers(50, 98)))
        image = Image.open(file)
    values = np.asarray(image, np.float32) / 255
    return values + rng.normal(0, rng.uniform(0, 0.015), values.shape).astype(np.float32)
