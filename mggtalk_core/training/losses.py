"""The paper's losses on rendered pictures: L1 + 0.2 (1 - SSIM) + 0.01 perceptual, inside a mask, differentiable.

The perceptual term needs weights that may not be shipped (VGG, LPIPS). Where a feature network is given it is used;
otherwise differences of gradients over three scales take its place: they punish blur as the perceptual term does, and
know nothing of semantics.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from ..errors import InputError

SSIM_SIGMA, SSIM_RADIUS = 1.5, 5
C1, C2 = 0.01**2, 0.03**2
SCALES = 3


@dataclass(frozen=True)
class PictureLoss:
    """Weights of the terms; the defaults are the paper's."""

    ssim: float = 0.2
    perceptual: float = 0.01
    features: nn.Module | None = None  # (B, 3, H, W) -> list of feature maps

    def __call__(self, picture: torch.Tensor, truth: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
        """Loss of pictures (B, H, W, 3) 0..1 against true ones inside masks (B, H, W) 0..1, and its terms."""
        area = mask.sum().clamp_min(1)
        l1 = ((picture - truth).abs().mean(-1) * mask).sum() / area
        dissimilarity = ((1 - ssim_map(picture, truth)) * mask).sum() / area
        perceptual = self._perceptual(picture * mask[..., None], truth * mask[..., None])
        loss = l1 + self.ssim * dissimilarity + self.perceptual * perceptual
        return {"loss": loss, "l1": l1.detach(), "ssim": 1 - dissimilarity.detach(), "perceptual": perceptual.detach()}

    def _perceptual(self, picture: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        first, second = (image.permute(0, 3, 1, 2) for image in (picture, truth))
        if self.features is not None:
            pairs = zip(self.features(first), self.features(second))
            return sum((a - b).abs().mean() for a, b in pairs)
        return gradient_difference(first, second)


VGG_LAYERS = (0, 2, 5, 7, 10, 12, 14)
"""Convolutions of VGG-16's first three blocks; the last ReLU of each block is compared (Johnson et al. 2016)."""

VGG_BLOCK_ENDS = (2, 7, 14)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class VGGFeatures(nn.Module):
    """VGG-16's relu1_2, relu2_2 and relu3_3, from a safetensors file with torchvision's names (as timm's vgg16).

    Raises:
        InputError: the file lacks one of those convolutions.
    """

    def __init__(self, path: Path):
        super().__init__()
        weights = load_file(path)
        missing = [name for layer in VGG_LAYERS if (name := f"features.{layer}.weight") not in weights]
        if missing:
            raise InputError(f"{path} is not VGG-16: it lacks {missing[0]}; use timm's vgg16.tv_in1k model.safetensors")
        for layer in VGG_LAYERS:
            self.register_buffer(f"weight{layer}", weights[f"features.{layer}.weight"].float(), persistent=False)
            self.register_buffer(f"bias{layer}", weights[f"features.{layer}.bias"].float(), persistent=False)

    def forward(self, pictures: torch.Tensor) -> list[torch.Tensor]:
        """Three feature maps of pictures (B, 3, H, W) 0..1."""
        mean, std = (pictures.new_tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
        x, maps = (pictures - mean) / std, []
        for layer in VGG_LAYERS:
            weight, bias = getattr(self, f"weight{layer}"), getattr(self, f"bias{layer}")
            x = torch.relu(nn.functional.conv2d(x, weight, bias, 1, 1))
            if layer in VGG_BLOCK_ENDS:
                maps.append(x)
                x = nn.functional.max_pool2d(x, 2)
        return maps


def ssim_map(picture: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Structural similarity (B, H, W) of pictures (B, H, W, 3), Wang et al. 2004, mean of the channels."""
    x, y = picture.permute(0, 3, 1, 2), truth.permute(0, 3, 1, 2)
    offsets = torch.arange(-SSIM_RADIUS, SSIM_RADIUS + 1, dtype=x.dtype, device=x.device)
    window = torch.exp(-0.5 * (offsets / SSIM_SIGMA) ** 2)
    window = window / window.sum()

    def blur(image: torch.Tensor) -> torch.Tensor:
        padded = nn.functional.pad(image, [SSIM_RADIUS] * 4, mode="reflect")
        rows = nn.functional.conv2d(padded, window.view(1, 1, -1, 1).expand(3, 1, -1, 1), groups=3)
        return nn.functional.conv2d(rows, window.view(1, 1, 1, -1).expand(3, 1, 1, -1), groups=3)

    mean_x, mean_y = blur(x), blur(y)
    variance_x, variance_y = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2
    covariance = blur(x * y) - mean_x * mean_y
    similarity = (2 * mean_x * mean_y + C1) * (2 * covariance + C2)
    return (similarity / ((mean_x**2 + mean_y**2 + C1) * (variance_x + variance_y + C2))).mean(1)


def gradient_difference(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Mean absolute difference of row and column gradients of (B, C, H, W) over three octaves."""
    total = first.new_zeros(())
    for scale in range(SCALES):
        if scale:
            first, second = nn.functional.avg_pool2d(first, 2), nn.functional.avg_pool2d(second, 2)
        for axis in (2, 3):
            total = total + (first.diff(dim=axis) - second.diff(dim=axis)).abs().mean()
    return total
