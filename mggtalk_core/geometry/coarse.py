"""Smooth pictures, worked out on coarser grids."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn.functional import interpolate


def enlarged(smooth: np.ndarray, step: int, size: int) -> np.ndarray:
    """A smooth picture (s, s) or (s, s, C) of every `step`-th pixel, at its full side `size`."""
    planes = torch.from_numpy(np.ascontiguousarray(smooth, np.float32)).reshape(1, *smooth.shape[:2], -1)
    grown = interpolate(planes.permute(0, 3, 1, 2), scale_factor=step, mode="bilinear")[0].permute(1, 2, 0).numpy()
    return grown[:size, :size].reshape(size, size, *smooth.shape[2:])
