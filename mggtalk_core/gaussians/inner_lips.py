"""The inside of lips that are open in the photo: splats that would hang over its teeth, there to fill closing lips."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..geometry.pose_weights import ramp
from ..geometry.surfels import MAX_OPACITY
from ..headmodel.landmarks import INNER_LIP_LOWER, INNER_LIP_UPPER
from ..headmodel.model import HeadModel, load_head_model

if TYPE_CHECKING:
    from .head import GaussianHead

PARTED, CLOSED = (0.002, 0.005), (0.0002, 0.001)
"""By how much, metres, lips part from where they are without expression as their inside vanishes, and by how much they
must have closed since the photo, which shows none of it."""


def lip_openings(basis: np.ndarray, model: HeadModel) -> np.ndarray:
    """By how much, m, actions (52, V, 3) open the lips at the k landmarks of their inner edges: (52, k)."""
    down = model.landmarks_of(basis)[..., 1]
    return down[:, list(INNER_LIP_LOWER)] - down[:, list(INNER_LIP_UPPER)]


def at_places(positions: np.ndarray, marks: np.ndarray) -> np.ndarray:
    """Shares (n, k) of the k marks (k, 3) before and after positions (n, 3), from left to right."""
    order = np.argsort(marks[:, 0])
    return np.stack([np.interp(positions[:, 0], marks[order, 0], one[order]) for one in np.eye(len(marks))], 1)


@dataclass(frozen=True)
class InnerLips:
    """Points of the inner mouth that have no opacity in the photo and gain it, from frame to frame."""

    points: np.ndarray  # (n,) indices of Gaussians
    places: np.ndarray  # (n, k) how near they are to each landmark of the lips' inner edges
    openings: np.ndarray  # (52, k) m, by how much actions open them there
    source: np.ndarray  # (52,) the photo's expression

    @staticmethod
    def of(head: GaussianHead) -> InnerLips:
        """For a finished head."""
        model, vertices = load_head_model(), head.vertices.numpy()
        points = np.flatnonzero((head.opacities.numpy() == 0) & model.mouth_interior[head.faces.numpy()])
        marks = model.landmarks_of(vertices)
        upper, lower = marks[list(INNER_LIP_UPPER)], marks[list(INNER_LIP_LOWER)]
        return InnerLips(
            points, at_places(head.positions.numpy()[points], 0.5 * (upper + lower)),
            lip_openings(head.expression_basis.numpy(), model), head.source_expression.numpy(),
        )  # fmt: skip

    def fill(self, opacities: np.ndarray, expression: np.ndarray) -> None:
        """Give opacities (N,), in place, to what an expression (52,) has closing lips show."""
        parted, closed = expression @ self.openings, (self.source - expression) @ self.openings
        filled = (1 - ramp(parted, PARTED)) * ramp(closed, CLOSED)
        opacities[self.points] = MAX_OPACITY * (self.places @ filled)
