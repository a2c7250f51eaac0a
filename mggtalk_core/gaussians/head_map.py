"""The head seen from its middle in all directions: a map of what is known of its colours and shape.

A hidden point's own neighbours do not tell where hair ends and a neck begins on the far side; the whole head does. The
Sym-Gaussian decoder sees it as a picture, 64 directions around by 64 from crown to neck.
"""

from __future__ import annotations

import numpy as np
import torch

from ..geometry.scalp import SKULL_CENTRE
from ..headmodel.model import HeadModel
from ..types import INTERIOR, OBLIQUE, SYMMETRIC, WORN, PointCloud, is_hidden

MAP_SIZE = 64
LOWEST = 0.2
"""What lies lower, metres below the eyes, is clothes."""

ENOUGH_POINTS = 200_000
"""Of more points than this every second, third, ... is asked."""

MEAN_RADIUS, RADIUS_UNIT = 0.1, 0.05
"""Distances from the middle enter as (distance - mean) / unit, metres."""

MAP_CHANNELS = 16
"""Known or not, colour and distance of visible, mirrored and interior points; height."""


def head_map(points: PointCloud, head: HeadModel) -> torch.Tensor:
    """The map (1, 16, 64, 64) of a cloud with the prior's colours; rows from crown to neck, columns around."""
    skin = head.outer_skin[points.faces]
    layers = []
    # What the photo shows counts as it is, with hair; of the hidden, only the outside.
    shown = ~is_hidden(points) & ~np.isin(points.origin, (OBLIQUE, WORN))
    of_layers = shown, skin & (points.origin == SYMMETRIC), skin & (points.origin == INTERIOR)
    for of_layer in of_layers:
        chosen = np.flatnonzero(of_layer & (points.positions[:, 1] < LOWEST))
        chosen = chosen[:: -(-len(chosen) // ENOUGH_POINTS) or 1]
        columns, rows = ((directions(points.positions[chosen]) + 1) / 2 * MAP_SIZE).astype(int).T
        cell = rows.clip(0, MAP_SIZE - 1) * MAP_SIZE + columns.clip(0, MAP_SIZE - 1)
        distance = np.linalg.norm(points.positions[chosen] - SKULL_CENTRE, axis=1)
        values = [*(points.colors[chosen] - 0.5).T, (distance - MEAN_RADIUS) / RADIUS_UNIT]
        count = np.bincount(cell, minlength=MAP_SIZE**2)
        sums = [np.bincount(cell, weights=value, minlength=MAP_SIZE**2) for value in values]
        layers += [count > 0, *(np.array(sums) / np.maximum(count, 1))]
    layers.append(np.repeat(np.linspace(-1, 1, MAP_SIZE), MAP_SIZE))
    return torch.from_numpy(np.stack(layers).astype(np.float32).reshape(1, MAP_CHANNELS, MAP_SIZE, MAP_SIZE))


def directions(positions: np.ndarray) -> np.ndarray:
    """Where canonical positions (n, 3) m are on the map: columns and rows (n, 2), -1..1, the face in the middle."""
    away = positions - SKULL_CENTRE
    around = np.arctan2(away[:, 0], -away[:, 2]) / np.pi
    down = np.arcsin((away[:, 1] / np.linalg.norm(away, axis=1).clip(1e-6)).clip(-1, 1)) / (np.pi / 2)
    return np.stack([around, down], 1).astype(np.float32)
