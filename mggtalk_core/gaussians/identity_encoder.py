"""Identity encoder (paper: Identity Enc.): the head image as a map of features F and one code for the whole person."""

from __future__ import annotations

import torch
from torch import nn

ENCODED_SIZE = 128
"""Side the head image is seen at."""

INPUT_CHANNELS = 7
"""RGB over grey, mask, normals."""


class IdentityEncoder(nn.Module):
    """Small strided CNN: (B, 7, 128, 128) -> feature map (B, F, 32, 32) and code (B, C)."""

    def __init__(self, width: int = 24, features: int = 16, code: int = 32):
        super().__init__()
        self.features, self.code = features, code

        def block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
            return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1), nn.GroupNorm(4, outputs), nn.SiLU())

        self.down = nn.Sequential(block(INPUT_CHANNELS, width, 2), block(width, 2 * width, 2))
        self.deep = nn.Sequential(block(2 * width, 4 * width, 2), block(4 * width, 4 * width, 2))
        self.to_map = nn.Conv2d(6 * width, features, 1)
        self.to_code = nn.Linear(4 * width, code)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Feature map (B, F, 32, 32) and code (B, C)."""
        near = self.down(image)
        far = self.deep(near)
        wide = nn.functional.interpolate(far, size=near.shape[-2:], mode="bilinear", align_corners=False)
        return self.to_map(torch.cat([near, wide], 1)), self.to_code(far.mean((2, 3)))


def encoder_input(image: torch.Tensor, alpha: torch.Tensor, normals: torch.Tensor) -> torch.Tensor:
    """(1, 7, 128, 128) from a crop (S, S, 3) 0..1, its mask (S, S) and camera-frame normals (S, S, 3)."""
    mask = alpha[..., None]
    stacked = torch.cat([(image - 0.5) * mask, mask - 0.5, torch.nan_to_num(normals) * mask], -1)
    stacked = stacked.permute(2, 0, 1)[None]
    return nn.functional.interpolate(stacked, (ENCODED_SIZE, ENCODED_SIZE), mode="area")


def sample_features(feature_map: torch.Tensor, pixels: torch.Tensor, size: int) -> torch.Tensor:
    """Features (N, F) of a map (1, F, h, w) at pixels (N, 2) (row, column) of the (size, size) crop."""
    grid = (pixels.flip(-1).float() + 0.5) / size * 2 - 1
    sampled = nn.functional.grid_sample(
        feature_map, grid[None, None], mode="bilinear", padding_mode="border", align_corners=False
    )
    return sampled[0, :, 0].T
