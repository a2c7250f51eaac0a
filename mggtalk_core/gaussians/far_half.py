"""The far half of a face photographed from the side: as the photo shows it, or the near half's mirror image.

The photo's pixels are exact where they were seen from, and smears once the head has turned to the camera; the mirror
image is whole, and of another half. One fades into the other as the head turns, or as the camera goes around it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial.transform import Rotation

from ..geometry.pose_weights import ramp
from ..geometry.projection import to_the_side
from ..types import OBLIQUE, SUBSTITUTE, Camera

if TYPE_CHECKING:
    from .head import GaussianHead

FADING = np.radians((6, 14))
"""Between these angles to the camera, from where the photo has it, one fades into the other. A head at rest sways by
less; beyond, the smears show."""


@dataclass(frozen=True)
class FarHalf:
    """Which of the two is seen, from pose to pose."""

    oblique: np.ndarray  # (n,) indices of Gaussians that the photo shows too obliquely
    substitutes: np.ndarray  # (m,) of those of the mirror image
    aside: float  # rad, how far the photo's camera is to a side of the face: positive towards x < 0

    @staticmethod
    def of(head: GaussianHead) -> FarHalf:
        """For a finished head."""
        oblique, substitutes = (np.flatnonzero(head.origin.numpy() == origin) for origin in (OBLIQUE, SUBSTITUTE))
        if not len(oblique):  # heads saved before there were two have the mirror image alone, seen from everywhere
            substitutes = oblique
        return FarHalf(oblique, substitutes, to_the_side(head.viewmat[2, :3].numpy()))

    def turned(self, rotation: np.ndarray, camera: Camera) -> float:
        """How much of the mirror image, 0..1, a camera sees of a head turned by `rotation` (3,), axis-angle rad."""
        aside = to_the_side(camera.viewmat[2, :3] @ Rotation.from_rotvec(rotation).as_matrix())
        change = (self.aside - aside + np.pi) % (2 * np.pi) - np.pi
        return float(ramp(change * np.sign(self.aside), FADING))

    def blend(self, opacities: np.ndarray, turned: float) -> None:
        """Share opacities (N,), in place, between the two, so that as little as ever is seen through both."""
        for some, share in ((self.oblique, 1 - turned), (self.substitutes, turned)):
            opacities[some] = 1 - (1 - opacities[some]) ** share
