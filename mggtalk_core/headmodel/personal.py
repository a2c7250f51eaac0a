"""Actions scaled to a person: what "fully closed" means for these eyes."""

from __future__ import annotations

import numpy as np

from .arkit import ARKIT_INDEX
from .model import LEFT_EYE, RIGHT_EYE, HeadModel

LID_PAIRS = {"Right": ((159, 145), (158, 153), (160, 144)), "Left": ((386, 374), (385, 380), (387, 373))}
"""Upper and lower lid landmarks that meet when the eye closes, by the subject's side."""

CLOSED_GAP = -0.0005
"""Lid distance at full blink, metres: lids overlap a little, so that no white is left between the lashes."""

BLINK_SCALE_RANGE = (0.5, 1.5)

EYE_PARTS = {"Right": RIGHT_EYE, "Left": LEFT_EYE}

EYE_RETREAT = 0.003
"""How far an eyeball moves back at full blink, metres. A lid's pixels do not lie exactly on the model's lid, and the
eyeball would come through it in arcs. From the front nothing else is seen of this."""


def personal_expression_basis(head: HeadModel, vertices: np.ndarray, expression: np.ndarray) -> np.ndarray:
    """The 52 actions (52, V, 3) m for a person whose vertices (V, 3) m show expression (52,).

    The blink is scaled so that 1 just closes the eyes: lids of wide eyes travel farther than those of narrow ones.
    Eyeballs retreat from lids that close.
    """
    basis = head.expression_basis.copy()
    height = head.landmarks_of(vertices)[:, 1]
    for side, pairs in LID_PAIRS.items():
        action = ARKIT_INDEX[f"eyeBlink{side}"]
        left_to_close = 1 - float(expression[action])
        if left_to_close < 0.3:  # the photo shows the eye closed: nothing to measure
            continue
        travel = head.landmarks_of(basis[action])[:, 1]
        gap = np.mean([height[lower] - height[upper] for upper, lower in pairs])
        closing = np.mean([travel[upper] - travel[lower] for upper, lower in pairs]) * left_to_close
        basis[action] *= np.clip((gap - CLOSED_GAP) / closing, *BLINK_SCALE_RANGE)
        basis[action, head.part_vertices(EYE_PARTS[side]), 2] += EYE_RETREAT
    return basis
