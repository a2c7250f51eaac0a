"""Matting's teacher: synthetic people, whose mattes are known, before real and made-up backgrounds."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from scipy.ndimage import binary_erosion, gaussian_filter, zoom

from ..headmodel.model import load_head_model
from ..media.image import as_bytes, read_photo
from ..portrait.background import remove_person
from ..portrait.matting import GUIDED_CHANNEL, MATTE_SIZE, MattingUNet, near_edge
from ..portrait.parsing import coarse_person_mask, refine_edges
from .makehuman import Wardrobe
from .synthetic import (
    SyntheticView,
    graded,
    head_camera,
    photograph,
    sample_background,
    sample_expression,
    sample_grade,
    sample_light,
    sample_person,
)
from .synthetic_pairs import read_sample
from .trainer import Settings, Stage

FINER = 2
"""People are drawn so many times as large as they are looked at: hair needs more than four samples per pixel."""

BACKGROUNDS = 3
"""Pictures of one person before different backgrounds."""

REAL_BACKGROUND = 0.8
"""Share of backgrounds that come from photos, where there are any."""

CHIN = 152
"""Landmark; what is neither head nor far below it is hair."""

MOST_TUFTS, TUFT_SIZE, MOST_STRANDS, STRAND_PIECES, STRAND_LENGTH = 10, (0.01, 0.1), 40, 8, (0.01, 0.08)
"""Loose hair at the hair's edge: so many tufts, how wide, of so many hairs, in how many pieces each, and how long; in
sides of the picture."""

SMALL_ERROR = 0.2
"""Up to it errors of the matte count squared."""

CROP, TEACH_SIZE = 256, 384
"""Sides of the pictures' parts that are trained on, and of background photos while their people are removed."""


def make_matting_sample(seed: int, wardrobe: Wardrobe, photos: tuple[Path, ...] = ()) -> dict[str, np.ndarray]:
    """Pictures of one person, what the segmenter and the guided filter make of them, and the true matte; uint8."""
    rng = np.random.default_rng(seed)
    person, light = sample_person(rng, wardrobe, load_head_model()), sample_light(rng)
    size = MATTE_SIZE * FINER
    camera = head_camera(
        rng.normal(0, 16), rng.normal(0, 8), size, roll=rng.normal(0, 6),
        shift=(rng.normal(0, 0.02), 0.01 + rng.normal(0, 0.02)),
    )  # fmt: skip
    camera.K[[0, 1], [0, 1]] *= rng.uniform(0.9, 1.6)
    blank = np.zeros((size, size, 3), np.float32)
    expression = sample_expression(rng) * rng.uniform(0, 0.7)
    view = graded(photograph(person, expression, camera, light, blank, wardrobe, seed), sample_grade(rng))
    colors, alpha = (_halved(layer) for layer in _with_loose_strands(rng, view))
    rows = []
    for background in _backgrounds(rng, photos):
        image = _as_photo(rng, (colors + (1 - alpha) * background).astype(np.float32))
        coarse = coarse_person_mask(image)
        rows.append((image, coarse, refine_edges(image, coarse)))
    names = ("image", "coarse", "refined")
    arrays = {name: np.stack([row[index] for row in rows]) for index, name in enumerate(names)}
    return {name: as_bytes(values) for name, values in arrays.items()} | {"alpha": as_bytes(alpha[..., 0])}


def _with_loose_strands(rng: np.random.Generator, view: SyntheticView) -> tuple[np.ndarray, np.ndarray]:
    """Colours (S, S, 3) over black and matte (S, S, 1), with curved hairs in the hair's colours that leave its edge."""
    size = len(view.image)
    hair = np.isfinite(view.depth) & ~view.on_head & (np.arange(size)[:, None] < view.landmarks[CHIN, 1] + size / 8)
    roots = np.argwhere(hair & ~binary_erosion(hair | view.on_head, iterations=6))
    if not len(roots):
        return view.image, view.alpha[..., None]
    lines, amount = Image.fromarray(as_bytes(view.image)), Image.new("L", (size, size))
    draw_color, draw_amount = ImageDraw.Draw(lines), ImageDraw.Draw(amount)
    centre = np.argwhere(hair).mean(0)
    for root in roots[rng.integers(len(roots), size=rng.integers(MOST_TUFTS + 1))]:
        near = roots[np.abs(roots - root).max(1) < rng.uniform(*TUFT_SIZE) * size]
        outward = np.arctan2(root[0] - centre[0], root[1] - centre[1]) + rng.normal(0, 0.7)
        bend, length = rng.normal(0, 0.12), rng.uniform(*STRAND_LENGTH)
        for row, column in near[rng.integers(len(near), size=rng.integers(2, MOST_STRANDS))]:
            bends = outward + rng.normal(0, 0.25) + (bend + rng.normal(0, 0.05)) * np.arange(STRAND_PIECES)
            step = size * length * rng.uniform(0.3, 1) / STRAND_PIECES
            x, y = column + np.cumsum(step * np.cos(bends)), row + np.cumsum(step * np.sin(bends))
            points, width = [(column, row), *zip(x, y)], int(rng.integers(1, 4))
            color = as_bytes(view.image[row, column] / max(view.alpha[row, column], 0.1) * rng.uniform(0.8, 1.25))
            draw_color.line(points, tuple(color.tolist()), width)
            draw_amount.line(points, int(255 * rng.uniform(0.4, 1)), width)
    share = np.asarray(amount, np.float32)[..., None] / 255 * (1 - view.alpha[..., None])
    return view.image + share * np.asarray(lines, np.float32) / 255, view.alpha[..., None] + share


def _backgrounds(rng: np.random.Generator, photos: tuple[Path, ...]) -> Iterator[np.ndarray]:
    """Backgrounds (512, 512, 3): parts of one photo without its people, mirrored, blurred; or a made-up room."""
    real = _empty_photo(rng, photos[rng.integers(len(photos))]) if photos else None
    for _ in range(BACKGROUNDS):
        if real is None or rng.random() > REAL_BACKGROUND:
            yield sample_background(rng, MATTE_SIZE)
            continue
        side = int(rng.uniform(0.4, 1) * len(real))
        top, left = rng.integers(len(real) - side + 1, size=2)
        part = real[top : top + side, left : left + side][:, :: rng.choice([-1, 1])]
        part = zoom(part, (MATTE_SIZE / side, MATTE_SIZE / side, 1), order=1)
        blur = rng.uniform(0, 6) * (rng.random() < 0.6)
        yield (gaussian_filter(part, (blur, blur, 0)) * rng.uniform(0.7, 1.2, (1, 1, 3)).astype(np.float32)).clip(0, 1)


def _empty_photo(rng: np.random.Generator, path: Path) -> np.ndarray:
    """A square (384, 384, 3) of a photo with the people in it filled from around them."""
    photo = Image.fromarray(as_bytes(read_photo(path)))
    side = min(photo.size)
    left, top = rng.integers(photo.width - side + 1), rng.integers(photo.height - side + 1)
    square = photo.resize((TEACH_SIZE, TEACH_SIZE), box=(left, top, left + side, top + side))
    picture = np.asarray(square, np.float32) / 255
    return remove_person(picture, coarse_person_mask(picture))


def _as_photo(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """A drawn picture (S, S, 3) as photos arrive: enlarged or not quite sharp, with noise and JPEG's artifacts."""
    size = len(image)
    picture = Image.fromarray(as_bytes(image))
    if rng.random() < 0.5:
        small = int(size * rng.uniform(0.4, 1))
        picture = picture.resize((small, small), Image.Resampling.BOX).resize((size, size), Image.Resampling.BICUBIC)
    noisy = np.asarray(picture, np.float32) / 255 + rng.normal(0, rng.uniform(0, 0.015), image.shape)
    file = io.BytesIO()
    Image.fromarray(as_bytes(noisy)).save(file, "JPEG", quality=int(rng.integers(60, 98)))
    return np.asarray(Image.open(file), np.float32) / 255


def _halved(picture: np.ndarray) -> np.ndarray:
    """(S * FINER, S * FINER, C) -> (S, S, C), means."""
    size = len(picture) // FINER
    return picture.reshape(size, FINER, size, FINER, -1).mean((1, 3), dtype=np.float32)


def matting_stage(settings: Settings, train: list[Path], test: list[Path], device: torch.device) -> Stage:
    """Trained on parts of pictures around random points of the edge; judged on whole pictures, near it."""
    network = MattingUNet(**(settings.networks or {}).get("matting", {}))
    people, others = [read_sample(path) for path in train], [read_sample(path) for path in test]

    def batches(rng: np.random.Generator) -> Iterator[dict[str, torch.Tensor]]:
        while True:
            parts = [_part(rng, people[rng.integers(len(people))]) for _ in range(settings.batch)]
            inputs, truth = (torch.from_numpy(np.stack(values)) for values in zip(*parts))
            inputs[:, :3] += torch.from_numpy(rng.uniform(-0.1, 0.1, (settings.batch, 3, 1, 1)).astype(np.float32))
            yield {"inputs": inputs, "alpha": truth}

    def loss(networks, batch) -> dict[str, torch.Tensor]:
        inputs, truth = batch["inputs"], batch["alpha"]
        near = near_edge(inputs)
        error = _guided(inputs) + networks["matting"](inputs) - truth
        flat = (_huber(error) * near).sum() / near.sum()
        slope = sum((_huber(torch.diff(error, dim=axis)) * near.narrow(axis, 1, CROP - 1)).sum() for axis in (1, 2))
        return {"loss": flat + 0.5 * slope / near.sum(), "error": (error.abs() * near).sum().detach() / near.sum()}

    def validate(networks) -> dict[str, float]:
        before, after = [], []
        for sample in others:
            for index in range(BACKGROUNDS):
                inputs, truth = (value[None].to(device) for value in _whole(sample, index))
                near = near_edge(inputs)
                guided = _guided(inputs)
                for kept, mask in ((before, guided), (after, (guided + networks["matting"](inputs)).clamp(0, 1))):
                    kept.append((((mask - truth).abs() * near).sum() / near.sum()).item())
        return {"error_guided": float(np.mean(before)), "error_matte": float(np.mean(after))}

    def picture(networks) -> np.ndarray:
        columns = []
        for sample in others[:5]:
            inputs, truth = (value[None].to(device) for value in _whole(sample, 0))
            guided = _guided(inputs)
            masks = [guided, (guided + networks["matting"](inputs)).clamp(0, 1), truth]
            tiles = [inputs[0, :3] + 0.5, *(mask.expand(3, -1, -1) for mask in masks)]
            columns.append(torch.cat(tiles, 1))
        return torch.cat(columns, 2).permute(1, 2, 0).cpu().numpy()[::2, ::2]

    return Stage({"matting": network}, batches, loss, validate, picture, device)


def _guided(inputs: torch.Tensor) -> torch.Tensor:
    """The guided filter's mask (B, S, S), 0..1, among the network's inputs (B, 5, S, S)."""
    return inputs[:, GUIDED_CHANNEL] + 0.5


def _huber(error: torch.Tensor) -> torch.Tensor:
    """Squared where small: most pixels are right from the start, and absolute errors would keep the others there."""
    zero = torch.zeros_like(error)
    return torch.nn.functional.huber_loss(error, zero, reduction="none", delta=SMALL_ERROR) / SMALL_ERROR


def _whole(sample: dict[str, np.ndarray], index: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The network's input (5, 512, 512) and the truth (512, 512) of one picture of a sample."""
    masks = np.stack([sample["coarse"][index], sample["refined"][index]])
    layers = np.concatenate([sample["image"][index].transpose(2, 0, 1), masks])
    return torch.from_numpy(layers).float() / 255 - 0.5, torch.from_numpy(sample["alpha"]).float() / 255


def _part(rng: np.random.Generator, sample: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Input (5, 256, 256) and truth (256, 256) around a random point of the edge, mirrored or not."""
    index = int(rng.integers(BACKGROUNDS))
    edge = np.argwhere(np.abs(sample["coarse"][index, ::8, ::8].astype(int) - 128) < 100)
    row, column = 8 * edge[rng.integers(len(edge))] if len(edge) else (MATTE_SIZE // 2,) * 2
    top, left = (int(np.clip(at - rng.integers(CROP), 0, MATTE_SIZE - CROP)) // 2 * 2 for at in (row, column))
    window = np.s_[top : top + CROP, left : left + CROP]
    layers = [*sample["image"][index][window].transpose(2, 0, 1), sample["coarse"][index][window]]
    stacked = np.stack([*layers, sample["refined"][index][window], sample["alpha"][window]])
    stacked = np.ascontiguousarray(stacked[:, :, :: rng.choice([-1, 1])]).astype(np.float32) / 255
    return stacked[:5] - 0.5, stacked[5]
