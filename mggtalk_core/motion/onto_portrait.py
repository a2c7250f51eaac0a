"""Fit a motion made for anybody to one portrait, which already has an expression."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..headmodel.arkit import ARKIT_NAMES
from ..types import Motion

_SPEECH = ("jaw", "mouth", "tongue")
_MOOD = ("mouthSmile", "mouthFrown", "mouthDimple")

KEPT_MOOD = 0.5
"""How much of a photo's smile stays while its person speaks: all of it would leave no lips to close."""


def onto_portrait(motion: Motion, source_expression: np.ndarray) -> Motion:
    """The motion with the portrait's own expression (52,) kept where speech does not need the face.

    Jaw and lips go where the motion says. Smile, frown and dimples keep part of the portrait's. Eyes, brows, cheeks and
    nose start from the portrait's, and the motion uses up what is left of their range.
    """
    source = np.asarray(source_expression, np.float32)
    expression = np.empty_like(motion.expression)
    for index, name in enumerate(ARKIT_NAMES):
        wanted = motion.expression[:, index]
        if name.startswith(_MOOD):
            expression[:, index] = np.maximum(wanted, KEPT_MOOD * source[index])
        elif name.startswith(_SPEECH):
            expression[:, index] = wanted
        else:
            expression[:, index] = source[index] + (1 - source[index]) * wanted
    return replace(motion, expression=expression.clip(0, 1))
