"""Opacities of a head from frame to frame: lips' inner sides fill closing lips, one of two far halves is seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..types import Camera
from .far_half import FarHalf
from .inner_lips import InnerLips

if TYPE_CHECKING:
    from .head import GaussianHead


@dataclass(frozen=True)
class Opacities:
    """Opacities of one head."""

    rest: np.ndarray  # (N,) float32, with both far halves
    lips: InnerLips
    far_half: FarHalf

    @staticmethod
    def of(head: GaussianHead) -> Opacities:
        """For a finished head."""
        return Opacities(head.opacities.numpy(), InnerLips.of(head), FarHalf.of(head))

    def seen_by(self, camera: Camera, expression: np.ndarray, rotation: np.ndarray) -> np.ndarray:
        """Opacities (N,) float32 with an expression (52,), the head turned by `rotation` (3,), axis-angle rad."""
        return self._with(expression, self.far_half.turned(rotation, camera))

    def from_all_sides(self, expression: np.ndarray) -> np.ndarray:
        """Opacities (N,) float32 with an expression (52,) for whoever may look from anywhere."""
        return self._with(expression, 1.0)

    def _with(self, expression: np.ndarray, turned: float) -> np.ndarray:
        opacities = self.rest.copy()
        self.lips.fill(opacities, expression)
        self.far_half.blend(opacities, turned)
        return opacities
