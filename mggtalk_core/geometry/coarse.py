"""Smooth pictures, worked out on coarser grids."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn.functional import interpolate


def enlarged(smooth: np.ndarray, step: int, size: int) -> np.ndarray:
    """A smooth picture (s, s) or (s, s, C) of every `step`-th pixel, at its full side `size`.

    Where the grid ends before the picture does, it goes on as there.
    """
    planes = torch.from_numpy(np.ascontiguousarray(smooth, np.float32)).reshape(1, *smooth.shape[:2], -1)
    grown = interpolate(planes.permute(0, 3, 1, 2), scale_factor=step, mode="bilinear")[0].permute(1, 2, 0).numpy()
    missing = max(0, size - len(grown))
    whole = np.pad(grown, ((0, missing), (0, missing), (0, 0)), mode="edge")[:size, :size]
    return whole.reshape(size, size, *smooth.shape[2:])
