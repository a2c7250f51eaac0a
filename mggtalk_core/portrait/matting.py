"""Matting: how much of each edge pixel is the person, learned where the guided filter can't tell hair from wall.

Works at 512 x 512 whatever the crop's size, on half as many cells that hold 2 x 2 pixels each: an edge needs every
pixel, not every convolution at full size. Zero-initialised: untrained it changes nothing.
"""

from __future__ import annotations

import numpy as np
import torch
from torch.nn.functional import avg_pool2d, interpolate, max_pool2d, pixel_shuffle, pixel_unshuffle

from ..unet import UNet

MATTE_SIZE, CELL = 512, 2
INPUT_CHANNELS = 5
"""RGB, the segmenter's mask, the guided filter's."""

COARSE_CHANNEL, GUIDED_CHANNEL = 3, 4

REACH = 6
"""How far, in cells, from the segmenter's edge the mask may change: what it knows nothing of (hats, hands) stays."""


class MattingUNet(UNet):
    """(B, 5, S, S), 0..1 less a half, S a multiple of 16 -> change of the guided filter's mask (B, S, S)."""

    def __init__(self, width: int = 16):
        super().__init__(INPUT_CHANNELS * CELL**2, CELL**2, width)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """What to add to the guided filter's mask, near the segmenter's edge."""
        return pixel_shuffle(super().forward(pixel_unshuffle(inputs, CELL)), CELL)[:, 0] * near_edge(inputs)


def near_edge(inputs: torch.Tensor) -> torch.Tensor:
    """How much (B, S, S), 0..1, the mask may change: all of it where the segmenter's goes from 0 to 1 nearby."""
    coarse = avg_pool2d(inputs[:, COARSE_CHANNEL : COARSE_CHANNEL + 1], CELL)
    window = 2 * REACH + 1
    span = max_pool2d(coarse, window, 1, REACH) + max_pool2d(-coarse, window, 1, REACH)
    smooth = avg_pool2d(span, window, 1, REACH, count_include_pad=False)
    return interpolate(smooth, scale_factor=CELL, mode="bilinear", align_corners=False)[:, 0]


def matting_inputs(image: np.ndarray, coarse: np.ndarray, refined: np.ndarray) -> torch.Tensor:
    """The network's view (1, 5, 512, 512) of a picture (S, S, 3) and its two masks (S, S), all 0..1."""
    layers = np.concatenate([image, coarse[..., None], refined[..., None]], -1) - 0.5
    stacked = torch.from_numpy(layers.astype(np.float32)).permute(2, 0, 1)[None]
    return _resized(stacked, MATTE_SIZE)


@torch.no_grad()
def matte(network: MattingUNet, image: np.ndarray, coarse: np.ndarray, refined: np.ndarray) -> np.ndarray:
    """The person's matte (S, S) float32 0..1 from a picture (S, S, 3), the segmenter's mask and the refined one."""
    device = next(network.parameters()).device
    change = network(matting_inputs(image, coarse, refined).to(device))[:, None]
    return (refined + _resized(change, len(image))[0, 0].cpu().numpy()).clip(0, 1).astype(np.float32)


def _resized(planes: torch.Tensor, size: int) -> torch.Tensor:
    if planes.shape[-1] == size:
        return planes
    return interpolate(planes, size=(size, size), mode="bilinear", antialias=True)
