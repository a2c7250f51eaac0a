"""How many surfels a picture needs: one per pixel where there is detail, one per 2 x 2 or 4 x 4 where it is flat."""

from __future__ import annotations

import numpy as np

from ..rendering.kernel_cache import kernel

MAX_STEP = 4

FLAT_COLOR = 0.035
"""Range of the colours (sRGB 0..1) within a block that one surfel may stand for: 9 levels of 255, not seen as steps."""

FLAT_DEPTH = 3.0
"""Range of depth within a block, in pixel footprints per pixel of its side."""


def surfel_blocks(
    image: np.ndarray,  # (S, S, 3) 0..1
    depth: np.ndarray,  # (S, S) m, NaN off the person
    footprint: np.ndarray,  # (S, S) m, a pixel's size at that depth
    keep_detail: np.ndarray,  # (S, S) bool, never merged
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row, column (top left) and side in pixels (N,) of the blocks that cover the person, larger where it is flat."""
    step_of = np.where(np.isfinite(depth), 1, 0)  # 0: no surfel, else the side of the block that begins or lies here
    whole = np.isfinite(depth) & ~keep_detail
    for step in (2, MAX_STEP):
        color_range = _range(image, step).max(-1)
        depth_range = _range(np.nan_to_num(depth, nan=0.0)[..., None], step)[..., 0]
        inside = ~_corners(~whole[..., None], step, np.logical_or)[..., 0]
        limit = FLAT_DEPTH / step * _corners(footprint[..., None], step, np.add)[..., 0]  # step * mean
        flat = inside & (color_range < FLAT_COLOR) & (depth_range < limit)
        blocks = np.zeros_like(step_of)
        blocks[: flat.shape[0] * step, : flat.shape[1] * step] = flat.repeat(step, 0).repeat(step, 1)
        step_of = np.where(blocks > 0, step, step_of)
    rows, columns = np.nonzero(step_of)
    steps = step_of[rows, columns]
    first = (rows % steps == 0) & (columns % steps == 0)
    return rows[first], columns[first], steps[first]


def block_pixels(pixels: np.ndarray, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows and columns (m,) of all pixels of blocks whose top left ones are `pixels` (N, 2) and sides `steps` (N,), and
    which block (m,) each is of."""
    parts = []
    for offset in np.ndindex(MAX_STEP, MAX_STEP):
        covering = np.flatnonzero(steps > max(offset))
        parts.append(np.column_stack([pixels[covering] + offset, covering]))
    return tuple(np.concatenate(parts).T)


def block_means(picture: np.ndarray, rows: np.ndarray, columns: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Mean of a picture (S, S, C) over each block: (N, C)."""
    means = np.empty((len(rows), picture.shape[2]), picture.dtype)
    _means(picture, rows, columns, steps, means)
    return means


@kernel
def _means(picture, rows, columns, steps, means):
    """`block_means`, one block after the other."""
    for block in range(len(rows)):
        step = steps[block]
        for channel in range(picture.shape[2]):
            total = 0.0
            for row in range(rows[block], rows[block] + step):
                for column in range(columns[block], columns[block] + step):
                    total += picture[row, column, channel]
            means[block, channel] = total / (step * step)


def _range(picture: np.ndarray, step: int) -> np.ndarray:
    """Largest minus smallest value of each block of a picture (S, S, C)."""
    return _corners(picture, step, np.maximum) - _corners(picture, step, np.minimum)


def _corners(picture: np.ndarray, step: int, combine) -> np.ndarray:
    """A picture (S, S, C) combined over whole blocks by a pairwise function, halving again and again."""
    while step > 1:
        picture = picture[: picture.shape[0] // 2 * 2, : picture.shape[1] // 2 * 2]
        rows = combine(picture[::2], picture[1::2])
        picture = combine(rows[:, ::2], rows[:, 1::2])
        step //= 2
    return picture
