"""Geo. Refine (paper): a 2D UNet adds depth offsets to the estimated surface, P_c -> P_f.

Works at 128 x 128 whatever the crop's size: what the prior lacks is smooth (nose, jaw, hair volume), and at that size
it costs milliseconds. Zero-initialised: untrained it changes nothing.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from scipy.ndimage import binary_closing, gaussian_filter
from torch import nn

from ..types import DepthMap, Portrait
from ..unet import UNet
from .nearest_pixels import distance_to, distance_within
from .pose_weights import smoothstep

REFINE_SIZE = 128
INPUT_CHANNELS = 11
"""RGB, mask, prior depth, normals, on-head flag, distance to the head model, valid flag."""

ON_HEAD_CHANNEL = 8

HOLD_REACH = 2
"""How far around the face depth is held, and over how many pixels more it becomes free."""

STEEPEST, GAP = 1.2, 0.01
"""Offsets grow no faster than this with the distance from bare skin, or foreheads would get an edge where hair begins,
which light then shows; and gaps in it, in crop sides, that are closed first."""

LIMIT_BLUR, KNEE = 1 / 128, 4
"""Standard deviation, crop sides, by which that limit is smooth; and the power that says how sharply offsets bend into
it (a sum of powers instead of the smaller of the two)."""

CHIN, BELOW_CHIN = 152, 0.3
"""The chin's landmark, and over how much of the crop's height below it offsets end: of shoulders, scarfs and hands the
people it is trained on have one kind or none."""

DEPTH_UNIT = 0.05
"""Metres per unit of the network's depths."""

MAX_OFFSET = 0.06
"""Metres; the prior is never that wrong on a head."""


class GeoRefineUNet(UNet):
    """(B, 11, 128, 128) -> depth offsets (B, 128, 128) m."""

    def __init__(self, width: int = 16):
        super().__init__(INPUT_CHANNELS, 1, width)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Depth offsets (B, H, W) m; H and W multiples of 8."""
        offset = MAX_OFFSET * torch.tanh(super().forward(inputs)[:, 0] * (DEPTH_UNIT / MAX_OFFSET))
        return offset * (1 - held_still(inputs))


def held_still(inputs: torch.Tensor) -> torch.Tensor:
    """How little (B, H, W), 0..1, depth may change: bare face and neck, fitted to landmarks, keep the head model's."""
    on_head = inputs[:, ON_HEAD_CHANNEL : ON_HEAD_CHANNEL + 1]
    side, margin = 2 * HOLD_REACH + 1, HOLD_REACH
    grown = nn.functional.max_pool2d(on_head, side, 1, margin)
    return nn.functional.avg_pool2d(grown, side, 1, margin)[:, 0]


def refine_inputs(portrait: Portrait, depth_map: DepthMap) -> torch.Tensor:
    """The network's view of a portrait and its prior depth, (1, 11, 128, 128)."""
    person = np.isfinite(depth_map.depth)
    centre = np.median(depth_map.depth[depth_map.on_head & person])
    mask = person.astype(np.float32)
    size = len(mask)
    layers = [
        *((channel - 0.5) * mask for channel in portrait.image.transpose(2, 0, 1)),
        portrait.alpha - 0.5,
        np.where(person, (depth_map.depth - centre) / DEPTH_UNIT, 0),
        *(np.nan_to_num(channel) * mask for channel in depth_map.normals.transpose(2, 0, 1)),
        depth_map.on_head * mask,
        np.minimum(depth_map.distance / size * 8, 2) * mask,
        mask,
    ]
    shrunk = torch.cat([_shrunk(layer) for layer in layers])[None]
    # Averages over the person's own pixels: at the outline depth must not be mixed with "nothing".
    share = shrunk[:, -1:].clamp_min(1e-3)
    shrunk[:, 4:10] = shrunk[:, 4:10] / share
    return shrunk


def _shrunk(layer: np.ndarray) -> torch.Tensor:
    """A picture (S, S), averaged over areas: (1, 128, 128) float32."""
    picture = torch.from_numpy(np.ascontiguousarray(layer, np.float32))[None, None]
    return nn.functional.interpolate(picture, (REFINE_SIZE, REFINE_SIZE), mode="area")[0]


@torch.no_grad()
def refine_depth(network: GeoRefineUNet, portrait: Portrait, depth_map: DepthMap) -> DepthMap:
    """The depth map with the network's offsets added where it may change; binding and mask stay."""
    from .depth import normals_from_depth

    device = next(network.parameters()).device
    offset = network(refine_inputs(portrait, depth_map).to(device)).cpu()[:, None]
    size = portrait.image.shape[0]
    offset = nn.functional.interpolate(offset, (size, size), mode="bilinear", align_corners=False)[0, 0].numpy()
    offset = _bounded(offset, portrait, depth_map)
    if not offset.any():
        return depth_map
    depth = (depth_map.depth + offset).astype(np.float32)
    normals = normals_from_depth(np.where(np.isfinite(depth), depth, np.nanmax(depth)).astype(np.float32), portrait)
    return replace(depth_map, depth=depth, normals=normals, source=f"{depth_map.source} + geo refine")


def _bounded(offset: np.ndarray, portrait: Portrait, depth_map: DepthMap) -> np.ndarray:
    """Depth offsets (S, S) m as far as they may go.

    Nothing on bare skin, more away from it, and nothing again far below the chin; nor away at the person's outline,
    where strands that are thinner than the network sees would be left standing behind the head. The mask of skin is
    coarse, so what depends on the distance from it is smooth, and the offset bends into it: creases fan hair out.
    """
    size = len(portrait.image)
    bare, blur = depth_map.outline.bare, LIMIT_BLUR * size
    pixel = np.nanmedian(depth_map.depth) / portrait.camera.K[0, 0]
    from_skin = distance_to(binary_closing(bare, iterations=max(1, round(GAP * size))))
    smooth = gaussian_filter(np.minimum(STEEPEST * (from_skin - blur / 2).clip(0) * pixel, MAX_OFFSET), blur)
    below_chin = (np.arange(size) + 0.5 - portrait.landmarks[CHIN, 1]) / (BELOW_CHIN * size)
    limit = np.minimum(smooth, STEEPEST * from_skin * pixel) * smoothstep(from_skin / blur)
    limit *= (1 - smoothstep(below_chin))[:, None]
    bounded = offset * limit / (offset**KNEE + limit**KNEE + 1e-30) ** (1 / KNEE)
    return np.minimum(bounded, STEEPEST * distance_within(np.isfinite(depth_map.depth)) * pixel)
