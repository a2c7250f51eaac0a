"""Inpainter (paper: Render & Inpaint): small corrections of mouth and eyes in the rendered frame.

A UNet on three 64 x 64 crops, whatever the frame's size, so that a frame still costs milliseconds. Zero-initialised:
untrained it changes no pixel.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import nn

from ..gaussians.head import GaussianHead
from ..geometry.projection import project, to_camera
from ..headmodel.landmarks import INNER_LIP_RING, LEFT_IRIS, RIGHT_IRIS
from ..headmodel.model import load_head_model
from ..types import Camera

CROP = 64
MOUTH_METRES, EYE_METRES = 0.080, 0.044
"""Width of the crops on the head."""


class Inpainter(nn.Module):
    """(B, 3, 64, 64) sRGB 0..1 -> residual (B, 3, 64, 64), fading to zero at the crop's border."""

    def __init__(self, width: int = 16):
        super().__init__()

        def block(inputs: int, outputs: int) -> nn.Sequential:
            return nn.Sequential(nn.Conv2d(inputs, outputs, 3, 1, 1), nn.GroupNorm(4, outputs), nn.SiLU())

        self.near, self.middle, self.far = block(3, width), block(width, 2 * width), block(2 * width, 3 * width)
        self.up_middle, self.up_near = block(5 * width, 2 * width), block(3 * width, width)
        self.head = nn.Conv2d(width, 3, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        ramp = torch.linspace(-1, 1, CROP).abs().neg().add(1).mul(4).clamp(max=1)
        self.register_buffer("fade", ramp[:, None] * ramp[None], persistent=False)

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        """Residuals for crops."""
        pool = nn.functional.avg_pool2d
        near = self.near(crops - 0.5)
        middle = self.middle(pool(near, 2))
        far = self.far(pool(middle, 2))

        def enlarge(x):
            return nn.functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)

        middle = self.up_middle(torch.cat([enlarge(far), middle], 1))
        near = self.up_near(torch.cat([enlarge(middle), near], 1))
        return 0.5 * torch.tanh(self.head(near)) * self.fade


def crop_boxes(head: GaussianHead, camera: Camera, rotation: np.ndarray, translation: np.ndarray) -> np.ndarray:
    """Centre column, centre row and half side, pixels, of the mouth and both eyes (3, 3) in a frame."""
    model = load_head_model()
    landmarks = model.landmarks_of(head.vertices.numpy())
    centres = np.stack([landmarks[list(INNER_LIP_RING)].mean(0), landmarks[RIGHT_IRIS], landmarks[LEFT_IRIS]])
    neck = head.neck.numpy()
    posed = (centres - neck) @ Rotation.from_rotvec(rotation).as_matrix().T + neck + translation
    pixels = project(to_camera(posed, camera), camera)
    half = 0.5 * np.array([MOUTH_METRES, EYE_METRES, EYE_METRES]) * camera.K[0, 0] / pixels[:, 2]
    return np.column_stack([pixels[:, :2], half])


def crops_of(frame: np.ndarray, boxes: np.ndarray) -> torch.Tensor:
    """Crops (n, 3, 64, 64) 0..1 of a frame (H, W, 3) uint8; `boxes` (n, 3) from `crop_boxes`."""
    height, width = frame.shape[:2]
    picture = torch.from_numpy(frame).permute(2, 0, 1)[None].float() / 255
    steps = (torch.arange(CROP) + 0.5) / CROP * 2 - 1
    boxes = torch.from_numpy(boxes).float()
    x = (boxes[:, 0, None] + boxes[:, 2, None] * steps) / width * 2 - 1
    y = (boxes[:, 1, None] + boxes[:, 2, None] * steps) / height * 2 - 1
    grid = torch.stack(torch.broadcast_tensors(x[:, None, :], y[:, :, None]), -1)
    return nn.functional.grid_sample(picture.expand(len(boxes), -1, -1, -1), grid, align_corners=False)


@torch.no_grad()
def inpaint(network: Inpainter, frame: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """The frame (H, W, 3) uint8 with corrected mouth and eyes; `boxes` (n, 3) from `crop_boxes`."""
    height, width = frame.shape[:2]
    residual = network(crops_of(frame, boxes).to(network.fade.device)).cpu()
    result = torch.from_numpy(frame).permute(2, 0, 1).float() / 255
    for (column, row, half), change in zip(np.asarray(boxes, np.float32).tolist(), residual):
        left, right = max(int(column - half), 0), min(int(np.ceil(column + half)), width)
        top, bottom = max(int(row - half), 0), min(int(np.ceil(row + half)), height)
        if left >= right or top >= bottom:
            continue
        u = (torch.arange(left, right) + 0.5 - column) / half
        v = (torch.arange(top, bottom) + 0.5 - row) / half
        where = torch.stack(torch.broadcast_tensors(u[None], v[:, None]), -1)[None]
        result[:, top:bottom, left:right] += nn.functional.grid_sample(change[None], where, align_corners=False)[0]
    return (result.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
