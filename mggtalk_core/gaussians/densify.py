"""Densify (paper: parents -> children): Gaussians that are looked at closely get smaller ones beside them.

For each parent a network says how much of it passes to four children in its tangent plane, where exactly they sit and
how their colours differ. Zero-initialised nothing passes over: untrained the cloud stays as it is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from ..geometry.symmetry import concatenate, select
from ..types import PointCloud

CHILDREN = 4
PARENT_FEATURES = 10
CHILD_SIZE = 0.6
"""Extent of a child relative to its parent."""

QUARTERS = torch.tensor([[-0.7, -0.7], [0.7, -0.7], [-0.7, 0.7], [0.7, 0.7]])
"""Where children sit before the network moves them, in the parent's half axes."""

MIN_SHARE = 0.02
"""Parents that pass on less than this stay alone."""


@dataclass(frozen=True)
class Children:
    """What the network says of n parents."""

    share: torch.Tensor  # (n,) 0..1 of the parent's opacity
    places: torch.Tensor  # (n, 4, 2) in the parent's half axes
    colors: torch.Tensor  # (n, 4, 3) added to the parent's

    def cpu(self) -> Children:
        """The same in main memory."""
        return Children(self.share.cpu(), self.places.cpu(), self.colors.cpu())


class Densify(nn.Module):
    """MLP over a parent's own parameters, identity features and the person's code."""

    def __init__(self, features: int = 16, code: int = 32, width: int = 48):
        super().__init__()
        self.features, self.code = features, code
        self.body = nn.Sequential(
            nn.Linear(PARENT_FEATURES + features + code, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU()
        )
        self.head = nn.Linear(width, 1 + CHILDREN * 5)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, parents: torch.Tensor, identity: torch.Tensor, code: torch.Tensor) -> Children:
        """Children for parents (n, 10), identity features (n, F), code (1, C)."""
        out = self.head(self.body(torch.cat([parents, identity, code.expand(len(parents), -1)], 1)))
        places, colors = out[:, 1:].reshape(-1, CHILDREN, 5).split([2, 3], 2)
        places = QUARTERS.to(out.device) + 0.5 * torch.tanh(places)
        return Children(torch.tanh(out[:, 0]).clamp(min=0), places, 0.3 * torch.tanh(colors))


def parent_inputs(points: PointCloud, normals: np.ndarray) -> torch.Tensor:
    """Inputs (N, 10) of all points."""
    footprint = np.nanmedian(points.depth_map.depth) / points.portrait.camera.K[0, 0]
    extent = np.log(np.linalg.norm(points.axes, axis=2) / footprint + 1e-3)
    columns = [points.colors - 0.5, normals, extent, points.opacities[:, None]]
    return torch.from_numpy(np.concatenate(columns, 1).astype(np.float32))


def add_children(points: PointCloud, children: Children) -> PointCloud:
    """The cloud with children appended; parents keep the rest of their opacity.

    A parent and four children cover the same light: 1 - opacity multiplies along a ray.
    """
    share = children.share.numpy()
    parents = np.flatnonzero(share > MIN_SHARE)
    if not len(parents):
        return points
    opacities = points.opacities.copy()
    opacities[parents] *= 1 - share[parents]
    chosen = select(points, np.repeat(parents, CHILDREN))
    places = children.places.numpy()[parents].reshape(-1, 2)
    offset = (places[:, :, None] * chosen.axes[:, :2]).sum(1)
    change = children.colors.numpy()[parents].reshape(-1, 3)
    grown = replace(
        chosen,
        positions=(chosen.positions + offset).astype(np.float32),
        axes=(chosen.axes * CHILD_SIZE).astype(np.float32),
        colors=np.clip(chosen.colors + change, 0, 1).astype(np.float32),
        opacities=(chosen.opacities * np.repeat(share[parents], CHILDREN)).astype(np.float32),
    )
    return concatenate([replace(points, opacities=opacities), grown])
