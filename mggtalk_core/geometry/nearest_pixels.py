"""The nearest of a picture's marked pixels to each of its pixels, and how far off it lies.

Exact (Meijster, Roerdink and Hesselink 2000): down the columns the nearest in the same column, then along each row the
lower envelope of the parabolas that these distances are the vertices of. scipy.ndimage.distance_transform_edt finds the
same; building a head asks some twenty times, which took a sixth of it.
"""

from __future__ import annotations

import numpy as np

from ..rendering.kernel_cache import kernel

FAR = np.int32(1 << 15)
"""Farther off, px, than anything in a picture: none."""


def nearest_pixels(marked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row and column (H, W) int32 each of the nearest marked (H, W) bool pixel; 0 where none is marked at all."""
    rows, columns = (np.empty(marked.shape, np.int32) for _ in range(2))
    _nearest_in_column(marked, rows)
    _nearest_along_rows(rows, columns)
    return rows, columns


def distance_to(marked: np.ndarray) -> np.ndarray:
    """Distances (H, W) float32, px, to the nearest marked (H, W) bool pixel; FAR where none is marked at all."""
    if not marked.any():
        return np.full(marked.shape, FAR, np.float32)
    return distance_between(*nearest_pixels(marked))


def distance_between(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Distances (H, W) float32, px, from each pixel to those at rows and columns (H, W)."""
    distance = np.empty(rows.shape, np.float32)
    _distance(rows, columns, distance)
    return distance


def distance_within(mask: np.ndarray) -> np.ndarray:
    """Distances (S, S) float32, px, from a mask's pixels (S, S) bool to the nearest one off it; 0 there.

    The crop's border is no outline: the person goes on beyond it.
    """
    return distance_to(~mask)


@kernel
def _nearest_in_column(marked, rows):
    """The nearest marked row in the same column, FAR where there is none."""
    height, width = marked.shape
    for row in range(height):
        for column in range(width):
            if marked[row, column]:
                rows[row, column] = row
            elif row > 0:
                rows[row, column] = rows[row - 1, column]
            else:
                rows[row, column] = FAR
    for row in range(height - 2, -1, -1):
        for column in range(width):
            below = rows[row + 1, column]
            if abs(below - row) < abs(rows[row, column] - row):
                rows[row, column] = below


@kernel
def _nearest_along_rows(rows, columns):
    """From the nearest in each column to the nearest of all, in place; `columns` gets its column."""
    height, width = rows.shape
    vertex = np.empty(width, np.int64)  # columns whose parabolas make up the lower envelope, from left to right
    start = np.empty(width, np.int64)  # and from where on each is the lowest
    found = np.empty(width, np.int32)
    for row in range(height):
        last = -1
        for column in range(width):
            found[column] = rows[row, column]
            if found[column] == FAR:
                continue
            lift = (found[column] - row) ** 2
            first = np.int64(0)
            while last >= 0:
                other = vertex[last]
                # The two are level at `level`, rounded down.
                level = (column**2 - other**2 + lift - (found[other] - row) ** 2) // (2 * (column - other))
                if level < start[last]:
                    last -= 1
                    continue
                first = level + 1
                break
            if first < width:
                last += 1
                vertex[last], start[last] = column, first
        for column in range(width - 1, -1, -1):
            if last < 0:
                rows[row, column], columns[row, column] = 0, 0
                continue
            rows[row, column], columns[row, column] = found[vertex[last]], vertex[last]
            if column == start[last]:
                last -= 1


@kernel
def _distance(rows, columns, distance):
    """Lengths from each pixel to the one at its row and column."""
    height, width = rows.shape
    for row in range(height):
        for column in range(width):
            down, right = np.float32(rows[row, column] - row), np.float32(columns[row, column] - column)
            distance[row, column] = np.sqrt(down * down + right * right)
