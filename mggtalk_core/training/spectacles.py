"""The teacher of spectacles: made-up ones, put on the fitted heads of photos whose people wear none."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter, shift, zoom
from torch.nn.functional import binary_cross_entropy_with_logits

from ..errors import InputError
from ..geometry.mesh_raster import rasterize_mesh
from ..geometry.projection import project, to_camera
from ..headmodel.model import load_head_model
from ..media.image import as_bytes, read_photo
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
from .made_up_spectacles import DARK, LENS, Shape, sample_look, sample_shape
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


def make_spectacles_sample(seed: int, *, photos: tuple[Path, ...]) -> dict[str, np.ndarray]:
    """A photo's window with PAIRS made-up pairs of spectacles, their masks, and as it is; uint8.

    Raises:
        InputError: a photo without a usable face.
    """
    rng = np.random.default_rng(seed)
    try:
        portrait = analyze_portrait(read_photo(photos[seed]), size=512)
    except InputError as error:
        raise InputError(f"{photos[seed]}: {error}; or name it in the setting 'without'") from None
    window = cut_window(portrait.image, portrait.camera).permute(1, 2, 0).numpy()
    elsewhere = Image.fromarray(as_bytes(read_photo(photos[rng.integers(len(photos))])))
    worn = [_wearing(rng, portrait, window, elsewhere) for _ in range(PAIRS)]
    pictures, masks = (np.stack(layers) for layers in zip(*worn))
    return {"bare": as_bytes(window), "pictures": as_bytes(pictures), "masks": as_bytes(masks)}


def _wearing(
    rng: np.random.Generator, portrait: Portrait, window: np.ndarray, elsewhere: Image.Image
) -> tuple[np.ndarray, np.ndarray]:
    """The window (h, w, 3) with spectacles, which may mirror another photo, and masks (h, w, 3) of their parts."""
    shape = sample_shape(rng, load_head_model().landmarks_of(portrait.vertices))
    look = sample_look(rng)
    share = _coverage(portrait, shape, dark=look.tint > DARK)
    rim, temple, lens = share[RIM], share[TEMPLE], share[LENS]
    edge = np.abs(lens - gaussian_filter(lens, 0.8)) * 2 if shape.bare_edges else np.zeros_like(lens)
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


def _coverage(portrait: Portrait, shape: Shape, dark: bool) -> dict[int, np.ndarray]:
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
        depth, face = depths(shape.vertices, shape.faces[shape.parts == part])
        seen = (face >= 0) & (depth - BEFORE < head_depth) & ~covered
        covered |= seen
        result[part] = seen.reshape(WINDOW_HEIGHT, FINER, WINDOW_WIDTH, FINER).mean((1, 3), dtype=np.float32)
    return result


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
