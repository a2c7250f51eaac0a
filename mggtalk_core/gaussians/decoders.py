"""Gaussian decoders (paper: Gauss. Dec. and Sym-Gauss. Dec.): residuals on the prior's Gaussians, point by point.

Both are zero at initialisation: untrained they change nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from ..geometry.projection import project, to_camera
from ..geometry.search_tree import AS_NEAR, search_tree
from ..headmodel.model import LOWER_TEETH, TONGUE, UPPER_TEETH, HeadModel
from ..types import SYMMETRIC, VISIBLE, PointCloud
from ..unet import UNet
from .head_map import MAP_CHANNELS, directions, head_map
from .light import fit_light, sh_basis

VISIBLE_FEATURES = 24
HIDDEN_FEATURES = 41

NEIGHBOUR_POINTS = 10_000
"""Visible points among which a hidden one looks for neighbours."""

MAX_COLOR_CHANGE = 0.5
MAX_LOG_SCALE = 0.7
"""Bounds of the residuals: a decoder corrects the prior, it does not replace it."""

UNSEEN = 1e-6
"""What has no opacity is taken to have so little: it stays out of sight, and its odds are finite."""


@dataclass(frozen=True)
class PointInputs:
    """What a decoder knows of each of n points."""

    features: torch.Tensor  # (n, D)
    pixels: torch.Tensor  # (n, 2) row, column where the identity features are looked up


@dataclass(frozen=True)
class HiddenInputs(PointInputs):
    """What the Sym-Gaussian decoder knows besides: the whole head, and where on its map each point is."""

    head_map: torch.Tensor  # (1, 16, 64, 64)
    directions: torch.Tensor  # (n, 2)


@dataclass(frozen=True)
class Residual:
    """What a decoder changes."""

    color: torch.Tensor  # (n, 3) added to sRGB
    opacity: torch.Tensor  # (n,) added to the logit
    log_scale: torch.Tensor  # (n, 3) added to the logarithms of the half axes

    def cpu(self) -> Residual:
        """The same in main memory."""
        return Residual(self.color.cpu(), self.opacity.cpu(), self.log_scale.cpu())


class _PointDecoder(nn.Module):
    """MLP over point features, identity features and the person's code."""

    def __init__(self, inputs: int, features: int, code: int, width: int):
        super().__init__()
        self.features, self.code = features, code
        self.body = nn.Sequential(
            nn.Linear(inputs + features + code, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(),
        )  # fmt: skip
        self.head = nn.Linear(width, 7)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, inputs: torch.Tensor, identity: torch.Tensor, code: torch.Tensor) -> Residual:
        """Residuals for features (n, D), identity features (n, F) and codes (n, C) or (1, C)."""
        joined = torch.cat([inputs, identity, code.expand(len(inputs), -1)], 1)
        out = self.head(self.body(joined))
        return Residual(
            MAX_COLOR_CHANGE * torch.tanh(out[:, :3]), 4 * torch.tanh(out[:, 3] / 4),
            MAX_LOG_SCALE * torch.tanh(out[:, 4:]),
        )  # fmt: skip


class GaussianDecoder(_PointDecoder):
    """Residuals of the visible Gaussians G_d."""

    def __init__(self, features: int = 16, code: int = 32, width: int = 64):
        super().__init__(VISIBLE_FEATURES, features, code, width)


class SymGaussianDecoder(_PointDecoder):
    """Residuals of the symmetric and interior Gaussians G_d^s, given the visible ones (in the features and the map)."""

    def __init__(self, features: int = 16, code: int = 32, width: int = 64, surround: int = 16, map_width: int = 24):
        super().__init__(HIDDEN_FEATURES + surround, features, code, width)
        self.surround = UNet(MAP_CHANNELS, surround, map_width, padding="circular")

    def forward(
        self,
        inputs: torch.Tensor,
        identity: torch.Tensor,
        code: torch.Tensor,
        head_map: torch.Tensor,
        directions: torch.Tensor,
    ) -> Residual:
        """Residuals of B heads' points, one after the other, (B * n): for features (B, n, D), identity features
        (B, n, F), codes (B, C), maps (B, 16, 64, 64) and the points' places on them (B, n, 2)."""
        around = nn.functional.grid_sample(
            self.surround(head_map), directions[:, None], padding_mode="border", align_corners=False
        )[:, :, 0].transpose(1, 2)
        joined = torch.cat([inputs, around], 2).flatten(0, 1)
        return super().forward(joined, identity.flatten(0, 1), code.repeat_interleave(inputs.shape[1], 0))


MOUTH_PARTS = 4  # upper teeth, lower teeth, tongue, cavity
MAX_TONE = 0.5


class MouthTone(nn.Module):
    """The person's code -> gain and offset per colour of each inner-mouth part; zero-initialised, no change.

    So few numbers on purpose: colours learned point by point score better and average teeth, tongue and dark into a
    grey plug. Here what is drawn in the mouth stays drawn.
    """

    def __init__(self, code: int = 32, width: int = 32):
        super().__init__()
        self.features, self.code = 0, code
        self.body = nn.Sequential(nn.Linear(code, width), nn.SiLU())
        self.head = nn.Linear(width, MOUTH_PARTS * 6)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, code: torch.Tensor) -> torch.Tensor:
        """Tone (4, 2, 3): logarithm of the gain, and offset, per part, for one code (1, C)."""
        return MAX_TONE * torch.tanh(self.head(self.body(code))).reshape(MOUTH_PARTS, 2, 3)


def mouth_part(faces: np.ndarray, head: HeadModel) -> np.ndarray:
    """0 to 3 for upper teeth, lower teeth, tongue, cavity by bound triangle (N,); -1 elsewhere."""
    part = head.parts[faces]
    chosen = [part == UPPER_TEETH, part == LOWER_TEETH, part == TONGUE, head.mouth_interior[faces]]
    return np.select(chosen, range(MOUTH_PARTS), -1)


def toned(colors: torch.Tensor, part: torch.Tensor, tone: torch.Tensor) -> torch.Tensor:
    """Colours (N, 3) with the tone (4, 2, 3) of their part (N,) applied; not clipped."""
    inside = part >= 0
    gain, offset = tone[part.clamp(min=0)].unbind(1)
    return torch.where(inside[:, None], colors * torch.exp(2 * gain) + 0.2 * offset, colors)


def visible_inputs(points: PointCloud, normals: np.ndarray, head: HeadModel) -> PointInputs:
    """Inputs of the Gaussian decoder for the visible points, in their order."""
    seen = points.origin == VISIBLE
    camera_normals = normals[seen] @ points.portrait.camera.viewmat[:3, :3].T
    rows, columns = points.pixels[seen].T
    features = np.concatenate(
        [
            points.colors[seen] - 0.5,
            points.positions[seen] * 10,
            normals[seen],
            camera_normals[:, 2:],
            points.portrait.alpha[rows, columns][:, None],
            points.depth_map.on_head[rows, columns][:, None],
            points.expression_weight[seen][:, None],
            np.eye(6)[head.parts[points.faces[seen]]],
            head.mouth_interior[points.faces[seen]][:, None],
            _log_axes(points.axes[seen], points),
            points.pose_weight[seen][:, None],
        ],
        1,
    )
    return PointInputs(torch.from_numpy(features.astype(np.float32)), torch.from_numpy(points.pixels[seen]))


def hidden_inputs(points: PointCloud, hidden: np.ndarray, normals: np.ndarray, head: HeadModel) -> HiddenInputs:
    """Inputs of the Sym-Gaussian decoder for n of the points that are not visible, given by their indices `hidden`.

    `normals` (N, 3) and `points`, with the prior's colours, are of all. What the photo shows enters as the nearest
    visible colours, the light fitted on the visible skin, its colour and the hair's, and (outside of here) identity
    features at the mirrored pixel.
    """
    seen = points.origin == VISIBLE
    symmetric = points.origin[hidden] == SYMMETRIC
    portrait, faces = points.portrait, points.faces[hidden]
    size = portrait.image.shape[0]

    # As many as there were in training, whatever the crop's size: so the eight nearest cover the same area.
    sparse = np.flatnonzero(seen)[:: max(1, int(seen.sum()) // NEIGHBOUR_POINTS)]
    tree = search_tree(points.positions[sparse])
    distance, nearest = tree.query(points.positions[hidden], k=8, eps=AS_NEAR, workers=-1)
    near_color = points.colors[sparse][nearest].mean(1)
    light = fit_light(points, normals, head)
    own = np.maximum(sh_basis(normals[hidden]) @ light, 0.05)
    mirrored = np.maximum(sh_basis(normals[hidden] * [-1, 1, 1]) @ light, 0.05)

    # Symmetric points remember the pixel they mirror; interior ones look where they would be seen.
    projected = project(to_camera(points.positions[hidden], portrait.camera), portrait.camera)
    pixels = np.where(symmetric[:, None], points.pixels[hidden], projected[:, 1::-1].astype(int)).clip(0, size - 1)
    rows, columns = pixels.T
    source_normals = points.depth_map.normals[rows, columns]
    facing = np.where(symmetric, -source_normals[:, 2], 0)
    own_facing = -(normals[hidden] @ portrait.camera.viewmat[:3, :3].T)[:, 2]

    seen_skin = seen & (points.expression_weight > 0.99) & (points.positions[:, 1] < 0.1)
    seen_hair = seen & (points.positions[:, 1] < -0.06) & (points.expression_weight < 0.99)
    skin = np.median(points.colors[seen_skin if seen_skin.any() else seen], axis=0)
    hair = np.median(points.colors[seen_hair], axis=0) if seen_hair.sum() > 50 else skin
    count = len(faces)
    features = np.concatenate(
        [
            points.colors[hidden] - 0.5,
            near_color - 0.5,
            np.clip(distance[:, :1] * 100, 0, 5) / 2,
            points.positions[hidden] * 10,
            normals[hidden],
            np.log(own / mirrored),
            own / light[0] - 1,
            facing[:, None],
            own_facing[:, None],
            symmetric[:, None],
            portrait.alpha[rows, columns][:, None],
            points.depth_map.on_head[rows, columns][:, None],
            np.eye(6)[head.parts[faces]],
            head.mouth_interior[faces][:, None],
            np.broadcast_to(skin - 0.5, (count, 3)),
            np.broadcast_to(hair - 0.5, (count, 3)),
            head.mean[head.faces[faces]].mean(1) * 10,
            points.expression_weight[hidden][:, None],
        ],
        1,
        dtype=np.float32,
    )
    np.nan_to_num(features, copy=False).clip(-5, 5, out=features)
    return HiddenInputs(
        features=torch.from_numpy(features),
        pixels=torch.from_numpy(pixels.astype(np.int64)),
        head_map=head_map(points, head),
        directions=torch.from_numpy(directions(points.positions[hidden])),
    )


def _log_axes(axes: np.ndarray, points: PointCloud) -> np.ndarray:
    """Logarithms (n, 3) of half axes in pixel footprints."""
    footprint = np.nanmedian(points.depth_map.depth) / points.portrait.camera.K[0, 0]
    return np.log(np.linalg.norm(axes, axis=2) / footprint + 1e-3)


def apply_residual(points: PointCloud, chosen: np.ndarray, residual: Residual) -> PointCloud:
    """The cloud with residuals applied to the points of a mask (N,)."""
    colors, opacities, axes = points.colors.copy(), points.opacities.copy(), points.axes.copy()
    colors[chosen] = (colors[chosen] + residual.color.numpy()).clip(0, 1)
    odds = np.log(opacities[chosen].clip(UNSEEN) / (1 - opacities[chosen])) + residual.opacity.numpy()
    changed = residual.opacity.numpy() != 0  # logit and back is not exact; unchanged stays bit for bit
    opacities[chosen] = np.where(changed, 1 / (1 + np.exp(-odds)), opacities[chosen])
    axes[chosen] *= np.exp(residual.log_scale.numpy())[..., None]
    return replace(points, colors=colors, opacities=opacities.astype(np.float32), axes=axes)
