"""A small UNet, the form of every network here that sees a picture as a whole."""

from __future__ import annotations

import torch
from torch import nn


class UNet(nn.Module):
    """(B, inputs, H, W) -> (B, outputs, H, W), H and W multiples of 8; zero-initialised, it answers 0.

    `padding` is that of its convolutions: "circular" for pictures that go all around.
    """

    def __init__(self, inputs: int, outputs: int, width: int, padding: str = "zeros"):
        super().__init__()

        def block(inputs: int, outputs: int) -> nn.Sequential:
            return nn.Sequential(
                nn.Conv2d(inputs, outputs, 3, 1, 1, padding_mode=padding), nn.GroupNorm(4, outputs), nn.SiLU(),
                nn.Conv2d(outputs, outputs, 3, 1, 1, padding_mode=padding), nn.GroupNorm(4, outputs), nn.SiLU(),
            )  # fmt: skip

        widths = [width, 2 * width, 3 * width, 4 * width]
        self.down = nn.ModuleList([block(near, deep) for near, deep in zip([inputs, *widths[:-1]], widths)])
        self.up = nn.ModuleList([block(deep + near, near) for deep, near in zip(widths[:0:-1], widths[-2::-1])])
        self.head = nn.Conv2d(width, outputs, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """One output (B, outputs, H, W) per pixel."""
        levels = []
        x = inputs
        for number, block in enumerate(self.down):
            x = block(nn.functional.avg_pool2d(x, 2) if number else x)
            levels.append(x)
        for block, near in zip(self.up, levels[-2::-1]):
            x = nn.functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = block(torch.cat([x, near], 1))
        return self.head(x)
