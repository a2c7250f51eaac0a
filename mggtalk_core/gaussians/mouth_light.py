"""Light behind the lips: rounded ones stand in front of the teeth and shade them, wide ones lie on them and do not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..headmodel.landmarks import LIP_CORNERS
from ..headmodel.model import LOWER_TEETH, TONGUE, UPPER_TEETH, HeadModel, load_head_model
from ..types import INTERIOR, Portrait

if TYPE_CHECKING:
    from .head import GaussianHead

NARROWEST, WIDEST = 0.6, 1.1
"""Widths of the mouth, in its width without expression, between which light follows it."""

DEEP, ON_LIPS = 2.0, 0.7
"""Powers of the width by which teeth and tongue brighten, and the rest of the mouth, mostly the lips' own inside. In 63
training clips upper teeth are .6 times as bright as a head without this has them in the narrowest quarter of mouths,
1.3 in the widest; tongues 1 and 2.2, the rest 1.3 and 1.7."""


RIM, ROUND, TURNED_IN = 0.006, 0.88, 2.0
"""Rims of the lips are this near to their inner edges, metres. Where a mouth is narrower than this, in its width in the
photo, those that the photo hides turn into it and darken with this power of the width; bright, they are beads there."""


def light_powers(faces: np.ndarray, model: HeadModel) -> np.ndarray:
    """By which power of the mouth's width what is bound to triangles `faces` (N,) brightens; 0 outside the mouth."""
    deep = np.isin(model.parts[faces], (UPPER_TEETH, LOWER_TEETH, TONGUE))
    return np.select([deep, model.mouth_interior[faces]], [DEEP, ON_LIPS]).astype(np.float32)


def mouth_width(corners: np.ndarray, change: np.ndarray) -> float:
    """Width of a mouth in its width without expression, as far as light follows it.

    From one corner of the mouth to the other, (3,) m: `corners` without expression, `change` what one adds.
    """
    width = np.linalg.norm(corners + change) / np.linalg.norm(corners)
    return float(np.clip(width, NARROWEST, WIDEST))


def width_in_photo(portrait: Portrait, model: HeadModel) -> float:
    """That width in a photo."""
    change = portrait.fit.expression @ between_corners(model.expression_basis, model)
    return mouth_width(between_corners(portrait.vertices, model) - change, change)


def between_corners(field: np.ndarray, model: HeadModel) -> np.ndarray:
    """From one corner of the mouth to the other (..., 3) in a per-vertex field (..., V, 3)."""
    landmarks = model.landmarks_of(field)
    return landmarks[..., LIP_CORNERS[0], :] - landmarks[..., LIP_CORNERS[1], :]


@dataclass(frozen=True)
class MouthLight:
    """The light behind one head's lips, from frame to frame."""

    deep: np.ndarray  # (n,) indices of the Gaussians of teeth and tongue
    on_lips: np.ndarray  # (m,) of the rest of the mouth
    rims: np.ndarray  # (r,) of the lips' rims that the photo hides
    corners: np.ndarray  # (3,) m from one corner of the mouth to the other, without expression
    corner_basis: np.ndarray  # (52, 3) m what expressions add to it
    source_width: float  # the mouth's width that the head's colours are of

    @staticmethod
    def of(head: GaussianHead) -> MouthLight:
        """For a finished head."""
        model, source = load_head_model(), head.source_expression.numpy()
        powers = light_powers(head.faces.numpy(), model)
        basis = between_corners(head.expression_basis.numpy(), model)
        corners = between_corners(head.vertices.numpy(), model) - source @ basis
        deep, on_lips = (np.flatnonzero(powers == np.float32(power)) for power in (DEEP, ON_LIPS))
        rims = np.flatnonzero((head.origin.numpy() == INTERIOR) & model.beside_lips(RIM)[head.faces.numpy()])
        return MouthLight(deep, on_lips, rims, corners, basis, mouth_width(corners, source @ basis))

    def shade(self, colors: np.ndarray, expression: np.ndarray) -> None:
        """Turn colours (N, 3) behind the lips, in place, from the source's expression to another (52,)."""
        change = mouth_width(self.corners, expression @ self.corner_basis) / self.source_width
        for points, power in ((self.deep, DEEP), (self.on_lips, ON_LIPS)):
            colors[points] = np.minimum(colors[points] * np.float32(change**power), 1)
        colors[self.rims] *= np.float32(min(change / ROUND, 1) ** TURNED_IN)
