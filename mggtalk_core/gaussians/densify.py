"""Densify (paper: parents -> children): Gaussians that are looked at closely get smaller ones beside them.

For each Gaussian that the photo shows a network says how much of it passes to four children in its tangent plane, where
exactly they sit and how their colours differ. Zero-initialised nothing passes over: untrained the cloud stays as it is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from ..geometry.symmetry import concatenate, select
from ..types import PointCloud
from .clamp import clamp_from_bounds

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

    def of(self, parents: torch.Tensor) -> Children:
        """Those of some parents, a mask (n,)."""
        return Children(self.share[parents], self.places[parents], self.colors[parents])


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
        return Children(clamp_from_bounds(torch.tanh(out[:, 0]), 0, 1), places, 0.3 * torch.tanh(colors))


def parent_inputs(points: PointCloud, normals: np.ndarray) -> torch.Tensor:
    """Inputs (N, 10) of all points, whose normals (N, 3) are given."""
    footprint = np.nanmedian(points.depth_map.depth) / points.portrait.camera.K[0, 0]
    extent = np.log(np.linalg.norm(points.axes, axis=2) / footprint + 1e-3)
    columns = [points.colors - 0.5, normals, extent, points.opacities[:, None]]
    return torch.from_numpy(np.concatenate(columns, 1).astype(np.float32))


@dataclass(frozen=True)
class Divided:
    """What becomes of n parents."""

    parent_opacities: torch.Tensor  # (n,)
    means: torch.Tensor  # (n, 4, 3) m, of the children
    colors: torch.Tensor  # (n, 4, 3)
    opacities: torch.Tensor  # (n, 4)


def divide(
    means: torch.Tensor, tangents: torch.Tensor, colors: torch.Tensor, opacities: torch.Tensor, children: Children
) -> Divided:
    """Parents at means (n, 3) with half axes tangents (n, 2, 3) m, colours (n, 3), opacities (n,) and their children.

    Parents keep the rest of their opacity: a parent and four children cover the same light, 1 - opacity multiplies
    along a ray. Differentiable.
    """
    return Divided(
        parent_opacities=opacities * (1 - children.share),
        means=means[:, None] + children.places @ tangents,
        colors=clamp_from_bounds(colors[:, None] + children.colors, 0, 1),
        opacities=(opacities * children.share)[:, None].expand(-1, CHILDREN),
    )


def add_children(points: PointCloud, parents: np.ndarray, children: Children) -> PointCloud:
    """The cloud with children of the parents, n indices, appended."""
    some = children.share.numpy() > MIN_SHARE
    parents, children = parents[some], children.of(torch.from_numpy(some))
    if not len(parents):
        return points
    arrays = (points.positions, points.axes[:, :2], points.colors, points.opacities)
    divided = divide(*(torch.from_numpy(array[parents]) for array in arrays), children)
    opacities = points.opacities.copy()
    opacities[parents] = divided.parent_opacities.numpy()
    chosen = select(points, np.repeat(parents, CHILDREN))
    grown = replace(
        chosen,
        positions=divided.means.reshape(-1, 3).numpy(),
        axes=(chosen.axes * CHILD_SIZE).astype(np.float32),
        colors=divided.colors.reshape(-1, 3).numpy(),
        opacities=divided.opacities.flatten().numpy(),
    )
    return concatenate([replace(points, opacities=opacities), grown])
